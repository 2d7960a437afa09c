"""The ids `n2n/LayerRemoval-v0` and `n2n/LayerShrinkage-v0`.

`import envs` registers them. Without an import of one's own, `gymnasium.make("envs:n2n/LayerRemoval-v0")` finds them:
Gymnasium has read no plug-in entry points since 1.0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium
import torch
from torch import nn

from envs.judge import Evaluate, Reward
from envs.student import StudentEnv
from search_spaces.base import Architecture, SearchSpace

IDS = {
    "n2n/LayerRemoval-v0": "envs.registration:layer_removal_env",
    "n2n/LayerShrinkage-v0": "envs.registration:layer_shrinkage_env",
}


def register() -> None:
    """Registers the ids; those that are known already stay as they are."""
    for name, entry_point in IDS.items():
        if name not in gymnasium.registry:
            gymnasium.register(name, entry_point=entry_point)


@dataclass(frozen=True)
class Size:
    """A judgement by size alone: parameters of the student and of its teacher."""

    fingerprint: str
    parameters: int
    teacher_parameters: int


def layer_removal_env(
    network: nn.Module | None = None,
    example_inputs: Any = None,
    evaluate: Evaluate | None = None,
    reward: Reward | None = None,
    render_mode: Literal["ansi"] | None = None,
    **options: Any,
) -> StudentEnv:
    """`StudentEnv` over `layer_removal(network, example_inputs, **options)`; see `layer_shrinkage_env`."""
    from search_spaces.layer_removal import layer_removal

    network, example_inputs = _given_or_small(network, example_inputs)
    return _env(layer_removal(network, example_inputs, **options), evaluate, reward, render_mode)


def layer_shrinkage_env(
    network: nn.Module | None = None,
    example_inputs: Any = None,
    evaluate: Evaluate | None = None,
    reward: Reward | None = None,
    render_mode: Literal["ansi"] | None = None,
    **options: Any,
) -> StudentEnv:
    """`StudentEnv` over `layer_shrinkage(network, example_inputs, **options)`.

    Without a network, a small convolutional one stands in. Without `evaluate` and `reward`, students are judged by size
    alone: the reward is 1 - S/T, the share of the teacher's parameters T that is gone; 0 for the teacher, below 1.

    Raises:
        ValueError: one of `network` and `example_inputs`, or of `evaluate` and `reward`, is missing.
    """
    from search_spaces.layer_shrinkage import layer_shrinkage

    network, example_inputs = _given_or_small(network, example_inputs)
    return _env(layer_shrinkage(network, example_inputs, **options), evaluate, reward, render_mode)


def small_network() -> tuple[nn.Module, torch.Tensor]:
    """The network that stands in where none is given, always the same weights, and example inputs [1, 3, 16, 16]."""
    with torch.random.fork_rng(devices=[]):  # layers draw from the global generator only
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(16, 10),
        )
    return network.eval(), torch.zeros(1, 3, 16, 16)


def size_evaluate(space: SearchSpace) -> Evaluate:
    """An `evaluate` that counts parameters and trains nothing."""
    teacher = space.teacher_cost.parameters

    def evaluate(students: Sequence[Architecture]) -> list[Size]:
        return [Size(student.fingerprint, space.cost(student).parameters, teacher) for student in students]

    return evaluate


def size_reward(size: Size) -> float:
    """1 - S/T: 0 for the teacher, towards 1 for an empty network."""
    return 1.0 - size.parameters / size.teacher_parameters


def _given_or_small(network: nn.Module | None, example_inputs: Any) -> tuple[nn.Module, Any]:
    if (network is None) != (example_inputs is None):
        raise ValueError("give both network= and example_inputs=, or neither for the small built-in network")
    return small_network() if network is None else (network, example_inputs)


def _env(
    space: SearchSpace, evaluate: Evaluate | None, reward: Reward | None, render_mode: Literal["ansi"] | None
) -> StudentEnv:
    if (evaluate is None) != (reward is None):
        raise ValueError("give both evaluate= and reward=, or neither to judge students by size alone")
    if evaluate is None or reward is None:
        evaluate, reward = size_evaluate(space), size_reward
    return StudentEnv(space, evaluate, reward, render_mode)
