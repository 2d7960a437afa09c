"""The readout against leave-one-out fits made one by one, and what it says of students that know their teacher."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from n2n.networks import build_teacher
from n2n.scores import Probe, ScoreError
from n2n.scores.readout import STRENGTH, press, readout


def left_out(features: Tensor, targets: Tensor) -> float:
    """One ridge regression with a free mean for each image, without it; the centre is that of all images."""
    features = features - features.mean(dim=0)
    targets = targets - targets.mean(dim=0)
    targets = targets / targets.norm(dim=0)
    strength = STRENGTH * float(features.square().sum(dim=1).mean())
    ones = torch.ones(len(features), 1, dtype=features.dtype)
    inputs = torch.cat([features, ones], dim=1)
    penalty = torch.diag(torch.tensor([strength] * features.shape[1] + [0.0], dtype=features.dtype))
    error = 0.0
    for index in range(len(features)):
        rest = [other for other in range(len(features)) if other != index]
        weight = torch.linalg.solve(inputs[rest].T @ inputs[rest] + penalty, inputs[rest].T @ targets[rest])
        error += float((targets[index] - inputs[index] @ weight).square().sum())
    return 1 - error / float(targets.square().sum())


@pytest.mark.parametrize("width", [3, 20])
def test_one_fit_says_what_a_fit_without_each_image_says(width: int):
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(9, width, dtype=torch.float64, generator=generator)
    targets = features[:, :2] @ torch.tensor([[1.0, 2.0], [0.5, -1.0]], dtype=torch.float64)
    targets = targets + 0.3 * torch.randn(9, 2, dtype=torch.float64, generator=generator)
    assert press(features, targets) == pytest.approx(left_out(features, targets))


def test_a_student_that_is_the_teacher_is_read_out_and_another_less():
    teacher = build_teacher("resnet20", classes=3, channels=1, width=4, seed=0)
    images = torch.randn(48, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    probe = Probe(images, torch.arange(48) % 3, teacher)
    same = readout(copy.deepcopy(teacher), probe)
    other = readout(build_teacher("resnet20", classes=3, channels=1, width=4, seed=1), probe)
    assert same > 0.9 > other


def test_what_there_is_no_readout_of_says_so():
    network = build_teacher("resnet20", classes=3, channels=1, width=2, seed=0)
    images = torch.randn(4, 1, 8, 8)
    with pytest.raises(ScoreError, match="expected a teacher to compare with, found none"):
        readout(network, Probe(images, torch.arange(4) % 3))
    with pytest.raises(ScoreError, match="expected a finite score"):
        readout(network, Probe(images[:1].expand(4, -1, -1, -1), torch.arange(4) % 3, network))
