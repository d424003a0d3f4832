from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path

import images
import pytest
import vhdx_mmap
from conftest import package
from images import BLOCK
from vhdx_mmap.dissect import VHDX


def test_dissect(any_image: tuple[Path, bytes]) -> None:
    path, content = any_image
    for source in (path, str(path), path.open("rb")):
        disk = VHDX(source)
        assert (disk.size, disk.block_size, disk.sector_size) == (len(content), BLOCK, 512)
        assert disk.read() == content
        disk.seek(BLOCK - 5)
        assert disk.read(10) == content[BLOCK - 5 : BLOCK + 5]
        assert disk.read_sectors(3, 5) == content[3 * 512 : 8 * 512]
        assert str(disk.id) == str(images.identity(77))
        assert disk.has_parent == (disk.parent is not None)
        disk.close()
    with pytest.raises(vhdx_mmap.NotVhdxError):
        VHDX(io.BytesIO(b"no image" * 1000))


def test_the_original_says_the_same(dynamic: tuple[Path, bytes]) -> None:
    package("dissect.hypervisor")
    from dissect.hypervisor.disk.vhdx import VHDX as Original

    for path in (images.hello(), dynamic[0]):
        theirs, ours = Original(path), VHDX(path)
        for name in ("size", "block_size", "sector_size", "has_parent", "id", "path"):
            assert getattr(theirs, name) == getattr(ours, name), name
        assert theirs.read_sectors(2, 100) == ours.read_sectors(2, 100)


def test_fsspec() -> None:
    fsspec = package("fsspec")
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/hello.vhdx", images.hello().read_bytes())
    for of in (f"file://{images.hello()}", "memory://hello.vhdx"):
        with fsspec.open(f"vhdx://hello.txt::{of}") as file:
            assert file.read() == b"Hello from inside a VHDX.\n"
        files = fsspec.open_files(f"vhdx://docs/*.txt::{of}")
        assert [file.path for file in files] == ["docs/fox.txt", "docs/numbers.txt"]
    fs = fsspec.filesystem("vhdx", fo=str(images.hello()))
    assert fs.ls("", detail=False) == ["docs", "fox", "hello.txt", "lost+found"]
    assert fs.info("hello.txt")["size"] == 26 and fs.isdir("docs") and fs.isfile("hello.txt")
    assert fs.cat("hello.txt") == b"Hello from inside a VHDX.\n" and fs.cat_file("hello.txt", 6, 10) == b"from"
    assert sorted(fs.find("")) == ["docs/fox.txt", "docs/numbers.txt", "fox", "hello.txt"]
    assert fs.modified("hello.txt").year >= 2023 and fs.created("hello.txt").year == 2023
    assert fs.ls("hello.txt", detail=False) == ["hello.txt"]
    again = pickle.loads(pickle.dumps(fs))
    assert again.cat("hello.txt") == fs.cat("hello.txt")
    assert hashlib.sha256(fs.cat("docs/numbers.txt")).digest() == hashlib.sha256(
        vhdx_mmap.open(images.hello()).volumes[0].read_bytes("docs/numbers.txt")
    ).digest()
    with pytest.raises(FileNotFoundError):
        fs.cat("nothing")
    with pytest.raises(ValueError):
        fs.open("new", "wb")
    with pytest.raises(FileNotFoundError):
        fsspec.filesystem("vhdx", fo=str(images.hello()), volume=7)


def test_pytorch(dynamic: tuple[Path, bytes]) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed: its recipe is not run")
    from torch.utils.data import DataLoader
    from vhdx_mmap.torch import BlockDataset

    data = BlockDataset([dynamic[0]], size=300_000)
    for workers in (0, 2):
        found = bytearray(len(dynamic[1]))
        for image, offset, tensor in DataLoader(data, batch_size=None, num_workers=workers):
            assert image == str(dynamic[0])
            found[offset : offset + len(tensor)] = bytes(tensor.numpy())
        assert bytes(found) == dynamic[1]


def test_without_pytorch_the_import_says_what_is_missing() -> None:
    import importlib.util

    if importlib.util.find_spec("torch") is not None:
        pytest.skip("PyTorch is installed")
    with pytest.raises(ImportError, match="pip install torch"):
        importlib.import_module("vhdx_mmap.torch")
