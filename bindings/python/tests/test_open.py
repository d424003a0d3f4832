from __future__ import annotations

import hashlib
import io
import json
import pickle
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import images
import pytest
import vhdx_mmap
from conftest import package
from images import BLOCK


class OnlyReadinto:
    """A file object without `read`, whose `seek` returns nothing."""

    def __init__(self, content: bytes) -> None:
        self._file = io.BytesIO(content)

    def seek(self, offset: int, whence: int = 0) -> None:
        self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        return self._file.readinto(buffer)


class Dribble(io.RawIOBase):
    """A file object that returns a few bytes at a time."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self._file = io.BytesIO(content)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._file.seek(offset, whence)

    def read(self, size: int = -1, /) -> bytes:
        return self._file.read(min(size, 100_000))


INPUTS: list[Callable[[Path], Any]] = [
    str,
    Path,
    lambda path: path.read_bytes(),
    lambda path: bytearray(path.read_bytes()),
    lambda path: memoryview(path.read_bytes()),
    lambda path: io.BytesIO(path.read_bytes()),
    lambda path: open(path, "rb"),
    lambda path: open(path, "rb", buffering=0),
    lambda path: OnlyReadinto(path.read_bytes()),
    lambda path: Dribble(path.read_bytes()),
]


@pytest.mark.parametrize("make", INPUTS)
def test_every_input_gives_the_same_disk(make: Callable[[Path], Any], dirty: tuple[Path, bytes]) -> None:
    path, content = dirty
    with vhdx_mmap.open(make(path)) as disk:
        assert (disk.size, disk.block_size, disk.sector_size) == (len(content), BLOCK, 512)
        assert (disk.kind, disk.log_state) == ("dynamic", "replayed")
        assert disk.pread(len(content), 0) == content
        assert disk.hash() == {"sha256": hashlib.sha256(content).hexdigest()}
        assert disk.reader().read() == content


def test_the_image_of_the_project() -> None:
    with vhdx_mmap.open(images.hello()) as disk:
        assert disk.hash()["sha256"] == images.HELLO_SHA256


def test_fsspec_files_and_urls(chain: tuple[Path, bytes]) -> None:
    fsspec = package("fsspec")
    memory = fsspec.filesystem("memory")
    for file in chain[0].parent.iterdir():
        memory.pipe_file(f"/chain/{file.name}", file.read_bytes())
    url = "memory://chain/leaf.avhdx"
    sources = [url, fsspec.open(url, "rb"), memory.open("/chain/leaf.avhdx", "rb"), f"file://{chain[0]}"]
    for source in sources:
        with vhdx_mmap.open(source) as disk:
            assert len(disk.layers) == 3
            assert disk.pread(len(chain[1]), 0) == chain[1]
    with vhdx_mmap.open(pickle.loads(pickle.dumps(vhdx_mmap.open(url)))._source) as disk:
        assert disk.pread(512, 0) == chain[1][:512]


def test_parents(chain: tuple[Path, bytes], tmp_path: Path) -> None:
    leaf, content = chain
    folder = leaf.parent
    moved = tmp_path / "moved.avhdx"
    moved.write_bytes(leaf.read_bytes())
    middle, base = folder / "middle.avhdx", folder / "base.vhdx"
    requests: list[vhdx_mmap.ParentRequest] = []

    def find(request: vhdx_mmap.ParentRequest) -> Any:
        requests.append(request)
        return open(folder / request.names[0], "rb")

    for parents in (
        [middle, base],
        [base, str(middle)],
        [folder],
        str(folder),
        [middle.open("rb"), io.BytesIO(base.read_bytes())],
        find,
        ["beside", folder],
        lambda request: folder / request.names[0],
    ):
        with vhdx_mmap.open(moved, parents=parents) as disk:
            assert disk.pread(len(content), 0) == content
            assert [layer.kind for layer in disk.layers] == ["differencing", "differencing", "dynamic"]
    assert [request.layer for request in requests] == [0, 1]
    assert requests[0].identity == str(images.identity(3))
    assert requests[0].relative_path == ".\\middle.avhdx"


def test_without_parents_only_what_the_image_holds_can_be_read(chain: tuple[Path, bytes]) -> None:
    with vhdx_mmap.open(chain[0], parents="none") as disk:
        assert disk.pread(BLOCK, 7 * BLOCK) == chain[1][7 * BLOCK :]
        with pytest.raises(vhdx_mmap.ParentNotFound):
            disk.pread(512, 0)
        with pytest.raises(vhdx_mmap.ParentNotFound):
            list(disk.extents())


def test_a_missing_parent(chain: tuple[Path, bytes], tmp_path: Path) -> None:
    alone = tmp_path / "alone.avhdx"
    alone.write_bytes(chain[0].read_bytes())
    with pytest.raises(vhdx_mmap.ParentNotFound) as caught:
        vhdx_mmap.open(alone)
    assert "middle.avhdx" in str(caught.value)


def test_another_parent(chain: tuple[Path, bytes], dynamic: tuple[Path, bytes], tmp_path: Path) -> None:
    (tmp_path / "leaf.avhdx").write_bytes(chain[0].read_bytes())
    (tmp_path / "middle.avhdx").write_bytes(dynamic[0].read_bytes())
    with pytest.raises(vhdx_mmap.ParentMismatch) as caught:
        vhdx_mmap.open(tmp_path / "leaf.avhdx")
    assert caught.value.expected == str(images.identity(3))
    with pytest.raises(vhdx_mmap.ParentMismatch):
        vhdx_mmap.open(tmp_path / "leaf.avhdx", parents=lambda request: dynamic[0].open("rb"))


def test_an_exception_in_a_search_is_raised_as_it_is(chain: tuple[Path, bytes]) -> None:
    def find(request: vhdx_mmap.ParentRequest) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        vhdx_mmap.open(chain[0], parents=find)


def test_log_policies(dirty: tuple[Path, bytes]) -> None:
    with pytest.raises(vhdx_mmap.DirtyLog) as caught:
        vhdx_mmap.open(dirty[0], log="refuse")
    assert caught.value.found == str(images.identity(902))
    with vhdx_mmap.open(dirty[0], log="ignore") as stale:
        assert stale.log_state == "ignored"
        assert stale.pread(4096, 0) == images.noise(1, 4096)
    with vhdx_mmap.open(dirty[0]) as disk:
        assert disk.pread(4096, 0) == images.noise(11, 4096)


def test_errors_say_where_and_what(copy: tuple[Path, bytes]) -> None:
    path, _ = copy
    data = bytearray(path.read_bytes())
    # The entry of block 5 leads past the end of the file.
    struct.pack_into("<Q", data, images.BAT + 8 * 5, 6 | 1 << 30)
    path.write_bytes(data)
    with vhdx_mmap.open(path) as disk:
        assert disk.pread(BLOCK, 0) == copy[1][:BLOCK]
        with pytest.raises(vhdx_mmap.CorruptError) as caught:
            disk.pread(512, 5 * BLOCK)
    error = caught.value
    assert error.offset == images.BAT + 8 * 5 or error.offset == 1 << 30
    assert error.rule is not None and error.structure is not None
    assert (error.layer, error.file) == (0, str(path))
    assert str(path) in str(error)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error) and str(again) == str(error)
    assert vars(again) == vars(error)
    # A bad checksum of both region tables: found and expected are numbers.
    for table in (192, 256):
        data[table * 1024 + 4000] ^= 1
    with pytest.raises(vhdx_mmap.CorruptError):
        vhdx_mmap.open(bytes(data))


def test_classes_of_errors(tmp_path: Path) -> None:
    missing = tmp_path / "missing.vhdx"
    with pytest.raises(FileNotFoundError) as caught:
        vhdx_mmap.open(missing)
    assert isinstance(caught.value, vhdx_mmap.VhdxError) and str(missing) in str(caught.value)
    assert caught.value.errno == 2
    assert pickle.loads(pickle.dumps(caught.value)).errno == 2
    with pytest.raises(vhdx_mmap.OpenError):
        vhdx_mmap.open(tmp_path)
    with pytest.raises(vhdx_mmap.NotVhdxError) as not_vhdx:
        vhdx_mmap.open(b"QFI\xfb" + bytes(1 << 20))
    assert "QCOW" in str(not_vhdx.value).upper()
    with pytest.raises(TypeError):
        vhdx_mmap.open(7)
    with pytest.raises(TypeError):
        vhdx_mmap.open(io.StringIO("text"))
    with pytest.raises(ValueError, match="strictness"):
        vhdx_mmap.open(b"", strictness="lax")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="log"):
        vhdx_mmap.open(b"", log="maybe")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="path"):
        vhdx_mmap.open(b"", mmap=True)


def test_an_error_of_a_file_object_is_the_cause(dynamic: tuple[Path, bytes]) -> None:
    class Fails(io.BytesIO):
        is_broken = False

        def read(self, size: int | None = -1, /) -> bytes:
            if self.is_broken:
                raise TimeoutError("the store does not answer")
            return super().read(size)

    source = Fails(dynamic[0].read_bytes())
    disk = vhdx_mmap.open(source)
    source.is_broken = True
    with pytest.raises(vhdx_mmap.ReadError) as caught:
        disk.pread(512, 5 * BLOCK)
    assert isinstance(caught.value.__cause__, TimeoutError)

    class Interrupted(Fails):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.is_broken:
                raise KeyboardInterrupt
            return super().read(size)

    source = Interrupted(dynamic[0].read_bytes())
    disk = vhdx_mmap.open(source)
    source.is_broken = True
    with pytest.raises(KeyboardInterrupt):
        disk.pread(512, 5 * BLOCK)


def test_a_file_object_that_ends_early_or_returns_too_much(dynamic: tuple[Path, bytes]) -> None:
    class Short(io.BytesIO):
        limit = 1 << 40

        def read(self, size: int | None = -1, /) -> bytes:
            return b"" if self.tell() >= self.limit else super().read(size)

    short = Short(dynamic[0].read_bytes())
    disk = vhdx_mmap.open(short)
    short.limit = images.PAYLOAD + 2 * BLOCK
    with pytest.raises(vhdx_mmap.VhdxError):
        disk.pread(512, 5 * BLOCK)

    class Long(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(size) + b"more"

    with pytest.raises(vhdx_mmap.VhdxError):
        vhdx_mmap.open(Long(dynamic[0].read_bytes()))


def test_two_disks_share_a_file_object_from_many_threads(dynamic: tuple[Path, bytes]) -> None:
    source = io.BytesIO(dynamic[0].read_bytes())
    disks = [vhdx_mmap.open(source) for _ in range(2)]
    wrong: list[int] = []

    def read(number: int) -> None:
        for round_ in range(100):
            offset = (number * 7919 + round_ * 104729) % (2 * BLOCK - 3000)
            if disks[number % 2].pread(3000, offset) != dynamic[1][offset : offset + 3000]:
                wrong.append(offset)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_closing(dynamic: tuple[Path, bytes]) -> None:
    disk = vhdx_mmap.open(dynamic[0])
    assert not disk.closed
    disk.close()
    disk.close()
    assert disk.closed and "closed" in repr(disk)
    for use in (lambda: disk.size, lambda: disk.pread(1, 0), lambda: disk.hash(), lambda: disk.extents()):
        with pytest.raises(ValueError, match="closed"):
            use()


def test_info_layers_partitions_warnings(chain: tuple[Path, bytes]) -> None:
    with vhdx_mmap.open(chain[0]) as disk:
        info = disk.info()
        assert info["schema"] == "vhdx-mmap/info/1"
        assert (info["virtual-size"], info["cluster-size"]) == (len(chain[1]), BLOCK)
        assert info["format-specific"]["data"]["kind"] == "differencing"
        assert json.loads(json.dumps(info)) == info
        base = disk.info(2)
        assert base["format-specific"]["data"]["log"]["state"] == "replayed"
        layers = disk.layers
        assert [Path(layer.path or "").name for layer in layers] == ["leaf.avhdx", "middle.avhdx", "base.vhdx"]
        assert [layer.identity for layer in layers] == [str(images.identity(number)) for number in (4, 3, 2)]
        assert [layer.found_by for layer in layers] == [None, "relative path", "relative path"]
        assert layers[0].parent == ".\\middle.avhdx"
        assert disk.partitions == [] and disk.volumes == []
        assert disk.identity == str(images.identity(4)) and disk.parent_identity == str(images.identity(3))
        assert disk.locator["absolute_win32_path"] == "C:\\images\\middle.avhdx"
        assert all(isinstance(warning.rule, str) for warning in disk.warnings)
        below = disk.ancestor(1)
        assert below.pread(512, 2 * BLOCK) == images.noise(43, 512)
        assert below.info()["format-specific"]["data"]["kind"] == "differencing"
        with pytest.raises(vhdx_mmap.InvalidRequestError):
            disk.ancestor(3)


def test_salvage_lists_what_is_lost(copy: tuple[Path, bytes]) -> None:
    path, content = copy
    data = bytearray(path.read_bytes())
    struct.pack_into("<Q", data, images.BAT + 8 * 5, 6 | 1 << 30)
    path.write_bytes(data)
    with vhdx_mmap.open(path, strictness="salvage") as disk:
        assert disk.is_salvaged
        assert [(loss.offset, loss.length) for loss in disk.losses] == [(5 * BLOCK, BLOCK)]
        assert disk.pread(BLOCK, 0) == content[:BLOCK]
        assert disk.pread(BLOCK, 5 * BLOCK) == bytes(BLOCK)
        assert [extent.kind for extent in disk.extents(5 * BLOCK, BLOCK)] == ["lost"]
    with vhdx_mmap.open(bytes(data), strictness="salvage") as disk:
        assert isinstance(disk.view(5 * BLOCK, 512), vhdx_mmap.Lost)
        assert any(isinstance(segment, vhdx_mmap.Lost) for segment in disk.segments())


def test_pickling(any_image: tuple[Path, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    path, content = any_image
    monkeypatch.chdir(path.parent)
    disk = vhdx_mmap.open(path.name, mmap=True)
    stored = pickle.dumps(disk)
    monkeypatch.chdir("/")
    again = pickle.loads(stored)
    assert again.can_borrow and again.fingerprint == disk.fingerprint
    assert again.pread(len(content), 0) == content
    of_bytes = pickle.loads(pickle.dumps(vhdx_mmap.open(path.read_bytes(), parents=[path.parent])))
    assert of_bytes.pread(len(content), 0) == content


def test_pickling_refuses_another_file(copy: tuple[Path, bytes]) -> None:
    path, _ = copy
    stored = pickle.dumps(vhdx_mmap.open(path))
    other = images.dynamic()
    other.number = 55
    other.write(path)
    with pytest.raises(vhdx_mmap.ChangedError) as caught:
        pickle.loads(stored)
    assert "DataWriteGuid" in str(caught.value)


def test_expect(dynamic: tuple[Path, bytes], dirty: tuple[Path, bytes]) -> None:
    fingerprint = vhdx_mmap.open(dynamic[0]).fingerprint
    assert vhdx_mmap.open(dynamic[0], expect=fingerprint).size == len(dynamic[1])
    with pytest.raises(vhdx_mmap.ChangedError):
        vhdx_mmap.open(dirty[0], expect=fingerprint)
    with pytest.raises(ValueError, match="fingerprint"):
        vhdx_mmap.open(dynamic[0], expect={"no": 1})
