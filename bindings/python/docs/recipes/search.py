"""Search in place with NumPy: the arrays are the pages of the file."""

import numpy as np
import vhdx_mmap

needle = b"Hello from inside"
# mmap=True is a promise: nothing changes the file meanwhile.
with vhdx_mmap.open("disk.vhdx", mmap=True) as disk:
    for segment in disk.segments():
        if isinstance(segment, vhdx_mmap.Data):
            with segment as memory:  # raises LostDataError at its end if the file became shorter
                array = np.frombuffer(memory, np.uint8)
                for at in np.flatnonzero(array == needle[0]):
                    if memory[at : at + len(needle)] == needle:
                        print("found at", segment.offset + int(at))
                print(f"{segment.length} bytes, {np.count_nonzero(array)} of them not zero")
                del array
