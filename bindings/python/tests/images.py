"""Images for the tests, byte by byte after MS-VHDX, with what their disks hold. It shares no code with the package."""

from __future__ import annotations

import os
import struct
import uuid
from dataclasses import dataclass, field
from pathlib import Path

KIB, MIB = 1 << 10, 1 << 20
BLOCK = MIB
SECTOR = 512
LOG, METADATA, BAT, PAYLOAD = 1 * MIB, 2 * MIB, 3 * MIB, 4 * MIB
# Payload blocks for each sector bitmap block: 2^23 sectors.
CHUNK = (1 << 23) * SECTOR // BLOCK

NOT_PRESENT, ZERO, FULL, PARTIAL = 0, 2, 6, 7


def _table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_CRC = _table()


def crc32c(data: bytes | bytearray) -> int:
    """CRC-32C (Castagnoli), bit-reversed polynomial 0x82F63B78."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def sealed(data: bytearray) -> bytes:
    """With the CRC-32C at offset 4, computed over zeros in its place."""
    data[4:8] = bytes(4)
    data[4:8] = struct.pack("<I", crc32c(data))
    return bytes(data)


def noise(seed: int, length: int) -> bytes:
    """Bytes without long runs of zeros, and different for each seed."""
    value, out = seed * 2654435761 % (1 << 32) or 1, bytearray()
    while len(out) < length:
        value ^= value << 13 & 0xFFFFFFFF
        value ^= value >> 17
        value ^= value << 5 & 0xFFFFFFFF
        out += (value | 1).to_bytes(4, "little") * 16
    return bytes(out[:length])


def identity(number: int) -> uuid.UUID:
    return uuid.UUID(int=0x1234_5678_0000_4000_8000_0000_0000_0000 + number)


@dataclass
class Image:
    """An image to write, and the content of its disk."""

    size: int = 8 * MIB
    number: int = 1
    blocks: dict[int, bytes] = field(default_factory=dict)
    """Fully present blocks."""
    zeros: set[int] = field(default_factory=set)
    """Blocks in the state ZERO."""
    partial: dict[int, dict[int, bytes]] = field(default_factory=dict)
    """Of partially present blocks, the sectors that are in the file."""
    parent: Image | None = None
    parent_name: str = ""
    log: dict[tuple[int, int], bytes] = field(default_factory=dict)
    """Pages of 4 KiB that only the log has: by block and page in it."""

    def content(self) -> bytes:
        """What the disk holds after a replay."""
        data = bytearray(self.parent.content() if self.parent else bytes(self.size))
        for block, content in self.blocks.items():
            data[block * BLOCK : block * BLOCK + len(content)] = content
        for block in self.zeros:
            data[block * BLOCK : (block + 1) * BLOCK] = bytes(min(BLOCK, self.size - block * BLOCK))
        for block, sectors in self.partial.items():
            for sector, content in sectors.items():
                at = block * BLOCK + sector * SECTOR
                data[at : at + SECTOR] = content
        for (block, page), content in self.log.items():
            at = block * BLOCK + page * 4096
            data[at : at + 4096] = content
        return bytes(data)

    def write(self, path: Path) -> Path:
        """Write the image to a file."""
        with open(path, "wb") as file:

            def put(offset: int, data: bytes) -> None:
                file.seek(offset)
                file.write(data)

            put(0, b"vhdxfile" + "vhdx-mmap tests".encode("utf-16-le"))
            log_guid = identity(900 + self.number).bytes_le if self.log else bytes(16)
            for copy in (1, 2):
                header = bytearray(4096)
                struct.pack_into("<4sIQ", header, 0, b"head", 0, copy)
                header[16:32] = identity(500 + self.number).bytes_le
                header[32:48] = identity(self.number).bytes_le
                header[48:64] = log_guid
                struct.pack_into("<HHIQ", header, 64, 0, 1, MIB, LOG)
                put(copy * 64 * KIB, sealed(header))
            regions = bytearray(64 * KIB)
            struct.pack_into("<4sIII", regions, 0, b"regi", 0, 2, 0)
            table = (("2dc27766-f623-4200-9d64-115e9bfd4a08", BAT), ("8b7ca206-4790-4b9a-b8fe-575f050f886e", METADATA))
            for number, (name, offset) in enumerate(table):
                regions[16 + 32 * number : 32 + 32 * number] = uuid.UUID(name).bytes_le
                struct.pack_into("<QII", regions, 32 + 32 * number, offset, MIB, 1)
            put(192 * KIB, sealed(regions))
            put(256 * KIB, sealed(regions))
            put(METADATA, self._metadata())
            end, places, bat = PAYLOAD, {}, bytearray(MIB)

            def entry(block: int, state: int, offset: int = 0) -> None:
                struct.pack_into("<Q", bat, 8 * (block + block // CHUNK), state | offset)

            for block in sorted(self.blocks.keys() | self.partial.keys()):
                content = bytearray(self.blocks.get(block, b"").ljust(BLOCK, b"\0"))
                for sector, data in self.partial.get(block, {}).items():
                    content[sector * SECTOR : (sector + 1) * SECTOR] = data
                entry(block, PARTIAL if block in self.partial else FULL, end)
                put(end, bytes(content))
                places[block] = end
                end += BLOCK
            for block in self.zeros:
                entry(block, ZERO)
            if self.partial:
                bitmap = bytearray(MIB)
                for block, sectors in self.partial.items():
                    for sector in sectors:
                        bit = block * (BLOCK // SECTOR) + sector
                        bitmap[bit // 8] |= 1 << bit % 8
                struct.pack_into("<Q", bat, 8 * CHUNK, 6 | end)
                put(end, bytes(bitmap))
                end += MIB
            put(BAT, bytes(bat))
            file.truncate(end)
            if self.log:
                put(LOG, self._log(log_guid, places, end))
        return path

    def _metadata(self) -> bytes:
        items: list[tuple[str, int, bytes]] = [
            ("caa16737-fa36-4d43-b3b6-33f0aa44e76b", 4, struct.pack("<II", BLOCK, 2 if self.parent else 0)),
            ("2fa54224-cd1b-4876-b211-5dbed83bf4b8", 6, struct.pack("<Q", self.size)),
            ("beca12ab-b2e6-4523-93ef-c309e000c746", 6, identity(77).bytes_le),
            ("8141bf1d-a96f-4709-ba47-f233a8faab5f", 6, struct.pack("<I", SECTOR)),
            ("cda348c7-445d-4471-9cc9-e9885251c556", 6, struct.pack("<I", 4096)),
        ]
        if self.parent:
            items.append(("a8d35f2d-b30b-454d-abf7-d3d84834ab0c", 4, self._locator(self.parent)))
        region = bytearray(128 * KIB)
        struct.pack_into("<8sHH", region, 0, b"metadata", 0, len(items))
        at = 64 * KIB
        for number, (name, flags, value) in enumerate(items):
            row = 32 + 32 * number
            region[row : row + 16] = uuid.UUID(name).bytes_le
            struct.pack_into("<III", region, row + 16, at, len(value), flags)
            region[at : at + len(value)] = value
            at += len(value)
        return bytes(region)

    def _locator(self, parent: Image) -> bytes:
        pairs = {
            "parent_linkage": "{" + str(identity(parent.number)) + "}",
            "relative_path": ".\\" + self.parent_name,
            "absolute_win32_path": "C:\\images\\" + self.parent_name,
        }
        head = bytearray(uuid.UUID("b04aefb7-d19e-4a81-b789-25b8e9445913").bytes_le)
        head += struct.pack("<HH", 0, len(pairs))
        texts, at = b"", 20 + 12 * len(pairs)
        for key, value in pairs.items():
            key_bytes, value_bytes = key.encode("utf-16-le"), value.encode("utf-16-le")
            start = at + len(texts)
            head += struct.pack("<IIHH", start, start + len(key_bytes), len(key_bytes), len(value_bytes))
            texts += key_bytes + value_bytes
        return bytes(head) + texts

    def _log(self, guid: bytes, places: dict[int, int], end: int) -> bytes:
        sequence = 7
        pages = [(places[block] + page * 4096, data) for (block, page), data in sorted(self.log.items())]
        assert len(pages) <= 126
        entry = bytearray(4096)
        struct.pack_into("<4sIIIQII", entry, 0, b"loge", 0, 4096 * (1 + len(pages)), 0, sequence, len(pages), 0)
        entry[32:48] = guid
        struct.pack_into("<QQ", entry, 48, end, end)
        for number, (offset, data) in enumerate(pages):
            descriptor = struct.pack("<4s4s8sQQ", b"desc", data[-4:], data[:8], offset, sequence)
            entry[64 + 32 * number : 96 + 32 * number] = descriptor
        for _, data in pages:
            entry += struct.pack("<4sI4084sI", b"data", sequence >> 32, data[8:4092], sequence & 0xFFFFFFFF)
        return sealed(entry)


def dynamic() -> Image:
    """Three blocks of data, of which two are neighbours in disk and file, one of zeros, and nothing else."""
    blocks = {0: noise(1, BLOCK), 1: noise(2, BLOCK), 5: noise(3, BLOCK)}
    return Image(blocks=blocks, zeros={3}, number=1)


def dirty() -> Image:
    """As `dynamic`, but what the last writes changed is only in the log."""
    image = dynamic()
    image.number = 2
    image.log = {(0, 0): noise(11, 4096), (0, 7): noise(12, 4096), (5, 255): noise(13, 4096)}
    return image


def child(parent: Image, name: str, number: int = 3) -> Image:
    """A checkpoint: a block of its own, one of zeros over data, and sectors over a block of its parent."""
    sectors = {sector: noise(100 + number * 10 + sector, SECTOR) for sector in (0, 1, 2, 9, 2047)}
    return Image(
        parent=parent,
        parent_name=name,
        number=number,
        blocks={2: noise(40 + number, BLOCK)},
        zeros={1},
        partial={5: sectors, 6: {8: noise(90 + number, SECTOR)}},
    )


def write_chain(folder: Path) -> tuple[Path, Image]:
    """Three images: a base with a dirty log, a child and a grandchild. Returns the path of the last, and its image."""
    base = dirty()
    base.write(folder / "base.vhdx")
    middle = child(base, "base.vhdx", 3)
    middle.write(folder / "middle.avhdx")
    leaf = child(middle, "middle.avhdx", 4)
    leaf.blocks, leaf.zeros = {7: noise(60, BLOCK)}, {2}
    return leaf.write(folder / "leaf.avhdx"), leaf


def hello() -> Path:
    """The image of ext4 that the project keeps."""
    return Path(os.environ.get("VHDX_IMAGES", Path(__file__).parents[3] / "tests" / "images")) / "hello.vhdx"


# From tests/images/SOURCES.md.
HELLO_SHA256 = "33fae6f026d060937787b0bf3bd9ea6fbe28b06972805ed902a3b4f74d21cba8"
