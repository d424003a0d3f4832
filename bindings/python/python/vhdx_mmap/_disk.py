"""Disks."""

from __future__ import annotations

import builtins
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, Union

from . import _faulthandler, _native
from ._files import Volume, volumes_of
from ._native import DiskBase, Rows
from ._reader import DiskReader
from ._sources import ParentRequest, Parents, Source, resolve

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from ._plan import Plan

__all__ = [
    "Disk",
    "Extracted",
    "Layer",
    "Loss",
    "Manifest",
    "ParentRequest",
    "Partition",
    "Warning",
    "open",
]

Progress: TypeAlias = Callable[[int, int], object]
Log: TypeAlias = Literal["replay", "refuse", "ignore"]
Strictness: TypeAlias = Literal["strict", "salvage"]
Path: TypeAlias = Union[str, "os.PathLike[str]"]


@dataclass(frozen=True, slots=True)
class Layer:
    """An image of a chain."""

    path: str | None
    """Path of the file; none of bytes and of file objects."""
    kind: str
    """`fixed`, `dynamic` or `differencing`."""
    log_state: str
    """`clean`, `replayed`, `ignored` or `unknown`."""
    size: int
    """Size of its disk, in bytes."""
    block_size: int
    """Size of its blocks, in bytes."""
    file_size: int
    """Length of the file, in bytes."""
    identity: str
    """DataWriteGuid, by which its children know it."""
    found_by: str | None
    """How it was found as a parent; none of the opened image."""
    parent: str | None
    """Name of its parent, as it stores it."""


class Warning(NamedTuple):
    """A breach of the format that does not affect reading."""

    layer: int
    """Number of the layer; 0 is the opened image."""
    rule: str
    """Code of the rule."""
    severity: str
    """`note`, `warning`, ...: as `vhdx check` names it."""
    text: str
    """What was found, and where."""


class Loss(NamedTuple):
    """A range of a salvaged disk that cannot be read, and reads as zeros."""

    offset: int
    """Offset in the disk, in bytes."""
    length: int
    """Length in bytes."""
    reason: str
    """What is wrong, and where."""


class Extracted(NamedTuple):
    """What an extraction has written."""

    data: int
    """Number of bytes from files."""
    zeros: int
    """Number of zeros that are in no file."""
    digests: dict[str, str]
    """The digests that were asked for, in hexadecimal."""


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition of a disk."""

    disk: Disk
    """The disk."""
    number: int
    """Number, as Linux counts: from 1, and logical partitions from 5."""
    offset: int
    """Offset in the disk, in bytes."""
    length: int
    """Length in bytes."""
    type: str
    """Type, in words if it is known."""
    name: str
    """Name, which only GPT has."""
    holds: str | None
    """Kind of the volume on it, if it is recognised."""
    label: str | None
    """Label of the volume."""
    uuid: str | None
    """UUID or serial number of the volume."""

    def reader(self) -> DiskReader:
        """The partition as a stream."""
        return self.disk.reader(self.offset, self.length)

    def volume(self) -> Volume:
        """The file system on it."""
        return Volume(self.disk, self.offset, self.length, self.number)


class Changes(Sequence[tuple[int, int, bool]]):
    """Changed ranges: offset, length, and whether they are zeros now. Also a stream of Arrow."""

    def __init__(self, rows: list[tuple[int, int, bool]]) -> None:
        self._rows = rows

    def __getitem__(self, index: Any) -> Any:
        return self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return f"<{len(self)} changed ranges>"

    def _table(self) -> _native.Table:
        return _native.Table(
            [
                ("offset", "u64", [row[0] for row in self._rows]),
                ("length", "u64", [row[1] for row in self._rows]),
                ("zero", "bool", [row[2] for row in self._rows]),
            ]
        )

    def __arrow_c_stream__(self, requested_schema: object = None) -> Any:
        return self._table().__arrow_c_stream__(requested_schema)

    def __arrow_c_schema__(self) -> Any:
        return self._table().__arrow_c_schema__()


class Manifest:
    """Digests of all blocks of a disk, to verify a copy of it later. Also a stream of Arrow, with a row for each line:
    `block`, `count`, `offset`, `length`, `state`, `zero`, and a column for each algorithm."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        """The manifest as it is written to a file: lines of JSON."""
        self._lines: list[dict[str, Any]] = [json.loads(line) for line in content.splitlines()]

    @classmethod
    def load(cls, path: Path) -> Manifest:
        """Read a manifest from a file. `Disk.verify` checks whether it is whole."""
        with builtins.open(path, "rb") as file:
            return cls(file.read())

    def save(self, path: Path) -> None:
        """Write the manifest to a new file."""
        with builtins.open(path, "xb") as file:
            file.write(self.content)

    @property
    def algorithms(self) -> list[str]:
        """The algorithms of the digests."""
        return list(self._lines[0]["algorithms"])

    @property
    def roots(self) -> dict[str, str]:
        """A digest of the digests of all blocks for each algorithm, by its name."""
        return {root["name"]: root["digest"] for root in self._lines[-1].get("root", [])}

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The lines for blocks, or for several equal blocks of zeros in a row."""
        return self._lines[1:-1]

    def _table(self) -> _native.Table:
        lines = self.lines
        columns: list[tuple[str, Literal["bool", "u64", "text", "bytes"], list[Any]]] = [
            ("block", "u64", [line["block"] for line in lines]),
            ("count", "u64", [line.get("count", 1) for line in lines]),
            ("offset", "u64", [line["offset"] for line in lines]),
            ("length", "u64", [line["length"] for line in lines]),
            ("state", "text", [line["state"] for line in lines]),
            ("zero", "bool", [line.get("zero", False) for line in lines]),
        ]
        columns.extend((name, "text", [line[name] for line in lines]) for name in self.algorithms)
        return _native.Table(columns)

    def __arrow_c_stream__(self, requested_schema: object = None) -> Any:
        return self._table().__arrow_c_stream__(requested_schema)

    def __arrow_c_schema__(self) -> Any:
        return self._table().__arrow_c_schema__()


