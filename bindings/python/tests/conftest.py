"""What the tests share."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import images
import pytest
from needs import need, package, tool

__all__ = ["need", "package", "run_python", "tool"]


def run_python(script: str, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a script in an interpreter of its own, which must not be killed. Returns what it printed."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("images")


@pytest.fixture(scope="session")
def dynamic(folder: Path) -> tuple[Path, bytes]:
    image = images.dynamic()
    return image.write(folder / "dynamic.vhdx"), image.content()


@pytest.fixture(scope="session")
def dirty(folder: Path) -> tuple[Path, bytes]:
    image = images.dirty()
    return image.write(folder / "dirty.vhdx"), image.content()


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    path, image = images.write_chain(tmp_path_factory.mktemp("chain"))
    return path, image.content()


@pytest.fixture(params=["dynamic", "dirty", "chain"])
def any_image(request: pytest.FixtureRequest) -> tuple[Path, bytes]:
    found: tuple[Path, bytes] = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def copy(dynamic: tuple[Path, bytes], tmp_path: Path) -> tuple[Path, bytes]:
    """An image that a test may change."""
    path = tmp_path / "copy.vhdx"
    shutil.copy(dynamic[0], path)
    return path, dynamic[1]
