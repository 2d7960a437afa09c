"""MNIST and Fashion-MNIST: the IDX format, gzipped as published or unpacked.

LeCun, Cortes, Burges: "The MNIST database of handwritten digits". Xiao, Rasul, Vollgraf: "Fashion-MNIST", 2017.
A file is a big-endian magic number (00 00 08 d: unsigned bytes, d axes), d sizes of 4 bytes, and the bytes.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from n2n.data.augment import Augmentation
from n2n.data.base import Data
from n2n.data.download import FASHION_MNIST, MNIST, Source, folder_of
from n2n.data.errors import DataError
from n2n.data.tensors import from_tensors

TRAIN = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
TEST = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def mnist(*, data_dir: Path | None, validation: float, seed: int, download: bool) -> Data:
    """MNIST: 60,000 train and 10,000 test images [1, 28, 28] of ten digits."""
    return _load(MNIST, Augmentation(pad=2), data_dir=data_dir, validation=validation, seed=seed, download=download)


def fashion_mnist(*, data_dir: Path | None, validation: float, seed: int, download: bool) -> Data:
    """Fashion-MNIST: 60,000 train and 10,000 test images [1, 28, 28] of ten kinds of clothing."""
    augmentation = Augmentation(pad=2, flip=True)
    return _load(FASHION_MNIST, augmentation, data_dir=data_dir, validation=validation, seed=seed, download=download)


def read_idx(path: Path, *, axes: int) -> Tensor:
    """The unsigned bytes of one IDX file, as uint8 with `axes` axes.

    Raises:
        DataError: the file is missing, not IDX of that many axes, damaged or not as long as its header says.
    """
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; check --data-dir") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: a damaged or truncated gzip file ({error}); fetch it again") from error
    header = 4 + 4 * axes
    magic = bytes((0, 0, 8, axes))
    if len(raw) < header or raw[:4] != magic:
        raise DataError(
            f"{path}: expected an IDX file of unsigned bytes with {axes} axes (it starts with {magic.hex(' ')}), found "
            f"{raw[:4].hex(' ') or 'an empty file'}; check that this is the right file"
        )
    shape = struct.unpack(f">{axes}I", raw[4:header])
    if len(raw) - header != math.prod(shape):
        raise DataError(
            f"{path}: its header announces {' x '.join(map(str, shape))} = {math.prod(shape)} bytes, found "
            f"{len(raw) - header}; the file is truncated or damaged, fetch it again"
        )
    values = np.frombuffer(raw, dtype=np.uint8, offset=header).reshape(shape)
    return torch.from_numpy(values.copy())


def _load(
    source: Source, augmentation: Augmentation, *, data_dir: Path | None, validation: float, seed: int, download: bool
) -> Data:
    folder = folder_of(source, data_dir, download=download)
    images, labels = _pair(folder, *TRAIN)
    test_images, test_labels = _pair(folder, *TEST)
    return from_tensors(
        images,
        labels,
        test_images,
        test_labels,
        name=source.name,
        classes=10,
        validation=validation,
        seed=seed,
        augmentation=augmentation,
    )


def _pair(folder: Path, images_name: str, labels_name: str) -> tuple[Tensor, Tensor]:
    images_path, labels_path = _gz_or_plain(folder, images_name), _gz_or_plain(folder, labels_name)
    images, labels = read_idx(images_path, axes=3), read_idx(labels_path, axes=1)
    if len(images) != len(labels):
        raise DataError(
            f"{labels_path}: {len(labels)} labels for the {len(images)} images of {images_path.name}; expected as "
            "many; check that both files belong together"
        )
    return images.unsqueeze(1), labels  # [n, 1, H, W], [n]


def _gz_or_plain(folder: Path, name: str) -> Path:
    plain = folder / name
    return plain if plain.is_file() else folder / f"{name}.gz"
