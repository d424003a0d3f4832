"""The class `VHDX` of `dissect.hypervisor.disk.vhdx`, over this package.

    from vhdx_mmap.dissect import VHDX

What differs: dirty logs are replayed, parents are verified, and what cannot be read is an exception instead of zeros.
The structures of the format (`header`, `bat` and the like) are not shown; `disk` has the `Disk`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from uuid import UUID

from . import _disk
from ._reader import DiskReader

__all__ = ["VHDX"]


class VHDX(DiskReader):
    """A disk as a stream.

    Args:
        fh: A path, or a file object. Parents are searched in the folder of a path, or of the name of a file object.
    """

    def __init__(self, fh: Any) -> None:
        name = fh if isinstance(fh, (str, os.PathLike)) else getattr(fh, "name", None)
        self.fh = fh
        self.path = Path(name) if isinstance(name, (str, os.PathLike)) else None
        beside: Any = "beside"
        if self.path is not None and not isinstance(fh, (str, os.PathLike)):
            folder = self.path.parent
            beside = [folder] if folder.is_dir() else "none"
        self._begin(_disk.Disk(fh, parents=beside))

    def _begin(self, disk: _disk.Disk) -> None:
        DiskReader.__init__(self, disk, 0, disk.size)
        self.disk = disk
        self.block_size = disk.block_size
        self.sector_size = disk.sector_size
        self.has_parent = disk.kind == "differencing"
        identity = disk.info()["format-specific"]["data"]["virtual-disk-id"]
        self.id = UUID(identity) if identity else None
        self.parent: VHDX | None = None
        if len(disk.layers) > 1:
            parent = VHDX.__new__(VHDX)
            below = disk.ancestor(1)
            parent.fh, parent.path = None, None if below.path is None else Path(below.path)
            parent._begin(below)
            self.parent = parent

    def read_sectors(self, sector: int, count: int) -> bytes:
        """Read sectors of `sector_size` bytes."""
        return self.disk.pread(count * self.sector_size, sector * self.sector_size)

    def close(self) -> None:
        """Close the stream and its disk. The file object stays open."""
        super().close()
        disk: _disk.Disk | None = getattr(self, "disk", None)
        if disk is not None:
            disk.close()
