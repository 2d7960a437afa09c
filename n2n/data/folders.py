"""Image folders: one folder per class, below `train` and (optionally) `test`, or directly below the root."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from n2n.data.base import Data
from n2n.data.errors import DataError
from n2n.data.tensors import from_tensors

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".ppm", ".pgm", ".tif", ".tiff")
GREY_MODES = ("1", "L")


def load_folder(root: Path, *, validation: float, seed: int) -> Data:
    """Data of `root`/train/<class>/*.png and `root`/test/<class>/*.png, or of `root`/<class>/*.png.

    The classes are the folder names in alphabetical order. Images are read into memory as uint8 [n, C, H, W]; C is 1
    where all of them are grey and 3 otherwise. Hidden files and other suffixes are passed over.

    Raises:
        DataError: no class folders, no images, images of different sizes, an unreadable image, an unknown test class.
    """
    train_root = root / "train" if (root / "train").is_dir() else root
    classes = _class_names(train_root)
    files = _files(train_root, classes)
    test_files: list[tuple[Path, int]] = []
    if train_root != root and (root / "test").is_dir():
        unknown = sorted(set(_class_names(root / "test")) - set(classes))
        if unknown:
            raise DataError(
                f"{root / 'test'}: the class folders {', '.join(unknown)} are not in {train_root}, which has "
                f"{', '.join(classes)}"
            )
        test_files = _files(root / "test", classes)
    images, labels = _read([*files, *test_files])
    count = len(files)
    has_test = bool(test_files)
    return from_tensors(
        images[:count],
        labels[:count],
        images[count:] if has_test else None,
        labels[count:] if has_test else None,
        name=root.resolve().name,
        classes=len(classes),
        validation=validation,
        seed=seed,
    )


def _class_names(folder: Path) -> list[str]:
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not names:
        raise DataError(f"{folder}: expected one folder per class, found none; put the images in {folder}/<class>/")
    return names


def _files(folder: Path, classes: list[str]) -> list[tuple[Path, int]]:
    found = []
    for label, name in enumerate(classes):
        if (folder / name).is_dir():
            images = sorted(path for path in (folder / name).iterdir() if path.suffix.lower() in SUFFIXES)
            found += [(path, label) for path in images if not path.name.startswith(".")]
    if not found:
        raise DataError(f"{folder}: expected images ({', '.join(SUFFIXES)}) in the class folders, found none")
    return found


def _read(files: list[tuple[Path, int]]) -> tuple[Tensor, Tensor]:
    """Images uint8 [n, C, H, W] and labels int64 [n] of files with their labels."""
    arrays = [_pixels(path) for path, _ in files]  # each [H, W] or [H, W, 3]
    first = files[0][0]
    for (path, _), array in zip(files, arrays, strict=True):
        if array.shape[:2] != arrays[0].shape[:2]:
            raise DataError(
                f"{path}: the image is {_size(array)}, but {first} is {_size(arrays[0])}; bring all images to one size"
            )
    if any(array.ndim == 3 for array in arrays):
        arrays = [array if array.ndim == 3 else np.repeat(array[:, :, None], 3, axis=2) for array in arrays]
        stacked = np.stack(arrays).transpose(0, 3, 1, 2)
    else:
        stacked = np.stack(arrays)[:, None]
    labels = torch.tensor([label for _, label in files], dtype=torch.int64)
    return torch.from_numpy(np.ascontiguousarray(stacked)), labels


def _pixels(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    from PIL import Image  # only image folders need it

    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise DataError(
                    f"{path}: images of more than 8 bits (mode {image.mode}) are not read; convert to 8 bits"
                )
            return np.asarray(image.convert("L" if image.mode in GREY_MODES else "RGB"), dtype=np.uint8)
    except (OSError, SyntaxError) as error:
        # Pillow reports a damaged PNG as a SyntaxError.
        raise DataError(f"{path}: not a readable image ({error}); repair or remove it") from error


def _size(array: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> str:
    return f"{array.shape[1]}x{array.shape[0]}"
