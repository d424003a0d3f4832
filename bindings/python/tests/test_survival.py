"""Nothing ends the interpreter, or hangs it. Each test has an interpreter of its own, whose end is looked at."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import images
import pytest
import vhdx_mmap
from conftest import run_python

TRUNCATED = """
import sys, os, vhdx_mmap
BEFORE
path, place = sys.argv[1], int(sys.argv[2])
disk = vhdx_mmap.open(path, mmap=True)
data = disk.view(5 << 20, 1 << 20)
memory = data.memory
first = bytes(memory[:4096])
AFTER
os.truncate(path, place + 8192)
assert bytes(memory[:4096]) == first
assert bytes(memory[65536:65540]) == bytes(4)
for lost in (data.check_lost, disk.check_lost):
    try:
        lost()
    except vhdx_mmap.LostDataError as error:
        assert isinstance(error, OSError) and error.offset >= place, error
    else:
        raise SystemExit("the loss was not noticed")
try:
    with disk.view(5 << 20, 4096) as memory: pass
    with disk.view((5 << 20) + 65536, 4096) as memory: bytes(memory)
except vhdx_mmap.LostDataError: pass
else:
    raise SystemExit("a with block did not raise")
for use in (
    lambda: disk.pread(1 << 20, 5 << 20),
    lambda: disk.hash(),
    lambda: [s.memory.tobytes() for s in disk.segments(5 << 20, 1 << 20)],
):
    try:
        use()
    except vhdx_mmap.VhdxError: pass
    else:
        raise SystemExit("zeros were taken for content")
assert disk.pread(4096, 5 << 20) == first
print("alive")
"""


@pytest.mark.parametrize(
    "before,after",
    [
        ("", ""),
        ("import faulthandler; faulthandler.enable()", ""),
        ("", "import faulthandler; faulthandler.enable()"),
        ("import faulthandler; faulthandler.enable()", "faulthandler.disable(); faulthandler.enable()"),
    ],
    ids=["alone", "faulthandler-before", "faulthandler-after", "faulthandler-twice"],
)
def test_truncation_under_a_memoryview(before: str, after: str, copy: tuple[Path, bytes]) -> None:
    place = images.PAYLOAD + 2 * images.BLOCK
    script = TRUNCATED.replace("BEFORE", before).replace("AFTER", after)
    assert run_python(script, copy[0], place).stdout == "alive\n"


CUT = """
import os, sys, vhdx_mmap
path, cut = sys.argv[1], int(sys.argv[2])
disk = vhdx_mmap.open(path, mmap=True)
before = {place: disk.pread(4096, place) for place in map(int, sys.argv[3:])}
os.truncate(path, cut)
for place in before:
    try:
        print(place, disk.pread(4096, place) == before[place])
    except vhdx_mmap.LostDataError:
        print(place, "lost")
"""


@pytest.mark.parametrize("last", [0, 7])
def test_small_reads_of_a_truncated_file(last: int, tmp_path: Path) -> None:
    """The last byte of what is read may be zero, in the file or since its end is another."""
    page = images.noise(70, 4095) + bytes([last])
    image = images.Image(blocks={0: page * 256})
    path = image.write(tmp_path / "disk.vhdx")
    # In the middle of page 9: there is no signal for the rest of it.
    done = run_python(CUT, path, images.PAYLOAD + 9 * 4096 + 1000, *[number * 4096 for number in (0, 8, 9, 10)])
    assert done.stdout.split("\n")[:4] == ["0 True", f"{8 * 4096} True", f"{9 * 4096} lost", f"{10 * 4096} lost"]


def test_small_reads_after_the_table_was_cut(tmp_path: Path) -> None:
    """The BAT lies after the blocks, and ends in the middle of an entry, which refers to another block then: the block
    itself is whole."""
    blocks = {block: images.noise(block, images.BLOCK) for block in range(17)}
    image = images.Image(size=32 * images.BLOCK, blocks=blocks)
    path = image.write(tmp_path / "disk.vhdx")
    with path.open("r+b") as file:
        file.seek(images.BAT)
        table = file.read(images.MIB)
        place = file.seek(0, 2)
        file.write(table)
        for copy in (192 << 10, 256 << 10):
            file.seek(copy)
            regions = bytearray(file.read(64 << 10))
            regions[32:40] = place.to_bytes(8, "little")
            file.seek(copy)
            file.write(images.sealed(regions))
    # Block 16 is at 20 MiB. Of the entry 0x1400006, the first three bytes are left: 4 MiB, where block 0 is.
    done = run_python(CUT, path, place + 16 * 8 + 3, 16 * images.BLOCK, 0)
    assert done.stdout.split("\n")[:2] == [f"{16 * images.BLOCK} lost", "0 True"]


def test_other_faults_still_reach_faulthandler(copy: tuple[Path, bytes]) -> None:
    script = """
import faulthandler, os, signal, sys, vhdx_mmap
vhdx_mmap.open(sys.argv[1], mmap=True)
faulthandler.enable()
assert vhdx_mmap.guard_is_active()
os.kill(os.getpid(), signal.SIGBUS)
"""
    done = subprocess.run([sys.executable, "-c", script, copy[0]], capture_output=True, text=True, check=False)
    assert done.returncode < 0 and "Bus error" in done.stderr


def test_fork_after_use_of_the_pool(dynamic: tuple[Path, bytes]) -> None:
    script = """
