"""Several processes share one disk: it is pickled as its path and what its files are."""

import zlib
from multiprocessing import Pool

import vhdx_mmap

PIECE = 4 << 20


def crc32(job: tuple[vhdx_mmap.Disk, int]) -> int:
    disk, offset = job
    return zlib.crc32(disk.pread(PIECE, offset))


if __name__ == "__main__":
    with vhdx_mmap.open("disk.vhdx") as disk, Pool(2) as pool:
        for offset, found in enumerate(pool.map(crc32, [(disk, at) for at in range(0, disk.size, PIECE)])):
            print(f"{offset * PIECE:>12} {found:08x}")
