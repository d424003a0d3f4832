"""The data source of Spark, without Spark's processes: what is planned, and what is read."""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import images
import pytest
from fleets import Fleet
from images import BLOCK
from needs import package

datasource = package("pyspark.sql.datasource", "pyspark")
source = package("vhdx_mmap.spark", "pyspark")


def reader(paths: str | list[str], kind: Any = None, **options: Any) -> Any:
    import json

    where = {"path": paths} if isinstance(paths, str) else {"paths": json.dumps(paths)}
    made = (kind or source.VhdxDataSource)({**where, **{name: str(value) for name, value in options.items()}})
    assert isinstance(made.schema(), str)
    return made.reader(None)


def rows_of(made: Any) -> list[dict[str, Any]]:
    return [row for part in made.partitions() for batch in made.read(part) for row in batch.to_pylist()]


def read(paths: str | list[str], **options: Any) -> list[dict[str, Any]]:
    return rows_of(reader(paths, **options))


def test_a_row_for_each_block(fleet: Fleet) -> None:
    for name, content in fleet.contents.items():
        rows = read(fleet.path(name), crc32=True, payload=True)
        assert [(row["offset"], row["length"]) for row in rows] == [(at, BLOCK) for at in range(0, len(content), BLOCK)]
        for row in rows:
            expected = content[row["offset"] : row["offset"] + BLOCK]
            assert row["crc32"] == f"{zlib.crc32(expected):08x}"
            # Zeros that are in no file have no payload.
            assert row["payload"] == expected or (row["payload"] is None and row["zero"] and not any(expected))
            assert row["image"] == fleet.path(name) and row["error"] is None


