#!/usr/bin/env python3
"""Times `vhdx list` and `vhdx chain --tree` on a folder with thousands of images, on one machine and in one run.

It writes its own images, sparse ones: bases of 127 GiB with three checkpoints each, in folders of 40; and as many in
one folder whose parents do not exist. For each command it prints seconds, processor seconds, the peak of memory, bytes
that the command read, and bytes that the drive returned: once with nothing in the page cache, and once with everything
in it. The number of rows is checked.

  benches/inventory.py                          10,000 images, and 1,000 for comparison: 2 GB of disk
  benches/inventory.py --images 2000 --vhdx target/release/vhdx
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KIB, MIB = 1 << 10, 1 << 20
DISK, BLOCK, SECTOR = 127 << 30, 32 * MIB, 512


def crc_table():
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        yield crc


TABLE = list(crc_table())


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = TABLE[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def number(value, length):
    return value.to_bytes(length, "little")


def sealed(structure):
    """A structure with its checksum, which counts as zero in it."""
    return structure[:4] + number(crc32c(structure), 4) + structure[8:]


def header(sequence, identity):
    fields = number(0, 4) + number(sequence, 8) + uuid.UUID(int=sequence).bytes_le + identity.bytes_le + bytes(16)
    fields += number(0, 2) + number(1, 2) + number(MIB, 4) + number(MIB, 8)
    return sealed(b"head" + fields.ljust(4092, b"\0"))


def region_table():
    def region(guid, offset):
        return uuid.UUID(guid).bytes_le + number(offset, 8) + number(MIB, 4) + number(1, 4)

    table = number(0, 4) + number(2, 4) + number(0, 4)
    table += region("2DC27766-F623-4200-9D64-115E9BFD4A08", 3 * MIB)
    table += region("8B7CA206-4790-4B9A-B8FE-575F050F886E", 2 * MIB)
    return sealed(b"regi" + table.ljust(64 * KIB - 4, b"\0"))


def locator(parent, name):
    pairs = [("parent_linkage", f"{{{parent}}}"), ("relative_path", f".\\{name}")]
    texts = [text.encode("utf-16-le") for pair in pairs for text in pair]
    at, entries = 20 + 12 * len(pairs), b""
    for key, value in zip(texts[::2], texts[1::2]):
        entries += number(at, 4) + number(at + len(key), 4) + number(len(key), 2) + number(len(value), 2)
        at += len(key) + len(value)
    kind = uuid.UUID("B04AEFB7-D19E-4A81-B789-25B8E9445913").bytes_le
    return kind + number(0, 2) + number(len(pairs), 2) + entries + b"".join(texts)


def metadata(parent, name):
    items = [
        ("CAA16737-FA36-4D43-B3B6-33F0AA44E76B", 4, number(BLOCK, 4) + number(2 if parent else 0, 4)),
        ("2FA54224-CD1B-4876-B211-5DBED83BF4B8", 6, number(DISK, 8)),
        ("BECA12AB-B2E6-4523-93EF-C309E000C746", 6, uuid.UUID(int=7).bytes_le),
        ("8141BF1D-A96F-4709-BA47-F233A8FAAB5F", 6, number(SECTOR, 4)),
        ("CDA348C7-445D-4471-9CC9-E9885251C556", 6, number(4096, 4)),
    ]
    if parent:
        items.append(("A8D35F2D-B30B-454D-ABF7-D3D84834AB0C", 4, locator(parent, name)))
    table, content = b"metadata" + number(0, 2) + number(len(items), 2) + bytes(20), b""
    for guid, flags, body in items:
        table += uuid.UUID(guid).bytes_le + number(64 * KIB + len(content), 4)
        table += number(len(body), 4) + number(flags, 4) + number(0, 4)
        content += body
    return table.ljust(64 * KIB, b"\0") + content


REGIONS = region_table()


def write_image(path, identity, parent, name):
    """An image with one block, whose first sector is not empty."""
    with open(path, "wb") as file:
        parts = [(0, b"vhdxfile" + "bench".encode("utf-16-le")), (64 * KIB, header(1, identity))]
        parts += [(128 * KIB, header(2, identity)), (192 * KIB, REGIONS), (256 * KIB, REGIONS)]
        parts += [(2 * MIB, metadata(parent, name)), (3 * MIB, number(4 * MIB | 6, 8)), (4 * MIB, identity.bytes)]
        for offset, data in parts:
            file.seek(offset)
            file.write(data)
        file.truncate(4 * MIB + BLOCK)


def make(folder, images):
    for chain in range(images // 4):
        place = folder / f"{chain // 10:04}"
        place.mkdir(exist_ok=True)
        parent = name = None
        for depth in range(4):
            own = uuid.UUID(int=(chain << 8) + depth + 1)
            file = f"vm{chain:05}.vhdx" if depth == 0 else f"vm{chain:05}_{depth}.avhdx"
            write_image(place / file, own, parent, name)
            parent, name = own, file
    return images // 4 * 4


def make_orphans(folder, images):
    """Children in one folder whose parents do not exist: each is searched for."""
    for orphan in range(images):
        own, parent = (uuid.UUID(int=number << 64 | orphan) for number in (1, 2))
        write_image(folder / f"orphan{orphan:05}.avhdx", own, parent, f"gone{orphan:05}.vhdx")
    return images


def drop_cache(folder):
    os.sync()
    for path in folder.rglob("*vhdx"):
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_so_far():
    """Bytes that this process and its ended children read: by calls, and from drives."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["rchar"]), int(fields["read_bytes"])


def measured(command, rows):
    with tempfile.TemporaryFile() as out:
        before, begun = read_so_far(), time.monotonic()
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out)
        _, status, usage = os.wait4(child.pid, 0)
        wall, after = time.monotonic() - begun, read_so_far()
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        found = sum(1 for _ in out)
    if child.returncode or found != rows:
        sys.exit(f"{command}: exit code {child.returncode}, {found} lines (expected {rows})")
    calls, drive = (end - start for start, end in zip(before, after))
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, calls / MIB, drive / MIB


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--images", type=int, default=10_000)
    arguments.add_argument("--vhdx", type=Path, default=ROOT / "target/release/vhdx")
    arguments.add_argument("--folder", type=Path, help="where the images are written")
    chosen = arguments.parse_args()
    print("| images | command | page cache | seconds | processor | peak memory | read by calls | read from the drive |")
    print("|---:|---|---|---:|---:|---:|---:|---:|")
    sizes = [(wanted, maker) for maker in (make, make_orphans) for wanted in (chosen.images // 10, chosen.images)]
    for wanted, maker in sizes:
        with tempfile.TemporaryDirectory(dir=chosen.folder) as name:
            folder = Path(name)
            images = maker(folder, wanted)
            commands = [
                (["list", "--output", "json"], images),
                (["list"], images + 2),
                (["list", "--sort", "allocated"], images + 2),
                (["chain", "--tree"], images),
            ]
            if maker is make_orphans:
                commands = [(["list", "--output", "json"], images), (["list", "--json", "--parents", name], images)]
            for words, rows in commands:
                for is_cold in [True, False]:
                    if is_cold:
                        drop_cache(folder)
                    seconds, processor, memory, calls, drive = measured([chosen.vhdx, *words, folder], rows)
                    print(
                        f"| {images:,} | `{' '.join(words)}` | {'cold' if is_cold else 'warm'} | {seconds:.2f} s "
                        f"| {processor:.2f} s | {memory:.0f} MiB | {calls:.0f} MiB | {drive:.0f} MiB |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
