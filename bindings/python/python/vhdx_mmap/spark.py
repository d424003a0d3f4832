"""A data source of Spark 4 (Python data source): disks as tables.

    import vhdx_mmap.spark

    vhdx_mmap.spark.register(spark)
    blocks = spark.read.format("vhdx").option("blake3", True).load("/images")

The option `rows` says what a row is: `blocks` (the default) or `runs` of a disk, `images`, `files` in the disks, or
`shares` of digests. A failure is a row, too: its column `error` has the exception, and columns that are not known are
null.

| option | meaning |
|---|---|
| `rows` | `blocks`, `runs`, `images`, `files` or `shares` |
| `mode` | `PERMISSIVE` (default): failures are rows; `FAILFAST`: they end the job; `DROPMALFORMED`: they are left out |
| `splitSize`, `splits` | bytes of data in a split (1 GiB by default), or the number of splits of each image |
| `parents` | `beside` (default), `none`, or a folder or file |
| `strictness` | `strict` (default) or `salvage`: what is left of damaged images; lost ranges are failures |
| `recursiveFileLookup` | whether folders in folders are searched |
| `crc32`, `blake3`, `payload` | of `blocks`: columns with digests, and with the bytes; Spark reads all there are |
| `zeros` | of `blocks` and `runs`: `false` leaves out what is zeros that are in no file |
| `offset`, `length` | of `blocks` and `runs`: only rows that begin in this range of the disk, in bytes |
| `check` | of `images`: columns with the report of `Disk.check` |
| `algorithms` | of `shares`: `blake3` (default), `crc32`, or both with a comma |

Paths are files, folders (of which all `*.vhdx` and `*.avhdx` are taken), patterns, or URLs of fsspec. All executors
must reach them by the same names. The driver opens each image to plan splits of it by their data; an executor opens
the files of its split again, and a file that was changed meanwhile is a failure.
"""

from __future__ import annotations

import datetime
import importlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

try:
    pa: Any = importlib.import_module("pyarrow")
    pc: Any = importlib.import_module("pyarrow.compute")
    datasource: Any = importlib.import_module("pyspark.sql.datasource")
except ImportError as error:
    raise ImportError("vhdx_mmap.spark needs PySpark 4 and pyarrow: pip install 'pyspark>=4' pyarrow") from error

from . import _native
from ._disk import Disk, Strictness
from ._files import Times, Volume
from ._fleet import FAILURES, Job, Opening, expand, plan_all, text_of
from ._plan import merge

__all__ = ["VhdxDataSource", "VhdxPushdownDataSource", "digests", "hash", "register"]

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

# What opening an image is worth, in bytes of data, when splits are put together into tasks.
OPEN_COST = 4 * MIB
# Images of a task, if a row is an image.
IMAGES_OF_A_TASK = 32
# Bytes of payload in a batch, but for a single row.
PAYLOAD_OF_A_BATCH = 32 * MIB
# Rows of a batch whose bytes are read.
ROWS_OF_A_BATCH = 1024
# State of a block whose layer has none, in a nibble.
NO_STATE = 15

DDL = {
    "blocks": "image string, offset long, length long, state string, layer int, file_offset long, zero boolean",
    "images": (
        "image string, kind string, size long, file_size long, block_size int, sector_size int, log_state string, "
        "layers int, parent string, identity string, parent_identity string, allocated_blocks long, blocks long, "
        "in_use boolean, warnings int"
    ),
    "files": (
        "image string, volume int, volume_offset long, file_system string, path string, kind string, size long, "
        "allocated long, mode int, owner long, group long, links long, modified timestamp, accessed timestamp, "
        "changed timestamp, created timestamp"
    ),
    "shares": "image string, index int, count int, offset long, length long, data_bytes long, share string",
}
DDL["runs"] = DDL["blocks"]

OPTIONS = {
    "path", "paths", "rows", "mode", "splitsize", "splits", "parents", "strictness", "recursivefilelookup", "crc32",
    "blake3", "payload", "zeros", "offset", "length", "check", "algorithms",
}  # fmt: skip
COLUMNS = {"blocks": ("crc32", "blake3", "payload"), "images": ("check",)}
RANGES = ("offset", "length", "zeros")


