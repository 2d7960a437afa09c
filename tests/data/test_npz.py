"""NumPy archives: the layouts that are understood, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from n2n.data import DataError, load
from n2n.data.arrays import channels_first

LABELS = np.arange(60) % 3


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_an_archive_with_test_images(tmp_path: Path) -> None:
    images = noise(60, 5, 4, 3)
    np.savez(tmp_path / "own.npz", images=images, labels=LABELS, test_images=images[:9], test_labels=LABELS[:9])
    data = load(tmp_path / "own.npz")
    assert data.training.input_shape == (3, 5, 4)
    assert np.array_equal(data.test.images.numpy(), images[:9].transpose(0, 3, 1, 2))
    assert data.test.labels.tolist() == LABELS[:9].tolist()
    assert (data.name, data.classes, data.notes) == ("own.npz", 3, ())


def test_an_archive_without_test_images_sets_some_aside(tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", images=noise(60, 5, 4), labels=LABELS)
    data = load(str(tmp_path / "own.npz"))
    assert len(data.test) == 12
    assert "set aside" in data.notes[0]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((7, 5, 4), (7, 1, 5, 4)),
        ((7, 5, 4, 3), (7, 3, 5, 4)),
        ((7, 3, 5, 4), (7, 3, 5, 4)),
        ((7, 1, 5, 3), (7, 1, 5, 3)),
        ((7, 9, 5, 4), (7, 4, 9, 5)),
        ((7, 6), (7, 6)),
    ],
)
def test_layouts(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert channels_first(noise(*shape), "noise").shape == expected


def test_types() -> None:
    assert channels_first(np.array([[0, 255]], dtype=np.int64), "x").dtype == torch.uint8
    assert channels_first(np.array([[0.0, 1.0]]), "x").dtype == torch.float32
    assert channels_first(np.array([[True, False]]), "x").tolist() == [[1.0, 0.0]]
    with pytest.raises(DataError, match=r"must be in 0\.\.255, found -1\.\.3"):
        channels_first(np.array([[-1, 3]]), "x")
    with pytest.raises(DataError, match="must be uint8 or float, found complex128"):
        channels_first(np.array([[1j]]), "x")
    with pytest.raises(DataError, match=r"found the shape \(2,\)"):
        channels_first(np.array([1.0, 2.0]), "x")


def test_missing_arrays_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", x=noise(6, 2, 2), y=LABELS[:6])
    with pytest.raises(DataError, match=r"own\.npz: expected the arrays images and labels .* found x, y"):
        load(tmp_path / "own.npz")


def test_nan_is_refused_with_the_name_of_the_file(tmp_path: Path) -> None:
    images = np.zeros((60, 4, 4), dtype=np.float32)
    images[7, 0, 0] = np.nan
    np.savez(tmp_path / "own.npz", images=images, labels=LABELS)
    with pytest.raises(DataError, match=r"own\.npz.*NaN.*image 7"):
        load(tmp_path / "own.npz")


def test_a_wrong_count_of_labels_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", images=noise(60, 4, 4), labels=LABELS[:59])
    with pytest.raises(DataError, match=r"own\.npz train: 60 images but 59 labels"):
        load(tmp_path / "own.npz")


def test_float_labels_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", images=noise(60, 4, 4), labels=LABELS / 2)
    with pytest.raises(DataError, match=r"own\.npz: labels: labels must be whole numbers, found float64"):
        load(tmp_path / "own.npz")


@pytest.mark.parametrize("keep", [0, 40, 300])
def test_a_truncated_archive_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "own.npz"
    np.savez(path, images=noise(60, 4, 4), labels=LABELS)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"own\.npz: not a readable NumPy archive"):
        load(path)


def test_an_archive_that_needs_unpickling_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", images=np.array([{"a": 1}], dtype=object), labels=LABELS[:1])
    with pytest.raises(DataError, match="not a readable NumPy archive"):
        load(tmp_path / "own.npz")


def test_a_single_array_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "own.npz").open("wb") as file:
        np.save(file, noise(6, 4, 4))
    with pytest.raises(DataError, match="several arrays, found a single array"):
        load(tmp_path / "own.npz")


def test_a_missing_archive_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.npz: no such file"):
        load(tmp_path / "gone.npz")
