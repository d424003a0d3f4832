from __future__ import annotations

import hashlib
import io
import os
import random
import threading
from pathlib import Path
from typing import Any

import images
import pytest
import vhdx_mmap
from conftest import package
from images import BLOCK
from vhdx_mmap import Cut, Data, Zeros

DOORS = ["open", "mmap", "bytes", "file"]


def opened(door: str, path: Path) -> vhdx_mmap.Disk:
    """A disk through each way in. Parents are in the same folder."""
    if door == "bytes":
        return vhdx_mmap.open(path.read_bytes(), parents=[path.parent])
    if door == "file":
        return vhdx_mmap.open(path.open("rb"), parents=[path.parent])
    return vhdx_mmap.open(path, mmap=door == "mmap")


def ranges(size: int, seed: int = 5) -> list[tuple[int, int]]:
    """Ranges at, before and after the ends of sectors and blocks, and others."""
    chosen = random.Random(seed)
    found = [(0, 0), (0, 1), (0, size), (size - 1, 1), (size, 0), (511, 2), (BLOCK - 1, 2), (BLOCK, BLOCK)]
    for _ in range(60):
        offset = chosen.choice([chosen.randrange(size), chosen.randrange(size // 512) * 512])
        found.append((offset, min(chosen.choice([1, 17, 512, 4096, 4097, 70_000, 3 * BLOCK]), size - offset)))
    return found


@pytest.mark.parametrize("door", DOORS)
def test_bytes_are_those_of_the_model(door: str, any_image: tuple[Path, bytes]) -> None:
    path, content = any_image
    disk = opened(door, path)
    reader = disk.reader()
    for offset, length in ranges(disk.size):
        expected = content[offset : offset + length]
        assert disk.pread(length, offset) == expected
        buffer = bytearray(b"\xee" * (length + 2))
        assert disk.readinto_at(memoryview(buffer)[1 : length + 1], offset) == length
        assert bytes(buffer) == b"\xee" + expected + b"\xee"
        assert reader.seek(offset) == offset
        assert reader.read(length) == expected
        assert reader.pread(length, offset) == expected
    buffered = io.BufferedReader(disk.reader(), 4096)
    assert hashlib.file_digest(buffered, "sha256").digest() == hashlib.sha256(content).digest()


@pytest.mark.parametrize("door", ["mmap", "bytes"])
def test_views_are_those_of_the_model(door: str, any_image: tuple[Path, bytes]) -> None:
    path, content = any_image
    disk = vhdx_mmap.open(path, mmap=True) if door == "mmap" else None
    if disk is None:
        if len(vhdx_mmap.open(path).layers) > 1:
            pytest.skip("parents of bytes are not in memory")
        disk = vhdx_mmap.open(path.read_bytes())
    kinds = set()
    for offset, length in ranges(disk.size):
        match disk.view(offset, length):
            case Data(memory) as data:
                assert memory == content[offset : offset + length] and memory.readonly
                assert (data.offset, data.length, len(data)) == (offset, length, length)
                kinds.add("data")
            case Zeros(zeros):
                assert zeros == length and not any(content[offset : offset + length])
                kinds.add("zeros")
            case Cut(first):
                assert 0 < first < length
                match disk.view(offset, first):
                    case Data(memory):
                        assert memory == content[offset : offset + first]
                    case Zeros():
                        assert not any(content[offset : offset + first])
                    case other:
                        pytest.fail(f"a cut leads to {other}")
                kinds.add("cut")
            case other:
                pytest.fail(f"unexpected {other}")
    assert kinds == {"data", "zeros", "cut"}


@pytest.mark.parametrize("offset,length", [(0, None), (BLOCK - 700, 5 * BLOCK), (5 * BLOCK + 3, 10)])
def test_segments_cover_a_range(offset: int, length: int | None, any_image: tuple[Path, bytes]) -> None:
    path, content = any_image
    disk = vhdx_mmap.open(path, mmap=True)
    at, end = offset, len(content) if length is None else offset + length
    for segment in disk.segments(offset, length):
        assert segment.offset == at
        expected = content[at : at + segment.length]
        match segment:
            case Data(memory):
                assert memory == expected
            case Zeros():
                assert not any(expected)
            case other:
                pytest.fail(f"unexpected {other}")
        at += segment.length
    assert at == end


def test_views_of_sources_that_cannot_borrow(dynamic: tuple[Path, bytes]) -> None:
    disk = vhdx_mmap.open(dynamic[0])
    assert not disk.can_borrow
    with pytest.raises(vhdx_mmap.NotLendable):
        disk.view(0, 512)
    assert isinstance(disk.view(3 * BLOCK, BLOCK), Zeros)
    with pytest.raises(vhdx_mmap.NotLendable):
        list(disk.segments())
    with pytest.raises(vhdx_mmap.NotLendable):
        disk.blocks(payload=True)


def test_numpy_sees_the_mapping(dynamic: tuple[Path, bytes]) -> None:
    numpy = package("numpy")
    disk = vhdx_mmap.open(dynamic[0], mmap=True)
    first, second = disk.view(4096, 4096), disk.view(4096, 4096)
    assert isinstance(first, Data) and isinstance(second, Data)
    one, two = numpy.frombuffer(first, numpy.uint8), numpy.frombuffer(second.memory, numpy.uint8)
    assert one.ctypes.data == two.ctypes.data
    later = numpy.frombuffer(disk.view(8192, 512), numpy.uint8)
    assert later.ctypes.data - one.ctypes.data == 4096
    assert not one.flags.writeable
    with pytest.raises(ValueError):
        one[0] = 1
    disk.close()
    del disk, first, second
    # The array keeps the mapping.
    assert one.tobytes() == dynamic[1][4096:8192]


def test_extents_and_blocks(chain: tuple[Path, bytes]) -> None:
    path, content = chain
    disk = vhdx_mmap.open(path)
    files = [open(layer.path or "", "rb").read() for layer in disk.layers]
    for rows, is_cut in ((disk.extents(), False), (disk.blocks(), True)):
        at = 0
        for row in rows:
            assert row.offset == at
            expected = content[at : at + row.length]
            if row.kind == "data":
                assert row.file_offset is not None and row.is_data
                assert files[row.layer][row.file_offset : row.file_offset + row.length] == expected
            elif row.kind == "zero":
                assert not any(expected) and not row.is_data
            else:
                assert row.kind == "log" and row.layer == 2
            if is_cut:
                assert row.block == at // BLOCK
                assert (at + row.length - 1) // BLOCK == row.block
            at += row.length
        assert at == len(content)
        # A second pass begins anew.
        assert list(rows) == list(rows)
    states = {row.block: row.state for row in vhdx_mmap.open(path.parent / "base.vhdx").blocks()}
    assert states[3] == "ZERO" and states[1] == "FULLY_PRESENT" and states[4] == "NOT_PRESENT"


def test_the_end_of_the_disk(dynamic: tuple[Path, bytes]) -> None:
    disk = vhdx_mmap.open(dynamic[0], mmap=True)
    size = disk.size
    assert disk.pread(100, size - 3) == dynamic[1][-3:]
    assert disk.pread(100, size) == disk.pread(100, size + 5) == disk.pread(1, 1 << 63) == b""
    assert disk.readinto_at(bytearray(10), size - 4) == 4
    assert disk.readinto_at(bytearray(10), size + 4) == 0
    for use in (
        lambda: disk.view(size - 1, 2),
        lambda: disk.view(size + 1, 0),
        lambda: disk.view((1 << 64) - 1, (1 << 64) - 1),
        lambda: disk.extents(0, size + 1),
        lambda: disk.segments(size + 1),
    ):
        with pytest.raises(vhdx_mmap.InvalidRequestError):
            use()
    for negative in (lambda: disk.pread(-1, 0), lambda: disk.pread(1, -1), lambda: disk.view(-1, 1)):
        with pytest.raises((OverflowError, ValueError)):
            negative()


def test_buffers_of_all_kinds(dynamic: tuple[Path, bytes]) -> None:
    disk, content = vhdx_mmap.open(dynamic[0]), dynamic[1]
    array = package("numpy").zeros(1000, "uint8")
    assert disk.readinto_at(array, 5) == 1000
    assert array.tobytes() == content[5:1005]
    assert disk.readinto_at(bytearray(), 0) == 0
    with pytest.raises(TypeError):
        disk.readinto_at(b"12345678", 0)
    with pytest.raises(BufferError):
        disk.readinto_at(array[::2], 0)
    with pytest.raises((TypeError, BufferError)):
        disk.readinto_at("text", 0)  # type: ignore[arg-type]


def test_the_reader_is_a_raw_stream(dynamic: tuple[Path, bytes]) -> None:
    disk, content = vhdx_mmap.open(dynamic[0]), dynamic[1]
    reader = disk.reader(BLOCK - 100, 300)
    assert isinstance(reader, io.RawIOBase)
    assert reader.readable() and reader.seekable() and not reader.writable()
    assert reader.read() == content[BLOCK - 100 : BLOCK + 200]
    assert reader.read(1) == b"" and reader.tell() == 300
    assert reader.seek(-50, os.SEEK_END) == 250
    assert reader.seek(-50, os.SEEK_CUR) == 200
    assert reader.read(500) == content[BLOCK + 100 : BLOCK + 200]
    assert reader.seek(1000) == 1000 and reader.read(5) == b""
    with pytest.raises(ValueError):
        reader.seek(-1)
    with pytest.raises(ValueError):
        reader.seek(0, 7)
    assert io.BufferedReader(disk.reader(), 1 << 16).peek(4)[:4] == content[:4]
    reader.close()
    with pytest.raises(ValueError):
        reader.read(1)
    with pytest.raises(ValueError):
        disk.reader(disk.size + 1)


def test_an_image_in_an_image(dynamic: tuple[Path, bytes], tmp_path: Path) -> None:
    inner = dynamic[0].read_bytes()
    blocks = {number: inner[number * BLOCK : (number + 1) * BLOCK] for number in range(len(inner) // BLOCK)}
    outer = images.Image(size=len(inner), blocks=blocks, number=9).write(tmp_path / "outer.vhdx")
    disk = vhdx_mmap.open(vhdx_mmap.open(outer).reader())
    assert disk.pread(disk.size, 0) == dynamic[1]


@pytest.mark.parametrize("door", DOORS)
def test_threads_read_the_same(door: str, any_image: tuple[Path, bytes]) -> None:
    path, content = any_image
    disk = opened(door, path)
    wrong: list[Any] = []

    def read(seed: int) -> None:
        for offset, length in ranges(disk.size, seed):
            if disk.pread(length, offset) != content[offset : offset + length]:
                wrong.append((offset, length))

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_other_threads_run_while_one_reads(dynamic: tuple[Path, bytes]) -> None:
    """A read that waits for a file object lets others run: the file object waits for another thread."""
    met = threading.Barrier(2, timeout=60)

    class Waits(io.BytesIO):
        is_armed = False

        def read(self, size: int | None = -1, /) -> bytes:
            if self.is_armed:
                self.is_armed = False
                met.wait()
            return super().read(size)

    source = Waits(dynamic[0].read_bytes())
    disk = vhdx_mmap.open(source)
    source.is_armed = True
    thread = threading.Thread(target=met.wait)
    thread.start()
    assert disk.pread(BLOCK, 5 * BLOCK) == dynamic[1][5 * BLOCK : 6 * BLOCK]
    thread.join()
