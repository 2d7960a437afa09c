"""The one door to every source, and the embedded default."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from sklearn.datasets import load_digits

from n2n.data import DATA, Augmentation, DataError, Origin, from_tensors, load


def test_the_names() -> None:
    assert list(DATA) == ["digits", "mnist", "fashion-mnist", "cifar-10", "cifar-100"]


@pytest.mark.parametrize("name", ["fashion_mnist", "no/such/folder", "MNIST"])
def test_an_unknown_name_lists_what_is_known(name: str) -> None:
    with pytest.raises(DataError, match=r"unknown data .*digits, mnist, fashion-mnist, cifar-10, cifar-100.*npz"):
        load(name)


def test_data_say_how_they_were_loaded() -> None:
    data = load("digits", seed=3, validation=0.3)
    assert data.origin == Origin("digits", seed=3, validation=0.3)
    images, labels = torch.zeros(20, 1, 2, 2), torch.arange(20) % 2
    assert from_tensors(images, labels, name="mine", seed=2).origin == Origin(None, seed=2, validation=0.1)


def test_digits_are_all_there_once() -> None:
    data = load("digits")
    images = torch.cat([data.train.images, data.validation.images, data.test.images])
    labels = torch.cat([data.train.labels, data.validation.labels, data.test.labels])
    assert images.shape == (1797, 1, 8, 8)
    assert (float(images.min()), float(images.max())) == (0.0, 1.0)
    published, targets = load_digits(return_X_y=True)

    def rows(pixels: torch.Tensor, label: torch.Tensor) -> list[list[int]]:
        return sorted([*map(int, row), int(number)] for row, number in zip(pixels, label, strict=True))

    expected = rows(torch.from_numpy(published), torch.from_numpy(targets))
    assert rows(images.reshape(-1, 64) * 16, labels) == expected


def test_digits_keep_their_test_split_whatever_the_seed() -> None:
    first, other = load("digits", seed=0), load("digits", seed=1)
    assert torch.equal(first.test.images, other.test.images)
    assert not torch.equal(first.validation.images, other.validation.images)
    assert len(first.test) == pytest.approx(0.2 * 1797, abs=5)
    assert (first.classes, first.training.augmentation) == (10, Augmentation(pad=1))


def test_importing_the_room_is_free() -> None:
    script = "import sys, n2n.data, n2n.networks; print([m for m in ('sklearn', 'PIL', 'ray') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
