"""A small trained network, and policies whose wishes are known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from n2n.agents import AGENTS
from n2n.data import Data, load
from n2n.distill.fit import train_teacher
from n2n.networks import build_teacher
from n2n.policies import PolicyMeta, save_policy
from search_spaces.base import FEATURES


@pytest.fixture(scope="session")
def digits() -> Data:
    return load("digits")


@pytest.fixture(scope="session")
def teacher(digits: Data) -> nn.Module:
    network = build_teacher("mlp", seed=0, hidden=[32, 32])
    train_teacher(network, digits.training, epochs=4)
    return network


def wishing(folder: Path, stage: str, actions: int, wished: int, agent: str = "ppo") -> Path:
    """A policy folder that is almost sure of the action `wished`, whatever it sees."""
    made = AGENTS[agent](len(FEATURES), actions, 1, seed=0)
    state = made.state()
    state["policy.bias"] = torch.full((actions,), -20.0)
    state["policy.bias"][wished] = 20.0
    meta = PolicyMeta(agent=agent, stage=stage, num_actions=actions, num_decisions=2, network="none")
    return save_policy(folder / stage, state, meta)


@pytest.fixture
def policy(tmp_path: Path) -> Callable[[str, int], Path]:
    """Makes the folder of a two-stage policy that keeps all layers and scales widths by the factor of an index."""

    def make(name: str, wished: int) -> Path:
        wishing(tmp_path / name, "removal", 2, 1)
        wishing(tmp_path / name, "shrinkage", 10, wished)
        return tmp_path / name

    return make
