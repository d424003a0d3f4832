"""The images of these tests are what they say, according to another program."""

from __future__ import annotations

import subprocess
from pathlib import Path

from conftest import tool


def test_qemu_reads_the_same(dynamic: tuple[Path, bytes], tmp_path: Path) -> None:
    qemu = tool("qemu", "qemu-img")
    raw = tmp_path / "disk.raw"
    subprocess.run([qemu, "convert", "-f", "vhdx", "-O", "raw", dynamic[0], raw], check=True)
    assert raw.read_bytes() == dynamic[1]


def test_qemu_replays_the_same(dirty: tuple[Path, bytes], tmp_path: Path) -> None:
    qemu = tool("qemu", "qemu-img")
    image, raw = tmp_path / "dirty.vhdx", tmp_path / "disk.raw"
    image.write_bytes(dirty[0].read_bytes())
    # It writes the changes of the log into the image, which is a copy.
    subprocess.run([qemu, "check", "-r", "all", image], check=True, capture_output=True)
    subprocess.run([qemu, "convert", "-f", "vhdx", "-O", "raw", image, raw], check=True)
    assert raw.read_bytes() == dirty[1]
