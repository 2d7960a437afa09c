"""Splits: what they hold, how the seed draws them, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from n2n.data import Data, DataError, Split, TrainingData, from_tensors


def numbered(n: int, classes: int = 4) -> tuple[Tensor, Tensor]:
    """Images [n, 1, 2, 2] that each hold their own number, and labels that follow from it."""
    numbers = torch.arange(n)
    images = numbers.reshape(n, 1, 1, 1).expand(n, 1, 2, 2).to(torch.float32).contiguous()
    return images, numbers % classes


def members(split: Split) -> list[int]:
    return [int(value) for value in split.images[:, 0, 0, 0]]


def test_every_image_is_in_exactly_one_split_with_its_label() -> None:
    data = from_tensors(*numbered(200), name="numbered", validation=0.25)
    splits = (data.train, data.validation, data.test)
    together = [number for split in splits for number in members(split)]
    assert sorted(together) == list(range(200))
    assert [len(split) for split in splits] == [120, 40, 40]  # 20% test, then 25% of the 160 that are left
    for split in splits:
        assert [number % 4 for number in members(split)] == split.labels.tolist()


def test_every_class_gives_its_share() -> None:
    images, _ = numbered(100)
    labels = torch.tensor([0] * 80 + [1] * 20)
    data = from_tensors(images, labels, images, labels, name="uneven", validation=0.1)
    assert data.validation.labels.tolist().count(0) == 8
    assert data.validation.labels.tolist().count(1) == 2


def test_the_seed_draws_validation_and_never_test() -> None:
    first, again, other = (from_tensors(*numbered(100), name="numbered", seed=seed) for seed in (0, 0, 1))
    assert members(first.validation) == members(again.validation)
    assert members(first.validation) != members(other.validation)
    assert members(first.test) == members(other.test)
    assert first.training.mean == other.training.mean


def test_a_given_test_split_is_used_whole() -> None:
    images, labels = numbered(40)
    data = from_tensors(images, labels, images[:7] + 1000, labels[:7], name="given")
    assert members(data.test) == [1000, 1001, 1002, 1003, 1004, 1005, 1006]
    assert len(data.train) + len(data.validation) == 40
    assert data.notes == ()


def test_a_test_split_that_was_set_aside_is_noted() -> None:
    assert from_tensors(*numbered(40), name="alone").notes == ("no test split given: a fixed 20% was set aside",)


def test_the_fingerprint_follows_pixels_labels_and_split() -> None:
    images, labels = numbered(60)
    changed = images.clone()
    changed[0] += 1
    swapped = labels.clone()
    swapped[[0, 1]] = labels[[1, 0]]
    prints = [
        from_tensors(images, labels, images, labels, name="a").fingerprint,
        from_tensors(changed, labels, images, labels, name="a").fingerprint,
        from_tensors(images, swapped, images, labels, name="a").fingerprint,
        from_tensors(images, labels, images, labels, name="a", seed=1).fingerprint,
        from_tensors(images, labels, images, labels, name="b").fingerprint,
    ]
    assert prints[0] == prints[4]  # the name does not count
    assert len(set(prints)) == 4
    assert from_tensors(images, labels, images + 1, labels, name="a").fingerprint == prints[0]  # test is not in it


def test_a_search_cannot_reach_the_test_split() -> None:
    training = from_tensors(*numbered(40), name="numbered").training
    assert isinstance(training, TrainingData)
    assert not hasattr(training, "test")


def test_conveniences_are_those_of_the_training_data() -> None:
    data = from_tensors(*numbered(40), name="numbered")
    assert isinstance(data, Data)
    assert (data.name, data.classes, data.training.input_shape) == ("numbered", 4, (1, 2, 2))
    assert data.train is data.training.train


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_images_that_are_not_finite_are_refused_by_number(value: float) -> None:
    images, labels = numbered(8)
    images[5, 0, 1, 1] = value
    with pytest.raises(DataError, match=r"holes train: 1 of 8 images hold NaN or infinite values.*image 5"):
        from_tensors(images, labels, name="holes")


@pytest.mark.parametrize("wrong", [-1, 3])
def test_labels_out_of_range_are_refused_by_number(wrong: int) -> None:
    images, labels = numbered(30, classes=3)
    labels[4] = wrong
    with pytest.raises(DataError, match=rf"labels must be in 0\.\.2, found {wrong} for image 4 \(1 such"):
        from_tensors(images, labels, name="labels", classes=3)


def test_a_test_label_that_no_train_image_has_is_refused() -> None:
    images, labels = numbered(30, classes=3)
    with pytest.raises(DataError, match=r"labels test: labels must be in 0\.\.2, found 3"):
        from_tensors(images, labels, images, labels + 1, name="labels")


def test_images_and_labels_must_be_as_many() -> None:
    images, labels = numbered(8)
    with pytest.raises(DataError, match="8 images but 7 labels"):
        from_tensors(images, labels[:7], name="short")


def test_labels_that_are_not_whole_numbers_are_refused() -> None:
    images, labels = numbered(8)
    with pytest.raises(DataError, match=r"whole numbers, found torch\.float32"):
        from_tensors(images, labels.float(), name="float labels")


def test_train_and_test_images_must_have_one_shape() -> None:
    images, labels = numbered(30)
    with pytest.raises(DataError, match=r"test images have the shape \(1, 1, 1\), expected \(1, 2, 2\)"):
        from_tensors(images, labels, images[:, :, :1, :1], labels, name="shapes")


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 5.0])
def test_an_impossible_validation_share_is_refused(share: float) -> None:
    with pytest.raises(DataError, match="a share between 0 and 1"):
        from_tensors(*numbered(30), name="share", validation=share)


def test_too_few_images_for_a_validation_split() -> None:
    images, labels = numbered(8)
    with pytest.raises(DataError, match=r"too few to set a share of 0\.1 aside"):
        from_tensors(images, labels, images, labels, name="tiny")


def test_no_images_are_refused() -> None:
    with pytest.raises(DataError, match="at least one image, found none"):
        Split(torch.zeros(0, 1, 2, 2), torch.zeros(0, dtype=torch.int64), "nothing")