def _choice(options: Mapping[str, str], name: str, values: tuple[str, ...]) -> str:
    found = str(options.get(name, values[0]))
    for value in values:
        if found.lower() == value.lower():
            return value
    raise ValueError(f"{name}: unknown value (found {found!r}, expected one of {', '.join(values)})")


def _flag(options: Mapping[str, str], name: str, default: bool = False) -> bool:
    return _choice(options, name, ("true", "false") if default else ("false", "true")) == "true"


def _number(options: Mapping[str, str], name: str, least: int = 1) -> int | None:
    found = options.get(name.lower())
    if found is None:
        return None
    if not str(found).isdecimal() or int(found) < least:
        raise ValueError(f"{name}: not a number (found {found!r}, expected at least {least})")
    return int(found)


@dataclass(frozen=True)
class _Options:
    """What a caller of Spark asks for."""

    paths: list[str]
    rows: str
    mode: str
    split_size: int | None
    splits: int | None
    opening: Opening
    recursive: bool
    digests: list[str]
    payload: bool
    zeros: bool
    begin: int
    end: int | None
    check: bool
    algorithms: list[str]

    @classmethod
    def of(cls, options: Mapping[str, str]) -> _Options:
        options = {name.lower(): value for name, value in options.items()}
        unknown = sorted(set(options) - OPTIONS)
        if unknown:
            raise ValueError(f"unknown options of the data source vhdx: {', '.join(unknown)}")
        rows = _choice(options, "rows", ("blocks", "runs", "images", "files", "shares"))
        for of, names in COLUMNS.items():
            for name in names:
                if name in options and _flag(options, name) and rows != of:
                    raise ValueError(f"{name}: only for rows={of} (found rows={rows})")
        if rows not in ("blocks", "runs") and any(name in options for name in RANGES):
            name = next(name for name in RANGES if name in options)
            raise ValueError(f"{name}: only for rows=blocks and rows=runs (found rows={rows})")
        paths = json.loads(options["paths"]) if "paths" in options else [options["path"]] if "path" in options else []
        if not paths:
            raise ValueError("no path (expected load(PATH), or load([PATH, ...]))")
        splits = _number(options, "splits")
        split_size = _number(options, "splitSize")
        if splits is not None and split_size is not None:
            raise ValueError("splits, splitSize: expected one of them")
        begin, length = _number(options, "offset", 0) or 0, _number(options, "length")
        parents = options.get("parents", "beside")
        is_salvage = _choice(options, "strictness", ("strict", "salvage")) == "salvage"
        strictness: Strictness = "salvage" if is_salvage else "strict"
        algorithms = [name.strip() for name in options.get("algorithms", "blake3").split(",")]
        if not set(algorithms) <= {"blake3", "crc32"}:
            raise ValueError(f"algorithms: cannot be merged (found {', '.join(algorithms)}, expected blake3 or crc32)")
        return cls(
            paths=paths,
            rows=rows,
            mode=_choice(options, "mode", ("PERMISSIVE", "FAILFAST", "DROPMALFORMED")),
            split_size=split_size or (None if splits else GIB),
            splits=splits,
            opening=Opening(parents, strictness),
            recursive=_flag(options, "recursivefilelookup"),
            digests=[name for name in ("crc32", "blake3") if _flag(options, name)],
            payload=_flag(options, "payload"),
            zeros=_flag(options, "zeros", True),
            begin=begin,
            end=None if length is None else begin + length,
            check=_flag(options, "check"),
            algorithms=algorithms,
        )

    @property
    def is_strict(self) -> bool:
        return self.mode == "FAILFAST"

    def ddl(self) -> str:
        """The columns, as Spark writes them."""
        more = [f"{name} string" for name in self.digests]
        more += ["payload binary"] if self.payload else []
        if self.rows == "images":
            more = (["corruptions long", "check string"] if self.check else []) + ["info string"]
        return ", ".join([DDL[self.rows], *more, "error string"])


