"""What can be opened, and where parents are searched."""

from __future__ import annotations

import importlib
import io
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, Union

from . import _native


class Readable(Protocol):
    """An object with a position: `read` may be `readinto`."""

    def seek(self, offset: int, whence: int = 0, /) -> Any: ...


Source: TypeAlias = Union[str, "os.PathLike[str]", bytes, bytearray, memoryview, Readable, Any]


@dataclass(frozen=True, slots=True)
class ParentRequest:
    """What an image says about its parent. It is from the image, and may be anything: it is no path to trust."""

    layer: int
    """Layer of the image: 0 for the opened image."""
    child: str | None
    """Path of the image."""
    relative_path: str | None
    """Path relative to the folder of the image, with backslashes."""
    volume_path: str | None
    """Path with a volume GUID."""
    absolute_path: str | None
    """Path with a drive letter or of a network share."""
    identity: str
    """DataWriteGuid that the parent must have."""

    @property
    def names(self) -> list[str]:
        """The last parts of the stored paths, without duplicates: names of files, never paths."""
        paths = (self.relative_path, self.absolute_path, self.volume_path)
        names = (path.replace("\\", "/").rsplit("/", 1)[-1] for path in paths if path)
        return [name for name in dict.fromkeys(names) if name not in ("", ".", "..")]


Finder: TypeAlias = Callable[[ParentRequest], Source | None]
Parents: TypeAlias = Union[str, "os.PathLike[str]", Finder, Iterable[Any], None]


@dataclass(slots=True)
class Resolved:
    """Arguments of the native class."""

    source: Any
    paths: list[str] = field(default_factory=list[str])
    beside: bool = False
    finder: Callable[..., Any] | None = None


def is_url(source: object) -> bool:
    """Whether a source is a URL for fsspec."""
    return isinstance(source, str) and "://" in source and not os.path.exists(source)


def _fsspec() -> Any:
    try:
        return importlib.import_module("fsspec")
    except ImportError as error:
        raise ImportError("URLs need the package fsspec: pip install fsspec") from error


class _NextTo:
    """Searches a parent beside a file of fsspec, by its name alone."""

    def __init__(self, fs: Any, path: str) -> None:
        self._fs = fs
        self._folder = path.rpartition("/")[0]

    def __call__(self, request: ParentRequest) -> Any:
        try:
            entries = self._fs.ls(self._folder, detail=False)
        except FileNotFoundError:
            return None
        by_name = {entry.rpartition("/")[2].casefold(): entry for entry in entries}
        for name in request.names:
            found = by_name.get(name.casefold())
            if found is not None:
                return self._fs.open(found, "rb")
        return None


class _OneOf:
    """Chooses among objects by the identity that the child stores."""

    def __init__(self, objects: list[Any]) -> None:
        self._objects = objects

    def __call__(self, request: ParentRequest) -> Any:
        for candidate in self._objects:
            if _native.identity(candidate) == request.identity:
                return candidate
        return None


class _Requests:
    """Calls a finder with a request, as the native class calls it with keywords."""

    def __init__(self, finder: Finder) -> None:
        self._finder = finder

    def __call__(self, *, child: object, **known: Any) -> Any:
        request = ParentRequest(child=None if child is None else str(child), **known)
        found = self._finder(request)
        return None if found is None else _opened(found)[0]


def _opened(source: Any) -> tuple[Any, Finder | None]:
    """What the native class opens for a source, and how parents beside it are found, if they are no files."""
    if is_url(source):
        fs, path = _fsspec().core.url_to_fs(source)
        return fs.open(path, "rb"), _NextTo(fs, path)
    if hasattr(source, "fs") and hasattr(source, "path") and hasattr(source, "open") and not hasattr(source, "seek"):
        # An `fsspec.core.OpenFile`, which is not open yet.
        return source.fs.open(source.path, "rb"), _NextTo(source.fs, source.path)
    if hasattr(source, "fs") and hasattr(source, "path") and hasattr(source, "seek"):
        return source, _NextTo(source.fs, source.path)
    if isinstance(source, memoryview):
        return bytes(source), None
    if isinstance(source, io.TextIOBase):
        raise TypeError("expected a file that was opened for bytes ('rb'), found one for text")
    return source, None


def _all_of(finders: list[Finder]) -> Finder:
    def find(request: ParentRequest) -> Any:
        for finder in finders:
            found = finder(request)
            if found is not None:
                return found
        return None

    return finders[0] if len(finders) == 1 else find


def resolve(source: Source, parents: Parents) -> Resolved:
    """Translate a source and a policy for parents."""
    native, beside = _opened(source)
    found = Resolved(native)
    items: list[Any]
    if parents is None or parents == "none":
        items = []
    elif isinstance(parents, (str, os.PathLike)) or callable(parents):
        items = [parents]
    else:
        items = list(parents)
    finders: list[Finder] = []
    objects: list[Any] = []
    for item in items:
        if isinstance(item, str) and item == "beside":
            found.beside = True
            if beside is not None:
                finders.append(beside)
        elif is_url(item):
            objects.append(_opened(item)[0])
        elif isinstance(item, (str, os.PathLike)):
            found.paths.append(os.fspath(item))
        elif callable(item):
            finders.append(item)
        else:
            objects.append(_opened(item)[0])
    if objects:
        finders.append(_OneOf(objects))
    if finders:
        found.finder = _Requests(_all_of(finders))
    return found
