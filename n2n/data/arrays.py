"""Images in whatever array a user has, as uint8 or float32 with the channels first; and `.npz` files of them."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from n2n.data.base import Data
from n2n.data.errors import DataError
from n2n.data.tensors import from_tensors

CHANNELS = (1, 3, 4)


def channels_first(array: npt.NDArray[Any], name: str) -> Tensor:
    """Images [n, H, W], [n, H, W, C], [n, C, H, W] or vectors [n, F] as [n, C, H, W] or [n, F], uint8 or float32.

    Four axes are read as channels first where the second has 1, 3 or 4 entries, else as channels last where the last
    has. Integers of other types become uint8 where they fit.

    Raises:
        DataError: other shapes, other types, integers outside 0..255.
    """
    if array.dtype == np.bool_:
        array = array.astype(np.float32)
    elif np.issubdtype(array.dtype, np.integer) and array.dtype != np.uint8:
        if array.size and (array.min() < 0 or array.max() > 255):
            raise DataError(
                f"{name}: whole-number images must be in 0..255, found {array.min()}..{array.max()}; scale them or "
                "store floats in 0..1"
            )
        array = array.astype(np.uint8)
    elif np.issubdtype(array.dtype, np.floating):
        array = array.astype(np.float32)
    elif array.dtype != np.uint8:
        raise DataError(f"{name}: images must be uint8 or float, found {array.dtype}")
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[1] not in CHANNELS and array.shape[3] in CHANNELS:
        array = array.transpose(0, 3, 1, 2)
    elif array.ndim not in (2, 4):
        raise DataError(
            f"{name}: images must be [n, H, W], [n, H, W, C], [n, C, H, W] or vectors [n, F], found the shape "
            f"{array.shape}"
        )
    return torch.from_numpy(np.ascontiguousarray(array))


def load_npz(path: Path, *, validation: float, seed: int) -> Data:
    """Data of a NumPy archive: `images` and `labels`, and `test_images` with `test_labels` where it has them.

    Raises:
        DataError: the file is missing, damaged, has other arrays or needs unpickling; the checks of `from_tensors`.
    """
    arrays = _read(path)
    if "images" not in arrays or "labels" not in arrays:
        raise DataError(
            f"{path}: expected the arrays images and labels (and optionally test_images and test_labels), found "
            f"{', '.join(arrays) or 'none'}"
        )
    images = {key: channels_first(arrays[key], f"{path}: {key}") for key in ("images", "test_images") if key in arrays}
    labels = {key: _labels(arrays[key], f"{path}: {key}") for key in ("labels", "test_labels") if key in arrays}
    return from_tensors(
        images["images"],
        labels["labels"],
        images.get("test_images"),
        labels.get("test_labels"),
        name=path.name,
        validation=validation,
        seed=seed,
    )


def _labels(array: npt.NDArray[Any], name: str) -> Tensor:
    if not np.issubdtype(array.dtype, np.integer):
        raise DataError(f"{name}: labels must be whole numbers, found {array.dtype}; store them as int64")
    return torch.from_numpy(array.astype(np.int64))


def _read(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        # Opened here, because np.load leaves the file of a damaged archive open.
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError(f"{path}: expected a NumPy archive of several arrays, found a single array")
            return {key: archive[key] for key in archive.files}
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; check the path") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: not a readable NumPy archive ({error}); write it again with numpy.savez") from error
