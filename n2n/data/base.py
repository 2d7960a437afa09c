"""What data are: splits of images with labels, and the part of them that a search is given."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import torch
from torch import Tensor

from n2n.data.augment import Augmentation
from n2n.data.errors import DataError


@dataclass(frozen=True)
class Split:
    """Images [n, ...] as uint8 (0..255) or float32, with labels [n] as int64; `name` says where they came from.

    Raises:
        DataError: other shapes or dtypes, no images, or values that are not finite.
    """

    images: Tensor
    labels: Tensor
    name: str

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if images.dtype not in (torch.uint8, torch.float32):
            raise DataError(f"{self.name}: images must be uint8 or float32, found {images.dtype}; convert them first")
        if images.ndim < 2:
            raise DataError(f"{self.name}: images must be [n, ...], found the shape {tuple(images.shape)}")
        if labels.dtype != torch.int64 or labels.ndim != 1:
            raise DataError(
                f"{self.name}: labels must be int64 [n], found {labels.dtype} of shape {tuple(labels.shape)}"
            )
        if len(images) != len(labels):
            raise DataError(
                f"{self.name}: {len(images)} images but {len(labels)} labels; expected one label for each image"
            )
        if len(images) == 0:
            raise DataError(f"{self.name}: expected at least one image, found none")
        if images.dtype == torch.float32:
            finite = torch.isfinite(images).flatten(1).all(dim=1)  # [n]
            if not bool(finite.all()):
                bad = (~finite).nonzero().flatten()
                raise DataError(
                    f"{self.name}: {len(bad)} of {len(images)} images hold NaN or infinite values, the first is image "
                    f"{int(bad[0])}; remove or repair them"
                )

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: Tensor) -> Split:
        """The images and labels at `indices` [m]."""
        return Split(self.images[indices], self.labels[indices], self.name)


@dataclass(frozen=True)
class TrainingData:
    """What a search is given: train and validation, never test.

    `mean` and `std` hold one number per channel, of images in 0..1 (`prepare` applies them). `fingerprint` is a hash of
    the contents of both splits; `notes` say what a reader of a result must know, e.g. that train files were missing.
    """

    name: str
    train: Split
    validation: Split
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str
    notes: tuple[str, ...] = ()
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        if self.train.images.shape[1:] != self.validation.images.shape[1:]:
            raise DataError(
                f"{self.name}: train images have the shape {tuple(self.train.images.shape[1:])}, validation images "
                f"{tuple(self.validation.images.shape[1:])}; expected the same"
            )
        for split in (self.train, self.validation):
            check_labels(split, self.classes)

    @property
    def key(self) -> str:
        """A hash of all that judging depends on: the contents, how they are normalised, and how augmented."""
        parts = (self.fingerprint, repr(self.mean), repr(self.std), repr(self.augmentation), str(self.classes))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one example, (C, H, W) for images."""
        return tuple(self.train.images.shape[1:])


@dataclass(frozen=True)
class Origin:
    """How data were loaded: `load(source, validation=validation, seed=seed)` gives the same splits again.

    `source` is None for data that were made in Python from tensors or datasets, which no name brings back.
    """

    source: str | None
    seed: int
    validation: float


@dataclass(frozen=True)
class Data:
    """A whole data set: what a search is given, and the test split that only the report opens.

    `origin` says how to get it again; None where the splits were put together by hand.
    """

    training: TrainingData
    test: Split
    origin: Origin | None = None

    def __post_init__(self) -> None:
        if self.test.images.shape[1:] != self.training.train.images.shape[1:]:
            raise DataError(
                f"{self.test.name}: test images have the shape {tuple(self.test.images.shape[1:])}, expected "
                f"{tuple(self.training.train.images.shape[1:])} as in {self.training.train.name}"
            )
        check_labels(self.test, self.training.classes)

    @property
    def name(self) -> str:
        """The name of the data set."""
        return self.training.name

    @property
    def classes(self) -> int:
        """K, the number of classes."""
        return self.training.classes

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of a result must know about the data."""
        return self.training.notes

    @property
    def fingerprint(self) -> str:
        """The hash of the train and validation splits."""
        return self.training.fingerprint

    @property
    def train(self) -> Split:
        """The split that networks are trained on."""
        return self.training.train

    @property
    def validation(self) -> Split:
        """The split that a search compares students on."""
        return self.training.validation


def check_labels(split: Split, classes: int) -> None:
    """Check that all labels are in 0..classes-1.

    Raises:
        DataError: one is not; the first is named.
    """
    wrong = ((split.labels < 0) | (split.labels >= classes)).nonzero().flatten()
    if len(wrong):
        raise DataError(
            f"{split.name}: labels must be in 0..{classes - 1}, found {int(split.labels[wrong[0]])} for image "
            f"{int(wrong[0])} ({len(wrong)} such labels); check the label file or the number of classes"
        )


def fingerprint(*splits: Split) -> str:
    """16 hexadecimal digits that change with any pixel, label, dtype or shape of the splits, and with nothing else."""
    digest = hashlib.blake2b(digest_size=8)
    for split in splits:
        for tensor in (split.images, split.labels):
            digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()
