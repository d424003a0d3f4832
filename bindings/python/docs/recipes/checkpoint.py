"""What changed since a checkpoint: the content of an incremental backup."""

from pathlib import Path

import vhdx_mmap

with vhdx_mmap.open("checkpoint.avhdx") as disk:
    print([Path(layer.path or "").name for layer in disk.layers])
    changes = disk.diff(content=True)
    with open("changes.bin", "wb") as out:
        for offset, length, is_zero in changes:
            if not is_zero:
                out.write(disk.pread(length, offset))
    print(len(changes), "ranges,", sum(length for _, length, _ in changes), "bytes")
