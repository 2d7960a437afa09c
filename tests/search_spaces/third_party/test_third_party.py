"""Networks that no one here wrote: every draft of every space is sound.

The default run takes small ones of different kinds; `slow` takes the whole list. `scripts/benchmarks/coverage.py` tries
more drafts of each and writes the table.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from draft_contract import check_draft, check_teacher, expected_of
from third_party import NETWORKS, ThirdParty

from search_spaces import layer_removal, layer_shrinkage
from search_spaces.base import SpaceError, random_actions

FEW = ("resnet20_cifar10", "diaresnet20_cifar10", "shufflenetv2_wd2", "hf-vit", "hf-bert")
REFUSED = {"revnet38": "could not capture its graph .* Operations of your own that it cannot look into"}
"""Networks that torch.export cannot read: an autograd.Function of pytorchcv's own computes the blocks of a RevNet."""
SPACES = {
    "layer": partial(layer_removal, granularity="layer"),
    "block": partial(layer_removal, granularity="block"),
    "shrinkage": layer_shrinkage,
}

pytest.importorskip("pytorchcv", reason="needs the extra dev")
pytest.importorskip("transformers", reason="needs the extra dev")


def drafts_are_sound(network: ThirdParty, drafts: int) -> None:
    teacher, inputs = network.open()
    expected = expected_of(teacher, inputs)
    opened = 0
    for make in SPACES.values():
        try:
            space = make(teacher, inputs)
        except SpaceError as error:
            if "can be removed" not in str(error) and "can shrink" not in str(error):
                raise
            continue
        opened += 1
        for seed in range(drafts):
            torch.manual_seed(seed)
            student = space.student(random_actions(space, np.random.default_rng(seed)))
            check_draft(space, student, inputs, expected)
    assert opened, "no space has anything to decide"
    check_teacher(teacher, expected)


@pytest.mark.parametrize("network", [n for n in NETWORKS if n.name in FEW], ids=str)
def test_a_few(network: ThirdParty) -> None:
    drafts_are_sound(network, drafts=2)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("network", [n for n in NETWORKS if n.name not in (*FEW, *REFUSED)], ids=str)
def test_all(network: ThirdParty) -> None:
    drafts_are_sound(network, drafts=4)


@pytest.mark.slow
@pytest.mark.parametrize("network", [n for n in NETWORKS if n.name in REFUSED], ids=str)
def test_what_cannot_be_read_is_refused_with_the_reason(network: ThirdParty) -> None:
    teacher, inputs = network.open()
    for make in SPACES.values():
        with pytest.raises(SpaceError, match=REFUSED[network.name]):
            make(teacher, inputs)
