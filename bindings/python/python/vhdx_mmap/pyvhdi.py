"""The interface of `pyvhdi`, the Python module of libvhdi, over this package, for VHDX images.

    from vhdx_mmap import pyvhdi

or, for programs that import it by themselves, before they do: `sys.modules["pyvhdi"] = vhdx_mmap.pyvhdi`.

What differs: dirty logs are replayed, and reading what only a parent has without `set_parent` is an error instead of
zeros. Images in the older format VHD are refused. As there, all errors are `OSError`; `__cause__` has the exception of
this package.
"""

from __future__ import annotations

import builtins
import os
import threading
from typing import Any

from . import _disk
from ._native import __version__
from ._sources import ParentRequest
from .errors import VhdxError

__all__ = [
    "check_file_signature",
    "check_file_signature_file_object",
    "disk_types",
    "file",
    "get_version",
    "open",
    "open_file_object",
]

_SIGNATURE = b"vhdxfile"


class disk_types:
    """Types of disks."""

    FIXED = 2
    DYNAMIC = 3
    DIFFERENTIAL = 4


_DISK_TYPES = {"fixed": disk_types.FIXED, "dynamic": disk_types.DYNAMIC, "differencing": disk_types.DIFFERENTIAL}


def get_version() -> str:
    """The version of this package."""
    return __version__


def _check_mode(mode: str | None) -> None:
    if mode not in (None, "", "r"):
        raise ValueError(f"unsupported mode: {mode}")


class file:
    """An image. Its parent is passed to `set_parent`, as an image of its own."""

    def __init__(self) -> None:
        self._source: Any = None
        self._disk: _disk.Disk | None = None
        self._parent: file | None = None
        self._position = 0
        self._lock = threading.RLock()

    def _opened(self) -> _disk.Disk:
        if self._disk is None:
            raise OSError("the file is not open")
        return self._disk

    def _find(self, request: ParentRequest) -> Any:
        child: file | None = self
        for _ in range(request.layer + 1):
            child = child._parent if child is not None else None
        return None if child is None else child._source

    def _open(self, source: Any) -> None:
        with self._lock:
            if self._disk is not None:
                raise OSError("the file is open already")
            try:
                self._disk = _disk.Disk(source, parents="none")
            except VhdxError as error:
                raise OSError(f"unable to open file: {error}") from error
            self._source, self._parent, self._position = source, None, 0

    def open(self, filename: str | os.PathLike[str], mode: str | None = "r") -> None:
        """Open an image by its path. Other files are not opened."""
        _check_mode(mode)
        if not isinstance(filename, (str, os.PathLike)):
            raise TypeError("unsupported type of a file name")
        self._open(filename)

    def open_file_object(self, file_object: Any, mode: str | None = "r") -> None:
        """Open an image by an object with `read` and `seek`."""
        _check_mode(mode)
        if not hasattr(file_object, "read") or not hasattr(file_object, "seek"):
            raise TypeError("unsupported file object - missing read or seek attribute")
        self._open(file_object)

    def close(self) -> None:
        """Close the image. The file object stays open."""
        with self._lock:
            self._opened().close()
            self._disk = self._source = self._parent = None
            self._position = 0

    def set_parent(self, parent_file: file) -> None:
        """Set the parent, which must have the identity that this image stores."""
        if not isinstance(parent_file, file):
            raise TypeError("argument 1 must be a file")
        with self._lock:
            disk = self._opened()
            parent_file._opened()
            before, self._parent = self._parent, parent_file
            try:
                self._disk = _disk.Disk(self._source, parents=self._find)
            except VhdxError as error:
                self._parent = before
                raise OSError(f"unable to set parent: {error}") from error
            disk.close()

    def signal_abort(self) -> None:
        """Accepted, and without effect: each read is short."""

    # Reading.

    def read_buffer_at_offset(self, size: int, offset: int) -> bytes:
        """Read at most `size` bytes at an offset; none past the end."""
        with self._lock:
            disk = self._opened()
            if size < 0:
                raise ValueError("invalid read size value less than zero")
            if offset < 0:
                raise ValueError("invalid read offset value less than zero")
            try:
                data = disk.pread(size, offset)
            except VhdxError as error:
                raise OSError(f"unable to read data: {error}") from error
            self._position = offset + len(data)
            return data

    def read_buffer(self, size: int | None = None) -> bytes:
        """Read at most `size` bytes from the position on, or all that is left."""
        with self._lock:
            rest = max(self._opened().size - self._position, 0)
            if size is None:
                size = rest
            if not isinstance(size, int):
                raise TypeError("unsupported integer object type")
            position = self._position
            data = self.read_buffer_at_offset(min(size, rest), position)
            self._position = position + len(data)
            return data

    read = read_buffer

    def seek_offset(self, offset: int, whence: int = os.SEEK_SET) -> None:
        """Move the position: also past the end."""
        with self._lock:
            bases = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._opened().size}
            if whence not in bases:
                raise OSError(f"unsupported whence: {whence}")
            position = bases[whence] + offset
            if position < 0:
                raise OSError("invalid offset value out of bounds")
            self._position = position

    seek = seek_offset

    def get_offset(self) -> int:
        """The position."""
        self._opened()
        return self._position

    tell = get_offset

    # What it is.

    def get_format_version(self) -> str:
        """The version of the format."""
        self._opened()
        return "1.0"

    def get_disk_type(self) -> int:
        """One of `disk_types`."""
        return _DISK_TYPES[self._opened().kind]

    def get_media_size(self) -> int:
        """Size of the disk, in bytes."""
        return self._opened().size

    def get_bytes_per_sector(self) -> int:
        """Size of a sector, in bytes."""
        return self._opened().sector_size

    def get_identifier(self) -> str:
        """The identity of the image."""
        return self._opened().identity

    def get_parent_identifier(self) -> str | None:
        """The identity of the parent; none without a parent."""
        try:
            return self._opened().parent_identity
        except VhdxError as error:
            raise OSError(f"unable to retrieve parent identifier: {error}") from error

    def get_parent_filename(self) -> str | None:
        """The name of the parent as the image stores it; none without a parent."""
        disk = self._opened()
        try:
            locator = disk.locator
        except VhdxError as error:
            raise OSError(f"unable to retrieve parent filename: {error}") from error
        for key in ("absolute_win32_path", "volume_path", "relative_path"):
            if locator.get(key):
                return locator[key]
        return None

    format_version = property(get_format_version)
    disk_type = property(get_disk_type)
    media_size = property(get_media_size)
    bytes_per_sector = property(get_bytes_per_sector)
    identifier = property(get_identifier)
    parent_identifier = property(get_parent_identifier)
    parent_filename = property(get_parent_filename)


def open(filename: str | os.PathLike[str], mode: str | None = "r") -> file:
    """Open an image by its path."""
    opened = file()
    opened.open(filename, mode)
    return opened


def open_file_object(file_object: Any, mode: str | None = "r") -> file:
    """Open an image by an object with `read` and `seek`."""
    opened = file()
    opened.open_file_object(file_object, mode)
    return opened


def check_file_signature(filename: str | os.PathLike[str]) -> bool:
    """Whether a file begins as images do."""
    with builtins.open(filename, "rb") as opened:
        return opened.read(len(_SIGNATURE)) == _SIGNATURE


def check_file_signature_file_object(file_object: Any) -> bool:
    """Whether a file object begins as images do."""
    file_object.seek(0)
    return bool(file_object.read(len(_SIGNATURE)) == _SIGNATURE)
