"""Images in object stores, archives and other images, through fsspec."""

import fsspec
import vhdx_mmap

store = fsspec.filesystem("memory")
store.put_file("disk.vhdx", "/bucket/disk.vhdx")

with vhdx_mmap.open("memory://bucket/disk.vhdx") as disk:
    print(disk.size, disk.volumes)

# Also by URLs, such as vhdx://hello.txt::memory://bucket/disk.vhdx
files = fsspec.filesystem("vhdx", fo="memory://bucket/disk.vhdx")
print(files.ls("", detail=False), files.cat("hello.txt"))
