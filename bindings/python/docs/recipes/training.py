"""Blocks of many disks as tensors of PyTorch, shared out among workers."""

from torch.utils.data import DataLoader
from vhdx_mmap.torch import BlockDataset

if __name__ == "__main__":
    for image, offset, tensor in DataLoader(BlockDataset(["disk.vhdx"]), batch_size=None, num_workers=2):
        print(image, offset, len(tensor))
