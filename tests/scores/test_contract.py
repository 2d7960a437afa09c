"""Every score under the contract suite, and the suite under scores that break it."""

from __future__ import annotations

import math

import pytest
import torch
from score_contract import check_score

from n2n.scores import SCORES


@pytest.mark.parametrize("name", SCORES)
def test_it_keeps_its_promises(name):
    check_score(SCORES[name])


def leaves_gradients(network, probe):
    with torch.enable_grad():
        network.eval()(probe.images).sum().backward()
    return 1.0


def leaves_a_mode(network, probe):
    network.eval()
    return 1.0


def leaves_statistics(network, probe):
    modes = [module.training for module in network.modules()]
    network.train()(probe.images)
    for module, mode in zip(network.modules(), modes, strict=True):
        module.training = mode
    return 1.0


def trains_the_teacher(network, probe):
    with torch.no_grad():
        probe.teacher.head.weight.add_(1)
    return 1.0


def edits_the_images(network, probe):
    probe.images.add_(1)
    return 1.0


def draws(network, probe):
    return float(torch.rand(()))


def draws_and_ignores(network, probe):
    return 0.0 * float(torch.rand(()))


def looks_at_the_mode(network, probe):
    return float(network.norm.training)


def counts_calls(network, probe, calls=[0]):  # noqa: B006
    calls[0] += 1
    return float(calls[0])


def is_not_finite(network, probe):
    return float(network.stem.weight.detach().sum())


def is_no_float(network, probe):
    return 1


@pytest.mark.parametrize(
    "score",
    [
        *(leaves_gradients, leaves_a_mode, leaves_statistics, trains_the_teacher, edits_the_images),
        *(draws, draws_and_ignores, looks_at_the_mode, counts_calls, is_not_finite, is_no_float),
    ],
)
def test_the_suite_notices(score):
    with pytest.raises(AssertionError):
        check_score(score)


def test_the_suite_passes_what_is_sound():
    check_score(lambda network, probe: math.pi)
