"""Many images as jobs for the workers of an engine: paths are expanded, and each image is divided into splits."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from ._disk import Disk, Strictness
from ._plan import Split
from ._sources import Parents, _fsspec  # pyright: ignore[reportPrivateUsage]
from .errors import VhdxError

__all__ = ["FAILURES", "Job", "Opening", "expand", "plan_all", "text_of"]

# In a folder, files with other names are no images.
SUFFIXES = (".vhdx", ".avhdx")

# To open an image is waiting for its storage.
THREADS = 16

# What may be wrong with an image or its storage. Everything else is a mistake in a program, and ends the work.
FAILURES = (VhdxError, OSError, EOFError)


def text_of(error: BaseException) -> str:
    """The text of a failure, for a column of a table."""
    return f"{type(error).__name__}: {error}"


def _is_url(path: str) -> bool:
    return "://" in path


def _is_image(path: str) -> bool:
    return path.lower().endswith(SUFFIXES)


def _of_url(url: str, recursive: bool) -> list[str]:
    fs, path = _fsspec().core.url_to_fs(url)
    if glob.has_magic(path):
        found = fs.glob(path)
    elif fs.isdir(path):
        found = filter(_is_image, fs.find(path) if recursive else fs.ls(path, detail=False))
    else:
        return [url]
    return sorted(fs.unstrip_protocol(name) for name in found)


def _of_path(path: str, recursive: bool) -> list[str]:
    path = os.path.abspath(path)
    if os.path.isdir(path):
        # A folder that cannot be read is taken for an image, so that its failure comes where all others do.
        failed: list[str] = []
        found: list[str] = []
        for folder, folders, names in os.walk(path, onerror=lambda error: failed.append(str(error.filename))):
            found += [os.path.join(folder, name) for name in names if _is_image(name)]
            if not recursive:
                folders.clear()
        return sorted(found + failed)
    if glob.has_magic(path) and not os.path.exists(path):
        return sorted(glob.glob(path, recursive=True))
    return [path]


def expand(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], recursive: bool = False) -> list[str]:
    """The images that paths stand for: files, folders (of which all `*.vhdx` and `*.avhdx` are taken), patterns, and
    URLs of fsspec. Each image once, in order. A file that does not exist is one, too: its error comes later."""
    given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    found: list[str] = []
    for path in [os.fspath(path) for path in given]:
        if path.startswith("file:"):
            path = "/" + path[5:].lstrip("/")
        found += _of_url(path, recursive) if _is_url(path) else _of_path(path, recursive)
    return list(dict.fromkeys(found))


@dataclass(frozen=True)
class Opening:
    """How images are opened."""

    parents: Parents = "beside"
    strictness: Strictness = "strict"

    def open(self, image: str, parents: Parents | None = None) -> Disk:
        """Open an image."""
        return Disk(image, parents=self.parents if parents is None else parents, strictness=self.strictness)

    def open_split(self, job: Job) -> Disk:
        """Open the image of a job, in the state in which it was planned."""
        assert job.split is not None
        # A plan does not name what is not a file of this machine.
        source = job.image if _is_url(job.image) else None
        return job.split.open(source, parents=self.parents, strictness=self.strictness)


@dataclass(frozen=True)
class Job:
    """A split of an image, or why the image has none."""

    image: str
    split: Split | None = None
    error: str | None = None


def plan_all(images: Sequence[str], opening: Opening, *, is_strict: bool, **options: Any) -> list[Job]:
    """Divide images into splits, several images at a time. What fails is a job with an error, or raises it if
    `is_strict`."""

    def plan(image: str) -> list[Job]:
        try:
            with opening.open(image) as disk:
                return [Job(image, split) for split in disk.plan(**options)]
        except FAILURES as error:
            if is_strict:
                raise
            return [Job(image, error=text_of(error))]

    with ThreadPoolExecutor(THREADS) as pool:
        return [job for jobs in pool.map(plan, images) for job in jobs]
