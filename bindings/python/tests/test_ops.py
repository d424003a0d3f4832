from __future__ import annotations

import hashlib
import io
import os
import signal
import threading
import zlib
from pathlib import Path
from typing import Any

import images
import pytest
import vhdx_mmap
from images import BLOCK


def test_digests(any_image: tuple[Path, bytes]) -> None:
    path, content = any_image
    expected = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "md5": hashlib.md5(content).hexdigest(),
        "sha1": hashlib.sha1(content).hexdigest(),
        "crc32": f"{zlib.crc32(content):08x}",
    }
    disk = vhdx_mmap.open(path)
    for threads in (None, 1, 3):
        assert disk.hash(*expected, threads=threads) == expected
    assert vhdx_mmap.open(path, mmap=True).hash(*expected) == expected
    part = content[BLOCK - 5 : 3 * BLOCK]
    assert disk.hash("md5", offset=BLOCK - 5, length=len(part)) == {"md5": hashlib.md5(part).hexdigest()}
    assert disk.hash(file=True) == {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    for wrong in (("sha3",), ("md5", "md5")):
        with pytest.raises(ValueError):
            disk.hash(*wrong)
    with pytest.raises(ValueError):
        disk.hash(threads=0)
    with pytest.raises(ValueError):
        disk.hash(offset=disk.size + 1)


def test_comparison(dynamic: tuple[Path, bytes], dirty: tuple[Path, bytes], tmp_path: Path) -> None:
    one, two = vhdx_mmap.open(dynamic[0]), vhdx_mmap.open(dirty[0])
    assert one.compare(one)["identical"]
    first = next(at for at in range(len(dynamic[1])) if dynamic[1][at] != dirty[1][at])
    short = one.compare(two)
    assert not short["identical"] and short["first-difference"] == first and "differences" not in short
    found = one.compare(two, every=True)["differences"]
    steps = range(0, len(dynamic[1]), 512)
    differing = {at for at in steps if dynamic[1][at : at + 512] != dirty[1][at : at + 512]}
    listed = {at for row in found for at in range(row["start"], row["start"] + row["length"], 512)}
    assert listed == differing
    raw = tmp_path / "raw"
    raw.write_bytes(dynamic[1])
    assert one.compare(raw)["identical"] and not two.compare(str(raw))["identical"]


def test_changes(chain: tuple[Path, bytes]) -> None:
    disk = vhdx_mmap.open(chain[0])
    before = disk.ancestor(1)
    older = before.pread(before.size, 0)
    allocated = disk.diff()
    covered: set[int] = set()
    for offset, length, zero in allocated:
        covered.update(range(offset, offset + length, 512))
        if zero:
            assert not any(chain[1][offset : offset + length])
    steps = range(0, disk.size, 512)
    changed = {at for at in steps if older[at : at + 512] != chain[1][at : at + 512]}
    assert changed <= covered
    content = {at for offset, length, _ in disk.diff(content=True) for at in range(offset, offset + length, 512)}
    assert content == changed
    assert len(allocated) == len(list(allocated)) and "changed" in repr(allocated)
    with pytest.raises(vhdx_mmap.VhdxError):
        disk.diff(9)


def test_checks(any_image: tuple[Path, bytes], copy: tuple[Path, bytes]) -> None:
    report = vhdx_mmap.open(any_image[0]).check()
    assert (report["schema"], report["corruptions"], report["check-errors"]) == ("vhdx-mmap/check/1", 0, 0)
    data = bytearray(copy[0].read_bytes())
    # Block 4 gets the place of block 0.
    data[images.BAT + 32 : images.BAT + 40] = data[images.BAT : images.BAT + 8]
    report = vhdx_mmap.open(bytes(data)).check(payload=True)
    assert report["corruptions"] > 0
    assert any(finding["layer"] == 0 and finding["message"] for finding in report["findings"])


def test_extraction(any_image: tuple[Path, bytes], tmp_path: Path) -> None:
    path, content = any_image
    disk = vhdx_mmap.open(path)
    target = tmp_path / "disk.raw"
    done = disk.extract(target, hash=["sha256"])
    assert target.read_bytes() == content
    assert done.digests == {"sha256": hashlib.sha256(content).hexdigest()}
    assert done.data + done.zeros == len(content)
    with pytest.raises(FileExistsError) as caught:
        disk.extract(target)
    assert caught.value.filename == str(target) and "os error" not in str(caught.value)
    disk.extract(target, offset=BLOCK, length=1000, sparse=False, overwrite=True)
    assert target.read_bytes() == content[BLOCK : BLOCK + 1000]
    assert os.listdir(tmp_path) == ["disk.raw"]
    with pytest.raises(FileNotFoundError):
        disk.extract(tmp_path / "no" / "folder")


def test_a_failed_extraction_leaves_nothing(copy: tuple[Path, bytes], tmp_path: Path) -> None:
    data = bytearray(copy[0].read_bytes())
    data[images.BAT + 40 : images.BAT + 48] = (6 | 1 << 30).to_bytes(8, "little")
    old = tmp_path / "old"
    old.write_bytes(b"kept")
    disk = vhdx_mmap.open(bytes(data))
    for target, overwrite in ((tmp_path / "new", False), (old, True)):
        with pytest.raises(vhdx_mmap.CorruptError):
            disk.extract(target, overwrite=overwrite)
    assert sorted(os.listdir(tmp_path)) == ["copy.vhdx", "old"]
    assert old.read_bytes() == b"kept"


def test_manifests(any_image: tuple[Path, bytes], copy: tuple[Path, bytes], tmp_path: Path) -> None:
    path, content = any_image
    disk = vhdx_mmap.open(path)
    manifest = disk.manifest("sha256", "crc32")
    assert manifest.algorithms == ["crc32", "sha256"] or manifest.algorithms == ["sha256", "crc32"]
    for line in manifest.lines:
        block = content[line["offset"] : line["offset"] + line["length"] // line.get("count", 1)]
        assert line["sha256"] == hashlib.sha256(block).hexdigest()
        assert line["crc32"] == f"{zlib.crc32(block):08x}"
    assert sum(line["length"] for line in manifest.lines) == len(content)
    file = tmp_path / "manifest"
    manifest.save(file)
    assert vhdx_mmap.Manifest.load(file).content == manifest.content
    for given in (manifest, file, str(file)):
        assert disk.verify(given)["ok"]
    other = vhdx_mmap.open(copy[0])
    changed = bytearray(copy[0].read_bytes())
    changed[images.PAYLOAD + 2 * BLOCK + 9] ^= 1
    found = vhdx_mmap.open(bytes(changed)).verify(other.manifest())
    assert not found["ok"] and [row["block"] for row in found["mismatches"]] == [5]
    with pytest.raises(vhdx_mmap.ManifestError):
        disk.verify(vhdx_mmap.Manifest(manifest.content.replace(b'"block":0', b'"block":1')))


def test_progress(dynamic: tuple[Path, bytes]) -> None:
    disk, size = vhdx_mmap.open(dynamic[0]), len(dynamic[1])
    operations: list[Any] = [
        lambda report: disk.hash(progress=report),
        lambda report: disk.compare(disk, progress=report),
        lambda report: disk.check(payload=True, progress=report),
        lambda report: disk.manifest(progress=report),
        lambda report: disk.verify(disk.manifest(), progress=report),
    ]
    for operation in operations:
        seen: list[tuple[int, int, int]] = []

        def report(done: int, total: int) -> None:
            seen.append((done, total, threading.get_ident()))

        operation(report)
        assert [row[0] for row in seen] == sorted(row[0] for row in seen)
        assert seen[0][:2] == (0, size) and seen[-1][:2] == (size, size)
        assert {row[2] for row in seen} == {threading.get_ident()}


class Gate(io.BytesIO):
    """A file object whose reads wait, once it is armed, until they may go on."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.is_armed = False
        self.entered = threading.Event()
        self.may_go = threading.Event()

    def read(self, size: int | None = -1, /) -> bytes:
        if self.is_armed:
            self.entered.set()
            self.may_go.wait(60)
        return super().read(size)


def test_an_exception_in_the_callback_ends_the_work(dynamic: tuple[Path, bytes], tmp_path: Path) -> None:
    disk = vhdx_mmap.open(dynamic[0])

    def report(done: int, total: int) -> None:
        raise RuntimeError("enough")

    for operation in (
        lambda: disk.hash(progress=report),
        lambda: disk.extract(tmp_path / "out", progress=report),
        lambda: disk.manifest(progress=report),
    ):
        with pytest.raises(RuntimeError, match="enough"):
            operation()
    assert not (tmp_path / "out").exists()
    assert disk.hash()["sha256"] == hashlib.sha256(dynamic[1]).hexdigest()


def test_an_interrupt_ends_the_work(dynamic: tuple[Path, bytes]) -> None:
    """The work waits for its file object meanwhile, which goes on once the interrupt was seen."""
    gate = Gate(dynamic[0].read_bytes())
    disk = vhdx_mmap.open(gate)
    gate.is_armed = True

    def interrupt() -> None:
        gate.entered.wait(60)
        os.kill(os.getpid(), signal.SIGINT)

    seen = threading.Event()

    def handler(number: int, frame: Any) -> None:
        seen.set()
        gate.is_armed = False
        gate.may_go.set()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, handler)
    thread = threading.Thread(target=interrupt)
    try:
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            disk.hash()
        thread.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen.is_set()
    assert disk.hash()["sha256"] == hashlib.sha256(dynamic[1]).hexdigest()


def test_a_file_that_is_changed_meanwhile_is_an_error(copy: tuple[Path, bytes]) -> None:
    path, _ = copy
    disk = vhdx_mmap.open(path)
    assert not disk.has_changed()
    with path.open("r+b") as file:
        file.seek(images.PAYLOAD)
        file.write(b"other")
        os.utime(path, (1, 1))
    assert disk.has_changed()
    for operation in (disk.hash, disk.manifest, disk.check):
        with pytest.raises(vhdx_mmap.ChangedError):
            operation()