# Types of the columns, as Spark expects them of pyarrow.
TYPES: dict[str, Any] = {
    "string": pa.string(),
    "long": pa.int64(),
    "int": pa.int32(),
    "boolean": pa.bool_(),
    "binary": pa.binary(),
    "timestamp": pa.timestamp("us", tz="UTC"),
}


def _schema(ddl: str) -> Any:
    columns = [column.split(" ") for column in ddl.split(", ")]
    return pa.schema([(name, TYPES[kind]) for name, kind in columns])


# Filters.


@dataclass(frozen=True)
class _Condition:
    """A condition that is evaluated here instead of by Spark. Null is never true."""

    column: str
    operator: str
    value: Any

    @classmethod
    def of(cls, condition: Any) -> _Condition | None:
        """Translate a filter of Spark, if it is on a column that is known before the content is read."""
        name, negated = type(condition).__name__, False
        if name == "Not":
            condition, negated = condition.child, True
            name = type(condition).__name__
        column = ".".join(getattr(condition, "attribute", ()))
        value = getattr(condition, "value", None)
        operators = {
            "image": ("EqualTo", "In", "StringStartsWith", "StringEndsWith", "StringContains"),
            "offset": ("EqualTo", "In", "GreaterThan", "GreaterThanOrEqual", "LessThan", "LessThanOrEqual"),
            "state": ("EqualTo", "In"),
            "zero": ("EqualTo",),
        }.get(column, ())
        values: list[Any] = list(value or ()) if name == "In" else [value]
        if name not in operators or any(value is None for value in values):
            return None
        if negated:
            # `not zero` is one; of the others, ranges would be turned around.
            if column != "zero":
                return None
            value = not value
        return cls(column, name, tuple(values) if name == "In" else value)

    def holds(self, value: Any) -> bool:
        """Whether a value meets it."""
        tests: dict[str, Callable[[Any, Any], bool]] = {
            "EqualTo": lambda one, other: one == other,
            "In": lambda one, others: one in others,
            "GreaterThan": lambda one, other: one > other,
            "GreaterThanOrEqual": lambda one, other: one >= other,
            "LessThan": lambda one, other: one < other,
            "LessThanOrEqual": lambda one, other: one <= other,
            "StringStartsWith": lambda one, other: one.startswith(other),
            "StringEndsWith": lambda one, other: one.endswith(other),
            "StringContains": lambda one, other: other in one,
        }
        return value is not None and tests[self.operator](value, self.value)

    def mask(self, table: Any) -> Any:
        """Which rows of a table meet it."""
        column = table[self.column]
        if self.operator == "In":
            return pc.is_in(column, value_set=pa.array(self.value, column.type))
        tests = {
            "EqualTo": pc.equal,
            "GreaterThan": pc.greater,
            "GreaterThanOrEqual": pc.greater_equal,
            "LessThan": pc.less,
            "LessThanOrEqual": pc.less_equal,
        }
        return tests[self.operator](column, pa.scalar(self.value, column.type))


