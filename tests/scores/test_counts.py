"""Parameters and MACs as scores, against numbers worked by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from n2n.scores import SCORES, Probe


def test_parameters_and_macs_by_hand():
    network = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 16, 3))
    for count in (1, 5):  # per example, whatever the batch
        probe = Probe(torch.zeros(count, 1, 4, 4), torch.zeros(count, dtype=torch.int64))
        assert SCORES["params"](network, probe) == (9 * 2 + 2) + (32 * 3 + 3)
        assert SCORES["macs"](network, probe) == 16 * 2 * 9 + 32 * 3


def test_a_probe_needs_images_with_labels():
    with pytest.raises(ValueError, match="one label for each"):
        Probe(torch.zeros(3, 2), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match="at least one image"):
        Probe(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64))
