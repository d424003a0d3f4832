"""Plans, splits, and results of shares."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import shutil
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import images
import pytest
import vhdx_mmap
from conftest import need, package, run_python
from images import BLOCK


def command() -> str:
    """The command `vhdx`, if it was built."""
    built = [Path(__file__).parents[3] / "target" / profile / "vhdx" for profile in ("debug", "release")]
    found = os.environ.get("VHDX_COMMAND") or next((str(path) for path in built if path.is_file()), None)
    need("vhdx", found is not None)
    assert found is not None
    return found


def test_splits_cover_the_disk(any_image: tuple[Path, bytes]) -> None:
    path, content = any_image
    disk = vhdx_mmap.open(path)
    for count in (1, 2, 3, 8, 11):
        plan = disk.plan(count)
        assert len(plan) == len(plan.splits) == count
        ends = [(split.offset, split.offset + split.length) for split in plan]
        assert ends[0][0] == 0 and ends[-1][1] == len(content)
        assert all(before[1] == after[0] for before, after in zip(ends, ends[1:]))
        assert all(begin % BLOCK == 0 or begin == len(content) for begin, _ in ends)
        assert [(split.index, split.count) for split in plan] == [(number + 1, count) for number in range(count)]
        assert sum(split.data_bytes for split in plan) == plan.data_bytes
    by_size = disk.plan(split_size=BLOCK)
    assert len(by_size) == -(-by_size.data_bytes // BLOCK)


def test_data_is_balanced(dynamic: tuple[Path, bytes]) -> None:
    # Data in the blocks 0, 1 and 5 of 8.
    plan = vhdx_mmap.open(dynamic[0]).plan(3)
    assert plan.data_bytes == 3 * BLOCK
    assert [split.data_bytes for split in plan] == [BLOCK, BLOCK, BLOCK]
    assert len(vhdx_mmap.open(dynamic[0]).plan()) == 1


def test_extents_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = images.dynamic().write(tmp_path / "swapped.vhdx")
    with path.open("r+b") as file:
        # The entries of the blocks 0 and 5 change places.
        file.seek(images.BAT)
        entries = [file.read(8) for _ in range(6)]
        file.seek(images.BAT)
        file.write(b"".join([entries[5], *entries[1:5], entries[0]]))
    disk = vhdx_mmap.open(path)
    (split,) = disk.plan(1)
    extents = [(extent.offset, extent.length, extent.file_offset) for extent in split.extents(disk)]
    places = [images.PAYLOAD + number * BLOCK for number in range(3)]
    assert extents == [(5 * BLOCK, BLOCK, places[0]), (BLOCK, BLOCK, places[1]), (0, BLOCK, places[2])]


def test_extents_have_all_data_of_the_split(any_image: tuple[Path, bytes]) -> None:
    path, content = any_image
    disk = vhdx_mmap.open(path)
    rest = bytearray(content)
    for split in disk.plan(3):
        extents = split.extents(disk)
        # Of each file of the chain, from front to back; what is only in memory has no place.
        keys = [(extent.layer, extent.file_offset) for extent in extents if extent.file_offset is not None]
        assert keys == sorted(keys)
        for extent in extents:
            assert split.offset <= extent.offset and extent.offset + extent.length <= split.offset + split.length
            rest[extent.offset : extent.offset + extent.length] = bytes(extent.length)
    assert not any(rest)


def test_overlap_finds_a_match_once(tmp_path: Path) -> None:
    needle = b"across the border"
    image = images.dynamic()
    place = BLOCK - 5
    image.blocks[0] = image.blocks[0][:place] + needle[:5]
    image.blocks[1] = needle[5:] + image.blocks[1][len(needle) - 5 :]
    disk = vhdx_mmap.open(image.write(tmp_path / "needle.vhdx"))
    for overlap, expected in ((len(needle) - 1, [place]), (0, [])):
        plan = disk.plan(splits=3, overlap=overlap)
        assert plan.overlap == overlap
        found = []
        for split in plan:
            offset, length = split.search_range
            at = disk.pread(length, offset).find(needle)
            if at >= 0 and offset + at < split.offset + split.length:
                found.append(offset + at)
        assert found == expected


def test_wrong_plans(dynamic: tuple[Path, bytes]) -> None:
    disk = vhdx_mmap.open(dynamic[0])
    for options in ({"splits": 0}, {"split_size": 0}, {"splits": 1, "split_size": 1}):
        with pytest.raises(ValueError):
            disk.plan(**options)  # type: ignore[arg-type]
    plan = disk.plan(2)
    for wrong in ({}, plan.to_dict() | {"splits": []}, plan.to_dict() | {"virtual-size": 1}):
        with pytest.raises(ValueError):
            vhdx_mmap.Plan(wrong)
    for wrong in (plan.to_dict(), plan[0].to_dict() | {"index": 3}, plan[0].to_dict() | {"offset": 1}):
        with pytest.raises(ValueError):
            vhdx_mmap.Split(wrong)
    with pytest.raises(IndexError):
        plan[2]
    assert plan[-1] == plan[1] and plan[:5] == plan.splits


def test_json_is_that_of_the_command(chain: tuple[Path, bytes]) -> None:
    program = command()

    def run(*options: str) -> str:
        done = subprocess.run([program, "plan", chain[0], *options], capture_output=True, text=True, check=True)
        return done.stdout

    def bare(text: str) -> dict[str, Any]:
        # Documents of the command also say who made them, and when.
        return {key: value for key, value in json.loads(text).items() if key not in ("tool", "version", "time")}

    plan = vhdx_mmap.open(chain[0]).plan(3, overlap=7)
    text = run("--splits", "3", "--overlap", "7")
    assert bare(text) == plan.to_dict() and vhdx_mmap.Plan(text) == plan
    lines = run("--splits", "3", "--overlap", "7", "--lines").splitlines()
    assert [bare(line) for line in lines] == [split.to_dict() for split in plan]
    assert [vhdx_mmap.Split(line) for line in lines] == plan.splits
    assert bare(run("--splits", "3", "--no-times")) == vhdx_mmap.open(chain[0]).plan(3, times=False).to_dict()


OPEN = """
import hashlib, pickle, sys
split = pickle.load(open(sys.argv[1], "rb"))
with split.open() as disk:
    print(split.index, hashlib.sha256(disk.pread(split.length, split.offset)).hexdigest())
