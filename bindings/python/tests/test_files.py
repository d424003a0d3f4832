from __future__ import annotations

import io
import os
import pickle
import subprocess
from pathlib import Path

import images
import pytest
import vhdx_mmap
from conftest import tool
from images import BLOCK


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder, and an image of a disk with its files in ext4."""
    mke2fs = tool("mkfs", "mke2fs")
    root = tmp_path_factory.mktemp("tree")
    (root / "etc" / "deep" / "er").mkdir(parents=True)
    (root / "etc" / "hosts").write_text("127.0.0.1 localhost\n")
    (root / "etc" / "deep" / "er" / "long").write_bytes(images.noise(7, 300_001))
    (root / "etc" / os.fsdecode(b"not\xffutf8")).write_bytes(b"odd")
    (root / "empty").touch()
    (root / "link").symlink_to("etc/hosts")
    (root / "loop").symlink_to("loop")
    with (root / "holes").open("wb") as file:
        file.seek(500_000)
        file.write(b"end")
    os.chmod(root / "etc" / "hosts", 0o640)
    os.utime(root / "etc" / "hosts", ns=(1_500_000_000_000_000_000, 1_600_000_000_123_456_789))
    raw = tmp_path_factory.mktemp("ext") / "raw"
    with raw.open("wb") as file:
        file.truncate(16 * BLOCK)
    subprocess.run([mke2fs, "-q", "-t", "ext4", "-L", "mine", "-d", root, raw], check=True)
    content = raw.read_bytes()
    blocks = {number: content[number * BLOCK : (number + 1) * BLOCK] for number in range(16)}
    blocks = {number: block for number, block in blocks.items() if any(block)}
    path = images.Image(size=16 * BLOCK, blocks=blocks, number=20).write(raw.with_name("files.vhdx"))
    return root, path


def test_a_tree_of_files(tree: tuple[Path, Path]) -> None:
    root, path = tree
    volume = vhdx_mmap.open(path).volumes[0]
    assert (volume.kind, volume.label, volume.number) == ("ext4", "mine", None)
    expected = {"/"} | {"/" + str(file.relative_to(root)) for file in root.rglob("*")}
    found = dict(volume.walk())
    assert set(found) - {"/lost+found"} == expected
    for name in expected - {"/"}:
        there = root / name[1:]
        stat, real = found[name], there.lstat()
        assert stat.mode == real.st_mode & 0o7777 and stat.owner == (real.st_uid, real.st_gid)
        if there.is_symlink():
            assert stat.kind == "link" and volume.read_link(name) == os.readlink(there)
        elif there.is_dir():
            assert stat.is_dir and set(volume.listdir(name)) == set(os.listdir(there))
        else:
            assert stat.is_file and stat.size == real.st_size
            assert volume.read_bytes(name) == there.read_bytes()
    hosts = volume.stat("/etc/hosts")
    # Some versions of mke2fs store seconds alone.
    assert hosts.times.modified is not None and hosts.times.modified.seconds == 1_600_000_000
    assert hosts.times.modified.datetime().isoformat()[:19] == "2020-09-13T12:26:40"
    assert volume.stat("/link").node == hosts.node != volume.stat("/link", follow=False).node
    assert volume.read_text("link") == volume.read_text(b"/etc/hosts") == "127.0.0.1 localhost\n"
    assert volume.exists("etc") and not volume.exists("/etc/nothing") and not volume.exists("/empty/x")


def test_files_are_streams(tree: tuple[Path, Path]) -> None:
    root, path = tree
    expected = (root / "etc" / "deep" / "er" / "long").read_bytes()
    volume = vhdx_mmap.open(path).volumes[0]
    with volume.open("/etc/deep/er/long") as file:
        assert file.size == len(expected) and io.RawIOBase in type(file).__mro__
        assert file.seek(-10, os.SEEK_END) == len(expected) - 10 and file.read() == expected[-10:]
        assert file.pread(100, 4090) == expected[4090:4190]
        assert io.BufferedReader(volume.open("/etc/deep/er/long")).read() == expected
        assert sum(length for _, length, _ in file.runs()) == len(expected)
    with volume.open("/holes") as file:
        assert any(place is None for _, _, place in file.runs())
    again = pickle.loads(pickle.dumps(volume))
    assert again.read_bytes("/holes") == (root / "holes").read_bytes()


def test_errors_of_files(tree: tuple[Path, Path]) -> None:
    volume = vhdx_mmap.open(tree[1]).volumes[0]
    for use, kind in (
        (lambda: volume.open("/nothing"), FileNotFoundError),
        (lambda: volume.stat("/nothing"), FileNotFoundError),
        (lambda: volume.read_bytes("/etc"), IsADirectoryError),
        (lambda: volume.listdir("/etc/hosts"), NotADirectoryError),
        (lambda: volume.read_bytes("/loop"), OSError),
        (lambda: volume.open("/empty", stream="none"), vhdx_mmap.VhdxError),
    ):
        with pytest.raises(kind) as caught:
            use()
        assert isinstance(caught.value, vhdx_mmap.VhdxError)
    with pytest.raises(IsADirectoryError, match="^/etc: is not a regular file"):
        volume.read_bytes("/etc")
    with pytest.raises(NotADirectoryError, match="^/etc/hosts: is not a directory"):
        volume.listdir("/etc/hosts")


def test_the_image_of_the_project() -> None:
    disk = vhdx_mmap.open(images.hello())
    [volume] = disk.volumes
    assert volume.read_text("/hello.txt") == "Hello from inside a VHDX.\n"
    assert volume.streams("/hello.txt") == {} and volume.xattrs("/hello.txt") == {}
    assert volume.reader().read(4) == disk.pread(4, 0)
    # A volume keeps its disk.
    del disk
    assert "hello.txt" in volume.listdir()


def test_partitions(tree: tuple[Path, Path], tmp_path: Path) -> None:
    sfdisk = tool("mkfs", "sfdisk")
    inner = vhdx_mmap.open(tree[1])
    content = bytes(BLOCK) + inner.pread(inner.size, 0) + bytes(BLOCK)
    raw = tmp_path / "raw"
    raw.write_bytes(content)
    table = "label: gpt\nstart=2048, size=32768, name=data\n"
    subprocess.run([sfdisk, "-q", raw], input=table.encode(), check=True, capture_output=True)
    content = raw.read_bytes()
    blocks = {number: content[number * BLOCK : (number + 1) * BLOCK] for number in range(18)}
    image = images.Image(size=len(content), blocks=blocks, number=21).write(tmp_path / "parts.vhdx")
    disk = vhdx_mmap.open(image)
    [partition] = disk.partitions
    assert (partition.number, partition.offset, partition.length) == (1, BLOCK, inner.size)
    assert (partition.name, partition.holds, partition.label) == ("data", "ext4", "mine")
    assert partition.reader().read() == inner.pread(inner.size, 0)
    assert partition.volume().listdir() == inner.volumes[0].listdir()
    assert [volume.number for volume in disk.volumes] == [1]


def test_a_volume_over_a_file_object_from_threads(tree: tuple[Path, Path]) -> None:
    import threading

    root, path = tree
    volume = vhdx_mmap.open(path.open("rb")).volumes[0]
    expected = (root / "etc" / "deep" / "er" / "long").read_bytes()
    found: list[bool] = []
    threads = [
        threading.Thread(target=lambda: found.append(volume.read_bytes("/etc/deep/er/long") == expected))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 4
