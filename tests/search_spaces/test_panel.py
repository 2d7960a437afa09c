"""A panel covers sizes and depths, and is the same in every run."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from n2n.networks.cifar_resnet import resnet20
from search_spaces import layer_removal
from search_spaces.base import Architecture, SpaceError
from search_spaces.layer_removal import LayerRemoval
from search_spaces.layer_shrinkage import FACTORS, LayerShrinkage
from search_spaces.panel import in_turn, panel


@pytest.fixture(scope="module")
def removal() -> LayerRemoval:
    return layer_removal(resnet20(channels=1), torch.randn(2, 1, 8, 8), granularity="block")


def shrinkage(removal: LayerRemoval, start: Architecture) -> LayerShrinkage:
    return LayerShrinkage(
        removal.reading, factors=FACTORS, round_to=1, kernels=False, kept=frozenset(), start=start, may_be_empty=True
    )


def test_it_spreads_over_sizes_and_depths(removal: LayerRemoval) -> None:
    members = panel(removal, lambda start: shrinkage(removal, start), size=8, low=0.03, high=0.8)
    whole = removal.teacher_cost.parameters
    shares = np.array([one.cost.parameters / whole for one in members])
    edges = np.geomspace(0.03, 0.8, 9)
    assert len(members) >= 7
    assert (np.bincount(np.searchsorted(edges, shares) - 1, minlength=8) <= 1).all()
    for half in (members[:4], members[4:]):
        assert min(one.removed for one in half) == 0
        assert max(one.removed for one in half) > 0.3
    for one in members[::3]:
        built = removal.build(one.architecture)
        assert sum(value.numel() for value in built.parameters()) == one.cost.parameters
    assert members == panel(removal, lambda start: shrinkage(removal, start), size=8, low=0.03, high=0.8)


def test_what_cannot_be_met_is_refused(removal: LayerRemoval) -> None:
    with pytest.raises(SpaceError, match=r"expected size >= 1 and 0 < low < high <= 1, found 3, 0\.5 and 0\.2"):
        panel(removal, lambda start: shrinkage(removal, start), size=3, low=0.5, high=0.2)
    with pytest.raises(SpaceError, match="no student was found between 0% and 0% of the teacher's parameters"):
        panel(removal, lambda start: shrinkage(removal, start), size=1, low=1e-6, high=2e-6)


def test_the_first_in_turn_are_of_all_sizes_and_depths(removal: LayerRemoval) -> None:
    members = panel(removal, lambda start: shrinkage(removal, start), size=18)
    order = in_turn(members)
    assert sorted(one.cost.parameters for one in order) == sorted(one.cost.parameters for one in members)
    first = order[: len(order) // 3]
    place = {one.architecture.fingerprint: index for index, one in enumerate(members)}
    places = [place[one.architecture.fingerprint] for one in first]
    assert {index % 3 for index in places} == {0, 1, 2}
    assert min(places) < len(members) / 4
    assert max(places) >= 3 * len(members) / 4