"""


def test_a_split_is_opened_elsewhere(any_image: tuple[Path, bytes], tmp_path: Path) -> None:
    path, content = any_image
    # The path of a plan is absolute, whatever the folder of the worker.
    plan = vhdx_mmap.open(os.path.relpath(path)).plan(3)
    assert pickle.loads(pickle.dumps(plan)) == plan and hash(plan) == hash(vhdx_mmap.Plan(plan.to_json()))
    for split in plan:
        (tmp_path / "split").write_bytes(pickle.dumps(split))
        part = content[split.offset : split.offset + split.length]
        done = run_python(OPEN, tmp_path / "split", cwd=tmp_path)
        assert done.stdout.split() == [str(split.index), hashlib.sha256(part).hexdigest()]
    with plan[1].open(mmap=True) as disk:
        assert disk.can_borrow and disk.pread(len(content), 0) == content
        assert pickle.loads(pickle.dumps(disk)).pread(len(content), 0) == content


def test_changed_files_are_refused(tmp_path: Path) -> None:
    leaf, image = images.write_chain(tmp_path)
    content = image.content()
    disk = vhdx_mmap.open(leaf)
    exact, loose = disk.plan(2)[0], disk.plan(2, times=False)[0]
    times = os.stat(tmp_path / "base.vhdx")
    os.utime(tmp_path / "base.vhdx", ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    with pytest.raises(vhdx_mmap.ChangedError):
        exact.open()
    with loose.open() as again:
        assert again.pread(len(content), 0) == content
    # Copies in another folder: the files of the plan are not there any more.
    shutil.copytree(tmp_path, tmp_path / "elsewhere", ignore=shutil.ignore_patterns("elsewhere"))
    for name in ("leaf.avhdx", "middle.avhdx", "base.vhdx"):
        (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError):
        loose.open()
    with loose.open(tmp_path / "elsewhere" / "leaf.avhdx") as copied:
        assert copied.pread(len(content), 0) == content
    # Another disk under the name of the plan.
    other = images.dynamic()
    other.number = 9
    other.write(leaf)
    for split in (exact, loose):
        with pytest.raises(vhdx_mmap.ChangedError):
            split.open()


def test_parents_are_not_searched(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    base = images.dynamic()
    base.write(tmp_path / "one" / "base.vhdx")
    child = images.child(base, "base.vhdx").write(tmp_path / "other" / "child.avhdx")
    disk = vhdx_mmap.open(child, parents=tmp_path / "one")
    split = disk.plan(1)[0]
    # The same parent next to the child does not count, once that of the plan is gone.
    base.write(tmp_path / "other" / "base.vhdx")
    split.open().close()
    (tmp_path / "one" / "base.vhdx").unlink()
    with pytest.raises(vhdx_mmap.VhdxError):
        split.open()


def shares(path: Path, work: Callable[[vhdx_mmap.Split], Any], count: int) -> list[Any]:
    """The results of all splits, in a random order, as they come from other machines."""
    splits = [vhdx_mmap.Split(split.to_json()) for split in vhdx_mmap.open(path).plan(count)]
    random.Random(count).shuffle(splits)
    return [work(split) for split in splits]


@pytest.mark.parametrize("count", [1, 2, 3, 8, 13])
def test_merged_digests(any_image: tuple[Path, bytes], count: int) -> None:
    path, content = any_image
    blake3 = package("blake3")
    results = shares(path, lambda split: split.hash("blake3", "crc32"), count)
    merged = vhdx_mmap.merge(json.loads(json.dumps(results)))
    assert merged == {"blake3": blake3.blake3(content).hexdigest(), "crc32": f"{zlib.crc32(content):08x}"}


def test_merged_crc32(any_image: tuple[Path, bytes]) -> None:
    path, content = any_image
    merged = vhdx_mmap.merge(shares(path, lambda split: split.hash("crc32"), 5))
    assert merged == {"crc32": f"{zlib.crc32(content):08x}"}


def test_results_that_cannot_be_merged(dynamic: tuple[Path, bytes], dirty: tuple[Path, bytes]) -> None:
    for work in (lambda split: split.hash("crc32"), lambda split: split.check(), lambda split: split.manifest()):
        one, two, three = shares(dynamic[0], work, 3)
        other = shares(dirty[0], work, 3)
        for wrong in ([], [one, two], [one, two, two], [one, two, other[2]], [one, two, three, three], [one, {}]):
            with pytest.raises(vhdx_mmap.ManifestError):
                vhdx_mmap.merge(wrong)
    with pytest.raises(vhdx_mmap.ManifestError):
        vhdx_mmap.merge([one, shares(dynamic[0], lambda split: split.hash("crc32"), 3)[1], three])
    split = vhdx_mmap.open(dynamic[0]).plan(1)[0]
    with pytest.raises(ValueError):
        split.hash("sha256")
    with pytest.raises(vhdx_mmap.ChangedError):
        split.hash("crc32", disk=vhdx_mmap.open(images.hello()))


def test_merged_manifest(any_image: tuple[Path, bytes]) -> None:
    path, content = any_image
    merged = vhdx_mmap.merge(shares(path, lambda split: split.manifest("md5"), 3))
    assert isinstance(merged, vhdx_mmap.Manifest)
    expected = [hashlib.md5(content[at : at + BLOCK]).hexdigest() for at in range(0, len(content), BLOCK)]
    found = [line["md5"] for line in merged.lines for _ in range(line.get("count", 1))]
    assert found == expected
    assert vhdx_mmap.open(path).verify(merged)["ok"]


def test_merged_check(tmp_path: Path) -> None:
    image = images.dynamic()
    # An allocated block of zeros is a note about the content.
    image.blocks[6] = bytes(BLOCK)
    path = image.write(tmp_path / "zeros.vhdx")
    merged = vhdx_mmap.merge(shares(path, lambda split: split.check(), 4))
    assert merged["corruptions"] == 0 and merged["allocated-clusters"] == 4 and "share" not in merged
    assert [(count["code"], count["count"]) for count in merged["counts"] if count["severity"] == "note"] == [("N5", 1)]
    whole = vhdx_mmap.open(path).check(payload=True)
    assert [finding["code"] for finding in merged["findings"]] == [finding["code"] for finding in whole["findings"]]


def test_merged_diff(chain: tuple[Path, bytes]) -> None:
    merged = vhdx_mmap.merge(shares(chain[0], lambda split: split.diff(content=True), 3))
    with vhdx_mmap.open(chain[0]) as disk:
        before = disk.ancestor(1).pread(disk.size, 0)
    steps = range(0, len(before), 512)
    differing = {at for at in steps if before[at : at + 512] != chain[1][at : at + 512]}
    listed = {at for row in merged["changes"] for at in range(row["start"], row["start"] + row["length"], 512)}
    assert listed == differing and merged["ancestor-depth"] == 1 and differing
    allocated = vhdx_mmap.merge(shares(chain[0], lambda split: split.diff(), 3))
    # The grandchild has block 7, zeros in block 2, and six sectors.
    assert sum(row["length"] for row in allocated["changes"]) == 2 * BLOCK + 6 * 512


def test_shares_write_one_file(any_image: tuple[Path, bytes], tmp_path: Path) -> None:
    path, content = any_image
    target = tmp_path / "disk.raw"
    # What was in the file before is overwritten, with zeros, too.
    target.write_bytes(images.noise(5, 3 * BLOCK))
    results = shares(path, lambda split: split.extract(target), 3)
    merged = vhdx_mmap.merge(results)
    assert target.read_bytes() == content
    assert merged["data-bytes"] + merged["zero-bytes"] == len(content) and merged["output-length"] == len(content)
    new = tmp_path / "new.raw"
    assert sorted(result["share"]["index"] for result in shares(path, lambda split: split.extract(new), 2)) == [1, 2]
    assert new.read_bytes() == content


def test_targets_that_are_refused(tmp_path: Path) -> None:
    path = images.dynamic().write(tmp_path / "disk.vhdx")
    before = path.read_bytes()
    split = vhdx_mmap.open(path).plan(1)[0]
    with pytest.raises(ValueError, match="the image itself"):
        split.extract(path)
    assert path.read_bytes() == before
    large = tmp_path / "large.raw"
    large.write_bytes(bytes(len(before) * 2))
    with pytest.raises(ValueError, match="too large"):
        split.extract(large)
    assert not any(large.read_bytes())


def test_progress_ends_a_share(dynamic: tuple[Path, bytes]) -> None:
    class Stop(Exception):
        pass

    def stop(done: int, total: int) -> None:
        raise Stop

    split = vhdx_mmap.open(dynamic[0]).plan(1)[0]
    for work in (split.hash, split.manifest, split.check):
        with pytest.raises(Stop):
            work(progress=stop)
