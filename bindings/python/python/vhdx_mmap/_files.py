"""Files in a disk."""

from __future__ import annotations

import contextlib
import datetime
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from ._native import DiskBase, VolumeBase
from ._reader import DiskReader, RangeReader
from .errors import PathIsDirectoryError, PathNotDirectoryError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["DirEntry", "File", "Stat", "Times", "Volume", "volumes_of"]

Path = str | bytes | os.PathLike[str]

_READABLE = {"ext2", "ext3", "ext4", "NTFS", "FAT", "FAT32", "exFAT", "XFS", "Btrfs", "EROFS", "squashfs"}


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Exceptions of what a path leads to, which is a number to the file system, get its name."""
    try:
        yield
    except (PathIsDirectoryError, PathNotDirectoryError) as error:
        error.args = (f"{os.fsdecode(path)}: {str(error).rpartition(': ')[2]}",)
        raise


class Time(NamedTuple):
    """A time in UTC."""

    seconds: int
    """Seconds since the beginning of 1970; negative before."""
    nanoseconds: int
    """Nanoseconds after that second."""

    def datetime(self) -> datetime.datetime:
        """The time as a `datetime`, which has microseconds and the years 1 to 9999."""
        epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
        return epoch + datetime.timedelta(seconds=self.seconds, microseconds=self.nanoseconds // 1000)


@dataclass(frozen=True, slots=True)
class Times:
    """Times of a file, as far as its file system has them."""

    modified: Time | None
    """When its content was changed."""
    accessed: Time | None
    """When it was read."""
    changed: Time | None
    """When its metadata were changed."""
    created: Time | None
    """When it was made."""

    @classmethod
    def _of(cls, found: dict[str, Any]) -> Times:
        return cls(**{name: None if time is None else Time(*time) for name, time in found.items()})


@dataclass(frozen=True, slots=True)
class Stat:
    """What a file system says about a file. A value that it does not have is `None`."""

    node: int
    """Number of the inode, or its like."""
    kind: str
    """`file`, `directory`, `link`, `character-device`, `block-device`, `pipe`, `socket` or `other`."""
    size: int
    """Length of the content, in bytes."""
    allocated: int | None
    """What the content takes on the disk, in bytes."""
    mode: int | None
    """Permission bits of Unix."""
    owner: tuple[int, int] | None
    """Numbers of the user and the group."""
    links: int | None
    """Number of names."""
    device: tuple[int, int] | None
    """Major and minor number of a device."""
    dos_attributes: int | None
    """Attributes of DOS and Windows."""
    is_encrypted: bool
    """Whether the content is encrypted, and cannot be read."""
    times: Times
    """Its times."""
    name_times: Times | None
    """The second set of times of NTFS, which programs cannot set."""

    @classmethod
    def _of(cls, found: dict[str, Any]) -> Stat:
        name_times = found.pop("name_times")
        times = Times._of(found.pop("times"))  # pyright: ignore[reportPrivateUsage]
        second = None if name_times is None else Times._of(name_times)  # pyright: ignore[reportPrivateUsage]
        return cls(**found, times=times, name_times=second)

    @property
    def is_dir(self) -> bool:
        """Whether it is a directory."""
        return self.kind == "directory"

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return self.kind == "file"


class DirEntry(NamedTuple):
    """An entry of a directory."""

    name: str
    """Its name; bytes that are no UTF-8 are surrogates, as `os.fsdecode` has them."""
    node: int
    """Number of the inode, or its like."""
    kind: str | None
    """Its kind, if the directory says so."""


class File(RangeReader):
    """The content of a file in a disk, as a stream."""

    def __init__(self, native: Any, name: str) -> None:
        super().__init__(native, 0, native.size)
        self._native = native
        self.name = name

    def runs(self) -> list[tuple[int, int, int | None]]:
        """Where the content lies: offset in the file, length, and offset in the volume, or none for zeros."""
        found: list[tuple[int, int, int | None]] = self._native.runs()
        return found


def _encoded(path: Path) -> bytes:
    path = os.fspath(path)
    return path if isinstance(path, bytes) else path.encode("utf-8", "surrogateescape")


class Volume(VolumeBase):
    """A file system in a disk, read-only. Every call is bounded, whatever the disk holds.

    Paths are absolute or relative to the root; parts are separated by `/`. Links are followed inside of the volume,
    except for the last part where `follow` is false.
    """

    __slots__ = ("_disk", "length", "number", "offset")
    _disk: DiskBase
    number: int | None
    """Number of the partition; none for the whole disk."""
    offset: int
    """Offset in the disk, in bytes."""
    length: int
    """Length in bytes."""

    def __new__(cls, disk: DiskBase, offset: int = 0, length: int | None = None, number: int | None = None) -> Self:
        length = disk.size - offset if length is None else length
        self: Self = super().__new__(cls, disk, offset, length)  # type: ignore[assignment]
        self._disk, self.offset, self.length, self.number = disk, offset, length, number
        return self

    def __repr__(self) -> str:
        where = "the whole disk" if self.number is None else f"partition {self.number}"
        return f"<Volume of {where}, {self.kind}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self._disk, self.offset, self.length, self.number))

    @property
    def kind(self) -> str:
        """Which file system it is, such as `ext4` or `NTFS`."""
        return str(self.about()["kind"])

    @property
    def label(self) -> str:
        """Its label, empty if it has none."""
        return str(self.about()["label"])

    @property
    def uuid(self) -> str:
        """Its UUID or serial number, empty if it has none."""
        return str(self.about()["uuid"])

    def _node(self, path: Path, follow: bool = True) -> int:
        found = _encoded(path)
        if self.about()["ignores_case"]:
            found = found.replace(b"\\", b"/")
        return self.lookup(found, follow)

    def open(self, path: Path, stream: str | None = None) -> File:  # type: ignore[override]
        """Open the content of a file, or one of its streams (NTFS). `io.BufferedReader` makes small reads cheap."""
        with _named(path):
            return File(super().open(self._node(path), stream), os.fsdecode(path))

    def read_bytes(self, path: Path, stream: str | None = None) -> bytes:
        """All of the content of a file."""
        with self.open(path, stream) as file:
            return file.readall()

    def read_text(self, path: Path, encoding: str = "utf-8", errors: str = "strict") -> str:
        """All of the content of a file, as text."""
        return self.read_bytes(path).decode(encoding, errors)

    def stat(self, path: Path, *, follow: bool = True) -> Stat:  # type: ignore[override]
        """What the file system says about a file."""
        return Stat._of(super().stat(self._node(path, follow)))  # pyright: ignore[reportPrivateUsage]

    def exists(self, path: Path) -> bool:
        """Whether there is such a file."""
        try:
            self._node(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def scandir(self, path: Path = "/") -> list[DirEntry]:
        """The entries of a directory, in its order."""
        with _named(path):
            return [DirEntry(*entry) for entry in self.entries(self._node(path))]

    def listdir(self, path: Path = "/") -> list[str]:
        """The names in a directory, sorted."""
        return sorted(entry.name for entry in self.scandir(path))

    def walk(  # type: ignore[override]
        self, path: Path = "/", *, deepest: int = 2048, skip_errors: bool = False
    ) -> Iterator[tuple[str, Stat]]:
        """Every file of a tree: its path, and what the file system says about it; directories before what they hold, in
        the order of their names. Links are not followed. What cannot be read raises its exception, or is left out."""
        for below, found in self.scan(path, deepest=deepest):
            if isinstance(found, Stat):
                yield below, found
            elif not skip_errors:
                raise found

    def scan(self, path: Path = "/", *, deepest: int = 2048) -> Iterator[tuple[str, Stat | Exception]]:
        """As `walk`, but what cannot be read is its path and the exception."""
        begin = os.fsdecode(path).rstrip("/")
        for below, found in super().walk(self._node(path), deepest):
            name = f"{begin}/{below}" if below else begin or "/"
            if isinstance(found, Exception):
                yield name, found
            else:
                yield name, Stat._of(found)  # pyright: ignore[reportPrivateUsage]

    def read_link(self, path: Path) -> str:
        """The target of a symbolic link."""
        return self.link_target(self._node(path, follow=False))

    def xattrs(self, path: Path, *, follow: bool = True) -> dict[str, bytes]:
        """The extended attributes of a file."""
        return self.attributes(self._node(path, follow))

    def streams(self, path: Path) -> dict[str, int]:  # type: ignore[override]
        """The streams of a file besides its main one, with their lengths (NTFS)."""
        return dict(super().streams(self._node(path)))

    def reader(self) -> io.RawIOBase:
        """The volume itself as a stream."""
        return DiskReader(self._disk, self.offset, max(min(self.length, self._disk.size - self.offset), 0))


def volumes_of(disk: DiskBase, layout: dict[str, Any]) -> list[Volume]:
    """The volumes of a disk with this layout whose files can be read."""
    table = layout["partition-table"]
    found = [
        Volume(disk, entry["start"], entry["length"], entry["number"])
        for entry in (table["partitions"] if table else [])
        if entry["holds"] in _READABLE
    ]
    if not found and layout["holds"] in _READABLE:
        found.append(Volume(disk))
    return found
