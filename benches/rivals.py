#!/usr/bin/env python3
"""Times `vhdx` beside other programs, on one machine and in one run.

It makes its own images, checks that all get the same result, runs everything in turn, and prints medians, processor
time, peak memory, bytes that the drive returned, and ratios; with --out, also as Markdown and as a chart (SVG).
Programs that are not installed are left out, and a line says so.

  benches/rivals.py                      all of it: 40 minutes, 25 GB of disk, 8 GB of memory
  benches/rivals.py --size 256 --rounds 3 --without-slow
"""

import argparse
import json
import os
import platform
import random
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MIB = 1 << 20


def run(command, **more):
    subprocess.run(command, shell=isinstance(command, str), check=True, stdin=subprocess.DEVNULL, **more)


def said(command):
    found = subprocess.run(command, shell=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return found.stdout.strip().splitlines()[0] if found.stdout.strip() else "?"


class Timed:
    """What the runs of one contestant took."""

    def __init__(self):
        self.wall, self.cpu, self.memory, self.read = [], [], 0, []

    def add(self, wall, cpu, memory, read):
        self.wall.append(wall)
        self.cpu.append(cpu)
        self.memory = max(self.memory, memory)
        self.read.append(read)


def measured(command):
    """Seconds, processor seconds, the peak of memory in MiB, and MiB from the drive, of `command`.

    GNU time starts it: of a child of this process the system would count this process's memory."""
    with tempfile.NamedTemporaryFile("r") as report:
        line = ["time", "-f", "%M %I", "-o", report.name, "sh", "-c", command]
        before, begun = os.times(), time.monotonic()
        done = subprocess.run(line, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                              text=True)
        wall, after = time.monotonic() - begun, os.times()
        if done.returncode:
            sys.exit(f"{command}: {done.stderr}")
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        memory, sectors = map(int, report.read().split())
        return wall, cpu, memory >> 10, sectors * 512 / MIB


class Bench:
    def __init__(self, args):
        self.args = args
        # (title, [(name, Timed)], note)
        self.rows = []
        self.known = json.loads(args.state.read_text()) if args.state and args.state.exists() else {}

    def keep(self, title, rows, note=""):
        """Adds what was measured, and writes it down."""
        self.rows.append((title, rows, note))
        self.known[title] = [[(name, vars(timed)) for name, timed in rows], note]
        if self.args.state:
            self.args.state.write_text(json.dumps(self.known))

    def has(self, title):
        """Takes what an earlier run has measured."""
        if title not in self.known:
            return False
        rows, note = self.known[title]
        taken = []
        for name, values in rows:
            timed = Timed()
            vars(timed).update(values)
            taken.append((name, timed))
        self.rows.append((title, taken, note))
        return True

    def time(self, title, contestants, before=None, rounds=None, note=""):
        """Runs each of `contestants` (name, command, program) in turn; the first one is ours."""
        if self.has(title):
            return
        there = []
        for name, command, program in contestants:
            if shutil.which(program):
                there.append((name, command))
            else:
                print(f"  left out: {program} is not there", file=sys.stderr)
        timed = {name: Timed() for name, _ in there}
        for _ in range(rounds or self.args.rounds):
            for name, command in random.sample(there, len(there)):
                if before:
                    before()
                timed[name].add(*measured(command))
        self.keep(title, [(name, timed[name]) for name, _ in there], note)
        ours = statistics.median(timed[there[0][0]].wall)
        print(f"\n{title}" + (f" ({note})" if note else ""))
        for name, found in self.rows[-1][1]:
            wall = statistics.median(found.wall)
            read = statistics.median(found.read)
            print(f"  {name:28} {wall:9.3f} s  cpu {statistics.median(found.cpu):8.3f}  {found.memory:5} MiB  "
                  f"read {read:5.0f} MiB  {wall / ours:7.2f} x")
        sys.stdout.flush()


def images(folder, mebibytes, sparse):
    """Dense and sparse images, made by qemu-img; the raw disks beside them."""
    raw, dense = folder / "dense.raw", folder / "dense.vhdx"
    with open(raw, "wb") as out, open("/dev/urandom", "rb") as noise:
        for _ in range(mebibytes):
            out.write(noise.read(MIB))
    run(["qemu-img", "convert", "-m", "1", "-O", "vhdx", "-o", "subformat=dynamic,block_size=16M", raw, dense])
    if sparse:
        piece = folder / "piece"
        run(["dd", "status=none", f"if={raw}", f"of={piece}", "bs=1M", "count=32"])
        for name, size, step in [("small", 2 << 30, 64 * MIB), ("1T", 1 << 40, 1 << 35), ("64T", 1 << 46, 1 << 41)]:
            image = folder / f"{name}.vhdx"
            run(["qemu-img", "create", "-q", "-f", "vhdx", image, str(size)])
            writes = [word for index in range(32) for word in ("-c", f"write -q -s {piece} {index * step} {32 * MIB}")]
            run(["qemu-io", "-f", "vhdx", *writes, image], stdout=subprocess.DEVNULL)
        piece.unlink()
    for file in folder.iterdir():
        with open(file, "rb") as opened:
            os.fsync(opened.fileno())


def crc32_work(bench, vhdx, peer, image, place):
    size = f"{bench.args.size} MiB"
    bench.time(f"crc32 of {size}, {place}", [
        ("vhdx hash -a crc32", f"{vhdx} hash -a crc32 {image}", vhdx),
        ("cat IMAGE > /dev/null", f"cat {image} > /dev/null", "cat"),
        ("pread and sum, two threads", f"{peer} sum {image}", peer),
        ("7zz t -scrcCRC32", f"7zz t -tvhdx -scrcCRC32 {image}", "7zz"),
    ])
    bench.time(f"crc32 of {size} on one thread, {place}", [
        ("vhdx hash -a crc32", f"{vhdx} hash -a crc32 --threads 1 {image}", vhdx),
        ("cat IMAGE > /dev/null", f"cat {image} > /dev/null", "cat"),
    ])


def dense_work(bench, vhdx, peer, folder, place, best):
    image, raw, out = folder / "dense.vhdx", folder / "dense.raw", folder / "out"
    size = f"{bench.args.size} MiB"
    fresh = lambda: out.unlink(missing_ok=True)
    bench.time(f"extract {size} to a new file, {place}", [
        ("vhdx extract", f"{vhdx} extract {image} {out}", vhdx),
        ("cp (of the raw disk)", f"cp {raw} {out}", "cp"),
        (f"qemu-img convert {best}", f"qemu-img convert {best} -O raw {image} {out}", "qemu-img"),
        ("nbdcopy of qemu-nbd", f"nbdcopy -- [ qemu-nbd -r -f vhdx {image} ] {out}", "nbdcopy"),
        ("7zz e -so", f"7zz e -tvhdx -so {image} > {out}", "7zz"),
    ], before=fresh)
    run(f"{vhdx} extract -f {image} {out} && cmp {raw} {out}")
    bench.time(f"extract {size} into a file that is there, {place}", [
        ("vhdx extract -n", f"{vhdx} extract -n {image} {out}", vhdx),
        ("dd conv=notrunc (raw)", f"dd if={raw} of={out} bs=1M conv=notrunc", "dd"),
        ("qemu-img convert -n -m 16 -W", f"qemu-img convert -n -m 16 -W -O raw {image} {out}", "qemu-img"),
    ])
    run(f"cmp {raw} {out}")
    bench.time(f"extract {size} to a pipe, {place}", [
        ("vhdx extract - | cat", f"{vhdx} extract {image} - | cat > /dev/null", vhdx),
        ("cat (raw) | cat", f"cat {raw} | cat > /dev/null", "cat"),
        ("7zz e -so | cat", f"7zz e -tvhdx -so {image} | cat > /dev/null", "7zz"),
    ])
    bench.time(f"extract {size} into a file that is there, with sha256 and crc32, {place}", [
        ("vhdx extract -n --hash", f"{vhdx} extract -n --hash sha256,crc32 {image} {out}", vhdx),
        ("vhdx hash -a sha256 alone", f"{vhdx} hash -a sha256 {image}", vhdx),
        ("qemu-img, then openssl", f"qemu-img convert -n -m 16 -W -O raw {image} {out} && openssl dgst -sha256 {out}",
         "qemu-img"),
    ])
    fresh()
    crc32_work(bench, vhdx, peer, image, place)
    bench.time(f"blake3 of {size}, {place}", [
        ("vhdx hash -a blake3", f"{vhdx} hash -a blake3 {image}", vhdx),
        ("b3sum (raw)", f"b3sum {raw}", "b3sum"),
    ])
    bench.time(f"sha256 of {size}, {place}", [
        ("vhdx hash", f"{vhdx} hash {image}", vhdx),
        ("openssl dgst -sha256 (raw)", f"openssl dgst -sha256 {raw}", "openssl"),
        ("7zz t -scrcSHA256", f"7zz t -tvhdx -scrcSHA256 {image}", "7zz"),
    ])
    bench.time(f"compare {size} with the raw disk, {place}", [
        ("vhdx compare", f"{vhdx} compare {image} {raw}", vhdx),
        ("qemu-img compare", f"qemu-img compare -f vhdx -F raw {image} {raw}", "qemu-img"),
        ("cmp (raw with raw)", f"cmp {raw} {raw}.copy", "cmp"),
    ], before=lambda: (folder / "dense.raw.copy").exists() or shutil.copy(raw, f"{raw}.copy"))
    (folder / "dense.raw.copy").unlink(missing_ok=True)


def forget_files(files):
    for path in files:
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def many_work(bench, vhdx, folder):
    image, raw, copy, fleet = folder / "dense.vhdx", folder / "dense.raw", folder / "copy.vhdx", folder / "fleet"
    shutil.copy(image, copy)
    bench.time(f"sha256 of two images of {bench.args.size} MiB, disk", [
        ("vhdx hash", f"{vhdx} hash {image} {copy}", vhdx),
        ("vhdx hash --threads 1", f"{vhdx} hash --threads 1 {image} {copy}", vhdx),
        ("openssl dgst -sha256 (raw, twice)", f"openssl dgst -sha256 {raw} {raw}", "openssl"),
    ])
    copy.unlink()
    fleet.mkdir()
    files = [fleet / f"{number}.vhdx" for number in range(100)]
    for file in files:
        run(["qemu-img", "create", "-q", "-f", "vhdx", file, "127G"])
        run(["qemu-io", "-f", "vhdx", "-c", "write -q -P 7 1M 64k", file], stdout=subprocess.DEVNULL)
    os.sync()
    bench.time("info of 100 images of 127 GiB that are not in memory, disk", [
        ("vhdx info", f"{vhdx} info {fleet}/*.vhdx", vhdx),
        ("vhdx list", f"{vhdx} list {fleet}", vhdx),
        ("qemu-img info, one after the other", f"for file in {fleet}/*.vhdx; do qemu-img info $file; done", "qemu-img"),
    ], before=lambda: forget_files(files))
    shutil.rmtree(fleet)


def cold_work(bench, vhdx, folder):
    image = folder / "dense.vhdx"
    forget = lambda: forget_files([image])
    bench.time("crc32 of what is not in memory, disk", [
        ("vhdx hash -a crc32", f"{vhdx} hash -a crc32 {image}", vhdx),
        ("cat IMAGE > /dev/null", f"cat {image} > /dev/null", "cat"),
    ], before=forget)
    forget()
    run(f"{vhdx} hash -a crc32 {image}", stdout=subprocess.DEVNULL)
    bench.time("crc32 once more, after that, disk", [
        ("vhdx hash -a crc32", f"{vhdx} hash -a crc32 {image}", vhdx),
        ("cat IMAGE > /dev/null", f"cat {image} > /dev/null", "cat"),
    ])


def sparse_work(bench, vhdx, folder, place):
    image, raw, out = folder / "1T.vhdx", folder / "1T.raw", folder / "out"
    run(f"{vhdx} extract {image} {raw}")
    fresh = lambda: out.unlink(missing_ok=True)
    slow = [] if bench.args.without_slow else ["qemu-img"]
    title = f"extract 1 TiB with 1 GiB of data, {place}"
    bench.time(title, [
        ("vhdx extract", f"{vhdx} extract {image} {out}", vhdx),
        ("cp (of the sparse raw disk)", f"cp {raw} {out}", "cp"),
    ], before=fresh)
    for program in slow:
        bench.time(title + ", once", [
            ("vhdx extract", f"{vhdx} extract {image} {out}", vhdx),
            ("qemu-img convert", f"qemu-img convert -O raw {image} {out}", program),
        ], before=fresh, rounds=1)
    fresh()
    title = f"compare 1 TiB with its sparse raw disk, {place}"
    contestants = [("vhdx compare", f"{vhdx} compare {image} {raw}", vhdx)]
    bench.time(title, contestants)
    for program in slow:
        command = f"qemu-img compare -f vhdx -F raw {image} {raw}"
        bench.time(title + ", once", [*contestants, ("qemu-img compare", command, program)], rounds=1)
    bench.time(f"crc32 of 1 GiB of data, {place}", [
        ("in a disk of 64 TiB", f"{vhdx} hash -a crc32 {folder / '64T.vhdx'}", vhdx),
        ("in a disk of 2 GiB", f"{vhdx} hash -a crc32 {folder / 'small.vhdx'}", vhdx),
    ], note="both ours")


def table_work(bench, vhdx, peer, folder):
    image = folder / "table.vhdx"
    # qemu-img writes every entry of the block allocation table; others leave it a hole of the file.
    makers = [("full", ["qemu-img", "create", "-q", "-f", "vhdx", "-o", "block_size=1M", image, "64T"]),
              ("sparse", [peer, "table", image])]
    for kind, maker in makers:
        run(maker)
        for command in ["info", "map"]:
            bench.time(f"{command} of a disk of 64 TiB in blocks of 1 MiB, {kind} table", [
                (f"vhdx {command}", f"{vhdx} {command} {image}", vhdx),
                (f"qemu-img {command}", f"qemu-img {command} --output=json {image}", "qemu-img"),
            ])
        image.unlink()


def shared_work(bench, vhdx, peer, folder, source):
    for kind in ["xfs", "btrfs"]:
        if os.geteuid() != 0 or not shutil.which(f"mkfs.{kind}"):
            print(f"  left out: {kind} needs root and mkfs.{kind}", file=sys.stderr)
            continue
        disk, point = folder / f"{kind}.img", folder / kind
        run(["truncate", "-s", "16G", disk])
        run([f"mkfs.{kind}", "-q", disk], stdout=subprocess.DEVNULL)
        point.mkdir()
        run(["mount", "-o", "loop", disk, point])
        try:
            image, raw, out = point / "dense.vhdx", point / "dense.raw", point / "out"
            shutil.copy(source / "dense.vhdx", image)
            shutil.copy(source / "dense.raw", raw)
            os.sync()
            bench.time(f"extract {bench.args.size} MiB to a new file, {kind}", [
                ("vhdx extract", f"{vhdx} extract {image} {out}", vhdx),
                ("cp --reflink=never (raw)", f"cp --reflink=never {raw} {out}", "cp"),
                ("cp --reflink=always (raw)", f"cp --reflink=always {raw} {out}", "cp"),
                ("qemu-img convert -C", f"qemu-img convert -C -O raw {image} {out}", "qemu-img"),
            ], before=lambda: out.unlink(missing_ok=True))
            run(f"{vhdx} extract -f {image} {out} && cmp {raw} {out}")
            out.unlink()
            crc32_work(bench, vhdx, peer, image, kind)
        finally:
            run(["umount", point])
            disk.unlink()


def chain_work(bench, vhdx, peer, folder):
    run([peer, "chain", folder])
    image, raw, out = folder / "child.avhdx", folder / "chain.raw", folder / "out"
    bench.time("extract a chain of two, 512 MiB, tmpfs", [
        ("vhdx extract", f"{vhdx} extract {image} {out}", vhdx),
        ("cp (of the raw disk)", f"cp {raw} {out}", "cp"),
        ("7zz e -so", f"7zz e -tvhdx -so {image} > {out}", "7zz"),
    ], before=lambda: out.unlink(missing_ok=True), note="qemu-img reads no chains of VHDX")
    run(f"{vhdx} extract -f {image} {out} && cmp {raw} {out}")
    for name in ["child.avhdx", "base.vhdx", "chain.raw", "out"]:
        (folder / name).unlink()


class Mount:
    """A disk as a file: a server that mounts it on `point`, and the name of the file."""

    def __init__(self, point, command, name, is_file=False):
        self.point, self.command, self.name, self.is_file = point, command, name, is_file

    def __enter__(self):
        self.point.touch() if self.is_file else self.point.mkdir()
        # Servers that stay in the foreground end when the directory is unmounted.
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.server = subprocess.Popen(self.command, shell=True, **quiet)
        while not os.path.ismount(self.point) and self.server.poll() in (None, 0):
            time.sleep(0.01)
        if not os.path.ismount(self.point):
            sys.exit(f"{self.command}: nothing is mounted")
        return self.point / self.name if self.name else self.point

    def __exit__(self, *_):
        subprocess.run(["umount", self.point], check=True)
        try:
            self.server.wait(1)
        except subprocess.TimeoutExpired:
            self.server.terminate()
            self.server.wait()
        self.point.unlink() if self.is_file else self.point.rmdir()


def fuse_work(bench, vhdx, folder):
    """The disk as a file of a mount. Each run has a mount of its own, whose page cache is empty."""
    image, point = folder / "dense.vhdx", folder / "mount"
    storage = (f"exec qemu-storage-daemon --blockdev driver=file,node-name=f,filename={image},read-only=on"
               f" --blockdev driver=vhdx,node-name=d,file=f,read-only=on"
               f" --export type=fuse,id=e,node-name=d,mountpoint={point},writable=off")
    servers = {
        "vhdx mount --fuse": ("cat", Mount(point, f"{vhdx} mount -q --fuse {image} {point}", "disk.raw")),
        "vhdimount": ("vhdimount", Mount(point, f"vhdimount {image} {point}", "vhdi1")),
        "nbdfuse": ("nbdfuse", Mount(point, f"exec nbdfuse {point} [ {vhdx} serve -q {image} ]", "nbd")),
        "qemu-storage-daemon": ("qemu-storage-daemon", Mount(point, storage, "", True)),
    }
    fio = (f"fio --name=random --ioengine=psync --rw=randread --bs=4k --size={bench.args.size}M --io_size=256M"
           " --readonly --filename=")
    for title, command, tool in [
        (f"cat of {bench.args.size} MiB through a mount, tmpfs", "cat ", "cat"),
        ("65,536 random reads of 4 KiB through a mount", fio, "fio"),
    ]:
        there = [name for name, (program, _) in servers.items() if shutil.which(program)]
        if bench.has(title) or not shutil.which(tool):
            continue
        timed = {name: Timed() for name in there}
        for _ in range(bench.args.rounds):
            for name in random.sample(there, len(there)):
                with servers[name][1] as file:
                    timed[name].add(*measured(f"{command}{file}"))
        bench.keep(title, [(name, timed[name]) for name in there], "without the processor time of the servers")
        print(f"\n{title}")
        ours = statistics.median(timed[there[0]].wall)
        for name in there:
            wall = statistics.median(timed[name].wall)
            print(f"  {name:28} {wall:9.3f} s  {wall / ours:7.2f} x")


def device_work(bench, vhdx, folder):
    """The disk as a device: servers of NBD, with the same clients."""
    image, raw = folder / "dense.vhdx", folder / "dense.raw"
    size = bench.args.size
    bench.time(f"nbdcopy of {size} MiB to null:, tmpfs", [
        ("vhdx serve", f"nbdcopy -- [ {vhdx} serve -q {image} ] null:", "nbdcopy"),
        ("qemu-nbd", f"nbdcopy -- [ qemu-nbd -r -f vhdx {image} ] null:", "qemu-nbd"),
        ("nbdkit pattern", f"nbdcopy -- [ nbdkit -f pattern {size}M ] null:", "nbdkit"),
    ])
    run(f"nbdcopy -- [ {vhdx} serve -q {image} ] - | cmp {raw} -")
    empty = folder / "empty.vhdx"
    run(["qemu-img", "create", "-q", "-f", "vhdx", empty, "64G"])
    bench.time("nbdcopy of an empty disk of 64 GiB to null:", [
        ("vhdx serve", f"nbdcopy -- [ {vhdx} serve -q {empty} ] null:", "nbdcopy"),
        *([] if bench.args.without_slow else [
            ("qemu-nbd", f"nbdcopy -- [ qemu-nbd -r -f vhdx {empty} ] null:", "qemu-nbd")]),
    ])
    empty.unlink()
    bench.time("nbdinfo --map of a disk of 64 TiB with 1 GiB of data", [
        ("vhdx serve", f"nbdinfo --map -- [ {vhdx} serve -q {folder / '64T.vhdx'} ]", "nbdinfo"),
        ("qemu-nbd", f"nbdinfo --map -- [ qemu-nbd -r -f vhdx {folder / '64T.vhdx'} ]", "qemu-nbd"),
    ])
    # The same number of reads for each, so that the time of a run is the cost of a read.
    for depth in (1, 16):
        fio = (f"fio --name=random --ioengine=nbd --rw=randread --bs=4k --iodepth={depth} --size={size}M"
               f" --io_size=256M --uri='nbd+unix:///?socket='")
        ours = f"{vhdx} serve -q {image} -U {folder}/s -- {fio}{folder}/s"
        theirs = (f"qemu-nbd -r -f raw -t -k {folder}/s {raw} & until [ -S {folder}/s ]; do sleep 0.01; done;"
                  f" {fio}{folder}/s; code=$?; kill $!; wait; rm -f {folder}/s; exit $code")
        bench.time(f"65,536 random reads of 4 KiB over NBD, {depth} at a time", [
            ("vhdx serve", ours, "fio"),
            ("qemu-nbd (of the raw disk)", theirs, "qemu-nbd"),
        ])


def mount_work(bench, vhdx, folder):
    """The disk as a file that the kernel reads (EROFS), beside the raw disk in the same file system."""
    image, raw, point = folder / "dense.vhdx", folder / "dense.raw", folder / "point"
    size = bench.args.size
    point.mkdir()
    if os.geteuid() != 0 or subprocess.run([vhdx, "mount", "-q", "--kernel", image, point]).returncode != 0:
        print("  left out: mounts by the kernel", file=sys.stderr)
        point.rmdir()
        return
    try:
        disk = point / "disk.raw"
        run(["cmp", raw, disk])
        contestants = [
            ("vhdx mount --kernel", f"cat {disk} > /dev/null", "cat"),
            ("the raw file", f"cat {raw} > /dev/null", "cat"),
        ]
        bench.time(f"cat of {size} MiB through a mount, disk", contestants)
        bench.time(f"cat of {size} MiB through a mount, not in memory, disk", contestants,
                   before=lambda: forget_files([image, raw, disk]))
    finally:
        run([vhdx, "umount", point])
        point.rmdir()


PASS_BY_LIBVHDI = """
import sys, time, random
try:
    import pyvhdi
except ImportError:
    sys.exit(3)
image = pyvhdi.file()
image.open(sys.argv[1])
size = image.get_media_size()
begun = time.monotonic()
while image.read_buffer(1 << 20): pass
whole = time.monotonic() - begun
places = [random.randrange(size // 4096) * 4096 for _ in range(50000)]
begun = time.monotonic()
for place in places: image.read_buffer_at_offset(4096, place)
print(whole, (time.monotonic() - begun) / len(places) * 1e9)
"""


def library_work(bench, peer, folder):
    """Reads by libraries: medians of the rounds, each of which does all in turn."""
    titles = {"random": "random reads of 4 KiB by libraries",
              "pass": f"pass over {bench.args.size} MiB by reads of 1 MiB"}
    if all([bench.has(title) for title in titles.values()]):
        return
    found = {"random": {}, "pass": {}}
    for _ in range(bench.args.rounds):
        for kind, more in [("random", [folder / "dense.raw"]), ("pass", [])]:
            lines = subprocess.check_output([peer, kind, folder / "dense.vhdx", *more], text=True).splitlines()
            for name, value in (line.split("\t") for line in lines if not line.startswith("(")):
                found[kind].setdefault(name, []).append(float(value))
        begun = time.monotonic()
        run(f"cat {folder / 'dense.vhdx'} > /dev/null")
        found["pass"].setdefault("cat IMAGE > /dev/null", []).append(time.monotonic() - begun)
        python = subprocess.run([sys.executable, "-c", PASS_BY_LIBVHDI, folder / "dense.vhdx"], capture_output=True,
                                text=True)
        if python.returncode == 0:
            whole, each = map(float, python.stdout.split())
            found["pass"].setdefault("libvhdi (Python)", []).append(whole)
            found["random"].setdefault("libvhdi (Python), copy", []).append(each)
    for kind, unit in [("random", 1e-9), ("pass", 1)]:
        title = titles[kind]
        rows = []
        for name, values in found[kind].items():
            timed = Timed()
            timed.wall = [value * unit for value in values]
            rows.append((name, timed))
        bench.keep(title, rows)
        print(f"\n{title}")
        for name, timed in rows:
            print(f"  {name:28} {statistics.median(timed.wall) / unit:9.3f} {'ns' if kind == 'random' else 's'}")


def amount(seconds):
    return f"{seconds * 1e9:.0f} ns" if seconds < 1e-5 else f"{seconds:.3f} s"


def markdown(bench):
    lines = ["| work | | median | processor | memory | from the drive | ratio |", "|---|---|---|---|---|---|---|"]
    for title, rows, note in bench.rows:
        ours = statistics.median(rows[0][1].wall)
        for index, (name, timed) in enumerate(rows):
            wall = statistics.median(timed.wall)
            cpu = f"{statistics.median(timed.cpu):.2f} s" if timed.cpu else ""
            memory = f"{timed.memory} MiB" if timed.memory else ""
            read = f"{statistics.median(timed.read):.0f} MiB" if timed.read and any(timed.read) else ""
            head = (title + (f" ({note})" if note else "")) if index == 0 else ""
            ratio = "**1**" if index == 0 else f"{wall / ours:.2f}"
            name = name.replace("|", chr(92) + "|")
            lines.append(f"| {head} | {name} | {amount(wall)} | {cpu} | {memory} | {read} | {ratio} |")
    return "\n".join(lines) + "\n"


def chart(bench):
    """How long the others take, in times of ours: bars on a logarithmic scale."""
    import math

    left, width, row = 430, 420, 18
    bars = [(title, name, statistics.median(timed.wall) / statistics.median(rows[0][1].wall))
            for title, rows, _ in bench.rows for name, timed in rows[1:]]
    low, high = math.log10(0.1), math.log10(max(ratio for *_, ratio in bars) * 1.3)
    at = lambda ratio: left + (math.log10(max(ratio, 0.1)) - low) / (high - low) * width
    out, y, before = [], 40, None
    for title, name, ratio in bars:
        if title != before:
            y += 8
            out.append(f'<text x="8" y="{y + 13}" class="t">{title}</text>')
            y, before = y + row, title
        begin, end = sorted((at(1), at(ratio)))
        kind = "slower" if ratio >= 1 else "faster"
        out.append(f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{name.replace(">", "&gt;")}</text>')
        out.append(f'<rect x="{begin:.1f}" y="{y + 3}" width="{max(end - begin, 1):.1f}" height="12" class="{kind}"/>')
        out.append(f'<text x="{max(end, at(1)) + 4:.1f}" y="{y + 13}">{ratio:.2f}</text>')
        y += row
    lines = [f'<line x1="{at(tick):.1f}" x2="{at(tick):.1f}" y1="34" y2="{y}" class="g"/>'
             f'<text x="{at(tick):.1f}" y="30" text-anchor="middle">{tick}x</text>'
             for tick in [0.1, 1, 10, 100, 1000] if math.log10(tick) <= high]
    style = ("text{font:11px sans-serif;fill:#333}.t{font-weight:bold}.slower{fill:#4878a8}.faster{fill:#c0504d}"
             ".g{stroke:#ccc}")
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 90}" height="{y + 12}">'
            f'<rect width="100%" height="100%" fill="#fff"/><style>{style}</style>'
            f'<text x="8" y="16">How long others take, in times of vhdx; red: less than vhdx</text>'
            + "".join(lines + out) + "</svg>\n")


