"""The examples of docs/scaling.md run, and find what is true."""

from __future__ import annotations

import re
import shutil
import zlib
from pathlib import Path
from typing import Any

import images
import pytest
from fleets import Fleet
from images import BLOCK
from needs import package

PAGE = Path(__file__).parents[3] / "docs" / "scaling.md"


def examples(language: str, section: str) -> list[str]:
    """The code of a section, with its language."""
    text = re.split(rf"^## {section}$", PAGE.read_text(), flags=re.MULTILINE)[1].split("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def folder(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "images"
    shutil.copytree(fleet.folder, folder)
    shutil.copy(images.hello(), folder)
    return folder


def run(code: str, folder: Path, **known: Any) -> dict[str, Any]:
    exec(code.replace("/images", str(folder)), known)
    return known


def leaf_digests(fleet: Fleet) -> dict[str, str]:
    content = fleet.contents["leaf.avhdx"]
    return {"crc32": f"{zlib.crc32(content):08x}", "blake3": package("blake3", "pyspark").blake3(content).hexdigest()}


def test_python(fleet: Fleet, folder: Path) -> None:
    (code,) = examples("python", "Python")
    assert run(code, folder)["digests"] == leaf_digests(fleet)


def test_spark(spark: Any, fleet: Fleet, folder: Path) -> None:
    tables, digests = examples("python", "Spark")
    ratio, changed, risk, largest = examples("sql", "Spark")
    run(tables, folder, spark=spark)

    def blocks(content: bytes) -> list[bytes]:
        return [content[at : at + BLOCK] for at in range(0, len(content), BLOCK)]

    hello = images.hello().read_bytes()
    # The blocks that the image of ext4 has in its file.
    with_data = [hello[8 << 20 : 9 << 20], hello[9 << 20 : 10 << 20]]
    # Of the test images, a block that is in no file is zeros, and the others are not.
    with_data += [block for content in fleet.contents.values() for block in blocks(content) if any(block)]
    (found,) = spark.sql(ratio).collect()
    assert found.ratio == len(with_data) / len(set(with_data)) > 1

    pairs = zip(blocks(fleet.contents["leaf.avhdx"]), blocks(fleet.contents["middle.avhdx"]))
    expected = [number * BLOCK for number, (new, old) in enumerate(pairs) if new != old]
    assert [row.offset for row in spark.sql(changed).collect()] == expected and expected

    risks = {Path(row.image).name: row.risk.split(":")[0] for row in spark.sql(risk).collect()}
    assert risks == {
        "base.vhdx": "dirty log",
        "orphan.avhdx": "ParentNotFound",
        "short.vhdx": "corrupt",
        "table.vhdx": "corrupt",
        "text.vhdx": "NotVhdxError",
    }

    # From tests/images/SOURCES.md.
    assert [(row.path, row["size"]) for row in spark.sql(largest).collect()] == [
        ("/docs/numbers.txt", 108894),
        ("/docs/fox.txt", 45),
        ("/hello.txt", 26),
    ]
    known = run("import vhdx_mmap.spark\n" + digests, folder, spark=spark)
    assert known["digests"] == {str(folder / "leaf.avhdx"): leaf_digests(fleet)}


def test_dask(fleet: Fleet, folder: Path) -> None:
    import dask  # pyright: ignore[reportMissingImports]

    (code,) = examples("python", "Dask")
    # Functions of a program that has no file cannot be sent to processes.
    with dask.config.set(scheduler="threads"):
        known = run("import vhdx_mmap\n" + code, folder)
    assert known["digests"] == {"crc32": leaf_digests(fleet)["crc32"]}


def test_tables(fleet: Fleet, folder: Path) -> None:
    for name in ("duckdb", "polars"):
        package(name, "tables")
    (code,) = examples("python", "DuckDB and Polars")
    known = run(code, folder)
    content = fleet.contents["leaf.avhdx"]
    assert sum(length for _, length in known["by_kind"]) == len(content)
    # Blocks 1 to 4 are zeros.
    assert dict(known["by_kind"])["zero"] >= 4 * BLOCK and known["frame"]["length"].sum() == len(content)


def test_every_example_is_run() -> None:
    code = re.findall(r"^```(python|sql)$", PAGE.read_text(), re.MULTILINE)
    assert (code.count("python"), code.count("sql")) == (5, 4)
