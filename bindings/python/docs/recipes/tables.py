"""Blocks as a table: how much of a disk is there twice, in SQL over the mapping."""

import duckdb
import polars
import pyarrow
import vhdx_mmap

with vhdx_mmap.open("disk.vhdx", mmap=True) as disk:
    blocks = disk.blocks(payload=True)
    print(duckdb.sql("SELECT count(payload) / count(DISTINCT md5(payload)) AS ratio FROM blocks"))
    print(polars.DataFrame(disk.extents()).group_by("kind").agg(polars.col("length").sum()))
    print(pyarrow.table(disk.blocks()).num_rows, "blocks")
