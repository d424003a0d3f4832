"""Files in the disk, without a mount and without root."""

import vhdx_mmap

with vhdx_mmap.open("disk.vhdx") as disk:
    for volume in disk.volumes:
        print(volume.kind, volume.label)
        print(volume.read_text("/hello.txt"), end="")
        for path, stat in volume.walk("/docs"):
            print(f"{stat.size:>8} {path}")
