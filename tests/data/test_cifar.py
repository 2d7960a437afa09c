"""The binary version of CIFAR: rows written here byte by byte, and the published files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from n2n.data import Augmentation, DataError, load
from n2n.data.cifar import read_cifar


def rows(labels: list[list[int]]) -> bytes:
    """One row for each list of label bytes: red 1, green 2 and blue 3, whose first pixel is the row's number + 10."""
    content = b""
    for number, label in enumerate(labels):
        planes = bytearray(bytes([1]) * 1024 + bytes([2]) * 1024 + bytes([3]) * 1024)
        planes[0] = 10 + number
        content += bytes(label) + bytes(planes)
    return content


def test_planes_and_labels_of_cifar_10(tmp_path: Path) -> None:
    path = tmp_path / "batch.bin"
    path.write_bytes(rows([[7], [0]]))
    images, labels = read_cifar(path, rows=2, label_bytes=1, classes=10)
    assert images.shape == (2, 3, 32, 32)
    assert labels.tolist() == [7, 0]
    assert images[:, :, 5, 5].tolist() == [[1, 2, 3], [1, 2, 3]]
    assert images[:, 0, 0, 0].tolist() == [10, 11]


def test_the_fine_label_of_cifar_100_is_the_second_byte(tmp_path: Path) -> None:
    path = tmp_path / "train.bin"
    path.write_bytes(rows([[19, 99], [3, 42]]))
    images, labels = read_cifar(path, rows=2, label_bytes=2, classes=100)
    assert labels.tolist() == [99, 42]
    assert images[:, 0, 0, 0].tolist() == [10, 11]


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "batch.bin"
    path.write_bytes(rows([[7], [0]])[:-1])
    with pytest.raises(DataError, match=r"batch\.bin: expected 2 rows of 3073 bytes = 6146 bytes, found 6145"):
        read_cifar(path, rows=2, label_bytes=1, classes=10)


def test_a_label_of_no_class_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "batch.bin"
    path.write_bytes(rows([[7], [10]]))
    with pytest.raises(DataError, match=r"labels must be in 0\.\.9, found 10 in row 1"):
        read_cifar(path, rows=2, label_bytes=1, classes=10)


def test_no_train_batch_and_no_test_batch_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    with pytest.raises(DataError, match=r"cifar-10: no file test_batch\.bin"):
        load("cifar-10", data_dir=tmp_path, download=False)
    (folder / "test_batch.bin").write_bytes(b"")
    with pytest.raises(DataError, match=r"at least one of data_batch_1\.bin.*found none"):
        load("cifar-10", data_dir=tmp_path, download=False)


def test_cifar_100_expects_all_its_rows(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-100-binary"
    folder.mkdir()
    (folder / "train.bin").write_bytes(rows([[19, 99]]))
    with pytest.raises(DataError, match=r"train\.bin: expected 50000 rows of 3074 bytes .* found 3074"):
        load("cifar-100", data_dir=tmp_path, download=False)


@pytest.mark.slow
def test_cifar_100_reads_all_its_rows(tmp_path: Path) -> None:
    table = np.zeros((50_000, 3074), dtype=np.uint8)
    table[:, 1] = np.arange(50_000) % 100
    folder = tmp_path / "cifar-100-binary"
    folder.mkdir()
    table.tofile(folder / "train.bin")
    table[:10_000].tofile(folder / "test.bin")
    data = load("cifar-100", data_dir=tmp_path, download=False)
    assert (len(data.train), len(data.validation), len(data.test)) == (45_000, 5_000, 10_000)
    assert (data.classes, data.notes) == (100, ())


def test_an_incomplete_cifar_10_is_used_and_noted(real_data: Path) -> None:
    data = load("cifar-10", data_dir=real_data, download=True)  # files are there, so nothing is fetched
    assert data.notes == ("2 of 5 train batches",)
    assert (len(data.train), len(data.validation), len(data.test)) == (18_000, 2_000, 10_000)
    assert data.training.augmentation == Augmentation(pad=4, flip=True)
    # The test batch holds 1,000 images of each class and begins with a cat, two ships and an airplane.
    assert data.test.labels.bincount().tolist() == [1_000] * 10
    assert data.test.labels[:4].tolist() == [3, 8, 8, 0]
