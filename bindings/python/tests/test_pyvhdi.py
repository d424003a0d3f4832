from __future__ import annotations

import io
import os
from pathlib import Path

import images
import pytest
import vhdx_mmap
from conftest import package
from vhdx_mmap import pyvhdi


def test_an_image(any_image: tuple[Path, bytes]) -> None:
    path, content = any_image
    opened = pyvhdi.file()
    opened.open(str(path))
    parents = [opened]
    while parents[-1].parent_identifier:
        _, _, name = (parents[-1].parent_filename or "").rpartition("\\")
        parent = pyvhdi.file()
        parent.open_file_object((path.parent / name).open("rb"))
        parents.append(parent)
    # As dfVFS does it: the deepest parent first.
    for child, parent in reversed(list(zip(parents, parents[1:], strict=False))):
        child.set_parent(parent)
    assert opened.get_media_size() == opened.media_size == len(content)
    assert opened.bytes_per_sector == 512 and opened.format_version == "1.0"
    assert opened.disk_type == (pyvhdi.disk_types.DIFFERENTIAL if len(parents) > 1 else pyvhdi.disk_types.DYNAMIC)
    assert opened.read() == content and opened.tell() == len(content)
    assert opened.read(10) == opened.read_buffer(size=10) == b""
    for offset in (0, 511, images.BLOCK - 1, 5 * images.BLOCK + 512):
        assert opened.read_buffer_at_offset(5000, offset) == content[offset : offset + 5000]
        assert opened.get_offset() == offset + 5000
        opened.seek(offset)
        assert opened.read_buffer(700) == content[offset : offset + 700]
    opened.seek_offset(-8, os.SEEK_END)
    assert opened.read(4096) == content[-8:]
    opened.seek_offset(16, os.SEEK_END)
    assert opened.get_offset() == len(content) + 16 and opened.read(1) == b""
    opened.close()
    with pytest.raises(OSError):
        opened.read(1)


def test_misuse(dynamic: tuple[Path, bytes], chain: tuple[Path, bytes]) -> None:
    opened = pyvhdi.file()
    calls = (opened.close, opened.get_media_size, opened.get_offset, lambda: opened.read(1), lambda: opened.identifier)
    for use in calls:
        with pytest.raises(OSError):
            use()
    with pytest.raises(OSError):
        opened.open("missing.vhdx")
    with pytest.raises(TypeError):
        opened.open(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        opened.open_file_object(None)
    with pytest.raises(ValueError):
        opened.open(dynamic[0], mode="w")
    opened.open(dynamic[0])
    with pytest.raises(OSError):
        opened.open(dynamic[0])
    for size, offset in ((-1, 0), (1, -1)):
        with pytest.raises(ValueError):
            opened.read_buffer_at_offset(size, offset)
    with pytest.raises(ValueError):
        opened.read_buffer(-1)
    for offset, whence in ((-1, 0), (0, 7)):
        with pytest.raises(OSError):
            opened.seek_offset(offset, whence)
    child = pyvhdi.open(chain[0])
    with pytest.raises(TypeError):
        child.set_parent(None)  # type: ignore[arg-type]
    with pytest.raises(OSError):
        child.set_parent(opened)
    # What only the parent has is an error, not zeros.
    with pytest.raises(OSError):
        child.read(512)
    with pytest.raises(OSError):
        pyvhdi.open_file_object(io.BytesIO(b"abc"))


def test_signatures(dynamic: tuple[Path, bytes]) -> None:
    assert pyvhdi.check_file_signature(str(dynamic[0]))
    assert pyvhdi.check_file_signature_file_object(dynamic[0].open("rb"))
    assert not pyvhdi.check_file_signature(__file__)
    assert not pyvhdi.check_file_signature_file_object(io.BytesIO(b""))
    with pytest.raises(OSError):
        pyvhdi.check_file_signature("missing")
    assert pyvhdi.get_version() == vhdx_mmap.__version__


def test_the_original_says_the_same(dynamic: tuple[Path, bytes], chain: tuple[Path, bytes]) -> None:
    original = package("pyvhdi")
    names = ("media_size", "bytes_per_sector", "disk_type", "identifier", "parent_identifier", "parent_filename")
    # It replays no logs, but these values do not depend on the log.
    for path in (images.hello(), dynamic[0], chain[0], chain[0].with_name("middle.avhdx")):
        theirs, ours = original.file(), pyvhdi.file()
        theirs.open(str(path))
        ours.open(str(path))
        for name in (*names, "format_version"):
            assert getattr(theirs, name) == getattr(ours, name), (path, name)
    theirs, ours = original.open(str(images.hello())), pyvhdi.open(images.hello())
    assert theirs.read_buffer(1 << 20) == ours.read_buffer(1 << 20)
    assert {name for name in dir(original.file) if not name.startswith("_")} <= set(dir(pyvhdi.file))
    assert {name for name in dir(original) if not name.startswith("_")} <= set(dir(pyvhdi))