class Disk(DiskBase):
    """The disk that a guest sees: an image and its parents. Made by `vhdx_mmap.open`.

    Threads may share a disk; reads let other threads run. `pickle` stores where its files are and what they are, and
    opens them again, or raises `ChangedError` if they are others by then.
    """

    __slots__ = ("_options", "_source")
    _source: Source
    _options: dict[str, Any]

    def __new__(
        cls,
        source: Source,
        *,
        parents: Parents = "beside",
        log: Log = "replay",
        strictness: Strictness = "strict",
        mmap: bool = False,
        expect: dict[str, Any] | None = None,
        _ancestor: int | None = None,
        _split: tuple[_native.SplitBase, bool] | None = None,
    ) -> Self:
        if _ancestor is not None:
            return super().__new__(cls, source, layer=_ancestor)  # type: ignore[return-value]
        if mmap:
            _faulthandler.stay_on_top()
        found = resolve(source, parents)
        self: Self = super().__new__(  # type: ignore[assignment]
            cls,
            found.source,
            parents=found.paths,
            beside=found.beside,
            finder=found.finder,
            log=log,
            strictness=strictness,
            mmap=mmap,
            expect=None if expect is None else json.dumps(expect),
            split=None if _split is None else _split[0],
            planned=_split is not None and _split[1],
        )
        self._source = source
        self._options = {"parents": parents, "log": log, "strictness": strictness, "mmap": mmap}
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        if self.closed:
            return "<Disk, closed>"
        return f"<Disk of {self.path or 'bytes'}, {self.kind}, {self.size} bytes>"

    def __reduce__(self) -> tuple[Any, ...]:
        source, options = self._source, dict(self._options)
        if source is None:
            raise TypeError("cannot pickle the disk of a layer that is not a file")
        if isinstance(source, (str, os.PathLike)) and not _is_url(source):
            source = os.path.abspath(source)
            paths = [layer.path for layer in self.layers[1:]]
            # Parents are not searched again: these are the ones.
            if all(path is not None for path in paths):
                options["parents"] = [os.path.abspath(path) for path in paths if path is not None] or "none"
        return (_reopen, (type(self), source, options, self.fingerprint))

    # What it is.

    @property
    def path(self) -> str | None:
        """Path of the image; none of bytes and of file objects."""
        return self.layers[0].path

    @property
    def layers(self) -> list[Layer]:
        """The images of the chain: the opened one first, its base last."""
        rows = self.layer_rows()
        return [
            Layer(None if path is None else os.fspath(path), *rest)  # type: ignore[arg-type]
            for path, *rest in rows
        ]

    @property
    def identity(self) -> str:
        """DataWriteGuid of the image, by which its children know it."""
        return self.identities()[0]

    @property
    def parent_identity(self) -> str | None:
        """Identity of the parent that the image stores."""
        return self.identities()[1]

    @property
    def locator(self) -> dict[str, str]:
        """What the image stores about its parent, by the keys of MS-VHDX. It may be anything: do not trust it."""
        return dict(self.locator_rows())

    @property
    def warnings(self) -> list[Warning]:
        """Breaches of the format that do not affect reading, in all layers."""
        return [Warning(*row) for row in self.warning_rows()]

    @property
    def losses(self) -> list[Loss]:
        """Ranges of a salvaged disk that cannot be read, and read as zeros."""
        return [Loss(*row) for row in self.loss_rows()]

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What the files of the chain are, for `expect` of a later opening."""
        found: dict[str, Any] = json.loads(self.fingerprint_json())
        return found

    def info(self, layer: int = 0) -> dict[str, Any]:
        """What `vhdx info --json` prints about the image, or about another layer."""
        found: dict[str, Any] = json.loads(_native.info(self, layer))
        return found

    def layout(self) -> dict[str, Any]:
        """Partition table and volumes, with the keys of `contents` in `vhdx info --json`."""
        found: dict[str, Any] = json.loads(_native.layout(self))
        return found

    @property
    def partitions(self) -> list[Partition]:
        """The partitions, in the order of their table."""
        table = self.layout()["partition-table"]
        found = []
        for entry in table["partitions"] if table else []:
            details = entry.get("details") or {}
            found.append(
                Partition(
                    self,
                    entry["number"],
                    entry["start"],
                    entry["length"],
                    entry["type"],
                    entry["name"],
                    entry["holds"],
                    details.get("label"),
                    details.get("uuid"),
                )
            )
        return found

    @property
    def volumes(self) -> list[Volume]:
        """The volumes whose files can be read: of the partitions, or of a disk without any."""
        return volumes_of(self, self.layout())

    def ancestor(self, layer: int) -> Disk:
        """The disk that a guest would see if this layer had been opened; 0 is this disk."""
        disk = type(self)(self, _ancestor=layer)
        path = disk.layers[0].path
        disk._source = path
        disk._options = dict(self._options)
        return disk

    # Reading.

    def reader(self, offset: int = 0, length: int | None = None) -> DiskReader:
        """The disk, or a range of it, as a stream (`io.RawIOBase`)."""
        size = self.size
        if not 0 <= offset <= size:
            raise ValueError(f"the offset is outside of the disk (found {offset}, expected at most {size})")
        return DiskReader(self, offset, size - offset if length is None else min(length, size - offset))

    def extents(self, offset: int = 0, length: int | None = None) -> Rows:
        """What lies where: iterate over the extents, or pass them to whatever reads Arrow streams."""
        return self.rows(offset, length)

    def blocks(self, offset: int = 0, length: int | None = None, *, payload: bool = False) -> Rows:
        """The blocks of a range: as extents, but with a row for each block. A block that lies in pieces has one for
        each. With `payload`, a stream of Arrow has their bytes as a column, in place; a mapped disk is needed."""
        return self.rows(offset, length, True, payload)

    # Whole disks.

    def hash(
        self,
        *algorithms: str,
        offset: int = 0,
        length: int | None = None,
        file: bool = False,
        progress: Progress | None = None,
        threads: int | None = None,
    ) -> dict[str, str]:
        """Digests of the disk or a range of it in hexadecimal, by the names of `algorithms` (`sha256` by default; also
        `blake3`, `crc32`, `sha1`, `md5`). With `file`, of the image file itself.

        `progress` is called with the bytes done and the total, by the calling thread. An exception that it raises ends
        the work, and so does Ctrl-C."""
        names = list(algorithms) or ["sha256"]
        return dict(_native.hash(self, names, offset, length, file, progress, threads))

    def compare(
        self,
        other: Disk | Path,
        *,
        every: bool = False,
        progress: Progress | None = None,
        threads: int | None = None,
    ) -> dict[str, Any]:
        """Compare with another disk, or with a raw file by its path: what `vhdx compare --json` prints. With `every`,
        all ranges that differ are listed, otherwise the first byte only."""
        found: dict[str, Any] = json.loads(_native.compare(self, other, every, progress, threads))
        return found

    def diff(
        self,
        ancestor: int = 1,
        *,
        content: bool = False,
        progress: Progress | None = None,
        threads: int | None = None,
    ) -> Changes:
        """The ranges that the layers above `ancestor` define; with `content`, those whose bytes differ from it."""
        return Changes(_native.changes(self, ancestor, content, progress, threads))

    def check(
        self, *, payload: bool = False, progress: Progress | None = None, threads: int | None = None
    ) -> dict[str, Any]:
        """Every problem of the image and its chain: what `vhdx check --json` prints."""
        found: dict[str, Any] = json.loads(_native.check(self, payload, progress, threads))
        return found

    def extract(
        self,
        path: Path,
        *,
        offset: int = 0,
        length: int | None = None,
        sparse: bool = True,
        overwrite: bool = False,
        hash: Sequence[str] = (),
        progress: Progress | None = None,
        threads: int | None = None,
    ) -> Extracted:
        """Write the disk or a range of it to a new raw file, which exists only if all of it was written."""
        names = [hash] if isinstance(hash, str) else list(hash)
        data, zeros, digests = _native.extract(
            self, path, offset, length, sparse, overwrite, names, progress, threads
        )
        return Extracted(data, zeros, dict(digests))

    def manifest(
        self, *algorithms: str, progress: Progress | None = None, threads: int | None = None
    ) -> Manifest:
        """Digests of all blocks (`sha256` by default), for `verify`."""
        names = list(algorithms) or ["sha256"]
        content, _ = _native.create_manifest(self, names, None, False, progress, threads)
        assert content is not None
        return Manifest(content)

    def verify(
        self, manifest: Manifest | Path, *, progress: Progress | None = None, threads: int | None = None
    ) -> dict[str, Any]:
        """Compare with a manifest or with the file of one: what `vhdx verify --json` prints. `ok` is true if nothing
        differs."""
        source = manifest.content if isinstance(manifest, Manifest) else manifest
        found: dict[str, Any] = json.loads(_native.verify(self, source, progress, threads))
        return found

    # More than one machine.

    def plan(
        self,
        splits: int | None = None,
        split_size: int | None = None,
        overlap: int = 0,
        times: bool = True,
    ) -> Plan:
        """Divide the work on the disk into splits with about the same amount of data, for workers that share nothing
        but its files. Only the tables of the disk are read.

        Args:
            splits: Number of splits, at most 2^20. Some are empty if the disk has fewer blocks.
            split_size: Bytes of data in a split, if there is no number of splits: 4 GiB by default.
            overlap: Bytes after a split that a search reads, too: one less than the longest match.
            times: Whether files with another time of modification are refused. False for workers that read copies.

        Raises:
            ValueError: Both `splits` and `split_size`, or a number below 1.
        """
        from ._plan import plan

        return plan(self, splits, split_size, overlap, times)

    def __iter__(self) -> Iterator[Any]:
        raise TypeError("a disk is no sequence: use segments(), extents() or blocks()")


def _is_url(source: object) -> bool:
    return isinstance(source, str) and "://" in source


def _reopen(kind: type[Disk], source: Source, options: dict[str, Any], fingerprint: dict[str, Any]) -> Disk:
    return kind(source, **options, expect=fingerprint)


def open(
    source: Source,
    *,
    parents: Parents = "beside",
    log: Log = "replay",
    strictness: Strictness = "strict",
    mmap: bool = False,
    expect: dict[str, Any] | None = None,
) -> Disk:
    """Open an image and its parents, read-only.

    Args:
        source: A path; bytes; an object with `seek` and `read` or `readinto`; or a URL or a file of fsspec.
        parents: Where parents are searched. `"beside"`: the folder of the child and those below it. `"none"`: they
            are not searched; what the image itself holds can be read. A path, or a list of files, folders, and
            `"beside"`. Or a function that takes a `ParentRequest` and returns what `source` can be, or none. Whatever
            is found, it must have the identity that its child stores.
        log: `"replay"` replays a dirty log in memory; `"refuse"` raises `DirtyLog`; `"ignore"` reads what may be stale.
        strictness: `"strict"`, or `"salvage"` for damaged images: what cannot be read is zeros, and `Disk.losses` lists
            it.
        mmap: Map the files into memory, for `Disk.view` and speed. By this you promise that nothing changes them while
            the disk and its views live. Parents are mapped, too.
        expect: A `Disk.fingerprint`: other files raise `ChangedError`.

    Raises:
        VhdxError: or one of its subclasses. No such file is also a `FileNotFoundError`.
    """
    return Disk(source, parents=parents, log=log, strictness=strictness, mmap=mmap, expect=expect)
