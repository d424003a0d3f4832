"""Spark with two executors."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import vhdx_mmap
from fleets import Fleet
from images import BLOCK
from needs import package

pyspark = package("pyspark", "pyspark")
cloudpickle = package("pyspark.cloudpickle", "pyspark")
source = package("vhdx_mmap.spark", "pyspark")

# Executors do not have this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(autouse=True)
def registered(spark: Any) -> None:
    source.register(spark)


def load(spark: Any, paths: Any, **options: Any) -> Any:
    return spark.read.format("vhdx").options(**options).load(paths)


def place(row: dict[str, Any]) -> tuple[str, int]:
    return row["image"], row["offset"]


def blocks_of(content: bytes) -> list[bytes]:
    return [content[at : at + BLOCK] for at in range(0, len(content), BLOCK)]


def test_there_are_two_executors(spark: Any) -> None:
    assert spark.sparkContext.parallelize(range(4), 4).sum() == 6
    # The driver is one of these.
    assert spark.sparkContext._jsc.sc().getExecutorMemoryStatus().size() == 3


def test_content_is_exact(spark: Any, fleet: Fleet) -> None:
    """Payloads through Spark, by the digests of Spark: dirty and chained images, and zeros."""
    found = load(spark, fleet.healthy, payload=True, splits=3).selectExpr(
        "image", "offset", "length", "zero", "sha2(payload, 256) AS digest", "crc32(payload) AS sum"
    )
    rows = {(row.image, row.offset): row for row in found.collect()}
    assert len(rows) == sum(len(content) // BLOCK for content in fleet.contents.values())
    for name, content in fleet.contents.items():
        for number, block in enumerate(blocks_of(content)):
            row = rows[(fleet.path(name), number * BLOCK)]
            if row.zero:
                assert row.digest is None and not any(block)
            else:
                assert row.digest == hashlib.sha256(block).hexdigest() and row["sum"] == zlib.crc32(block)


def test_digests_of_blocks(spark: Any, fleet: Fleet) -> None:
    blake3 = package("blake3", "pyspark")
    found = load(spark, fleet.healthy, crc32=True, blake3=True, splits=2).select("image", "offset", "crc32", "blake3")
    expected = {
        (fleet.path(name), number * BLOCK, f"{zlib.crc32(block):08x}", blake3.blake3(block).hexdigest())
        for name, content in fleet.contents.items()
        for number, block in enumerate(blocks_of(content))
    }
    assert {tuple(row) for row in found.collect()} == expected


def test_runs_and_types(spark: Any, fleet: Fleet) -> None:
    found = load(spark, fleet.path("leaf.avhdx"), rows="runs")
    assert dict(found.dtypes) == {
        "image": "string",
        "offset": "bigint",
        "length": "bigint",
        "state": "string",
        "layer": "int",
        "file_offset": "bigint",
        "zero": "boolean",
        "error": "string",
    }
    total = found.selectExpr("sum(length)", "count(*)").collect()[0]
    # As many as the disk itself says: the test of the source looks at each.
    with vhdx_mmap.open(fleet.path("leaf.avhdx")) as disk:
        assert tuple(total) == (8 * BLOCK, sum(1 for _ in disk.extents()))


@pytest.fixture
def pushdown(spark: Any) -> Iterator[None]:
    source.register(spark, pushdown=True)
    yield
    spark.conf.unset("spark.sql.python.filterPushdown.enabled")
    source.register(spark)


def test_filters_are_pushed_down(spark: Any, fleet: Fleet, pushdown: None) -> None:
    everything = [row.asDict() for row in load(spark, fleet.healthy, splits=3).collect()]
    cases: list[tuple[str, Callable[[dict[str, Any]], bool]]] = [
        ("NOT zero", lambda row: row["zero"] is False),
        ("zero", lambda row: row["zero"] is True),
        (f"offset >= {BLOCK} AND offset < {4 * BLOCK}", lambda row: BLOCK <= row["offset"] < 4 * BLOCK),
        (f"offset IN (0, {5 * BLOCK})", lambda row: row["offset"] in (0, 5 * BLOCK)),
        ("state = 'ZERO'", lambda row: row["state"] == "ZERO"),
        ("image LIKE '%leaf.avhdx'", lambda row: row["image"].endswith("leaf.avhdx")),
    ]
    for text, means in cases:
        found = load(spark, fleet.healthy, splits=3).where(text)
        rows = sorted((row.asDict() for row in found.collect()), key=place)
        assert rows == sorted((row for row in everything if means(row)), key=place), text
        # Spark has no more to do than to leave out nulls.
        plan = found._jdf.queryExecution().executedPlan().toString()
        filters = [line for line in plan.splitlines() if "Filter (" in line or "Filter is" in line]
        left = " ".join(filters).replace("isnotnull", "")
        assert not any(word in left for word in (">", "<", "=", " IN ", "EndsWith", "NOT")), plan


def test_without_pushdown(spark: Any, fleet: Fleet) -> None:
    found = load(spark, fleet.path("dynamic.vhdx")).where("NOT zero")
    assert sorted(row.offset for row in found.collect()) == [0, BLOCK, 5 * BLOCK]
    assert "NOT zero" in found._jdf.queryExecution().executedPlan().toString()


JOIN = """
    SELECT new.offset FROM {new} AS new JOIN {old} AS old ON new.offset = old.offset
    WHERE new.image LIKE '%/leaf.avhdx' AND old.image LIKE '%/middle.avhdx' AND new.crc32 <> old.crc32
