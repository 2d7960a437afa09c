"""CIFAR-10 and CIFAR-100, the binary version: rows of label bytes and 3,072 bytes of an image.

Krizhevsky: "Learning Multiple Layers of Features from Tiny Images", 2009. An image is the red, the green and the blue
plane of 32x32 bytes; CIFAR-100 has a coarse label before the fine one, which is the one used here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from n2n.data.augment import Augmentation
from n2n.data.base import Data
from n2n.data.download import CIFAR_10, CIFAR_100, Source, folder_of
from n2n.data.errors import DataError
from n2n.data.tensors import from_tensors

CIFAR_10_TRAIN = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
PIXELS = 3 * 32 * 32


def cifar10(*, data_dir: Path | None, validation: float, seed: int, download: bool) -> Data:
    """CIFAR-10: 50,000 train and 10,000 test images [3, 32, 32]; missing train batches are noted in `notes`."""
    folder = folder_of(CIFAR_10, data_dir, download=download)
    present = [folder / name for name in CIFAR_10_TRAIN if (folder / name).is_file()]
    if not present:
        raise DataError(f"{folder}: expected at least one of {', '.join(CIFAR_10_TRAIN)}, found none; check --data-dir")
    pairs = [read_cifar(path, rows=10_000, label_bytes=1, classes=10) for path in present]
    test = read_cifar(folder / "test_batch.bin", rows=10_000, label_bytes=1, classes=10)
    train = torch.cat([images for images, _ in pairs]), torch.cat([labels for _, labels in pairs])
    missing = len(present) < len(CIFAR_10_TRAIN)
    notes = (f"{len(present)} of {len(CIFAR_10_TRAIN)} train batches",) if missing else ()
    return _data(CIFAR_10, train, test, classes=10, validation=validation, seed=seed, notes=notes)


def cifar100(*, data_dir: Path | None, validation: float, seed: int, download: bool) -> Data:
    """CIFAR-100: 50,000 train and 10,000 test images [3, 32, 32] with their 100 fine labels."""
    folder = folder_of(CIFAR_100, data_dir, download=download)
    train = read_cifar(folder / "train.bin", rows=50_000, label_bytes=2, classes=100)
    test = read_cifar(folder / "test.bin", rows=10_000, label_bytes=2, classes=100)
    return _data(CIFAR_100, train, test, classes=100, validation=validation, seed=seed, notes=())


def read_cifar(path: Path, *, rows: int, label_bytes: int, classes: int) -> tuple[Tensor, Tensor]:
    """Images uint8 [rows, 3, 32, 32] and labels int64 [rows] (the last label byte of each row) of one file.

    Raises:
        DataError: the file is missing, of another length, or holds a label outside 0..classes-1.
    """
    try:
        raw = np.fromfile(path, dtype=np.uint8)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; check --data-dir") from error
    row = label_bytes + PIXELS
    if len(raw) != rows * row:
        raise DataError(
            f"{path}: expected {rows} rows of {row} bytes = {rows * row} bytes, found {len(raw)}; the file is "
            "truncated or not of the binary version, fetch it again"
        )
    table = torch.from_numpy(raw.reshape(rows, row))
    labels = table[:, label_bytes - 1].to(torch.int64)
    if int(labels.max()) >= classes:
        wrong = int((labels >= classes).nonzero()[0])
        raise DataError(
            f"{path}: labels must be in 0..{classes - 1}, found {int(labels[wrong])} in row {wrong}; the file is "
            "damaged or of another data set"
        )
    return table[:, label_bytes:].reshape(rows, 3, 32, 32).contiguous(), labels


def _data(
    source: Source,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    *,
    classes: int,
    validation: float,
    seed: int,
    notes: tuple[str, ...],
) -> Data:
    return from_tensors(
        *train,
        *test,
        name=source.name,
        classes=classes,
        validation=validation,
        seed=seed,
        augmentation=Augmentation(pad=4, flip=True),
        notes=notes,
    )
