"""Plans and splits: the work on a disk, divided for workers that share nothing but its files."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Union, overload

from . import _native
from ._disk import Disk, Manifest, Path, Progress, Strictness
from ._native import Extent
from ._sources import Parents, Source

__all__ = ["Plan", "Split", "merge"]

# In bytes of data, as `vhdx plan` has it.
SPLIT_SIZE = 4 << 30


class Split:
    """A share of the work on a disk: the files of its chain, their states, and a range of the disk. Made by
    `Disk.plan`. It pickles as its JSON, and equals another one with the same JSON.

    The methods `hash`, `manifest`, `check`, `diff` and `extract` do one share of the work of the methods of `Disk` with
    these names; `merge` makes the result of one run of the results of all splits. They open the disk, unless it is
    passed as `disk`.
    """

    __slots__ = ("_document", "_native")

    def __init__(self, document: Union[str, dict[str, Any]]) -> None:
        """Read a split from its JSON, as a text or as a dict: of `to_json`, `to_dict`, or `vhdx plan --lines`.

        Raises:
            ValueError: The values are not those of a split, or contradict each other.
        """
        text = document if isinstance(document, str) else json.dumps(document)
        self._native = _native.SplitBase(text)
        self._document: dict[str, Any] = json.loads(self._native.json())

    @property
    def index(self) -> int:
        """Number of the split, from 1."""
        return int(self._document["index"])

    @property
    def count(self) -> int:
        """Number of splits of the plan."""
        return int(self._document["count"])

    @property
    def offset(self) -> int:
        """Offset in the disk, in bytes: a multiple of its block size."""
        return int(self._document["offset"])

    @property
    def length(self) -> int:
        """Length in bytes, without the overlap. It may be zero."""
        return int(self._document["length"])

    @property
    def data_bytes(self) -> int:
        """Number of bytes in it that are in files."""
        return int(self._document["data-bytes"])

    @property
    def block_size(self) -> int:
        """Block size of the opened image, in bytes."""
        return int(self._document["block-size"])

    @property
    def path(self) -> str:
        """Path of the opened image; `-` of bytes and of file objects."""
        return str(self._document["layers"][0]["filename"])

    @property
    def search_range(self) -> tuple[int, int]:
        """Offset and length of what a search in this split reads, in bytes: its range, and the overlap after it. A
        match counts if it begins in the range of the split; so each is found once."""
        begin, end = self._native.search_range()
        return begin, end - begin

    def to_dict(self) -> dict[str, Any]:
        """The values of a line of `vhdx plan --lines`, but for those about the command."""
        found: dict[str, Any] = json.loads(self.to_json())
        return found

    def to_json(self) -> str:
        """What `vhdx plan --lines` prints in a line, but for what is about the command."""
        return self._native.json()

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.to_json(),))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Split) and self._document == other._document

    def __hash__(self) -> int:
        return hash(self.to_json())

    def __repr__(self) -> str:
        return f"<Split {self.index} of {self.count} of {self.path}: {self.length} bytes at {self.offset}>"

    def open(
        self,
        source: Source | None = None,
        *,
        parents: Parents = "beside",
        strictness: Strictness = "strict",
        mmap: bool = False,
    ) -> Disk:
        """Open the disk: exactly the files that the plan names, without a search for parents.

        Args:
            source: What the image is on this machine, if not a file with the path of the plan: whatever
                `vhdx_mmap.open` takes. Parents are searched then, where `parents` says.
            parents: As for `vhdx_mmap.open`; for `source`.
            strictness: As for `vhdx_mmap.open`.
            mmap: As for `vhdx_mmap.open`.

        Raises:
            ChangedError: A file differs from that of the plan, or was written to since. Of a plan without times: its
                length or its identity differs.
            VhdxError: What `vhdx_mmap.open` raises.
        """
        planned = source is None
        where = self._native.path() if source is None else source
        return Disk(
            where,
            parents="none" if planned else parents,
            log="ignore" if self._document.get("log-ignored") else "replay",
            strictness=strictness,
            mmap=mmap,
            _split=(self._native, planned),
        )

    def extents(self, disk: Disk) -> list[Extent]:
        """The extents of data in the range of the split, in the order in which they are in the files, so that a drive
        reads from front to back: the files of the chain one after the other, the opened image first. What a log replay
        has put into memory comes before all of them.

        Args:
            disk: The disk of the split, as `open` returns it.

        Raises:
            VhdxError: A table of the image cannot be read.
        """

        def place(extent: Extent) -> tuple[int, int]:
            return (-1, extent.offset) if extent.file_offset is None else (extent.layer, extent.file_offset)

        return sorted((extent for extent in disk.extents(self.offset, self.length) if extent.is_data), key=place)

    @contextlib.contextmanager
    def _disk(self, disk: Disk | None) -> Iterator[Disk]:
        if disk is not None:
            yield disk
            return
        with self.open() as opened:
            yield opened

    def hash(
        self,
        *algorithms: str,
        disk: Disk | None = None,
        progress: Progress | None = None,
        threads: int | None = None,
    ) -> dict[str, Any]:
        """The share of digests of the disk: `blake3` by default, or `crc32`, or both. Others cannot be merged."""
        names = list(algorithms) or ["blake3"]
        with self._disk(disk) as opened:
            found: dict[str, Any] = json.loads(_native.hash_share(opened, self._native, names, progress, threads))
        return found

    def manifest(
        self,
        *algorithms: str,
        disk: Disk | None = None,
        progress: Progress | None = None,
        threads: int | None = None,
    ) -> bytes:
        """The share of a manifest (`sha256` by default), as lines of JSON."""
        names = list(algorithms) or ["sha256"]
        with self._disk(disk) as opened:
            return _native.manifest_share(opened, self._native, names, progress, threads)

    def check(
        self, *, disk: Disk | None = None, progress: Progress | None = None, threads: int | None = None
    ) -> dict[str, Any]:
        """The share of a check that also reads the content of all blocks. Each share checks all structures."""
        with self._disk(disk) as opened:
            found: dict[str, Any] = json.loads(_native.check_share(opened, self._native, progress, threads))
        return found

    def diff(
        self,
        ancestor: int = 1,
        *,
        content: bool = False,
        disk: Disk | None = None,
        progress: Progress | None = None,
        threads: int | None = None,
    ) -> dict[str, Any]:
        """The share of the changed ranges: what `vhdx diff --split` prints."""
        with self._disk(disk) as opened:
            text = _native.diff_share(opened, self._native, ancestor, content, progress, threads)
        found: dict[str, Any] = json.loads(text)
        return found

    def extract(
        self,
        path: Path,
        *,
        sparse: bool = True,
        disk: Disk | None = None,
        progress: Progress | None = None,
        threads: int | None = None,
    ) -> dict[str, Any]:
        """Write the share to its place in the raw file of the disk, which other workers may write to as well. A file
        that does not exist yet is made. Returns what `vhdx extract --split` prints."""
        with self._disk(disk) as opened:
            text = _native.extract_share(opened, self._native, path, sparse, progress, threads)
        found: dict[str, Any] = json.loads(text)
        return found


class Plan(Sequence[Split]):
    """The work on a disk, divided into splits with about the same amount of data. Made by `Disk.plan`."""

    __slots__ = ("_document", "_native")

    def __init__(self, document: Union[str, dict[str, Any]]) -> None:
        """Read a plan from its JSON, as a text or as a dict: of `to_json`, `to_dict`, or `vhdx plan`.

        Raises:
            ValueError: The values are not those of a plan, or its splits do not cover the disk.
        """
        text = document if isinstance(document, str) else json.dumps(document)
        self._native = _native.PlanBase(text)
        self._document: dict[str, Any] = json.loads(self._native.json())

    @property
    def splits(self) -> list[Split]:
        """The splits, in the order of the disk."""
        return list(self)

    @property
    def data_bytes(self) -> int:
        """Number of bytes of the disk that are in files."""
        return int(self._document["data-bytes"])

    @property
    def overlap(self) -> int:
        """Number of bytes after a split that a search reads, too."""
        return int(self._document["overlap"])

    def to_dict(self) -> dict[str, Any]:
        """The values that `vhdx plan` prints, but for those about the command."""
        found: dict[str, Any] = json.loads(self.to_json())
        return found

    def to_json(self) -> str:
        """What `vhdx plan` prints, in one line, but for what is about the command."""
        return self._native.json()

    def __len__(self) -> int:
        return len(self._native)

    @overload
    def __getitem__(self, index: int) -> Split: ...
    @overload
    def __getitem__(self, index: slice) -> list[Split]: ...
    def __getitem__(self, index: Union[int, slice]) -> Union[Split, list[Split]]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"no such split (found {index}, expected less than {len(self)})")
        return Split(self._native.split(place + 1).json())

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.to_json(),))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plan) and self._document == other._document

    def __hash__(self) -> int:
        return hash(self.to_json())

    def __repr__(self) -> str:
        return f"<Plan of {len(self)} splits, {self.data_bytes} bytes of data>"


def plan(disk: Disk, splits: int | None, split_size: int | None, overlap: int, times: bool) -> Plan:
    """Divide the work on a disk."""
    if splits is None and split_size is None:
        split_size = SPLIT_SIZE
    for name, number in (("splits", splits), ("split_size", split_size)):
        if number is not None and number < 1:
            raise ValueError(f"{name}: too small (found {number}, expected at least 1)")
    return Plan(_native.make_plan(disk, splits, split_size, overlap, times).json())


def merge(results: Iterable[Any]) -> Any:
    """Merge the results of all splits of a plan, in any order, into the result of one run: what `vhdx merge` does.

    Returns:
        Of `Split.hash`: the digests in hexadecimal, by their names. Of `Split.manifest`: a `Manifest`. Of `check`,
        `diff` and `extract`: the report, as `vhdx ... --json` prints it.

    Raises:
        ManifestError: A result is missing, or occurs twice, or is of another disk, another state of its files, or other
            work.
    """
    documents = [found if isinstance(found, bytes) else json.dumps(found).encode() for found in results]
    kind, content, digests = _native.merge(documents)
    if kind == "digests":
        return dict(digests)
    return Manifest(content) if kind == "manifest" else json.loads(content)
