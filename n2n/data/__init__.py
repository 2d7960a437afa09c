"""Images with labels: reading, splitting, preparing and augmenting them."""

from n2n.data.augment import Augmentation, augment
from n2n.data.base import Data, Origin, Split, TrainingData
from n2n.data.datasets import from_dataset
from n2n.data.errors import DataError
from n2n.data.prepare import example_inputs, prepare
from n2n.data.registry import DATA, load
from n2n.data.tensors import from_tensors

__all__ = [
    "DATA",
    "Augmentation",
    "Data",
    "DataError",
    "Origin",
    "Split",
    "TrainingData",
    "augment",
    "example_inputs",
    "from_dataset",
    "from_tensors",
    "load",
    "prepare",
]
