"""Small data and networks for the tests of training."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from n2n.data import Augmentation, TrainingData, from_tensors


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def blobs(augmentation: Augmentation | None = None, images: int = 120) -> TrainingData:
    """Three classes of 1x6x6 uint8 images: a bright row each, with noise."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(images) % 3
    pictures = torch.randint(0, 90, (images, 1, 6, 6), generator=generator)
    for label in range(3):
        pictures[labels == label, :, 2 * label] += 150
    return from_tensors(
        pictures.to(torch.uint8), labels, name="blobs", classes=3, validation=0.25, augmentation=augmentation
    ).training


def convolutional(seed: int = 0, width: int = 4) -> nn.Sequential:
    """A conv with batch norm and a classifier for `blobs`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(width * 36, 3),
        )


@pytest.fixture
def training() -> TrainingData:
    return blobs()


@pytest.fixture
def augmented() -> TrainingData:
    return blobs(Augmentation(pad=1, flip=True))


@pytest.fixture
def make_network():
    return convolutional