import os, sys, vhdx_mmap
disk = vhdx_mmap.open(sys.argv[1], mmap=True)
digest = disk.hash()
info = disk.info()
for generation in range(2):
    child = os.fork()
    if child == 0:
        ok = disk.hash() == digest and vhdx_mmap.open(sys.argv[1]).hash() == digest and disk.info() == info
        if generation == 0:
            inner = os.fork()
            if inner == 0:
                os._exit(0 if disk.hash() == digest else 1)
            ok = ok and os.waitpid(inner, 0)[1] == 0
        os._exit(0 if ok else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert disk.hash() == digest
print("alive")
"""
    assert run_python(script, dynamic[0]).stdout == "alive\n"


def test_multiprocessing_by_fork_and_by_spawn(dynamic: tuple[Path, bytes], tmp_path: Path) -> None:
    script = tmp_path / "work.py"
    script.write_text(
        """
import multiprocessing, sys, vhdx_mmap

def digest(disk):
    return disk.hash("sha256")

if __name__ == "__main__":
    disk = vhdx_mmap.open(sys.argv[1])
    expected = disk.hash("sha256")
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            assert pool.map(digest, [disk] * 4) == [expected] * 4
    print("alive")
"""
    )
    command = [sys.executable, str(script), str(dynamic[0])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr


def test_threads_with_one_disk(chain: tuple[Path, bytes]) -> None:
    script = """
import sys, threading, vhdx_mmap
for mapped in (False, True):
    disk = vhdx_mmap.open(sys.argv[1], mmap=mapped)
    digest, failed = disk.hash(), []
    def work():
        for _ in range(3):
            if disk.hash(threads=2) != digest or disk.pread(4096, 0) != disk.pread(4096, 0):
                failed.append(1)
            list(disk.extents()); disk.check(); disk.manifest()
    threads = [threading.Thread(target=work) for _ in range(4)]
    [thread.start() for thread in threads]; [thread.join() for thread in threads]
    assert not failed
# One is closed while others use it.
disk = vhdx_mmap.open(sys.argv[1], mmap=True)
def use():
    try:
        for _ in range(200):
            disk.pread(4096, 0); disk.view(0, 16).memory.tobytes()
    except ValueError: pass
threads = [threading.Thread(target=use) for _ in range(3)]
[thread.start() for thread in threads]; disk.close(); [thread.join() for thread in threads]
print("alive")
"""
    assert run_python(script, chain[0]).stdout == "alive\n"


def test_garbage_in_any_order(dynamic: tuple[Path, bytes]) -> None:
    script = """
import gc, itertools, sys, vhdx_mmap
path = sys.argv[1]
names = ("disk", "view", "memory", "rows", "iterator", "reader", "segments")
for order in itertools.islice(itertools.permutations(names), 0, None, 37):
    made = {"disk": vhdx_mmap.open(path, mmap=True)}
    made["view"] = made["disk"].view(0, 4096)
    made["memory"] = made["view"].memory
    made["rows"] = made["disk"].extents()
    made["iterator"] = iter(made["rows"]); next(made["iterator"])
    made["reader"] = made["disk"].reader()
    made["segments"] = made["disk"].segments(); next(made["segments"])
    for name in order:
        del made[name]
        gc.collect(0)
# In cycles, too.
class Node: pass
for _ in range(50):
    node = Node()
    node.disk = vhdx_mmap.open(open(path, "rb"))
    node.me, node.rows = node, node.disk.blocks()
    del node
gc.collect()
# And left to the end of the interpreter.
disk = vhdx_mmap.open(path, mmap=True); memory = disk.view(0, 4096).memory
volumes = vhdx_mmap.open(open(path, "rb")); left = iter(volumes.extents())
print("alive")
"""
    assert run_python(script, dynamic[0]).stdout == "alive\n"


@pytest.mark.parametrize("work", ["disk.hash(progress=lambda *_: begun.set())", "disk.pread(4096, 0); begun.set()"])
def test_an_exit_while_threads_work(dynamic: tuple[Path, bytes], work: str) -> None:
    script = f"""
import sys, threading, vhdx_mmap
disk = vhdx_mmap.open(open(sys.argv[1], "rb"))
begun = threading.Event()
def work():
    try:
        while True:
            {work}
    except RuntimeError as error:
        assert "the interpreter ends" in str(error), error
for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
begun.wait(60)
print("alive")
"""
    for _ in range(10):
        assert run_python(script, dynamic[0]).stdout == "alive\n"


def test_sub_interpreters_are_refused(dynamic: tuple[Path, bytes]) -> None:
    script = """
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
import vhdx_mmap
inner = '''
try:
    import vhdx_mmap
except ImportError as error:
    assert "interpreter" in str(error).lower(), error
else:
    raise SystemExit("it was imported")
'''
made = interpreters.create()
failed = getattr(interpreters, "run_string")(made, inner)
assert failed is None, failed
interpreters.destroy(made)
print("alive")
"""
    assert run_python(script).stdout == "alive\n"


def test_hostile_images_raise(dynamic: tuple[Path, bytes]) -> None:
    """Bytes are changed all over the structures: each is an exception, or the same content, or reads as what it is."""
    chosen, data = random.Random(3), dynamic[0].read_bytes()
    for _ in range(150):
        changed = bytearray(data)
        for _ in range(chosen.choice([1, 1, 4])):
            changed[chosen.choice([chosen.randrange(1 << 19), images.METADATA + chosen.randrange(1 << 17),
                                   images.BAT + chosen.randrange(128)])] ^= 1 << chosen.randrange(8)
        try:
            with vhdx_mmap.open(bytes(changed)) as disk:
                disk.pread(1 << 16, 0)
                list(disk.extents(0, min(disk.size, 1 << 30)))
                disk.check()
        except (vhdx_mmap.VhdxError, MemoryError):
            continue
