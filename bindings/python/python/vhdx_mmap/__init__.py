"""Read Hyper-V's VHDX and AVHDX disk images: right or an error, zero-copy, read-only.

    import vhdx_mmap

    with vhdx_mmap.open("disk.vhdx") as disk:
        print(disk.size, disk.kind, disk.log_state)
        boot_sector = disk.pread(512, 0)

A dirty log is replayed in memory, a chain of checkpoints is read as one disk, and nothing is ever written. What cannot
be read right raises an exception that says where and why: `vhdx_mmap.errors`.
"""

from __future__ import annotations

from ._interpreters import refuse_sub_interpreters

refuse_sub_interpreters()

from ._disk import (
    Disk,
    Extracted,
    Layer,
    Loss,
    Manifest,
    ParentRequest,
    Partition,
    Warning,
    open,
)
from ._files import DirEntry, File, Stat, Times, Volume
from ._native import Cut, Data, Extent, Lost, Rows, Zeros, __version__, guard_is_active, guard_mappings
from ._plan import Plan, Split, merge
from ._reader import DiskReader
from .errors import (
    ChangedError,
    CorruptError,
    DirtyLog,
    InvalidRequestError,
    LinkLoopError,
    LostDataError,
    ManifestError,
    NotLendable,
    NotVhdxError,
    OpenError,
    ParentMismatch,
    ParentNotFound,
    PathIsDirectoryError,
    PathNotDirectoryError,
    PathNotFoundError,
    PathPermissionError,
    ReadError,
    UnsupportedError,
    VhdxError,
)

__all__ = [
    "ChangedError",
    "CorruptError",
    "Cut",
    "Data",
    "DirEntry",
    "DirtyLog",
    "Disk",
    "DiskReader",
    "Extent",
    "Extracted",
    "File",
    "InvalidRequestError",
    "Layer",
    "LinkLoopError",
    "Loss",
    "Lost",
    "LostDataError",
    "Manifest",
    "ManifestError",
    "NotLendable",
    "NotVhdxError",
    "OpenError",
    "ParentMismatch",
    "ParentNotFound",
    "ParentRequest",
    "Partition",
    "PathIsDirectoryError",
    "PathNotDirectoryError",
    "PathNotFoundError",
    "PathPermissionError",
    "Plan",
    "ReadError",
    "Rows",
    "Split",
    "Stat",
    "Times",
    "UnsupportedError",
    "VhdxError",
    "Volume",
    "Warning",
    "Zeros",
    "__version__",
    "guard_is_active",
    "guard_mappings",
    "merge",
    "open",
]
