"""A folder with images of all kinds, some of them broken."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import images


@dataclass(frozen=True)
class Fleet:
    """Images in a folder, and what their disks hold."""

    folder: Path
    contents: dict[str, bytes]
    """The content of the disk of each image that can be read, by the name of its file."""
    broken: dict[str, str]
    """The exception of each image that cannot be read, by the name of its file."""

    def path(self, name: str) -> str:
        return str(self.folder / name)

    @property
    def healthy(self) -> list[str]:
        return [self.path(name) for name in self.contents]


def make(folder: Path) -> Fleet:
    """A dynamic image, a chain of three whose base is dirty, and four images that cannot be read."""
    leaf, image = images.write_chain(folder)
    dynamic = images.dynamic()
    dynamic.number = 7
    dynamic.write(folder / "dynamic.vhdx")
    middle = image.parent
    assert middle is not None and middle.parent is not None
    contents = {
        "base.vhdx": middle.parent.content(),
        "dynamic.vhdx": dynamic.content(),
        "leaf.avhdx": image.content(),
        "middle.avhdx": middle.content(),
    }
    assert leaf.name in contents

    other = images.dynamic()
    other.number = 30
    images.child(other, "gone.vhdx", 31).write(folder / "orphan.avhdx")
    shutil.copy(folder / "dynamic.vhdx", folder / "short.vhdx")
    # The last block is cut off.
    os.truncate(folder / "short.vhdx", images.PAYLOAD + 2 * images.BLOCK)
    (folder / "text.vhdx").write_bytes(b"not an image" * 1000)
    shutil.copy(folder / "dynamic.vhdx", folder / "table.vhdx")
    with (folder / "table.vhdx").open("r+b") as file:
        # The entry of block 1: another place, in the middle of nothing.
        file.seek(images.BAT + 8)
        file.write((6 | 1 << 44).to_bytes(8, "little"))
    (folder / "notes.txt").write_text("no image")
    broken = {
        "orphan.avhdx": "ParentNotFound",
        "short.vhdx": "CorruptError",
        "table.vhdx": "CorruptError",
        "text.vhdx": "NotVhdxError",
    }
    return Fleet(folder, contents, broken)