"""


def changed(fleet: Fleet) -> list[int]:
    pairs = zip(blocks_of(fleet.contents["leaf.avhdx"]), blocks_of(fleet.contents["middle.avhdx"]))
    return [number * BLOCK for number, (new, old) in enumerate(pairs) if new != old]


def test_one_view_twice_in_a_query(spark: Any, fleet: Fleet) -> None:
    load(spark, fleet.healthy, crc32=True).createOrReplaceTempView("once")
    found = spark.sql(JOIN.format(new="once", old="once")).collect()
    assert sorted(row.offset for row in found) == changed(fleet) != []


def test_two_views_with_pushdown(spark: Any, fleet: Fleet, pushdown: None) -> None:
    for name in ("new_blocks", "old_blocks"):
        load(spark, fleet.healthy, crc32=True).createOrReplaceTempView(name)
    found = spark.sql(JOIN.format(new="new_blocks", old="old_blocks")).collect()
    assert sorted(row.offset for row in found) == changed(fleet) != []


def test_failures(spark: Any, fleet: Fleet) -> None:
    found = load(spark, str(fleet.folder)).where("error IS NOT NULL").select("image", "error").collect()
    assert {Path(row.image).name: row.error.split(":")[0] for row in found} == fleet.broken
    # The others are complete.
    counted = load(spark, str(fleet.folder)).where("error IS NULL").groupBy("image").count().collect()
    assert {Path(row.image).name: row["count"] for row in counted} == dict.fromkeys(fleet.contents, 8)
    assert load(spark, str(fleet.folder), mode="DROPMALFORMED").where("error IS NOT NULL").count() == 0
    failed = package("pyspark.errors", "pyspark").PySparkException
    with pytest.raises(failed, match="ParentNotFound|CorruptError|NotVhdxError"):
        load(spark, str(fleet.folder), mode="FAILFAST").count()
    with pytest.raises(failed, match="unknown value"):
        load(spark, str(fleet.folder), rows="sectors")
    assert load(spark, str(fleet.folder / "nothing*.vhdx")).count() == 0


def test_files(spark: Any) -> None:
    import images

    found = load(spark, str(images.hello()), rows="files").where("kind = 'file'").select("path", "size", "modified")
    assert {row.path: row.size for row in found.collect()} == {
        "/hello.txt": 26,
        "/docs/fox.txt": 45,
        "/docs/numbers.txt": 108894,
    }


def test_digests_of_disks(spark: Any, fleet: Fleet) -> None:
    """The cluster, one machine, and programs of others."""
    blake3 = package("blake3", "pyspark")
    found = source.hash(spark, fleet.healthy, "crc32", "blake3", splits=5)
    expected = {
        fleet.path(name): {"crc32": f"{zlib.crc32(content):08x}", "blake3": blake3.blake3(content).hexdigest()}
        for name, content in fleet.contents.items()
    }
    assert found == expected
    for path, digests in expected.items():
        assert vhdx_mmap.open(path).hash("crc32", "blake3") == digests
    with pytest.raises(vhdx_mmap.VhdxError):
        source.hash(spark, str(fleet.folder))


def executor() -> int:
    """The process of the executor that runs this code: a parent of the worker."""
    process = os.getpid()
    while process > 1:
        with open(f"/proc/{process}/cmdline", "rb") as file:
            if b"CoarseGrainedExecutorBackend" in file.read():
                return process
        with open(f"/proc/{process}/stat", "rb") as file:
            process = int(file.read().rpartition(b")")[2].split()[1])
    raise RuntimeError("not in an executor")


def kill_once(marker: Path) -> None:
    """Kill the executor of this process, if that was not done yet."""
    victim = executor()
    try:
        with marker.open("x") as file:
            file.write(str(victim))
    except FileExistsError:
        return
    os.kill(victim, signal.SIGKILL)
    # Nothing of this process counts any more.
    os.kill(os.getpid(), signal.SIGKILL)


def is_gone(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] == b"Z"
    except FileNotFoundError:
        return True


def killing_source(marker: Path) -> Any:
    """A data source that kills its executor in the middle of a split, once."""

    class Reader(source._Reader):  # type: ignore[misc, name-defined]
        def read(self, partition: Any) -> Iterator[Any]:
            for number, batch in enumerate(super().read(partition)):
                yield batch
                if partition.jobs[0].split.index == 3 and number == 0:
                    kill_once(marker)

    class Killing(source.VhdxDataSource):  # type: ignore[misc, name-defined]
        @classmethod
        def name(cls) -> str:
            return "vhdx-killing"

        def reader(self, schema: Any) -> Any:
            return Reader(source._Options.of(self.options))

    return Killing


def test_a_killed_executor_while_it_reads(spark: Any, fleet: Fleet, tmp_path: Path) -> None:
    marker = tmp_path / "killed"
    spark.dataSource.register(killing_source(marker))
    path, content = fleet.path("leaf.avhdx"), fleet.contents["leaf.avhdx"]
    found = spark.read.format("vhdx-killing").options(payload=True, splits=4).load(path)
    rows = found.selectExpr("offset", "sha2(payload, 256) AS digest").groupBy("offset", "digest").count().collect()
    assert is_gone(int(marker.read_text()))
    expected = {
        (number * BLOCK, hashlib.sha256(block).hexdigest() if any(block) else None)
        for number, block in enumerate(blocks_of(content))
    }
    assert {(row.offset, row.digest) for row in rows} == expected and [row["count"] for row in rows] == [1] * 8


def test_a_killed_executor_with_results_of_others(spark: Any, fleet: Fleet, tmp_path: Path) -> None:
    """The second stage kills an executor that has results of the first one: they are computed again."""
    marker = tmp_path / "killed"

    def kill_and_pass(batches: Iterator[Any]) -> Iterator[Any]:
        kill_once(marker)
        yield from batches

    found = load(spark, fleet.healthy, crc32=True, splits=3).select("image", "offset", "crc32")
    killed = found.repartition(4, "offset").mapInArrow(kill_and_pass, "image string, offset long, crc32 string")
    expected = sorted(
        (fleet.path(name), number * BLOCK, f"{zlib.crc32(block):08x}")
        for name, content in fleet.contents.items()
        for number, block in enumerate(blocks_of(content))
    )
    assert sorted(tuple(row) for row in killed.collect()) == expected
    assert is_gone(int(marker.read_text()))
