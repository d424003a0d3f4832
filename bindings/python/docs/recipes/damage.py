"""Images from strangers: every problem is an exception, and what is left can be saved."""

from pathlib import Path

import vhdx_mmap

Path("damaged.vhdx").write_bytes(Path("disk.vhdx").read_bytes()[: 9 << 20])  # a copy that ended early

try:
    with vhdx_mmap.open("damaged.vhdx") as disk:
        disk.hash()
except vhdx_mmap.VhdxError as error:
    print(f"{type(error).__name__}: {error} (rule {error.rule}, offset {error.offset})")

with vhdx_mmap.open("damaged.vhdx", strictness="salvage") as disk:
    for loss in disk.losses:
        print(loss.offset, loss.length, loss.reason)
    disk.extract("saved.raw")