def machine(bench):
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    commands = ["qemu-img --version", "7zz | grep -m1 7-Zip", "cp --version", "b3sum --version", "openssl version"]
    versions = [said(command) for command in commands]
    return (f"{os.cpu_count()} cores ({model}), {memory} GiB, Linux {platform.release()}; "
            f"medians of {bench.args.rounds} rounds; " + "; ".join(versions))


def disk_work(bench, vhdx, peer):
    """What is timed on a drive."""
    with tempfile.TemporaryDirectory(dir=bench.args.disk) as folder:
        folder = Path(folder)
        images(folder, bench.args.size, False)
        mount_work(bench, vhdx, folder)
        if bench.args.only_device:
            return
        dense_work(bench, vhdx, peer, folder, "disk", "-m 16 -W")
        cold_work(bench, vhdx, folder)
        many_work(bench, vhdx, folder)
        shared_work(bench, vhdx, peer, folder, folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=2048, help="MiB of the dense disk [default: 2048]")
    parser.add_argument("--rounds", type=int, default=7, help="runs of each [default: 7]")
    parser.add_argument("--memory", type=Path, default=Path("/dev/shm"), help="a folder on tmpfs [default: /dev/shm]")
    parser.add_argument("--disk", type=Path, default=ROOT / "target", help="a folder on a disk [default: target]")
    parser.add_argument("--without-slow", action="store_true",
                        help="leave out what takes minutes: qemu-img on sparse disks")
    parser.add_argument("--only-device", action="store_true", help="time only the disk as a device: servers and mounts")
    parser.add_argument("--state", type=Path,
                        help="keep what was measured in this file, and take from it what is there already")
    parser.add_argument("--out", type=Path, help="write rivals.md and rivals.svg into this folder")
    bench = Bench(parser.parse_args())
    run(["cargo", "build", "--release", "--locked", "--manifest-path", ROOT / "Cargo.toml"])
    if not bench.args.only_device:
        run(["cargo", "build", "--release", "--manifest-path", ROOT / "benches/rivals/Cargo.toml"])
    vhdx = str(ROOT / "target/release/vhdx")
    peer = str(ROOT / "benches/rivals/target/release/vhdx-mmap-rivals")
    print(machine(bench))
    with tempfile.TemporaryDirectory(dir=bench.args.memory) as folder:
        folder = Path(folder)
        images(folder, bench.args.size, True)
        if not bench.args.only_device:
            dense_work(bench, vhdx, peer, folder, "tmpfs", "-m 1")
            sparse_work(bench, vhdx, folder, "tmpfs")
            chain_work(bench, vhdx, peer, folder)
            table_work(bench, vhdx, peer, folder)
            library_work(bench, peer, folder)
        device_work(bench, vhdx, folder)
        fuse_work(bench, vhdx, folder)
    disk_work(bench, vhdx, peer)
    if bench.args.out:
        bench.args.out.mkdir(parents=True, exist_ok=True)
        (bench.args.out / "rivals.md").write_text(machine(bench) + "\n\n" + markdown(bench))
        (bench.args.out / "rivals.svg").write_text(chart(bench))
    else:
        print("\n" + markdown(bench))


if __name__ == "__main__":
    main()
