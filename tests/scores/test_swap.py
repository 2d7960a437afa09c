"""SWAP by hand, against a set of tuples, and for batches wider than a word."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from n2n.networks import build_teacher
from n2n.scores import Probe, ScoreError
from n2n.scores.swap import packed, swap


def probe_of(images: torch.Tensor) -> Probe:
    return Probe(images, torch.zeros(len(images), dtype=torch.int64))


def test_two_images_and_three_units_by_hand():
    # Unit by unit, over the images: on-on, off-on, on-on. Two patterns.
    assert swap(nn.ReLU(), probe_of(torch.tensor([[1.0, -1.0, 2.0], [3.0, 1.0, 1.0]]))) == 2


def test_patterns_are_the_same_in_whatever_layer():
    images = torch.tensor([[1.0, -1.0], [3.0, 1.0]])
    assert swap(nn.Sequential(nn.ReLU(), nn.ReLU()), probe_of(images)) == 2


@pytest.mark.parametrize("count", [5, 62, 63, 130])
def test_a_network_against_a_set_of_tuples(count):
    network = build_teacher("resnet20", classes=3, channels=1, width=2, seed=0)
    images = torch.randn(count, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    patterns = set()

    def note(module, inputs, output):
        patterns.update(tuple(unit) for unit in (output > 0).flatten(1).T.tolist())

    handles = [module.register_forward_hook(note) for module in network.modules() if isinstance(module, nn.ReLU)]
    network.train()(images)
    for handle in handles:
        handle.remove()
    assert len(patterns) > 20
    assert swap(network, probe_of(images)) == len(patterns)


def test_words_are_bits():
    assert packed(torch.tensor([[True, False, True], [False, True, True]])).tolist() == [[5], [6]]
    last = torch.zeros(1, 63, dtype=torch.bool)
    last[0, -1] = True
    assert packed(last).tolist() == [[0, 1]]


def test_without_relus_there_is_none():
    with pytest.raises(ScoreError, match="swap: expected ReLU units, found none"):
        swap(nn.Tanh(), probe_of(torch.ones(2, 2)))
