"""The IDX format: written here byte by byte, and the published files."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from n2n.data import Augmentation, DataError, load
from n2n.data.idx import read_idx


def idx_bytes(array: np.ndarray) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def write_mnist(folder: Path, *, train: int = 100, test: int = 20, plain: bool = False) -> np.ndarray:
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    images = rng.integers(0, 256, (train + test, 28, 28), dtype=np.uint8)
    labels = np.arange(train + test) % 10
    parts = {
        "train-images-idx3-ubyte": images[:train],
        "train-labels-idx1-ubyte": labels[:train],
        "t10k-images-idx3-ubyte": images[train:],
        "t10k-labels-idx1-ubyte": labels[train:],
    }
    for name, array in parts.items():
        if plain:
            (folder / name).write_bytes(idx_bytes(array))
        else:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx_bytes(array)))
    return images


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("inside", [False, True])
def test_files_are_found_in_the_folder_or_below_it_gzipped_or_plain(tmp_path: Path, plain: bool, inside: bool) -> None:
    images = write_mnist(tmp_path / "fashion-mnist", plain=plain)
    given = tmp_path / "fashion-mnist" if inside else tmp_path
    data = load("fashion-mnist", data_dir=given, download=False)
    assert (len(data.train), len(data.validation), len(data.test)) == (90, 10, 20)
    assert data.training.input_shape == (1, 28, 28)
    assert np.array_equal(data.test.images[:, 0].numpy(), images[100:])
    assert data.test.labels.tolist() == [n % 10 for n in range(20)]
    assert data.training.augmentation == Augmentation(pad=2, flip=True)


def test_mnist_is_not_read_from_the_folder_of_fashion_mnist(tmp_path: Path) -> None:
    write_mnist(tmp_path / "fashion-mnist")
    with pytest.raises(DataError, match=r"mnist: no file train-images-idx3-ubyte in .*--data-dir"):
        load("mnist", data_dir=tmp_path / "fashion-mnist", download=False)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    write_mnist(tmp_path / "mnist")
    (tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz: no such file"):
        load("mnist", data_dir=tmp_path, download=False)


def test_labels_of_another_count_are_refused(tmp_path: Path) -> None:
    write_mnist(tmp_path / "mnist")
    (tmp_path / "mnist" / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(np.zeros(99))))
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte\.gz: 99 labels for the 100 images"):
        load("mnist", data_dir=tmp_path, download=False)


def test_a_label_of_no_class_is_refused(tmp_path: Path) -> None:
    write_mnist(tmp_path / "mnist")
    (tmp_path / "mnist" / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(np.full(100, 10))))
    with pytest.raises(DataError, match=r"labels must be in 0\.\.9, found 10"):
        load("mnist", data_dir=tmp_path, download=False)


@pytest.mark.parametrize("keep", [0, 3, 10, 400])
def test_a_truncated_plain_file_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "images"
    path.write_bytes(idx_bytes(np.zeros((2, 20, 20)))[:keep])
    with pytest.raises(DataError, match=r"images: (expected an IDX file|its header announces 2 x 20 x 20 = 800 bytes)"):
        read_idx(path, axes=3)


@pytest.mark.parametrize("keep", [5, 15, -6])
def test_a_truncated_gzip_file_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "images.gz"
    noise = np.random.default_rng(0).integers(0, 256, (2, 20, 20))
    path.write_bytes(gzip.compress(idx_bytes(noise))[:keep])
    with pytest.raises(DataError, match=r"images\.gz: a damaged or truncated gzip file"):
        read_idx(path, axes=3)


def test_a_changed_byte_in_a_gzip_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "images.gz"
    content = bytearray(gzip.compress(idx_bytes(np.random.default_rng(0).integers(0, 256, (2, 20, 20)))))
    content[200] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"images\.gz"):
        read_idx(path, axes=3)


def test_labels_in_the_place_of_images_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "images"
    path.write_bytes(idx_bytes(np.zeros(30)))
    with pytest.raises(DataError, match=r"3 axes \(it starts with 00 00 08 03\), found 00 00 08 01"):
        read_idx(path, axes=3)


# md5 of the unpacked files: a gzip file may be packed again, its content may not change.
UNPACKED = {
    "mnist": "6bbc9ace898e44ae57da46a324031adb",
    "fashion-mnist": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
}


@pytest.mark.parametrize("name", UNPACKED)
def test_the_published_train_images(real_data: Path, name: str) -> None:
    images = read_idx(real_data / name / "train-images-idx3-ubyte.gz", axes=3)
    labels = read_idx(real_data / name / "train-labels-idx1-ubyte.gz", axes=1)
    digest = hashlib.md5(idx_bytes(images.numpy()), usedforsecurity=False).hexdigest()
    assert digest == UNPACKED[name]
    assert labels[:5].tolist() == {"mnist": [5, 0, 4, 1, 9], "fashion-mnist": [9, 0, 0, 3, 0]}[name]


def test_fashion_mnist_as_a_search_gets_it(real_data: Path) -> None:
    data = load("fashion-mnist", data_dir=real_data, download=False)
    assert (len(data.train), len(data.validation), len(data.test)) == (54_000, 6_000, 10_000)
    assert torch.bincount(data.validation.labels).tolist() == [600] * 10
    # Mean and deviation of the train images as everybody quotes them.
    assert data.training.mean == pytest.approx((0.2860,), abs=5e-5)
    assert data.training.std == pytest.approx((0.3530,), abs=5e-5)
