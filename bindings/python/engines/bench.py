"""Times Spark with one executor against Spark with two, in rounds that take turns, on images of 40 GiB in total.

    pip install ./bindings/python 'pyspark>=4.1,<5' 'pandas<3' pyarrow
    python bindings/python/engines/bench.py [--images 8] [--gib 5] [--mib 512] [--rounds 3] [--folder FOLDER]

Two works: digests of all disks (CRC-32 and BLAKE3, merged from shares), and a row with a BLAKE3 for each block. Each
executor has one core. Both clusters must find the same, and the digests of a disk must be those of one machine, or the
run ends. A figure is the median of the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import images  # noqa: E402

MIB = 1 << 20


def make(path: Path, number: int, gib: int, mib: int) -> None:
    """An image of `gib` GiB with `mib` MiB of data, all over the disk."""
    images.Image(size=gib << 30, number=number).write(path)
    step = (gib << 10) // mib
    with path.open("r+b") as file:
        table = bytearray(MIB)
        for place in range(mib):
            block = place * step
            struct.pack_into("<Q", table, 8 * (block + block // images.CHUNK), 6 | images.PAYLOAD + place * MIB)
        file.seek(images.BAT)
        file.write(table)
        file.seek(images.PAYLOAD)
        for _ in range(mib):
            file.write(os.urandom(MIB))


def cluster(executors: int, folder: str) -> None:
    """A cluster that works when it is asked to, and says how long that took."""
    from pyspark.sql import SparkSession
    from vhdx_mmap import spark as source

    os.environ["PYSPARK_PYTHON"] = sys.executable
    session = (
        SparkSession.builder.master(f"local-cluster[{executors},1,512]")
        .config("spark.executor.memory", "512m")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.sql.shuffle.partitions", "4")
        .config("spark.scheduler.minRegisteredResourcesRatio", "1.0")
        .config("spark.scheduler.maxRegisteredResourcesWaitingTime", "300s")
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("OFF")
    source.register(session)

    def digests() -> Any:
        return source.hash(session, folder, "crc32", "blake3", splits=4)

    def blocks() -> Any:
        found = session.read.format("vhdx").options(blake3=True, splitSize=256 * MIB).load(folder)
        row = found.selectExpr("count(*)", "count(DISTINCT blake3)", "count(error)").collect()[0]
        return list(row)

    works = {"digests": digests, "blocks": blocks}
    print("ready", flush=True)
    for line in sys.stdin:
        begin = time.perf_counter()
        found = works[line.strip()]()
        print(json.dumps([time.perf_counter() - begin, found]), flush=True)
    session.stop()


class Cluster:
    """The process of a cluster."""

    def __init__(self, executors: int, folder: str) -> None:
        command = [sys.executable, __file__, "--cluster", str(executors), "--folder", folder]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._to, self._of = self._process.stdin, self._process.stdout
        assert self._of.readline() == "ready\n", "the cluster did not start"

    def run(self, work: str) -> tuple[float, Any]:
        """Work, and return the seconds and what was found."""
        self._to.write(work + "\n")
        self._to.flush()
        seconds, found = json.loads(self._of.readline())
        return seconds, found

    def close(self) -> None:
        """End the process."""
        self._to.close()
        self._process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=8, help="number of images")
    parser.add_argument("--gib", type=int, default=5, help="size of each disk, in GiB")
    parser.add_argument("--mib", type=int, default=512, help="data in each image, in MiB")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", default=None, help="where the images are made")
    parser.add_argument("--cluster", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cluster:
        cluster(options.cluster, options.folder)
        return
    import vhdx_mmap

    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for number in range(options.images):
            make(Path(folder) / f"{number}.vhdx", number + 1, options.gib, options.mib)
        clusters = {executors: Cluster(executors, folder) for executors in (1, 2)}
        one = str(Path(folder) / "0.vhdx")
        expected = vhdx_mmap.open(one).hash("crc32", "blake3")
        print("| work | one executor | two executors | ratio |\n|---|---|---|---|")
        for work in ("digests", "blocks"):
            times: dict[int, list[float]] = {1: [], 2: []}
            for number in range(options.rounds + 1):
                found = {}
                for executors, one_of in clusters.items():
                    seconds, found[executors] = one_of.run(work)
                    # The first round starts processes.
                    if number:
                        times[executors].append(seconds)
                assert found[1] == found[2], f"{work}: the clusters differ"
                if work == "digests":
                    assert found[1][one] == expected, "not the digests of one machine"
                else:
                    # Zeros are one more digest.
                    blocks = options.images * (options.gib << 10)
                    assert found[1] == [blocks, options.images * options.mib + 1, 0], found[1]
            alone, both = (statistics.median(times[executors]) for executors in (1, 2))
            print(f"| {work} | {alone:.2f} s | {both:.2f} s | {both / alone:.2f} |", flush=True)
        for one_of in clusters.values():
            one_of.close()


if __name__ == "__main__":
    main()
