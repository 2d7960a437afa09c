"""Torch Datasets, in Python and by `module:function`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from n2n.data import DataError, from_dataset, load, prepare
from n2n.data.datasets import resolve


class Items(Dataset):
    """A list of items, which, like many datasets, does not raise IndexError at its end."""

    def __init__(self, items: list[object]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> object:
        return self.items[index % len(self.items)]


class Stream(IterableDataset):
    def __iter__(self) -> Iterator[tuple[torch.Tensor, int]]:
        return ((torch.full((1, 2, 2), float(number)), number % 2) for number in range(40))


def test_tensor_datasets_for_train_and_test() -> None:
    images, labels = torch.rand(40, 3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 2
    data = from_dataset(TensorDataset(images, labels), TensorDataset(images[:5], labels[:5]), name="own")
    assert torch.equal(data.test.images, images[:5])
    assert data.test.labels.tolist() == [0, 1, 0, 1, 0]
    assert len(data.train) + len(data.validation) == 40


def test_a_stream_is_read_to_its_end() -> None:
    data = from_dataset(Stream(), name="stream")
    assert len(data.train) + len(data.validation) + len(data.test) == 40


@pytest.mark.parametrize("kind", ["pil", "array"])
def test_pil_images_and_arrays_have_their_channels_moved_to_the_front(kind: str) -> None:
    array = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)
    item = Image.fromarray(array) if kind == "pil" else array
    data = from_dataset(Items([(item, n % 2) for n in range(40)]), name="own")
    assert torch.equal(data.train.images[0], torch.from_numpy(array).permute(2, 0, 1))


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([torch.zeros(1, 2, 2)], r"own train: item 0 must be a pair \(image, label\), found Tensor"),
        ([(torch.zeros(1, 2, 2), 0), (torch.zeros(1, 3, 2), 0)], r"item 1 has the shape \(1, 3, 2\)"),
        ([(torch.zeros(1, 2, 2), 0.5)], r"item 0: the label must be one whole number, found 0\.5"),
        ([(torch.zeros(1, 2, 2), "cat")], r"item 0: the label must be one whole number, found 'cat'"),
        ([(torch.zeros(1, 2, 2), torch.tensor([0, 1]))], r"item 0: the label must be one whole number"),
        ([], r"own train: expected at least one item, found none"),
    ],
)
def test_bad_items_are_refused(items: list[object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        from_dataset(Items(items), name="own")


MODULE = """
import torch
from torch.utils.data import TensorDataset
from n2n.data import from_tensors

images, labels = torch.arange(40.0).reshape(40, 1, 1, 1).repeat(1, 1, 2, 2), torch.arange(40) % 2

def one():
    return TensorDataset(images, labels)

def pair():
    return TensorDataset(images, labels), TensorDataset(images[:4], labels[:4])

def own(seed, validation):
    return from_tensors(images, labels, name=f"own seed {seed} validation {validation}")

def nothing():
    return 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module in the working folder, which is not on the import path."""
    name = "n2n_test_own_data"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    yield name
    sys.modules.pop(name, None)


def test_a_function_may_return_one_dataset_a_pair_or_data(module: str) -> None:
    path = list(sys.path)
    assert len(load(f"{module}:one").test) == 8
    assert len(load(f"{module}:pair").test) == 4
    assert load(f"{module}:own", seed=3, validation=0.2).name == "own seed 3 validation 0.2"
    assert sys.path == path


def test_what_a_function_may_not_be(module: str) -> None:
    with pytest.raises(DataError, match=r"expected a Data, a torch Dataset or a pair of them.*found int"):
        load(f"{module}:nothing")
    with pytest.raises(DataError, match=r"has no function 'absent'; it has nothing, one, own, pair"):
        load(f"{module}:absent")
    with pytest.raises(DataError, match=r"No module named 'n2n_no_such_module'.*MODULE:FUNCTION"):
        resolve("n2n_no_such_module:function")
    with pytest.raises(DataError, match=r"n2n_no_such_package\.inner:function: No module named"):
        resolve("n2n_no_such_package.inner:function")


def test_float_images_reach_the_network_as_the_dataset_gives_them() -> None:
    """A user's own network was trained on exactly these values: they are not normalised once more."""
    images = torch.linspace(-2, 3, 40 * 4).reshape(40, 1, 2, 2)
    dataset = torch.utils.data.TensorDataset(images, torch.arange(40) % 4)
    data = from_dataset(dataset, dataset, name="mine")
    assert torch.equal(prepare(data.test.images, mean=data.training.mean, std=data.training.std), images)
    given = from_dataset(dataset, dataset, name="mine", mean=(1.0,), std=(2.0,))
    prepared = prepare(given.test.images, mean=given.training.mean, std=given.training.std)
    torch.testing.assert_close(prepared, (images - 1) / 2)
    with pytest.raises(DataError, match="mean and std come together"):
        from_dataset(dataset, name="mine", mean=(1.0,))
