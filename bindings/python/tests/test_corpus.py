"""Images of others, with known content: through each way in and out."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import vhdx_mmap
from conftest import need

CORPUS = Path(os.environ.get("VHDX_CORPUS", Path(__file__).parents[4] / "shared" / "corpus"))
MOST = 256 << 20


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("corpus", (CORPUS / "unpack.sh").is_file())
    folder = tmp_path_factory.mktemp("corpus")
    subprocess.run(["bash", CORPUS / "unpack.sh", folder], check=True)
    return folder


def records(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    found = []
    for part in ("windows", "foreign"):
        manifest = json.loads((folder / part / "manifest.json").read_text())
        found += [(folder / part / record["file"], record) for record in manifest["images"]]
    assert found
    return found


def sha256_by_segments(disk: vhdx_mmap.Disk) -> str:
    digest = hashlib.sha256()
    zeros = bytes(1 << 20)
    for segment in disk.segments():
        if isinstance(segment, vhdx_mmap.Data):
            digest.update(segment.memory)
            continue
        for at in range(0, segment.length, len(zeros)):
            digest.update(zeros[: min(len(zeros), segment.length - at)])
    return digest.hexdigest()


def test_contents(corpus: Path) -> None:
    read = 0
    for path, record in records(corpus):
        if record["expect"] != "read":
            continue
        with vhdx_mmap.open(path) as disk:
            assert disk.size == record["virtual_size"], path
            assert disk.sector_size == record.get("logical_sector_size", 512), path
            for offset, length, digest in record.get("nonzero_extents") or []:
                if length <= MOST:
                    assert hashlib.sha256(disk.pread(length, offset)).hexdigest() == digest, (path, offset)
            if record.get("sha256") is None or disk.size > MOST:
                continue
            read += 1
            assert disk.hash()["sha256"] == record["sha256"], path
            stream = io.BufferedReader(disk.reader(), 1 << 20)
            assert hashlib.file_digest(stream, "sha256").hexdigest() == record["sha256"], path
        with vhdx_mmap.open(path, mmap=True) as disk:
            assert sha256_by_segments(disk) == record["sha256"], path
            assert disk.hash()["sha256"] == record["sha256"], path
    assert read > 20


def test_what_is_wrong_is_an_exception(corpus: Path) -> None:
    refused = 0
    for path, record in records(corpus):
        if record["expect"] != "refuse":
            continue
        with pytest.raises(vhdx_mmap.VhdxError) as caught:
            disk = vhdx_mmap.open(path)
            disk.hash()
        assert str(caught.value) and caught.value.structure, path
        refused += 1
    assert refused > 5
