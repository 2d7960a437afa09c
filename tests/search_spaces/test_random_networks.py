"""Properties that hold for every network of supported pieces and every student of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from draft_contract import count_macs
from hypothesis import example, given, settings
from hypothesis import strategies as st
from random_networks import random_network
from silence import silence, without_averages
from torch import nn

from search_spaces import layer_removal, layer_shrinkage
from search_spaces.base import SpaceError, replay
from search_spaces.teacher.space import TeacherSpace

SEEDS = st.integers(0, 10**6)
SPACES = ("layer", "block", "shrinkage", "both")


def open_space(kind: str, network: nn.Module, batch: torch.Tensor, rng: np.random.Generator) -> TeacherSpace | None:
    """The space, or None where a network has no residual block."""
    if kind == "shrinkage":
        return layer_shrinkage(network, batch, kernels=True)
    if kind == "both":
        return layer_shrinkage(network, batch, start=layer_removal(network, batch).random(rng))
    if kind == "layer":
        return layer_removal(network, batch)
    try:
        return layer_removal(network, batch, granularity="block")
    except SpaceError as error:
        if "no block" not in str(error):
            raise
        return None


@pytest.mark.parametrize("kind", SPACES)
@settings(max_examples=4, deadline=None)
@given(seed=SEEDS)
@example(seed=1)  # a conv that is called twice, before the space with kernels
def test_every_student_is_sound(kind: str, seed: int) -> None:
    network, batch = random_network(seed)
    rng = np.random.default_rng(seed)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    space = open_space(kind, network, batch, rng)
    if space is None:
        return
    wanted = network(batch).shape
    for inherit in (True, False):
        student = space.random(rng)
        built = space.build(student, inherit=inherit, seed=seed)
        cost = space.cost(student)
        assert built.training
        out = built(batch)
        assert out.shape == wanted
        out.square().sum().backward()
        assert [name for name, p in built.named_parameters() if p.grad is None] == []
        assert torch.isfinite(built.eval()(batch)).all()
        assert cost.parameters == sum(p.numel() for p in built.parameters())
        assert cost.macs == count_macs(built, batch)
        again = space.from_json(student.to_json())
        assert again == student
        assert again.fingerprint == student.fingerprint
        twin = space.build(again, inherit=inherit, seed=seed).eval()
        assert torch.equal(twin(batch), space.build(student, inherit=inherit, seed=seed).eval()(batch))
    assert not network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())


@settings(max_examples=5, deadline=None)
@given(seed=SEEDS)
def test_keeping_everything_gives_the_teacher_exactly(seed: int) -> None:
    network, batch = random_network(seed)
    for kind in ("layer", "shrinkage"):
        space = open_space(kind, network, batch, np.random.default_rng(0))
        assert space is not None
        student = space.student(replay(space, (space.num_actions - 1,) * space.num_decisions))
        assert torch.equal(space.build(student).eval()(batch), network(batch))
        assert space.cost(student) == space.teacher_cost


@settings(max_examples=12, deadline=None)
@given(seed=SEEDS)
def test_channels_that_do_nothing_can_go_without_a_trace(seed: int) -> None:
    """A network whose least important channels are zero everywhere gives the same outputs once they are removed."""
    network, batch = random_network(seed)
    network = without_averages(network)
    space = layer_shrinkage(network, batch, factors=(0.5, 1.0))
    student = space.student(replay(space, (0,) * space.num_decisions))
    silence(network, space.reading.full, dict(student.widths))
    silent = layer_shrinkage(network, batch, factors=(0.5, 1.0))
    small = silent.build(student).eval()
    torch.testing.assert_close(small(batch), network(batch), rtol=1e-4, atol=1e-5)
