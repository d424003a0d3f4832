"""Work on disks with Dask: a task for each split of each image.

    import dask.distributed
    import vhdx_mmap.dask

    client = dask.distributed.Client("scheduler:8786")                     # or none: processes of this machine
    found = vhdx_mmap.dask.scan("/images/*.vhdx", lambda disk, split: split.hash("crc32", disk=disk)).compute()
    print(vhdx_mmap.merge(result.value for result in found))               # of one image

A task that dies with its worker is run again by another one.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

try:
    bag: Any = importlib.import_module("dask.bag")
except ImportError as error:
    raise ImportError("vhdx_mmap.dask needs Dask: pip install 'dask[bag]'") from error

from ._disk import Disk, Strictness
from ._fleet import FAILURES, Job, Opening, expand, plan_all, text_of
from ._plan import Split
from ._sources import Parents

__all__ = ["Result", "scan"]


class Result(NamedTuple):
    """What came of one split."""

    image: str
    """Path or URL of the image."""
    split: Split | None
    """The split; none if the image could not be opened."""
    value: Any
    """What the function returned; none after a failure."""
    error: str | None
    """Class and text of the exception, if the image could not be opened or read."""


def _run(job: Job, func: Callable[[Disk, Split], Any], opening: Opening, is_strict: bool) -> Result:
    if job.split is None:
        return Result(job.image, None, None, job.error)
    try:
        with opening.open_split(job) as disk:
            return Result(job.image, job.split, func(disk, job.split), None)
    except FAILURES as error:
        if is_strict:
            raise
        return Result(job.image, job.split, None, text_of(error))


def scan(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    func: Callable[[Disk, Split], Any],
    *,
    splits: int | None = None,
    split_size: int | None = None,
    overlap: int = 0,
    recursive: bool = False,
    parents: Parents = "beside",
    strictness: Strictness = "strict",
    strict: bool = False,
) -> Any:
    """Call `func` with the disk and a split of it, for all splits of all images.

    Images are opened and planned here, and each split is opened again by its worker, which needs the same paths. An
    image that was changed meanwhile is a failure.

    Args:
        paths: Files, folders (of which all `*.vhdx` and `*.avhdx` are taken), patterns, or URLs of fsspec.
        func: Called by the workers; its results must be picklable.
        splits: As for `Disk.plan`.
        split_size: As for `Disk.plan`: 4 GiB of data by default.
        overlap: As for `Disk.plan`.
        recursive: Whether folders in folders are searched.
        parents: As for `vhdx_mmap.open`.
        strictness: As for `vhdx_mmap.open`.
        strict: Whether a failure raises its exception. Otherwise, it is a `Result` with an `error`.

    Returns:
        A `dask.bag.Bag` of `Result`, in the order of images and splits: `compute()` runs it on the current client of
        dask.distributed, or by processes of this machine.
    """
    opening = Opening(parents, strictness)
    jobs = plan_all(
        expand(paths, recursive), opening, is_strict=strict, splits=splits, split_size=split_size, overlap=overlap
    )
    return bag.from_sequence(jobs, npartitions=max(len(jobs), 1)).map(_run, func, opening, strict)