@dataclass(frozen=True)
class _Where:
    """Conditions, all of which must be met."""

    conditions: tuple[_Condition, ...] = ()
    """Those that Spark has left to the data source: they apply to failures, too."""
    given: tuple[_Condition, ...] = ()
    """Those of options, which apply to rows of a disk."""

    @classmethod
    def of_options(cls, options: _Options, conditions: tuple[_Condition, ...] = ()) -> _Where:
        """The conditions of options, and others."""
        given = []
        if options.begin:
            given.append(_Condition("offset", "GreaterThanOrEqual", options.begin))
        if options.end is not None:
            given.append(_Condition("offset", "LessThan", options.end))
        if not options.zeros:
            given.append(_Condition("zero", "EqualTo", False))
        return cls(conditions, tuple(given))

    def has_image(self, image: str) -> bool:
        """Whether rows of an image can meet them."""
        return all(one.holds(image) for one in self.conditions if one.column == "image")

    def offsets(self) -> tuple[int, int | None]:
        """The least offset that meets them, and the one after the greatest."""
        begin, ends = 0, []
        for one in (*self.conditions, *self.given):
            if one.column != "offset":
                continue
            least, most = (min(one.value), max(one.value)) if one.operator == "In" else (one.value, one.value)
            if one.operator in ("EqualTo", "In", "GreaterThan", "GreaterThanOrEqual"):
                begin = max(begin, least)
            if one.operator == "LessThan":
                ends.append(most)
            if one.operator in ("EqualTo", "In", "LessThanOrEqual"):
                ends.append(most + 1)
        return begin, min(ends, default=None)

    @property
    def wants_failures(self) -> bool:
        """Whether rows whose other columns are null meet them."""
        return all(one.column == "image" for one in self.conditions)

    def of(self, table: Any) -> Any:
        """The rows of a table that meet them."""
        for one in (*self.conditions, *self.given):
            if one.column != "image":
                table = table.filter(one.mask(table))
        return table


# Rows of blocks and runs.


def _pieces(batch: Any) -> Any:
    """The columns that are needed of a batch of `Disk.blocks` or `Disk.extents`, as numbers that can be merged."""
    kinds, states = batch["kind"], batch["state"]
    layers = batch["layer"].cast(pa.int64())
    columns = {
        "offset": batch["offset"].cast(pa.int64()),
        "length": batch["length"].cast(pa.int64()),
        "file_offset": batch["file_offset"].cast(pa.int64()),
        "zero": pc.equal(kinds.indices, kinds.dictionary.index("zero").as_py()),
        "lost": pc.equal(kinds.indices, kinds.dictionary.index("lost").as_py()),
        # The layer, and in the last four bits the state: the least one is that of the uppermost layer.
        "place": pc.add(pc.multiply(layers, 16), pc.fill_null(states.indices.cast(pa.int64()), NO_STATE)),
    }
    if "block" in batch.schema.names:
        columns["block"] = batch["block"].cast(pa.int64())
    return pa.table(columns)


def _merged(pieces: Any) -> Any:
    """A row for each block: pieces of a block are put together. Only a block that lies in one piece has a place in its
    file."""
    if pc.count_distinct(pieces["block"]).as_py() == pieces.num_rows:
        return pieces
    grouped = pieces.group_by("block", use_threads=False).aggregate(
        [
            ("offset", "min"),
            ("length", "sum"),
            ("file_offset", "first"),
            ("zero", "all"),
            ("lost", "any"),
            ("place", "min"),
            ("block", "count"),
        ]
    )
    is_whole = pc.equal(grouped["block_count"], 1)
    return pa.table(
        {
            "offset": grouped["offset_min"],
            "length": grouped["length_sum"],
            "file_offset": pc.if_else(is_whole, grouped["file_offset_first"], pa.scalar(None, pa.int64())),
            "zero": grouped["zero_all"],
            "lost": grouped["lost_any"],
            "place": grouped["place_min"],
            "block": grouped["block"],
        }
    )


def _blocks(batches: Iterable[Any]) -> Iterator[Any]:
    """Merges pieces of blocks, also those of a block that is in two batches."""
    held = None
    for batch in batches:
        pieces = batch if held is None else pa.concat_tables([held, batch]).combine_chunks()
        last = pieces["block"][-1]
        is_held = pc.equal(pieces["block"], last)
        held = pieces.filter(is_held)
        rest = pieces.slice(0, pieces.num_rows - held.num_rows)
        if rest.num_rows:
            yield _merged(rest)
    if held is not None:
        yield _merged(held)


