"""Refuses sub-interpreters: the native part has state that belongs to one interpreter."""

from __future__ import annotations

import importlib
from typing import Any


def _number(interpreter: Any) -> int:
    # A number in 3.11 and 3.12, a tuple that begins with one since 3.13.
    return int(interpreter[0] if isinstance(interpreter, tuple) else interpreter)


def refuse_sub_interpreters() -> None:
    """Raise ImportError unless this is the main interpreter of the process."""
    for name in ("_interpreters", "_xxsubinterpreters"):
        try:
            interpreters = importlib.import_module(name)
        except ImportError:
            continue
        if _number(interpreters.get_current()) != _number(interpreters.get_main()):
            raise ImportError("vhdx_mmap does not support sub-interpreters: import it in the main interpreter")
        return
