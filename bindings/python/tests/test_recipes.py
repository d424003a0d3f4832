"""The recipes of the documentation run, and print what is true."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import images
import pytest
from conftest import package

RECIPES = Path(__file__).parents[1] / "docs" / "recipes"


@pytest.fixture
def run(chain: tuple[Path, bytes], tmp_path: Path) -> Callable[[str], str]:
    shutil.copy(images.hello(), tmp_path / "disk.vhdx")
    for name in ("base.vhdx", "middle.avhdx"):
        shutil.copy(chain[0].parent / name, tmp_path / name)
    shutil.copy(chain[0], tmp_path / "checkpoint.avhdx")

    def run(name: str) -> str:
        command = [sys.executable, str(RECIPES / f"{name}.py")]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_read(run: Callable[[str], str]) -> None:
    out = run("read")
    assert "dynamic 16777216 clean" in out and "ext file system: True" in out and "V36" in out


def test_hash(run: Callable[[str], str]) -> None:
    out = run("hash")
    assert f"sha256 {images.HELLO_SHA256}" in out and out.startswith("0 %") and "100 %" in out


def test_files(run: Callable[[str], str]) -> None:
    out = run("files")
    assert "ext4" in out and "Hello from inside a VHDX.\n" in out and "108894 /docs/numbers.txt" in out


def test_checkpoint(run: Callable[[str], str], tmp_path: Path) -> None:
    out = run("checkpoint")
    assert "['checkpoint.avhdx', 'middle.avhdx', 'base.vhdx']" in out and "6 ranges" in out
    # Block 7, and six sectors of the grandchild; block 2 is zeros now.
    written = (tmp_path / "changes.bin").read_bytes()
    assert written.endswith(images.noise(60, images.BLOCK)) and len(written) == images.BLOCK + 6 * 512


def test_search(run: Callable[[str], str]) -> None:
    package("numpy")
    content = images.hello().read_bytes()
    place = content.index(b"Hello from inside")
    # Block 0 of the disk is at 8 MiB of the file, and block 8 at 9 MiB.
    disk_offset = place - (8 << 20) if place < 9 << 20 else place - (1 << 20)
    assert f"found at {disk_offset}" in run("search")


def test_tables(run: Callable[[str], str]) -> None:
    for name in ("duckdb", "polars", "pyarrow"):
        package(name)
    out = run("tables")
    assert "16 blocks" in out and "1.0" in out and "2097152" in out


def test_verify(run: Callable[[str], str]) -> None:
    assert "same content: True in 16 blocks" in run("verify")


def test_stores(run: Callable[[str], str]) -> None:
    package("fsspec")
    assert "b'Hello from inside a VHDX.\\n'" in run("stores")


def test_workers(run: Callable[[str], str]) -> None:
    content = images.hello().read_bytes()
    first = content[8 << 20 : 9 << 20] + bytes(3 << 20)
    assert f"{zlib.crc32(first):08x}" in run("workers").splitlines()[0]


def test_damage(run: Callable[[str], str], tmp_path: Path) -> None:
    out = run("damage")
    assert out.startswith("CorruptError: damaged.vhdx: ") and "rule V" in out
    # Block 8 of the disk is the last one in the file.
    assert f"{8 << 20} {1 << 20} " in out
    saved = (tmp_path / "saved.raw").read_bytes()
    assert saved[: 1 << 20] == images.hello().read_bytes()[8 << 20 : 9 << 20] and len(saved) == 16 << 20


def test_training(run: Callable[[str], str]) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed: its recipe is not run")
    assert "disk.vhdx 0 1048576" in run("training")


def test_all_recipes_are_tested() -> None:
    names = {path.stem for path in RECIPES.glob("*.py")}
    assert {f"test_{name}" for name in names} <= set(globals()) and len(names) >= 10