class _Digests:
    """Computes digests of rows. Those of zeros, which have few lengths, are computed once for each."""

    def __init__(self, disk: Disk, names: list[str]) -> None:
        self._disk, self._names = disk, names
        self._zeros: dict[int, list[str]] = {}

    def of(self, rows: list[dict[str, Any]]) -> list[list[str] | Exception]:
        """The digests of each row, or why it has none."""
        zeros = {row["length"]: row for row in rows if row["zero"] and row["length"] not in self._zeros}
        to_read = [row for row in rows if not row["zero"]] + list(zeros.values())
        ranges = [(row["offset"], row["length"]) for row in to_read]
        computed = dict(zip(ranges, _native.hash_each(self._disk, self._names, ranges, 1)))
        for length, row in zeros.items():
            found = computed[(row["offset"], length)]
            if isinstance(found, Exception):
                raise found
            self._zeros[length] = found
        return [
            self._zeros[row["length"]] if row["zero"] else computed[(row["offset"], row["length"])] for row in rows
        ]


def _chunks(rows: Iterable[dict[str, Any]], has_payload: bool) -> Iterator[list[dict[str, Any]]]:
    """Rows whose bytes are read at once."""
    chunk: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        length = 0 if row["zero"] or not has_payload else row["length"]
        if chunk and (len(chunk) >= ROWS_OF_A_BATCH or size + length > PAYLOAD_OF_A_BATCH):
            yield chunk
            chunk, size = [], 0
        chunk.append(row)
        size += length
    if chunk:
        yield chunk


# Files.


def _time(times: Times, name: str) -> datetime.datetime | None:
    found = getattr(times, name)
    if found is None:
        return None
    try:
        at: datetime.datetime = found.datetime()
    except OverflowError:
        # Years that a datetime does not have.
        return None
    return at