def test_places_in_the_files(fleet: Fleet) -> None:
    rows = {row["offset"] // BLOCK: row for row in read(fleet.path("leaf.avhdx"))}
    state = {block: row["state"] for block, row in rows.items()}
    layer = {block: row["layer"] for block, row in rows.items()}
    # Of its own: blocks 7 and 2, and sectors of 5 and 6. Of the middle: 1. Of the base: 0 and 3; 4 is in no layer.
    assert {block: state[block] for block in (7, 2, 5, 6, 1, 0, 3, 4)} == {
        7: "FULLY_PRESENT",
        2: "ZERO",
        5: "PARTIALLY_PRESENT",
        6: "PARTIALLY_PRESENT",
        1: "ZERO",
        0: "FULLY_PRESENT",
        3: "ZERO",
        4: "NOT_PRESENT",
    }
    assert {block: layer[block] for block in (7, 2, 5, 6, 1, 0, 3)} == {7: 0, 2: 0, 5: 0, 6: 0, 1: 1, 0: 2, 3: 2}
    with open(fleet.path("leaf.avhdx"), "rb") as file:
        file.seek(rows[7]["file_offset"])
        assert file.read(BLOCK) == fleet.contents["leaf.avhdx"][7 * BLOCK :]
    # These lie in pieces: sectors of several layers, and pages of the log.
    assert rows[5]["file_offset"] is rows[6]["file_offset"] is rows[0]["file_offset"] is None
    assert [block for block in rows if rows[block]["zero"]] == [1, 2, 3, 4]


def test_runs(fleet: Fleet) -> None:
    for name, content in fleet.contents.items():
        rows = read(fleet.path(name), rows="runs")
        at = 0
        for row in rows:
            assert row["offset"] == at and row["length"] > 0
            at += row["length"]
            part = content[row["offset"] : at]
            if row["file_offset"] is not None:
                # The chain is leaf, middle, base.
                chain = ["leaf.avhdx", "middle.avhdx", "base.vhdx"]
                of = chain[chain.index(name) + row["layer"]] if name in chain else name
                with open(fleet.path(of), "rb") as file:
                    file.seek(row["file_offset"])
                    assert file.read(row["length"]) == part
            assert not row["zero"] or not any(part)
        assert at == len(content)


def test_blocks_in_very_many_pieces(tmp_path: Path) -> None:
    """A block that begins in one batch of Arrow and ends in the next is one row."""
    base = images.Image(size=80 * BLOCK, blocks={3: images.noise(8, BLOCK)})
    base.write(tmp_path / "base.vhdx")
    sector = images.noise(9, images.SECTOR)
    sectors = {number: sector for number in range(0, BLOCK // images.SECTOR, 3)}
    child = images.Image(
        size=base.size, number=2, parent=base, parent_name="base.vhdx", partial=dict.fromkeys(range(70), sectors)
    )
    path = str(child.write(tmp_path / "child.avhdx"))
    assert len(read(path, rows="runs")) > 1 << 16
    content = child.content()
    rows = read(path, crc32=True)
    expected = [f"{zlib.crc32(content[at : at + BLOCK]):08x}" for at in range(0, len(content), BLOCK)]
    assert [row["crc32"] for row in rows] == expected
    assert [row["state"] for row in rows] == ["PARTIALLY_PRESENT"] * 70 + ["NOT_PRESENT"] * 10
    assert [row["length"] for row in rows] == [BLOCK] * 80


def test_tasks(fleet: Fleet) -> None:
    # Small splits are put together, but two of one image are two tasks.
    assert len(reader(fleet.healthy).partitions()) == 1
    assert len(reader(fleet.healthy, splitSize=BLOCK).partitions()) == sum(
        len(splits_with_length(path)) for path in fleet.healthy
    )
    parts = reader(fleet.path("dynamic.vhdx"), splits=3).partitions()
    assert [len(part.jobs) for part in parts] == [1, 1, 1]
    assert len(reader(fleet.healthy, rows="files").partitions()) == len(fleet.healthy)
    assert len(reader(fleet.healthy * 2, rows="images").partitions()) == 1
    assert len(reader(fleet.healthy, rows="images", check=True).partitions()) == len(fleet.healthy)


def splits_with_length(path: str) -> list[Any]:
    import vhdx_mmap

    with vhdx_mmap.open(path) as disk:
        return [split for split in disk.plan(split_size=BLOCK) if split.length]


def test_paths(fleet: Fleet, tmp_path: Path) -> None:
    def found(*paths: str, **options: Any) -> list[str]:
        made = reader(list(paths), rows="images", **options)
        return [job.image for part in made.partitions() for job in part.jobs]

    everything = sorted(map(fleet.path, [*fleet.contents, *fleet.broken]))
    assert found(str(fleet.folder)) == everything
    assert found(fleet.path("*.avhdx")) == [fleet.path(name) for name in ("leaf.avhdx", "middle.avhdx", "orphan.avhdx")]
    assert found(fleet.path("base.vhdx"), f"file://{fleet.folder}") == [
        fleet.path("base.vhdx"),
        *[path for path in everything if path != fleet.path("base.vhdx")],
    ]
    assert found(fleet.path("nothing.vhdx")) == [fleet.path("nothing.vhdx")]
    assert found(fleet.path("nothing*.vhdx")) == []
    (tmp_path / "within").mkdir()
    (tmp_path / "[1].VHDX").touch()
    (tmp_path / "within" / "two.vhdx").touch()
    one, two = str(tmp_path / "[1].VHDX"), str(tmp_path / "within" / "two.vhdx")
    assert found(str(tmp_path)) == [one] and found(one) == [one]
    assert found(str(tmp_path), recursiveFileLookup=True) == [one, two]


def test_a_folder_that_cannot_be_read(fleet: Fleet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shutil.copy(fleet.path("dynamic.vhdx"), tmp_path / "one.vhdx")
    (tmp_path / "closed").mkdir()
    before = os.scandir

    def scandir(path: str) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return before(path)

    monkeypatch.setattr(os, "scandir", scandir)
    rows = read(str(tmp_path), rows="images", recursiveFileLookup=True)
    assert {Path(row["image"]).name: row["error"] is not None for row in rows} == {"one.vhdx": False, "closed": True}


def test_urls(fleet: Fleet) -> None:
    package("fsspec")
    content = fleet.contents["leaf.avhdx"]
    url = f"local://{fleet.path('leaf.avhdx')}"
    rows = read(url, crc32=True, splits=2)
    expected = [f"{zlib.crc32(content[at : at + BLOCK]):08x}" for at in range(0, len(content), BLOCK)]
    assert [row["crc32"] for row in rows] == expected and {row["image"] for row in rows} == {url}
    everything = read(f"local://{fleet.folder}", rows="images")
    assert len(everything) == len(fleet.contents) + len(fleet.broken)


@pytest.mark.parametrize(
    "options",
    [
        {"rows": "sectors"},
        {"mode": "LENIENT"},
        {"strictness": "lax"},
        {"crc32": "perhaps"},
        {"splits": "0"},
        {"splits": "1", "splitSize": "1"},
        {"splitSize": "many"},
        {"payload": "true", "rows": "images"},
        {"blake3": "true", "rows": "runs"},
        {"check": "true"},
        {"offset": "-1"},
        {"length": "0"},
        {"zeros": "false", "rows": "files"},
        {"algorithms": "sha256", "rows": "shares"},
        {"colour": "red"},
    ],
)
def test_wrong_options(options: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        source.VhdxDataSource({"path": "/images", **options}).schema()


def test_no_path() -> None:
    with pytest.raises(ValueError, match="no path"):
        source.VhdxDataSource({}).schema()


def test_failures_are_rows(fleet: Fleet) -> None:
    for kind in ("blocks", "runs", "files", "shares"):
        rows = read(str(fleet.folder), rows=kind)
        failed = {row["image"]: row["error"] for row in rows if row["error"]}
        # Where there is no file system, no more than the first sectors are read.
        unread = ("short.vhdx", "table.vhdx") if kind == "files" else ()
        expected = {name: error for name, error in fleet.broken.items() if name not in unread}
        assert {Path(image).name: error.split(":")[0] for image, error in failed.items()} == expected, kind
        dropped = read(str(fleet.folder), rows=kind, mode="DROPMALFORMED")
        assert dropped == [row for row in rows if row["error"] is None]
        with pytest.raises(source.FAILURES):
            read(str(fleet.folder), rows=kind, mode="FAILFAST")


def test_an_orphan_is_described(fleet: Fleet) -> None:
    (row,) = read(fleet.path("orphan.avhdx"), rows="images")
    assert row["error"].startswith("ParentNotFound") and row["kind"] == "differencing"
    assert row["parent"] == ".\\gone.vhdx"
    assert row["allocated_blocks"] == 3 and row["size"] == 8 * BLOCK
    with pytest.raises(source.FAILURES):
        read(fleet.path("orphan.avhdx"), rows="images", mode="FAILFAST")


def test_salvage(fleet: Fleet) -> None:
    """What is left of damaged images is rows; lost blocks are failures of theirs."""
    content = fleet.contents["dynamic.vhdx"]
    for name, lost in (("table.vhdx", {1}), ("short.vhdx", {5})):
        for options in ({}, {"crc32": True, "payload": True}):
            rows = read(fleet.path(name), strictness="salvage", **options)
            assert {row["offset"] // BLOCK for row in rows if row["error"]} == lost
            assert all(row["error"].startswith("LostDataError") for row in rows if row["error"])
            for row in rows:
                expected = content[row["offset"] : row["offset"] + BLOCK]
                if options and not row["error"]:
                    assert row["crc32"] == f"{zlib.crc32(expected):08x}"
                    assert row["payload"] == (None if row["zero"] else expected)
                elif options:
                    assert row["crc32"] is None and row["payload"] is None
            with pytest.raises(source.FAILURES):
                read(fleet.path(name), strictness="salvage", mode="FAILFAST", **options)


def test_a_block_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file becomes shorter after it was opened by the task."""
    path = images.dynamic().write(tmp_path / "disk.vhdx")
    made = reader(str(path), crc32=True, payload=True)
    opened = source.Opening.open_split

    def open_and_cut(self: Any, job: Any) -> Any:
        disk = opened(self, job)
        os.truncate(path, images.PAYLOAD + 2 * BLOCK)
        return disk

    monkeypatch.setattr(source.Opening, "open_split", open_and_cut)
    rows = rows_of(made)
    assert rows and all(row["error"] for row in rows)


def test_a_changed_image_is_a_failure(tmp_path: Path) -> None:
    path = images.dynamic().write(tmp_path / "disk.vhdx")
    for kind in ("blocks", "runs", "shares"):
        made = reader(str(path), rows=kind)
        parts = made.partitions()
        times = os.stat(path)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
        (row,) = [row for part in parts for batch in made.read(part) for row in batch.to_pylist()]
        assert row["error"].startswith("ChangedError")


def pushed(paths: list[str], *filters: Any, **options: Any) -> tuple[list[Any], Any]:
    made = reader(paths, source.VhdxPushdownDataSource, **options)
    return list(made.pushFilters(list(filters))), made


def conditions() -> Iterator[tuple[Any, Any]]:
    """Filters of Spark, and what they mean."""
    yield datasource.EqualTo(("zero",), False), lambda row: row["zero"] is False
    yield datasource.EqualTo(("zero",), True), lambda row: row["zero"] is True
    yield datasource.Not(datasource.EqualTo(("zero",), True)), lambda row: row["zero"] is False
    yield datasource.EqualTo(("state",), "ZERO"), lambda row: row["state"] == "ZERO"
    yield datasource.In(("state",), ("ZERO", "PARTIALLY_PRESENT")), lambda row: (
        row["state"] in ("ZERO", "PARTIALLY_PRESENT")
    )
    for value in (0, BLOCK, 2 * BLOCK + 1, 7 * BLOCK, 100 * BLOCK):
        yield datasource.EqualTo(("offset",), value), lambda row, v=value: row["offset"] == v
        yield datasource.GreaterThan(("offset",), value), lambda row, v=value: row["offset"] > v
        yield datasource.GreaterThanOrEqual(("offset",), value), lambda row, v=value: row["offset"] >= v
        yield datasource.LessThan(("offset",), value), lambda row, v=value: row["offset"] < v
        yield datasource.LessThanOrEqual(("offset",), value), lambda row, v=value: row["offset"] <= v
    yield datasource.In(("offset",), (BLOCK, 6 * BLOCK)), lambda row: row["offset"] in (BLOCK, 6 * BLOCK)
    yield datasource.StringEndsWith(("image",), "leaf.avhdx"), lambda row: row["image"].endswith("leaf.avhdx")
    yield datasource.StringContains(("image",), "base"), lambda row: "base" in row["image"]
    yield datasource.StringStartsWith(("image",), "/nothing"), lambda row: False


@pytest.mark.parametrize("kind", ["blocks", "runs"])
def test_filters_that_are_pushed_down(fleet: Fleet, kind: str) -> None:
    everything = read(fleet.healthy, rows=kind, splits=3)
    for condition, means in conditions():
        left, made = pushed(fleet.healthy, condition, rows=kind, splits=3)
        assert left == [], condition
        assert rows_of(made) == [row for row in everything if means(row)], condition
    two = [datasource.GreaterThanOrEqual(("offset",), BLOCK), datasource.EqualTo(("zero",), False)]
    left, made = pushed(fleet.healthy, *two, rows=kind)
    assert left == []
    expected = [row for row in read(fleet.healthy, rows=kind) if row["offset"] >= BLOCK and not row["zero"]]
    assert rows_of(made) == expected


def test_filters_that_are_left_to_spark(fleet: Fleet) -> None:
    for condition in (
        datasource.IsNotNull(("offset",)),
        datasource.IsNull(("error",)),
        datasource.Not(datasource.EqualTo(("state",), "ZERO")),
        datasource.Not(datasource.GreaterThan(("offset",), 1)),
        datasource.EqualTo(("layer",), 0),
        datasource.EqualTo(("state",), None),
        datasource.EqualTo(("crc32",), "00000000"),
        datasource.StringStartsWith(("state",), "Z"),
    ):
        left, made = pushed(fleet.healthy, condition, crc32=True)
        assert left == [condition]
        assert rows_of(made) == read(fleet.healthy, crc32=True)
    left, _ = pushed(fleet.healthy, datasource.EqualTo(("size",), 0), rows="images")
    assert len(left) == 1


def test_other_images_are_not_opened(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    before = source.Opening.open

    def note(self: Any, image: str, parents: Any = None) -> Any:
        opened.append(image)
        return before(self, image, parents)

    monkeypatch.setattr(source.Opening, "open", note)
    wanted = fleet.path("base.vhdx")
    for kind in ("blocks", "images", "files", "shares"):
        opened.clear()
        left, made = pushed([str(fleet.folder)], datasource.EqualTo(("image",), wanted), rows=kind)
        rows = rows_of(made)
        assert left == [] and {row["image"] for row in rows} <= {wanted}
        # Shares and blocks are opened again as splits.
        assert set(opened) == {wanted}


def test_other_ranges_are_no_tasks(fleet: Fleet) -> None:
    every = len(reader(fleet.path("dynamic.vhdx"), splits=3).partitions())
    _, made = pushed([fleet.path("dynamic.vhdx")], datasource.LessThan(("offset",), BLOCK), splits=3)
    assert every == 3 and len(made.partitions()) == 1


def test_failures_do_not_meet_conditions(fleet: Fleet) -> None:
    """As in SQL: null meets no condition."""
    broken = [fleet.path(name) for name in fleet.broken]
    _, made = pushed(broken, datasource.GreaterThanOrEqual(("offset",), 0))
    assert rows_of(made) == []
    _, made = pushed(broken, datasource.StringEndsWith(("image",), ".vhdx"))
    assert len(rows_of(made)) == 3


def test_zeros_are_left_out(fleet: Fleet) -> None:
    for kind in ("blocks", "runs"):
        everything = read(fleet.healthy, rows=kind)
        found = read(fleet.healthy, rows=kind, zeros=False)
        assert found == [row for row in everything if not row["zero"]] and len(found) < len(everything)


def test_a_range_of_the_disk(fleet: Fleet) -> None:
    paths = [*fleet.healthy, fleet.path("text.vhdx")]
    for kind in ("blocks", "runs"):
        everything = read(paths, rows=kind)
        for begin, length in ((0, BLOCK), (BLOCK, 3 * BLOCK), (BLOCK + 1, 5 * BLOCK), (7 * BLOCK, 99 * BLOCK)):
            found = read(paths, rows=kind, offset=begin, length=length)
            # Failures are rows in any case.
            expected = [row for row in everything if row["error"] or begin <= row["offset"] < begin + length]
            assert found == expected and found[-1]["error"]


def test_large_payloads_are_several_batches(tmp_path: Path) -> None:
    image = images.Image(size=40 * BLOCK, blocks={block: images.noise(block, BLOCK) for block in range(36)})
    made = reader(str(image.write(tmp_path / "large.vhdx")), payload=True)
    (part,) = made.partitions()
    sizes = [sum(len(row["payload"] or b"") for row in batch.to_pylist()) for batch in made.read(part)]
    assert max(sizes) <= 32 * BLOCK and sum(sizes) == 36 * BLOCK


def test_files(fleet: Fleet) -> None:
    rows = read(str(images.hello()), rows="files")
    found = {row["path"]: row for row in rows}
    # From tests/images/SOURCES.md.
    assert {"/", "/hello.txt", "/docs", "/docs/numbers.txt", "/docs/fox.txt", "/fox", "/lost+found"} == set(found)
    numbers = found["/docs/numbers.txt"]
    assert (numbers["size"], numbers["kind"], numbers["file_system"]) == (108894, "file", "ext4")
    assert found["/hello.txt"]["size"] == 26 and found["/fox"]["kind"] == "link"
    assert found["/"]["modified"].timestamp() == 1700000000 and numbers["owner"] == 0
    # A disk without a file system has no files, and is no failure.
    assert read(fleet.path("dynamic.vhdx"), rows="files") == []


def test_a_damaged_file_system(tmp_path: Path) -> None:
    path = tmp_path / "damaged.vhdx"
    shutil.copy(images.hello(), path)
    with path.open("r+b") as file:
        # Inodes from number 12 on: block 0 of the disk is at 8 MiB. The root directory stays.
        content = file.read()
        place = content.index(b"numbers.txt") // 1024 * 1024
        file.seek(place)
        file.write(b"\xff" * 1024)
    rows = read(str(path), rows="files")
    assert [row["path"] for row in rows if row["error"]] == ["/docs"] and "/hello.txt" in [row["path"] for row in rows]
    with pytest.raises(source.FAILURES):
        read(str(path), rows="files", mode="FAILFAST")


def test_shares_are_merged(fleet: Fleet) -> None:
    blake3 = package("blake3")
    rows = read(fleet.healthy, rows="shares", algorithms="crc32,blake3", splits=3)
    assert len(rows) == 3 * len(fleet.healthy)
    assert source.digests(reversed(rows)) == {
        fleet.path(name): {"crc32": f"{zlib.crc32(content):08x}", "blake3": blake3.blake3(content).hexdigest()}
        for name, content in fleet.contents.items()
    }
    import vhdx_mmap

    with pytest.raises(vhdx_mmap.ManifestError):
        source.digests(rows[1:])
    with pytest.raises(vhdx_mmap.VhdxError, match=r"text\.vhdx"):
        source.digests(read(fleet.path("text.vhdx"), rows="shares"))
