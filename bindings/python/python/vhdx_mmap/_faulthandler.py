"""Keeps the handler of SIGBUS on top of that of `faulthandler`.

A mapped file that becomes shorter raises SIGBUS where its pages are touched. The library has a handler that makes this
an exception. `faulthandler.enable()`, if it is called later, puts its own handler in front, which ends the process: so
the handler of the library is installed again after it. Signals that are not about mappings still reach `faulthandler`.
"""

from __future__ import annotations

import faulthandler
import functools
from typing import Any

from . import _native

_is_on_top = False


def stay_on_top() -> None:
    """Install the handler of the library, and install it again whenever `faulthandler` is enabled."""
    global _is_on_top
    _native.guard_mappings()
    if _is_on_top:
        return
    _is_on_top = True
    enable = faulthandler.enable

    @functools.wraps(enable)
    def enable_below(*args: Any, **kwargs: Any) -> None:
        enable(*args, **kwargs)
        _native.guard_mappings()

    faulthandler.enable = enable_below
