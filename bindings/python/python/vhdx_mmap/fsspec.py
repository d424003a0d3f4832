"""The files in a disk as a file system of fsspec: `vhdx://` over any other.

    fsspec.open("vhdx://etc/hosts::s3://bucket/disk.vhdx")
    fsspec.filesystem("vhdx", fo="disk.vhdx", volume=2).ls("/")
"""

from __future__ import annotations

import io
import os
from typing import Any

import fsspec as _fsspec
from fsspec.spec import AbstractFileSystem

from . import _disk
from ._files import Stat, Volume

__all__ = ["VhdxFileSystem"]


class VhdxFileSystem(AbstractFileSystem):  # type: ignore[misc,unused-ignore]
    """The files of one volume, read-only.

    Args:
        fo: Path, URL or file object of the image.
        target_protocol: Protocol of a path.
        target_options: Options of the file system that the image is in.
        volume: Number of the partition, or label or UUID of the volume; the only or the largest one by default.
        options: Options of `vhdx_mmap.open`, such as `parents`.
    """

    root_marker = ""
    protocol = "vhdx"
    cachable = False

    def __init__(
        self,
        fo: Any = "",
        mode: str = "r",
        target_protocol: str | None = None,
        target_options: dict[str, Any] | None = None,
        volume: int | str | None = None,
        options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if mode != "r":
            raise ValueError(f"unsupported mode (found {mode!r}, expected 'r')")
        source = fo
        if isinstance(fo, (str, os.PathLike)) and target_protocol not in (None, "file", "local"):
            source = _fsspec.open(os.fspath(fo), "rb", protocol=target_protocol, **(target_options or {}))
        elif isinstance(fo, str) and fo.startswith(("file://", "local://")):
            source = _fsspec.core.url_to_fs(fo)[1]
        self.disk = _disk.Disk(source, **(options or {}))
        self.volume = _choose(self.disk, volume)

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        stripped: Any = super()._strip_protocol(path)
        return stripped.strip("/")

    def _entry(self, path: str, stat: Stat) -> dict[str, Any]:
        kinds = {"file": "file", "directory": "directory", "link": "link"}
        entry: dict[str, Any] = {"name": path, "size": stat.size, "type": kinds.get(stat.kind, "other")}
        entry.update(ino=stat.node, mode=stat.mode)
        if stat.times.modified is not None:
            entry["mtime"] = stat.times.modified.seconds + stat.times.modified.nanoseconds / 1e9
        if stat.owner is not None:
            entry["uid"], entry["gid"] = stat.owner
        return entry

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        """What the file system says about a file. Links are followed."""
        path = self._strip_protocol(path)
        return self._entry(path, self.volume.stat(path or "/"))

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> Any:
        """The entries of a directory; of a file, itself."""
        path = self._strip_protocol(path)
        found = self.volume.stat(path or "/")
        if not found.is_dir:
            return [self._entry(path, found)] if detail else [path]
        names = [f"{path}/{name}".lstrip("/") for name in self.volume.listdir(path or "/")]
        if not detail:
            return names
        return [self._entry(name, self.volume.stat(name, follow=False)) for name in names]

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: Any = None,
        autocommit: bool = True,
        cache_options: Any = None,
        **kwargs: Any,
    ) -> Any:
        if mode != "rb":
            raise ValueError(f"unsupported mode (found {mode!r}, expected 'rb')")
        return io.BufferedReader(self.volume.open(self._strip_protocol(path)))

    def modified(self, path: str) -> Any:
        """When the content of a file was changed."""
        time = self.volume.stat(self._strip_protocol(path)).times.modified
        return None if time is None else time.datetime()

    def created(self, path: str) -> Any:
        """When a file was made."""
        time = self.volume.stat(self._strip_protocol(path)).times.created
        return None if time is None else time.datetime()


def _choose(disk: _disk.Disk, wanted: int | str | None) -> Volume:
    volumes = disk.volumes
    if wanted is not None:
        volumes = [volume for volume in volumes if wanted in (volume.number, volume.label, volume.uuid)]
    if not volumes:
        what = "a volume whose files can be read" if wanted is None else f"volume {wanted!r}"
        raise FileNotFoundError(f"{disk.path or 'the disk'}: {what} was not found")
    return max(volumes, key=lambda volume: volume.length)
