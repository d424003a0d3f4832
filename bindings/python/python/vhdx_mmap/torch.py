"""A data set of PyTorch: the content of disks, block by block.

    loader = torch.utils.data.DataLoader(BlockDataset(["a.vhdx", "b.avhdx"]), batch_size=None, num_workers=2)
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

try:
    torch: Any = importlib.import_module("torch")
    data: Any = importlib.import_module("torch.utils.data")
except ImportError as error:
    raise ImportError("vhdx_mmap.torch needs PyTorch: pip install torch") from error

from . import _disk

__all__ = ["BlockDataset"]


class BlockDataset(data.IterableDataset):  # type: ignore[misc]
    """Pieces of disks that are in files, as tensors of bytes: `(image, offset, tensor)`. What is zero is left out.

    With several workers, each reads its share of the pieces; together they read each piece once. An image is opened by
    the worker that reads it.

    Args:
        images: Paths of images.
        size: Most bytes of a piece.
        options: Options of `vhdx_mmap.open`.
    """

    def __init__(self, images: Sequence[str | os.PathLike[str]], size: int = 1 << 20, **options: Any) -> None:
        super().__init__()
        self.images = [os.fspath(image) for image in images]
        self.size = size
        self.options = options

    def __iter__(self) -> Iterator[tuple[str, int, Any]]:
        worker = data.get_worker_info()
        mine, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        number = 0
        for image in self.images:
            with _disk.Disk(image, **self.options) as disk:
                for extent in disk.extents():
                    if not extent.is_data:
                        continue
                    for offset in range(extent.offset, extent.offset + extent.length, self.size):
                        if number % workers == mine:
                            length = min(self.size, extent.offset + extent.length - offset)
                            tensor = torch.empty(length, dtype=torch.uint8)
                            disk.readinto_at(tensor.numpy(), offset)
                            yield image, offset, tensor
                        number += 1