def _printable(name: str) -> str:
    """A name without surrogates, which no column can hold."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


class _Partition(datasource.InputPartition):  # type: ignore[misc]
    """What a task does."""

    def __init__(self, jobs: list[Job]) -> None:
        super().__init__(None)
        self.jobs = jobs


class _Reader(datasource.DataSourceReader):  # type: ignore[misc]
    """Plans the tasks, and reads the rows of one."""

    def __init__(self, options: _Options) -> None:
        self._options = options
        self._where = _Where.of_options(options)

    # On the driver.

    def partitions(self) -> list[Any]:
        options = self._options
        images = [image for image in expand(options.paths, options.recursive) if self._where.has_image(image)]
        if options.rows == "images":
            step = 1 if options.check else IMAGES_OF_A_TASK
            return [
                _Partition([Job(image) for image in images[at : at + step]]) for at in range(0, len(images), step)
            ]
        if options.rows == "files":
            return [_Partition([Job(image)]) for image in images]
        jobs = plan_all(
            images,
            options.opening,
            is_strict=options.is_strict,
            splits=options.splits,
            split_size=options.split_size,
        )
        if options.rows == "shares":
            return [_Partition([job]) for job in jobs]
        return [_Partition(jobs) for jobs in self._grouped(jobs)]

    def _grouped(self, jobs: list[Job]) -> Iterator[list[Job]]:
        """Small splits in one task, but never two splits of one image."""
        begin, end = self._where.offsets()
        group: list[Job] = []
        weight = 0
        for job in jobs:
            split, cost = job.split, OPEN_COST
            if split is not None:
                is_outside = split.offset + split.length <= begin or (end is not None and split.offset >= end)
                if is_outside or not split.length:
                    continue
                # Rows of zeros cost something, too.
                cost += split.data_bytes + split.length // (64 * KIB)
            most = self._options.split_size or GIB
            if group and (weight + cost > most or group[-1].image == job.image):
                yield group
                group, weight = [], 0
            group.append(job)
            weight += cost
        if group:
            yield group

    # On an executor.

    def read(self, partition: Any) -> Iterator[Any]:
        schema = _schema(self._options.ddl())
        if not isinstance(partition, _Partition):
            # What Spark passes if there are no partitions.
            return
        rows = {
            "blocks": self._read_split,
            "runs": self._read_split,
            "images": self._read_image,
            "files": self._read_files,
            "shares": self._read_share,
        }[self._options.rows]
        for job in partition.jobs:
            try:
                if job.error is not None:
                    yield from self._failed(schema, job, job.error)
                    continue
                for columns in rows(job):
                    yield self._batch(schema, job, columns)
            except FAILURES as error:
                if self._options.is_strict:
                    raise
                yield from self._failed(schema, job, text_of(error))

    def _batch(self, schema: Any, job: Job, columns: dict[str, Any]) -> Any:
        """A batch of all columns. Those that are not given are null."""
        length = len(next(iter(columns.values())))
        arrays = []
        for one in schema:
            found = columns.get(one.name)
            if one.name == "image":
                found = pa.repeat(pa.scalar(job.image), length)
            if found is None:
                found = pa.nulls(length, one.type)
            elif isinstance(found, list):
                found = pa.array(found, one.type)
            elif isinstance(found, pa.ChunkedArray):
                found = found.combine_chunks().cast(one.type)
            arrays.append(found)
        batch = pa.RecordBatch.from_arrays(arrays, schema=schema)
        if self._options.mode == "DROPMALFORMED":
            batch = batch.filter(pc.is_null(batch["error"]))
        return batch

    def _failed(self, schema: Any, job: Job, error: str) -> Iterator[Any]:
        if self._options.mode == "PERMISSIVE" and self._where.wants_failures:
            known: dict[str, Any] = {"error": [error]}
            if self._options.rows == "shares" and job.split is not None:
                known |= {"index": [job.split.index], "count": [job.split.count]}
            yield self._batch(schema, job, known)

    def _read_split(self, job: Job) -> Iterator[dict[str, Any]]:
        assert job.split is not None
        with self._options.opening.open_split(job) as disk:
            split, size = job.split, disk.block_size
            begin, before = self._where.offsets()
            end = split.offset + split.length
            if self._options.rows == "blocks":
                # Whole blocks: conditions are on where they begin, and are met below.
                begin = max(split.offset, begin // size * size)
                end = end if before is None else min(end, -(-before // size) * size)
                if begin >= end:
                    return
                found = disk.blocks(begin, end - begin)
                tables: Iterable[Any] = _blocks(
                    _pieces(batch) for batch in pa.RecordBatchReader.from_stream(found) if batch.num_rows
                )
            else:
                # A run that begins before the end is as long as it is.
                found = disk.extents(split.offset, split.length)
                tables = itertools.takewhile(
                    lambda table: before is None or table["offset"][0].as_py() < before,
                    (_pieces(batch) for batch in pa.RecordBatchReader.from_stream(found) if batch.num_rows),
                )
            states = pa.array([*_states(disk), *[None] * (NO_STATE + 1)]).slice(0, NO_STATE + 1)
            for table in tables:
                place = table["place"]
                table = table.append_column("layer", pc.shift_right(place, 4))
                table = table.append_column("state", pc.take(states, pc.bit_wise_and(place, NO_STATE)))
                table = self._where.of(table)
                if table.num_rows:
                    yield from self._with_content(disk, table)

    def _with_content(self, disk: Disk, table: Any) -> Iterator[dict[str, Any]]:
        names, has_payload = self._options.digests, self._options.payload
        lost = text_of(_lost())
        if not names and not has_payload:
            if pc.any(table["lost"]).as_py():
                if self._options.is_strict:
                    raise _lost()
                table = table.append_column(
                    "error", pc.if_else(table["lost"], pa.scalar(lost), pa.scalar(None, pa.string()))
                )
            yield {name: table[name] for name in table.schema.names}
            return
        digests = _Digests(disk, names) if names else None
        for rows in _chunks(table.to_pylist(), has_payload):
            columns: dict[str, list[Any]] = {
                name: [row[name] for row in rows]
                for name in ("offset", "length", "state", "layer", "file_offset", "zero")
            }
            errors: list[str | None] = [None] * len(rows)
            readable = [number for number, row in enumerate(rows) if not row["lost"]]
            for number, row in enumerate(rows):
                if row["lost"]:
                    self._note(errors, number, _lost())
            if digests is not None:
                for name in names:
                    columns[name] = [None] * len(rows)
                for number, found in zip(readable, digests.of([rows[number] for number in readable])):
                    if isinstance(found, Exception):
                        self._note(errors, number, found)
                        continue
                    for name, digest in zip(names, found):
                        columns[name][number] = digest
            if has_payload:
                columns["payload"] = [None] * len(rows)
                for number in readable:
                    row = rows[number]
                    if row["zero"] or errors[number] is not None:
                        continue
                    try:
                        columns["payload"][number] = disk.pread(row["length"], row["offset"])
                    except FAILURES as error:
                        self._note(errors, number, error)
            columns["error"] = errors
            yield columns

    def _note(self, errors: list[str | None], number: int, error: Exception) -> None:
        """Notes the failure of a row."""
        if self._options.is_strict:
            raise error
        errors[number] = text_of(error)

    def _read_image(self, job: Job) -> Iterator[dict[str, Any]]:
        opening, error = self._options.opening, None
        try:
            disk = opening.open(job.image)
        except FAILURES as failed:
            if self._options.is_strict:
                raise
            # What the image itself holds is known without its parents.
            error = text_of(failed)
            disk = opening.open(job.image, parents="none")
        with disk:
            info = disk.info()
            layers = disk.layers
            about = info["format-specific"]["data"]
            # Not known of a table that cannot be read.
            blocks = about.get("blocks") or {}
            states = blocks.get("states")
            present = ("FULLY_PRESENT", "PARTIALLY_PRESENT")
            row: dict[str, Any] = {
                "kind": disk.kind,
                "size": disk.size,
                "file_size": layers[0].file_size,
                "block_size": disk.block_size,
                "sector_size": disk.sector_size,
                "log_state": disk.log_state,
                "layers": len(layers),
                "parent": layers[0].parent,
                "identity": disk.identity,
                "parent_identity": disk.parent_identity,
                "allocated_blocks": None if states is None else sum(states.get(state, 0) for state in present),
                "blocks": blocks.get("total"),
                "in_use": about.get("in-use"),
                "warnings": len(disk.warnings),
                "info": json.dumps(info),
                "error": error,
            }
            if self._options.check:
                report = disk.check(threads=1)
                row |= {"corruptions": report["corruptions"], "check": json.dumps(report)}
        yield {name: [value] for name, value in row.items()}

    def _read_files(self, job: Job) -> Iterator[dict[str, Any]]:
        with self._options.opening.open(job.image) as disk:
            for volume in disk.volumes:
                rows: list[dict[str, Any]] = []
                for row in self._files_of(volume):
                    rows.append(row)
                    if len(rows) >= 8 * ROWS_OF_A_BATCH:
                        yield _columns(rows)
                        rows = []
                if rows:
                    yield _columns(rows)

    def _files_of(self, volume: Volume) -> Iterator[dict[str, Any]]:
        of_volume: dict[str, Any] = {"volume": volume.number, "volume_offset": volume.offset, "error": None}
        try:
            of_volume["file_system"] = volume.kind
            for path, found in volume.scan():
                row = of_volume | {"path": _printable(path)}
                if isinstance(found, Exception):
                    if self._options.is_strict:
                        raise found
                    yield row | {"error": text_of(found)}
                    continue
                owner, group = found.owner or (None, None)
                yield row | {
                    "kind": found.kind,
                    "size": found.size,
                    "allocated": found.allocated,
                    "mode": found.mode,
                    "owner": owner,
                    "group": group,
                    "links": found.links,
                    **{name: _time(found.times, name) for name in ("modified", "accessed", "changed", "created")},
                }
        except FAILURES as error:
            if self._options.is_strict:
                raise
            yield of_volume | {"error": text_of(error)}

    def _read_share(self, job: Job) -> Iterator[dict[str, Any]]:
        split = job.split
        assert split is not None
        with self._options.opening.open_split(job) as disk:
            share = split.hash(*self._options.algorithms, disk=disk, threads=1)
        yield {
            "index": [split.index],
            "count": [split.count],
            "offset": [split.offset],
            "length": [split.length],
            "data_bytes": [split.data_bytes],
            "share": [json.dumps(share)],
        }


def _states(disk: Disk) -> list[str]:
    """The names of the states, in the order of the numbers that columns have."""
    for batch in pa.RecordBatchReader.from_stream(disk.extents(0, disk.block_size)):
        names: list[str] = batch["state"].dictionary.to_pylist()
        return names
    return []


def _lost() -> Exception:
    from .errors import LostDataError

    return LostDataError("the range, or a part of it, cannot be read")


def _columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


class _PushdownReader(_Reader):
    """Evaluates filters on columns that are known before the content is read, if the rows are blocks or runs."""

    def pushFilters(self, filters: list[Any]) -> Iterable[Any]:
        left, met = [], []
        for one in filters:
            condition = _Condition.of(one)
            # A file of another image is not even opened; the other columns are those of blocks.
            is_known = condition is not None and (
                self._options.rows in ("blocks", "runs") or condition.column == "image"
            )
            if condition is None or not is_known:
                left.append(one)
            else:
                met.append(condition)
        self._where = _Where.of_options(self._options, tuple(met))
        return left


class VhdxDataSource(datasource.DataSource):  # type: ignore[misc]
    """The data source `vhdx`: pass it to `spark.dataSource.register`."""

    @classmethod
    def name(cls) -> str:
        """The name for `spark.read.format`."""
        return "vhdx"

    def schema(self) -> str:
        """The columns, which depend on the options."""
        return _Options.of(self.options).ddl()

    def reader(self, schema: Any) -> Any:
        """What plans and reads."""
        return _Reader(_Options.of(self.options))


class VhdxPushdownDataSource(VhdxDataSource):
    """As `VhdxDataSource`, and evaluates filters on `image`, `offset`, `state` and `zero` itself: other images are not
    opened, other ranges not read, and zeros are left out. It needs Spark 4.1 and the setting
    `spark.sql.python.filterPushdown.enabled`; without that, Spark refuses it.

    Do not use one `DataFrame` or view twice in a query then, with different filters, as in a self-join: in Spark 4.3
    and before, all scans of it get the filters of the last one, and rows are lost. Load it twice instead."""

    def reader(self, schema: Any) -> Any:
        """What plans and reads."""
        return _PushdownReader(_Options.of(self.options))


def register(spark: Any, *, pushdown: bool = False) -> None:
    """Register the data source `vhdx` in a session.

    Args:
        spark: The session.
        pushdown: Whether filters are pushed down: see `VhdxPushdownDataSource` for what it asks of you. Without it, the
            options `zeros`, `offset` and `length` and the choice of paths have the same effect."""
    if pushdown:
        spark.conf.set("spark.sql.python.filterPushdown.enabled", "true")
    spark.dataSource.register(VhdxPushdownDataSource if pushdown else VhdxDataSource)


def digests(shares: Iterable[Any]) -> dict[str, dict[str, str]]:
    """Merge rows of `rows=shares`, as `DataFrame.collect` returns them: the digests of each disk, by the path of its
    image and the name of the algorithm. They are those of one machine.

    Raises:
        VhdxError: A row is a failure.
        ManifestError: A share is missing, or the image has changed between two of them.
    """
    by_image: dict[str, list[Any]] = {}
    for row in shares:
        if row["error"] is not None:
            from .errors import VhdxError

            raise VhdxError(f"{row['image']}: {row['error']}")
        by_image.setdefault(row["image"], []).append(json.loads(row["share"]))
    return {image: merge(found) for image, found in by_image.items()}


def hash(spark: Any, paths: str | list[str], *algorithms: str, **options: Any) -> dict[str, dict[str, str]]:
    """Digests of disks, computed on the cluster: `blake3` by default, or `crc32`, or both. `options` are those of the
    data source. Returns and raises what `digests` does."""
    names = ",".join(algorithms) or "blake3"
    found = spark.read.format("vhdx").options(rows="shares", algorithms=names, **options).load(paths)
    return digests(found.collect())
