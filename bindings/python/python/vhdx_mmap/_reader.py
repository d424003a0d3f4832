"""Streams."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from typing_extensions import Buffer


class _Source(Protocol):
    def readinto_at(self, buffer: Buffer, offset: int) -> int: ...


class RangeReader(io.RawIOBase):
    """A stream over a range of whatever has `readinto_at`."""

    def __init__(self, source: _Source, start: int, size: int) -> None:
        super().__init__()
        self._source = source
        self._start = start
        self._size = size
        self._position = 0

    @property
    def size(self) -> int:
        """Length of the stream, in bytes."""
        return self._size

    def readable(self) -> bool:
        self._check_open()
        return True

    def seekable(self) -> bool:
        self._check_open()
        return True

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")

    def readinto(self, buffer: Buffer, /) -> int:
        """Fill a buffer from the position on; fewer bytes than it has only at the end."""
        self._check_open()
        rest = max(self._size - self._position, 0)
        with memoryview(buffer) as whole, whole.cast("B") as memory, memory[:rest] as part:
            read = self._source.readinto_at(part, self._start + self._position) if len(part) else 0
        self._position += read
        return read

    def readall(self) -> bytes:
        """Read the rest, at once."""
        rest = bytearray(max(self._size - self._position, 0))
        read = self.readinto(rest)
        return bytes(memoryview(rest)[:read])

    def pread(self, length: int, offset: int) -> bytes:
        """Copy at most `length` bytes from `offset` on, and leave the position as it is."""
        self._check_open()
        if length < 0 or offset < 0:
            raise ValueError("negative length or offset")
        buffer = bytearray(min(length, max(self._size - offset, 0)))
        read = self._source.readinto_at(buffer, self._start + offset) if buffer else 0
        return bytes(memoryview(buffer)[:read])

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move the position: also past the end, where there is nothing to read."""
        self._check_open()
        bases = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}
        if whence not in bases:
            raise ValueError(f"unsupported whence (found {whence}, expected 0, 1 or 2)")
        position = bases[whence] + offset
        if position < 0:
            raise ValueError(f"negative position (found {position})")
        self._position = position
        return position

    def tell(self) -> int:
        """The position."""
        self._check_open()
        return self._position


class DiskReader(RangeReader):
    """A disk, or a range of it, as a stream: `io.BufferedReader(reader)` for small reads.

    The stream has a position, so each thread uses one of its own.
    """
