"""Opening the spaces of the two stages, and what the smallest student in them costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from torch import Tensor, nn

from n2n.reward import Budget
from n2n.search.artefacts import ForwardFn
from n2n.search.errors import SearchError
from n2n.search.options import SearchOptions
from search_spaces.base import Architecture, Cost, SearchSpace, SpaceError, replay
from search_spaces.layer_removal import LayerRemoval
from search_spaces.layer_shrinkage import LayerShrinkage
from search_spaces.teacher.analysis import Reading, ignored, read


class Spaces(Protocol):
    """Opens the space of a stage; a test can bring a small one."""

    def removal(self) -> SearchSpace:
        """The space over the teacher's layers."""
        ...

    def shrinkage(self, start: Architecture | None, budget: Budget) -> SearchSpace:
        """The space over the widths of a removal student, or of the teacher (None); all students meet the budget."""
        ...


@dataclass(frozen=True)
class TeacherSpaces:
    """The two spaces over one teacher, as the options ask for them."""

    network: nn.Module
    example_inputs: Tensor
    options: SearchOptions
    forward_fn: ForwardFn | None = None
    gradients: Mapping[str, Tensor] | None = None

    @cached_property
    def reading(self) -> Reading:
        """The teacher, read once for all spaces."""
        return read(self.network, self.example_inputs, forward_fn=self.forward_fn)

    def removal(self) -> SearchSpace:
        """The removal space."""
        granularity = self.options.granularity
        return LayerRemoval(self.reading, granularity=granularity, kept=self._kept, gradients=self.gradients)

    def shrinkage(self, start: Architecture | None, budget: Budget) -> SearchSpace:
        """The shrinkage space of a student that removal left; the parameters and MACs of the budget bind it."""
        return LayerShrinkage(
            self.reading,
            factors=self.options.factors,
            round_to=self.options.round_to,
            kernels=False,
            kept=self._kept,
            start=start,
            max_parameters=budget.max_parameters,
            max_macs=budget.max_macs,
            gradients=self.gradients,
        )

    @property
    def _kept(self) -> frozenset[str]:
        return ignored(self.reading, self.options.ignored_layers)


def smallest(space: SearchSpace) -> Architecture:
    """The student of the lowest legal action at every decision."""
    return space.student(replay(space, (0,) * space.num_decisions))


def smallest_cost(spaces: Spaces, stages: tuple[str, ...]) -> Cost:
    """What the smallest student costs that the stages can reach.

    Raises:
        SearchError: no stage finds anything to decide; the reasons of each are named.
    """
    start: Architecture | None = None
    cost: Cost | None = None
    reasons: list[str] = []
    for stage in stages:
        try:
            space = spaces.removal() if stage == "removal" else spaces.shrinkage(start, Budget())
        except SpaceError as error:
            reasons.append(str(error))
            continue
        least = smallest(space)
        cost = space.cost(least)
        start = least if stage == "removal" else start
    if cost is None:
        raise SearchError(f"there is no decision to take in this network: {'; '.join(dict.fromkeys(reasons))}")
    return cost


def check_budget(budget: Budget, least: Cost, teacher: Cost) -> None:
    """Refuses a budget that no student can meet.

    Raises:
        SearchError: with the feasible range.
    """
    pairs = (
        ("max_params", budget.max_parameters, least.parameters, teacher.parameters),
        ("max_macs", budget.max_macs, least.macs, teacher.macs),
    )
    for name, allowed, low, high in pairs:
        if allowed is not None and allowed < low:
            raise SearchError(
                f"{name}={allowed:,.0f} is impossible: the smallest student of these stages has {low:,} "
                f"({low / high:.2%} of the teacher's {high:,}); ask for {low:,} to {high:,}, or allow more to change"
            )
