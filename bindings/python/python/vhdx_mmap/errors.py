"""Exceptions: all of them are a `VhdxError`, and an `OSError` or `ValueError` where they are one."""

from __future__ import annotations

from typing import Any

__all__ = [
    "ChangedError",
    "CorruptError",
    "DirtyLog",
    "InvalidRequestError",
    "LinkLoopError",
    "LostDataError",
    "ManifestError",
    "NotLendable",
    "NotVhdxError",
    "OpenError",
    "ParentMismatch",
    "ParentNotFound",
    "PathIsDirectoryError",
    "PathNotDirectoryError",
    "PathNotFoundError",
    "PathPermissionError",
    "ReadError",
    "UnsupportedError",
    "VhdxError",
]


class VhdxError(Exception):
    """What is wrong with an image, a disk or a request, and where.

    Attributes:
        structure: The structure that the error is about, as MS-VHDX names it.
        offset: File offset of the structure, or of the field in it that is wrong, in bytes.
        rule: Code of the rule that is broken, such as `V68`; the same in all versions.
        found: The value that was found, if there is one.
        expected: The value, or a text about the values, that was expected.
        layer: The layer of the chain: 0 is the opened image, 1 its parent.
        file: Path of the file, if that is a parent.
    """

    structure: str | None
    offset: int | None
    rule: str | None
    found: int | str | None
    expected: int | str | None
    layer: int
    file: str | None

    def __init__(
        self,
        message: str = "",
        *,
        structure: str | None = None,
        offset: int | None = None,
        rule: str | None = None,
        found: int | str | None = None,
        expected: int | str | None = None,
        layer: int = 0,
        file: object = None,
        errno: int | None = None,
    ) -> None:
        super().__init__(message)
        self.structure = structure
        self.offset = offset
        self.rule = rule
        self.found = found
        self.expected = expected
        self.layer = layer
        self.file = None if file is None else str(file)
        if isinstance(self, OSError):
            setattr(self, "errno", errno)

    def __reduce__(self) -> tuple[Any, ...]:
        attributes = {
            name: getattr(self, name)
            for name in ("structure", "offset", "rule", "found", "expected", "layer", "file")
        }
        if isinstance(self, OSError):
            attributes["errno"] = getattr(self, "errno", None)
        return (_restore, (type(self), str(self), attributes))


def _restore(kind: type[VhdxError], message: str, attributes: dict[str, Any]) -> VhdxError:
    return kind(message, **attributes)


class CorruptError(VhdxError):
    """The image, or a file system in it, violates its format: what it says there cannot be trusted."""


class NotVhdxError(VhdxError):
    """The file is not a VHDX image; `found` says what it looks like."""


class UnsupportedError(VhdxError):
    """The image may be valid, but needs something that is not supported."""


class DirtyLog(VhdxError):
    """The log holds changes that are not in the file yet, and `log="refuse"` was requested."""


class ParentNotFound(VhdxError):
    """No parent was found, or no search was allowed."""


class ParentMismatch(VhdxError):
    """A file was found for a parent, but it has another identity than the child stores (`expected`)."""


class NotLendable(VhdxError):
    """Bytes were asked for in place, but the disk is neither mapped nor in memory: open it with `mmap=True`."""


class InvalidRequestError(VhdxError, ValueError):
    """The request is for something that does not exist, such as bytes past the end of the disk."""


class ManifestError(VhdxError, ValueError):
    """A manifest cannot be used: it is truncated, changed, or of another disk."""


class ReadError(VhdxError, OSError):
    """Reading a file failed; the cause is the exception of a file object, if there is one."""


class LostDataError(VhdxError, OSError):
    """A file has become shorter, or its medium failed, since it was opened: bytes of it are lost."""


class ChangedError(VhdxError, OSError):
    """A file was changed while it was read, or it is not the one that the fingerprint is of."""


class OpenError(VhdxError, OSError):
    """The file cannot be opened."""


class PathNotFoundError(OpenError, FileNotFoundError):
    """There is no such image, or no such file in the disk."""


class PathPermissionError(OpenError, PermissionError):
    """The file may not be read."""


class PathNotDirectoryError(OpenError, NotADirectoryError):
    """A part of a path in the disk is not a directory."""


class PathIsDirectoryError(OpenError, IsADirectoryError):
    """A path in the disk leads to a directory, or to something else that is not a regular file."""


class LinkLoopError(OpenError):
    """Symbolic links in the disk lead to one another."""
