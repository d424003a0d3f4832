"""Times this package beside pyvhdi (libvhdi-python), in one run, on one image in the page cache.

    pip install ./bindings/python libvhdi-python pyarrow
    python bindings/python/benches/compare.py [--size MIB] [--folder FOLDER] [--processor]

With `--processor`, times are those of the processor, for machines that others use, too.

Both programs must return the same bytes, or the run ends. Each figure is the median of the rounds, which take turns.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import images  # noqa: E402
import pyvhdi  # noqa: E402
import vhdx_mmap  # noqa: E402

MIB = 1 << 20
PAGE = 4096


def dense(path: Path, mib: int) -> None:
    """An image with all blocks in the file, in the order of the disk."""
    images.Image(size=mib * MIB).write(path)
    with path.open("r+b") as file:
        entries = [6 | images.PAYLOAD + block * MIB for block in range(mib)]
        # An entry of a sector bitmap block follows each chunk.
        table = bytearray(MIB)
        for block, entry in enumerate(entries):
            struct.pack_into("<Q", table, 8 * (block + block // images.CHUNK), entry)
        file.seek(images.BAT)
        file.write(table)
        file.seek(images.PAYLOAD)
        for _ in range(mib):
            file.write(os.urandom(MIB))


def sparse_64_tib(path: Path) -> None:
    """An image of 64 TiB in blocks of 1 MiB, none of which is allocated."""
    blocks, size = 1 << 26, 64 << 40
    image = images.Image(size=size)
    image.write(path)
    length = -(-8 * (blocks + blocks // images.CHUNK) // MIB) * MIB
    with path.open("r+b") as file:
        for place in (192 << 10, 256 << 10):
            file.seek(place)
            table = bytearray(file.read(64 << 10))
            # The BAT, at the end of the file, as long as it has to be.
            struct.pack_into("<QI", table, 32, images.PAYLOAD, length)
            file.seek(place)
            file.write(images.sealed(table))
        file.truncate(images.PAYLOAD + length)


now = time.perf_counter


def clock(work: Callable[[], object]) -> float:
    begin = now()
    work()
    return now() - begin


def rounds(works: dict[str, Callable[[], object]], count: int) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()
    for _ in range(count):
        for name, work in works.items():
            times[name].append(clock(work))
    return {name: statistics.median(found) for name, found in times.items()}


def row(work: str, found: str, other: str, ratio: float | None) -> None:
    print(f"| {work} | {found} | {other} | {'' if ratio is None else f'{ratio:.3f}'} |")


def small_reads(path: Path, count: int) -> None:
    mapped, opened, other = vhdx_mmap.open(path, mmap=True), vhdx_mmap.open(path), pyvhdi.open(str(path))
    chosen = random.Random(1)
    offsets = [chosen.randrange(mapped.size // PAGE) * PAGE for _ in range(count)]
    for offset in offsets[:100]:
        expected = other.read_buffer_at_offset(PAGE, offset)
        view = mapped.view(offset, PAGE)
        assert isinstance(view, vhdx_mmap.Data) and view.memory == expected == opened.pread(PAGE, offset)
    buffer = bytearray(PAGE)

    def each(call: Callable[[int], object]) -> Callable[[], None]:
        def work() -> None:
            for offset in offsets:
                call(offset)

        return work

    borrow, pread, theirs = mapped.view, mapped.pread, other.read_buffer_at_offset
    found = rounds(
        {
            "loop": each(lambda offset: None),
            "view": each(lambda offset: borrow(offset, PAGE)),
            "memory": each(lambda offset: borrow(offset, PAGE).memory),  # type: ignore[union-attr]
            "readinto": each(lambda offset: mapped.readinto_at(buffer, offset)),
            "pread": each(lambda offset: pread(PAGE, offset)),
            "pread, not mapped": each(lambda offset: opened.pread(PAGE, offset)),
            "pyvhdi": each(lambda offset: theirs(PAGE, offset)),
        },
        5,
    )
    # The loop with its lambda costs the same for all.
    loop = found.pop("loop")
    pure = {name: (seconds - loop) / count * 1e9 for name, seconds in found.items()}
    for name in ("view", "memory", "readinto", "pread", "pread, not mapped"):
        row(f"{name} of 4 KiB, random", f"{pure[name]:.0f} ns", f"{pure['pyvhdi']:.0f} ns", pure[name] / pure["pyvhdi"])


def passes(path: Path) -> None:
    mapped, opened, other = vhdx_mmap.open(path, mmap=True), vhdx_mmap.open(path), pyvhdi.open(str(path))
    offsets = range(0, mapped.size, MIB)
    buffers = [bytearray(MIB), bytearray(MIB)]

    def ours(disk: vhdx_mmap.Disk, which: int, step: int) -> None:
        for offset in offsets[which::step]:
            disk.readinto_at(buffers[which], offset)

    def theirs() -> None:
        buffer = buffers[0]
        for offset in offsets:
            buffer[:] = other.read_buffer_at_offset(MIB, offset)

    def two() -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda which: ours(mapped, which, 2), range(2)))

    found = rounds(
        {
            "mapped": lambda: ours(mapped, 0, 1),
            "opened": lambda: ours(opened, 0, 1),
            "two": two,
            "pyvhdi": theirs,
        },
        3,
    )
    size, pyvhdi_time = mapped.size // MIB, found["pyvhdi"]
    for name, what in (("mapped", "mapped"), ("opened", "not mapped")):
        text = f"readinto_at in pieces of 1 MiB over {size} MiB, {what}"
        row(text, f"{found[name]:.3f} s", f"{pyvhdi_time:.3f} s", found[name] / pyvhdi_time)
    two_threads, one_thread = found["two"], found["mapped"]
    row("the same, two threads against one", f"{two_threads:.3f} s", f"{one_thread:.3f} s", two_threads / one_thread)


TABLE = """
import sys, time, vhdx_mmap, pyarrow

def peak():
    # That of this program: the one of `getrusage` is at least that of the program that has started it.
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))

disk = vhdx_mmap.open(sys.argv[1])
before = peak()
begin = time.NOW()
if sys.argv[2] == "table":
    rows = pyarrow.table(disk.blocks()).num_rows
else:
    rows = sum(batch.num_rows for batch in pyarrow.RecordBatchReader.from_stream(disk.blocks()))
spent = time.NOW() - begin
assert rows == 1 << 26, rows
print(spent, (peak() - before) / 1024)
"""


def tables(path: Path) -> None:
    for how, text in (("table", "as a table"), ("stream", "as a stream")):
        code = TABLE.replace("NOW", now.__name__)
        command = [sys.executable, "-c", code, str(path), how]
        runs = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(5)]
        spent, memory = zip(*([float(number) for number in run.stdout.split()] for run in runs), strict=True)
        found = f"{statistics.median(spent):.2f} s, {statistics.median(memory):.0f} MiB"
        row(f"all blocks of 64 TiB in blocks of 1 MiB, {text}", found, "", None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=2048, help="size of the disk, in MiB")
    parser.add_argument("--count", type=int, default=200_000, help="number of small reads")
    parser.add_argument("--folder", default=None, help="where the images are made")
    parser.add_argument("--processor", action="store_true", help="measure the time of the processor")
    options = parser.parse_args()
    if options.processor:
        global now
        now = time.process_time
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path, huge = Path(folder) / "dense.vhdx", Path(folder) / "huge.vhdx"
        dense(path, options.size)
        sparse_64_tib(huge)
        print("| work | vhdx_mmap | other | ratio |\n|---|---|---|---|")
        small_reads(path, options.count)
        passes(path)
        tables(huge)


if __name__ == "__main__":
    main()
