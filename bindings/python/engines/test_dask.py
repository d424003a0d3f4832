"""Dask: two workers, of which one is killed, and the schedulers of one machine."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import vhdx_mmap
from fleets import Fleet
from images import BLOCK
from needs import package

cloudpickle = package("cloudpickle", "dask")
distributed = package("distributed", "dask")
scans = package("vhdx_mmap.dask", "dask")

# Workers do not have this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        client.wait_for_workers(2)
        yield client


def crc32(disk: vhdx_mmap.Disk, split: vhdx_mmap.Split) -> dict[str, Any]:
    return split.hash("crc32", disk=disk)


def content_of(disk: vhdx_mmap.Disk, split: vhdx_mmap.Split) -> bytes:
    return disk.pread(split.length, split.offset)


def test_content_is_exact(client: Any, fleet: Fleet) -> None:
    found = scans.scan(fleet.healthy, content_of, splits=3).compute()
    assert [(result.image, result.split.index) for result in found] == [
        (path, number) for path in fleet.healthy for number in (1, 2, 3)
    ]
    assert all(result.error is None for result in found)
    for name, content in fleet.contents.items():
        assert b"".join(result.value for result in found if result.image == fleet.path(name)) == content


def test_digests_are_merged(client: Any, fleet: Fleet) -> None:
    path, content = fleet.path("leaf.avhdx"), fleet.contents["leaf.avhdx"]
    found = scans.scan(path, crc32, splits=5).compute()
    assert vhdx_mmap.merge(result.value for result in found) == {"crc32": f"{zlib.crc32(content):08x}"}


def test_a_killed_worker(client: Any, fleet: Fleet, tmp_path: Path) -> None:
    marker = tmp_path / "killed"

    def kill_once(disk: vhdx_mmap.Disk, split: vhdx_mmap.Split) -> dict[str, Any]:
        if split.index == 4:
            try:
                with marker.open("x") as file:
                    file.write(str(os.getpid()))
            except FileExistsError:
                return split.hash("crc32", disk=disk)
            os.kill(os.getpid(), signal.SIGKILL)
        return split.hash("crc32", disk=disk)

    path, content = fleet.path("leaf.avhdx"), fleet.contents["leaf.avhdx"]
    before = {worker["pid"] for worker in client.run(lambda: {"pid": os.getpid()}).values()}
    found = scans.scan(path, kill_once, splits=8).compute()
    assert int(marker.read_text()) in before
    assert [result.split.index for result in found] == list(range(1, 9))
    assert vhdx_mmap.merge(result.value for result in found) == {"crc32": f"{zlib.crc32(content):08x}"}


def test_failures(client: Any, fleet: Fleet) -> None:
    found = scans.scan(str(fleet.folder), crc32, splits=2).compute()
    failed = {Path(result.image).name: result.error.split(":")[0] for result in found if result.error}
    assert failed == fleet.broken
    assert {Path(result.image).name for result in found if not result.error} == set(fleet.contents)
    with pytest.raises(vhdx_mmap.VhdxError):
        scans.scan(str(fleet.folder), crc32, strict=True)


def test_failures_of_workers(client: Any, fleet: Fleet, tmp_path: Path) -> None:
    import shutil

    path = Path(shutil.copy(fleet.path("dynamic.vhdx"), tmp_path / "disk.vhdx"))
    lenient, strict = scans.scan(path, crc32, splits=2), scans.scan(path, crc32, splits=2, strict=True)
    times = os.stat(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    assert [result.error.split(":")[0] for result in lenient.compute()] == ["ChangedError"] * 2
    with pytest.raises(vhdx_mmap.ChangedError):
        strict.compute()


def test_a_mistake_is_no_failure(client: Any, fleet: Fleet) -> None:
    def mistake(disk: vhdx_mmap.Disk, split: vhdx_mmap.Split) -> int:
        return len(split.nothing)  # type: ignore[attr-defined]

    with pytest.raises(AttributeError):
        scans.scan(fleet.path("dynamic.vhdx"), mistake).compute()


def test_without_a_cluster(fleet: Fleet) -> None:
    path, content = fleet.path("dynamic.vhdx"), fleet.contents["dynamic.vhdx"]
    for scheduler in ("synchronous", "threads", "processes"):
        found = scans.scan(path, crc32, split_size=BLOCK).compute(scheduler=scheduler)
        assert len(found) == 3
        assert vhdx_mmap.merge(result.value for result in found) == {"crc32": f"{zlib.crc32(content):08x}"}


def test_results_can_be_pickled(fleet: Fleet) -> None:
    (result,) = scans.scan(fleet.path("dynamic.vhdx"), crc32, splits=1).compute(scheduler="synchronous")
    assert pickle.loads(pickle.dumps(result)) == result
    assert scans.scan([], crc32).compute(scheduler="synchronous") == []
