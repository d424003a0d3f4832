"""What tests need from outside, and how they say that they are skipped."""

from __future__ import annotations

import importlib
import os
import shutil
from typing import Any

import pytest


def need(word: str, is_there: bool) -> None:
    """Skip a test that needs something from outside, unless VHDX_REQUIRE says that it must not be skipped."""
    if is_there:
        return
    required = os.environ.get("VHDX_REQUIRE", "").split(",")
    if word in required or "all" in required:
        pytest.fail(f"{word} is required by VHDX_REQUIRE, and missing")
    pytest.skip(f"needs {word}")


def package(name: str, word: str = "python-packages") -> Any:
    """A package that is optional for users."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        need(word, False)
        raise


def tool(word: str, name: str) -> str:
    """The path of a program."""
    path = shutil.which(name)
    need(word, path is not None)
    assert path is not None
    return path
