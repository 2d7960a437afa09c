"""From tensors to data: the splits by seed, the statistics and the checks that every source shares."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from n2n.data.augment import Augmentation
from n2n.data.base import Data, Origin, Split, TrainingData, check_labels, fingerprint
from n2n.data.errors import DataError
from n2n.data.prepare import channel_statistics

TEST_SEED = 20180
"""The test split of a source without one never depends on a run's seed: this seed draws it."""
TEST_FRACTION = 0.2


def from_tensors(
    images: Tensor,
    labels: Tensor,
    test_images: Tensor | None = None,
    test_labels: Tensor | None = None,
    *,
    name: str,
    classes: int | None = None,
    validation: float = 0.1,
    seed: int = 0,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    augmentation: Augmentation | None = None,
    notes: tuple[str, ...] = (),
) -> Data:
    """Data from images [n, C, H, W] (uint8, or float in 0..1) and integer labels [n].

    The share `validation` of every class, drawn by `seed`, becomes the validation split. Without test images a fixed
    20% of every class is set aside, whatever the seed. `classes` is read off the labels where it is not given.

    `mean` and `std` (per channel) are what the inputs are normalised with: they must be those that the teacher
    was trained with. Where they are not given, float images go to the network as they are, and those of uint8 images
    are measured on train and validation together (so that they do not change with the seed).

    Raises:
        DataError: the checks of `Split`, labels that are not whole numbers or out of range, an impossible `validation`.
    """
    if not 0 < validation < 1:
        raise DataError(f"{name}: validation is a share between 0 and 1, e.g. 0.1; found {validation}")
    if (mean is None) != (std is None):
        raise DataError(f"{name}: mean and std come together; found only one of them")
    if (test_images is None) != (test_labels is None):
        raise DataError(f"{name}: test images and test labels come together; found only one of them")
    pool = Split(_float32(images), _int64(labels, name), f"{name} train")
    if test_images is not None and test_labels is not None:
        test = Split(_float32(test_images), _int64(test_labels, name), f"{name} test")
    else:
        rest, aside = stratified(pool.labels, TEST_FRACTION, TEST_SEED, name)
        pool, test = pool.subset(rest), Split(pool.images[aside], pool.labels[aside], f"{name} test")
        notes = (*notes, f"no test split given: a fixed {TEST_FRACTION:.0%} was set aside")
    classes = classes if classes is not None else int(pool.labels.max()) + 1
    check_labels(pool, classes)
    if mean is None or std is None:
        mean, std = _normalisation(pool.images)
    kept, held = stratified(pool.labels, validation, seed, name)
    train = pool.subset(kept)
    validation_split = Split(pool.images[held], pool.labels[held], f"{name} validation")
    training = TrainingData(
        name=name,
        train=train,
        validation=validation_split,
        classes=classes,
        mean=mean,
        std=std,
        fingerprint=fingerprint(train, validation_split),
        notes=notes,
        augmentation=augmentation or Augmentation(),
    )
    return Data(training, test, Origin(None, seed, validation))


def stratified(labels: Tensor, share: float, seed: int, name: str) -> tuple[Tensor, Tensor]:
    """Indices of the rest and of the `share` set aside, in ascending order; each class gives its share, rounded.

    Raises:
        DataError: nothing would be set aside, or nothing left.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    shuffled = labels.numpy()[order]
    aside = [order[shuffled == label] for label in np.unique(shuffled)]
    chosen = np.concatenate([members[: round(share * len(members))] for members in aside])
    rest = np.setdiff1d(np.arange(len(labels)), chosen)
    if len(chosen) == 0 or len(rest) == 0:
        raise DataError(
            f"{name}: {len(labels)} images of {len(aside)} classes are too few to set a share of {share} aside; "
            "give more images or another share"
        )
    return torch.from_numpy(rest), torch.from_numpy(np.sort(chosen))


def _normalisation(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Float images are what the network takes already; uint8 images are brought to mean 0 and deviation 1."""
    if images.dtype == torch.uint8:
        return channel_statistics(images)
    return (0.0,) * images.shape[1], (1.0,) * images.shape[1]


def _float32(images: Tensor) -> Tensor:
    return images if images.dtype == torch.uint8 else images.to(torch.float32)


def _int64(labels: Tensor, name: str) -> Tensor:
    if labels.dtype.is_floating_point or labels.dtype.is_complex:
        raise DataError(f"{name}: labels must be whole numbers, found {labels.dtype}; convert them to int64")
    return labels.to(torch.int64)
