"""What every test starts from: the same random numbers in every run, alone or after others."""

from __future__ import annotations

import random

import hypothesis
import numpy as np
import pytest
import torch

# The same examples in every run: a new one that fails must not stop an unrelated change. To look for new ones:
# `scripts/test --hypothesis-profile=default`.
hypothesis.settings.register_profile("repeatable", derandomize=True)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Seeds the generators that networks and samples draw from where a test hands over none of its own."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
