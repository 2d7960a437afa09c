"""The optimiser of a recipe, and an average of the weights over the steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import final

import torch
from torch import Tensor, nn

from n2n.distill.recipe import Recipe


def make_optimizer(network: nn.Module, recipe: Recipe, sides: nn.Module | None = None) -> torch.optim.Optimizer:
    """The recipe's optimiser, for the network and for side modules; weights with fewer than two axes do not decay."""
    groups = [group for one in (network, *([sides] if sides is not None else [])) for group in _groups(one, recipe)]
    if recipe.optimizer == "adam":
        return torch.optim.AdamW(groups, lr=recipe.lr)
    nesterov = recipe.nesterov and recipe.momentum > 0
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=nesterov)


def _groups(network: nn.Module, recipe: Recipe) -> Sequence[dict[str, object]]:
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups: list[dict[str, object]] = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return groups


@final
class Average:
    """An exponential average of a network's weights, `a <- d a + (1 - d) w` after every step (Polyak & Juditsky 1992).

    The first steps count more, `d = min(decay, (1 + n) / (10 + n))` after n steps, for the average of a short training
    would else be that of its start. Buffers (batch-norm statistics) are averaged alike; whole numbers are the latest.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._network, self._decay = network, decay
        self.values = {name: value.detach().clone() for name, value in network.state_dict().items()}

    def update(self, steps: int) -> None:
        """Takes in the weights after so many steps."""
        decay = min(self._decay, (1 + steps) / (10 + steps))
        for name, value in self._network.state_dict().items():
            if value.is_floating_point():
                self.values[name].lerp_(value.detach(), 1 - decay)
            else:
                self.values[name].copy_(value)

    def load(self, values: Mapping[str, Tensor]) -> None:
        """Goes on from an earlier average."""
        for name, value in values.items():
            self.values[name].copy_(value)

    @contextmanager
    def lent(self) -> Iterator[None]:
        """The network with the averaged weights; afterwards it has its own again."""
        own = {name: value.detach().clone() for name, value in self._network.state_dict().items()}
        self._network.load_state_dict(self.values)
        try:
            yield
        finally:
            self._network.load_state_dict(own)
