"""jacov against a Jacobian taken entry by entry, and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from n2n.scores import Probe, ScoreError
from n2n.scores.jacov import jacov


def probe_of(images: torch.Tensor) -> Probe:
    return Probe(images, torch.zeros(len(images), dtype=torch.int64))


class Own(nn.Module):
    """Its outputs' gradient by image i is a fixed row."""

    def __init__(self, rows: list[list[float]]) -> None:
        super().__init__()
        self.rows = torch.tensor(rows)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (images * self.rows).sum(dim=1, keepdim=True)


def test_rows_without_correlation_by_hand():
    # (1, -1, 1, -1) and (1, 1, -1, -1) have correlation 0: both eigenvalues are 1, each costs ln(1 + k) + 1/(1 + k).
    network = Own([[1, -1, 1, -1], [1, 1, -1, -1]])
    assert jacov(network, probe_of(torch.zeros(2, 4))) == pytest.approx(-2 * (1e-5 + 1 - 1e-5), abs=1e-8)


def test_correlated_rows_by_hand():
    # A row and its double have correlation 1: eigenvalues 0 and 2.
    k = 1e-5
    expected = -(math.log(k) + 1 / k + math.log(2 + k) + 1 / (2 + k))
    network = Own([[1, 2, 3, 5], [2, 4, 6, 10]])
    assert jacov(network, probe_of(torch.zeros(2, 4))) == pytest.approx(expected, rel=1e-6)


def test_a_network_against_its_jacobian():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 3, 2), nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(12, 4)
    ).double()
    images = torch.randn(5, 1, 3, 3, dtype=torch.float64)
    whole = torch.autograd.functional.jacobian(network.train(), images)  # [5, 4, 5, 1, 3, 3]
    rows = whole.sum(dim=(0, 1)).flatten(1).numpy()  # all outputs by each image
    values = np.linalg.eigvals(np.corrcoef(rows)).real
    expected = -np.sum(np.log(values + 1e-5) + 1 / (values + 1e-5))
    assert jacov(network, probe_of(images)) == pytest.approx(expected, rel=1e-6)


def test_what_has_none_says_so():
    with pytest.raises(ScoreError, match="differ from place to place"):
        jacov(Own([[1, 1, 1, 1], [1, 2, 3, 4]]), probe_of(torch.zeros(2, 4)))
    with pytest.raises(ScoreError, match="depend on the images"):
        jacov(Blind(), probe_of(torch.zeros(2, 4)))


class Blind(nn.Module):
    """Looks at the number of images only."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(images), 2)
