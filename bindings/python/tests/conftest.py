"""What the tests share."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import images
import pytest

Need = Callable[[str, bool], None]


def need(word: str, is_there: bool) -> None:
    """Skip a test that needs something from outside, unless VHDX_REQUIRE says that it must not be skipped."""
    if is_there:
        return
    required = os.environ.get("VHDX_REQUIRE", "").split(",")
    if word in required or "all" in required:
        pytest.fail(f"{word} is required by VHDX_REQUIRE, and missing")
    pytest.skip(f"needs {word}")


def package(name: str) -> Any:
    """A package that is optional for users."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        need("python-packages", False)
        raise


def tool(word: str, name: str) -> str:
    """The path of a program."""
    path = shutil.which(name)
    need(word, path is not None)
    assert path is not None
    return path


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
