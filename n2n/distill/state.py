"""Where a training is at the end of an epoch, as named tensors: enough to go on exactly as it would have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class State:
    """A training after `step` steps.

    Attributes:
        step: optimiser steps taken.
        loss: of the last one.
        tensors: weights (`network.*`), side modules (`side.*`), the average (`average.*`), the optimiser's
            (`optimizer.PARAMETER.NAME`) and generators (`generator.*`), on the CPU.
    """

    step: int
    loss: float
    tensors: Mapping[str, Tensor]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors below a prefix, without it."""
        return {name[len(prefix) + 1 :]: value for name, value in self.tensors.items() if name.startswith(f"{prefix}.")}


@dataclass(frozen=True)
class Epoch:
    """What a training says at the end of an epoch, while the network has the weights that it would end with.

    Attributes:
        step: steps done.
        total: steps in all.
        loss: mean over the epoch's steps.
        rate: the learning rate of its last step.
        terms: the objectives that its last step was on.
        state: makes the state from which training can go on.
    """

    step: int
    total: int
    loss: float
    rate: float
    terms: str
    state: Callable[[], State]


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same below a prefix, copied to the CPU."""
    return {f"{prefix}.{name}": value.detach().cpu().clone() for name, value in tensors.items()}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What an optimiser remembers, by the number of the parameter and the name of the quantity."""
    state = optimizer.state_dict()["state"]
    return {
        f"{number}.{name}": value
        for number, values in state.items()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Gives an optimiser back what it remembered."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def generator_tensors(generators: Mapping[str, torch.Generator], device: torch.device) -> dict[str, Tensor]:
    """The states of named generators and of torch's global ones, from which dropout draws."""
    states = {name: one.get_state() for name, one in generators.items()}
    states["torch"] = torch.get_rng_state()
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def load_generators(
    generators: Mapping[str, torch.Generator], device: torch.device, tensors: Mapping[str, Tensor]
) -> None:
    """Puts generators back to where they were."""
    for name, one in generators.items():
        one.set_state(tensors[name])
    torch.set_rng_state(tensors["torch"])
    if device.type == "cuda" and "cuda" in tensors:
        torch.cuda.set_rng_state(tensors["cuda"], device)
