"""Digests of the disk, with progress; Ctrl-C ends the work."""

import vhdx_mmap


def report(done: int, total: int) -> None:
    print(f"{100 * done // total} %")


with vhdx_mmap.open("disk.vhdx") as disk:
    for name, digest in disk.hash("sha256", "blake3", progress=report).items():
        print(name, digest)
