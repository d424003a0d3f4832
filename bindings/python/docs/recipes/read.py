"""Read sectors, and see whether the disk is up to date."""

import vhdx_mmap

with vhdx_mmap.open("disk.vhdx") as disk:
    print(disk.kind, disk.size, disk.log_state)  # a dirty log was replayed in memory: "replayed"
    superblock = disk.pread(1024, 1024)
    print("ext file system:", superblock[56:58] == b"\x53\xef")
    for warning in disk.warnings:
        print(warning.rule, warning.text)
