from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import vhdx_mmap
from conftest import package
from images import BLOCK


def rows_of(rows: Any) -> list[tuple[Any, ...]]:
    return [(row.offset, row.length, row.kind, row.layer, row.state, row.file_offset) for row in rows]


COLUMNS = ["offset", "length", "kind", "layer", "state", "file_offset"]


def test_pyarrow(any_image: tuple[Path, bytes]) -> None:
    pyarrow = package("pyarrow")
    disk = vhdx_mmap.open(any_image[0])
    table = pyarrow.table(disk.extents())
    table.validate(full=True)
    assert table.column_names == COLUMNS
    assert [tuple(row.values()) for row in table.to_pylist()] == rows_of(disk.extents())
    blocks = pyarrow.table(disk.blocks())
    assert blocks["block"].to_pylist() == [row.block for row in disk.blocks()]
    assert pyarrow.schema(disk.blocks()) == blocks.schema
    part = pyarrow.table(disk.extents(BLOCK, BLOCK))
    assert part["offset"][0].as_py() == BLOCK and sum(part["length"].to_pylist()) == BLOCK


def test_polars_duckdb_pandas(any_image: tuple[Path, bytes]) -> None:
    polars, duckdb, pandas = package("polars"), package("duckdb"), package("pandas")
    disk = vhdx_mmap.open(any_image[0])
    expected = rows_of(disk.extents())
    assert polars.DataFrame(disk.extents()).rows() == expected
    rows = disk.extents()
    assert duckdb.sql("SELECT * FROM rows").fetchall() == expected
    assert pandas.DataFrame.from_arrow(disk.extents())["offset"].tolist() == [row[0] for row in expected]


def test_payload_lies_in_the_mapping(any_image: tuple[Path, bytes]) -> None:
    pyarrow, numpy = package("pyarrow"), package("numpy")
    path, content = any_image
    disk = vhdx_mmap.open(path, mmap=True)
    table = pyarrow.table(disk.blocks(payload=True))
    table.validate(full=True)
    for row in table.to_pylist():
        expected = content[row["offset"] : row["offset"] + row["length"]]
        if row["kind"] in ("data", "log"):
            assert row["payload"] == expected
        else:
            assert row["payload"] is None and not any(expected)
    # Each block is where a view of it is: nothing was copied.
    places = {buffer.address for chunk in table["payload"].chunks for buffer in chunk.buffers()[2:] if buffer}
    for row in disk.blocks():
        view = disk.view(row.offset, row.length)
        if isinstance(view, vhdx_mmap.Data) and row.kind == "data":
            assert numpy.frombuffer(view, "uint8").ctypes.data in places
    disk.close()
    del disk
    assert table["payload"].combine_chunks()[0].as_py() is not None or table["kind"][0].as_py() == "zero"


def test_payload_in_sql(dynamic: tuple[Path, bytes]) -> None:
    duckdb, polars = package("duckdb"), package("polars")
    disk = vhdx_mmap.open(dynamic[0], mmap=True)
    blocks = disk.blocks(payload=True)
    found = duckdb.sql("SELECT block, octet_length(payload), md5(payload) FROM blocks WHERE payload IS NOT NULL")
    import hashlib

    expected = [
        (block, BLOCK, hashlib.md5(dynamic[1][block * BLOCK : (block + 1) * BLOCK]).hexdigest()) for block in (0, 1, 5)
    ]
    assert found.fetchall() == expected
    frame = polars.DataFrame(disk.blocks(payload=True))
    assert frame["payload"].drop_nulls().to_list() == [
        dynamic[1][block * BLOCK : (block + 1) * BLOCK] for block in (0, 1, 5)
    ]


def test_changes_and_manifests(chain: tuple[Path, bytes]) -> None:
    pyarrow = package("pyarrow")
    disk = vhdx_mmap.open(chain[0])
    changes = disk.diff()
    assert [tuple(row.values()) for row in pyarrow.table(changes).to_pylist()] == list(changes)
    manifest = disk.manifest("md5")
    table = pyarrow.table(manifest)
    assert table["md5"].to_pylist() == [line["md5"] for line in manifest.lines]
    assert pyarrow.schema(manifest) == table.schema and pyarrow.schema(changes).names == ["offset", "length", "zero"]


def test_errors_reach_the_reader_of_a_stream(chain: tuple[Path, bytes]) -> None:
    pyarrow = package("pyarrow")
    disk = vhdx_mmap.open(chain[0], parents="none")
    with pytest.raises(Exception, match="parent"):
        pyarrow.table(disk.extents())


def test_streams_over_file_objects(dynamic: tuple[Path, bytes]) -> None:
    pyarrow = package("pyarrow")
    disk = vhdx_mmap.open(dynamic[0].open("rb"))
    assert pyarrow.table(disk.extents()).num_rows == len(list(disk.extents()))
