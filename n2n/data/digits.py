"""The embedded default: scikit-learn's copy of 1,797 handwritten digits, with no download."""

from __future__ import annotations

from pathlib import Path

import torch

from n2n.data.augment import Augmentation
from n2n.data.base import Data
from n2n.data.prepare import channel_statistics
from n2n.data.tensors import TEST_SEED, from_tensors, stratified

TEST_SHARE = 0.2


def digits(*, data_dir: Path | None, validation: float, seed: int, download: bool) -> Data:
    """1,797 images [1, 8, 8] of ten digits in 17 grey levels.

    Alpaydin, Kaynak: "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998. A fixed 20% is
    the test split, whatever the seed. `data_dir` and `download` are not needed.
    """
    from sklearn.datasets import load_digits  # a heavy import that only these data need

    raw, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(raw).to(torch.float32).reshape(-1, 1, 8, 8) / 16  # 0..1
    targets = torch.from_numpy(labels).to(torch.int64)
    rest, aside = stratified(targets, TEST_SHARE, TEST_SEED, "digits")
    mean, std = channel_statistics(images[rest])
    return from_tensors(
        images[rest],
        targets[rest],
        images[aside],
        targets[aside],
        name="digits",
        classes=10,
        validation=validation,
        seed=seed,
        mean=mean,
        std=std,
        augmentation=Augmentation(pad=1),
    )
