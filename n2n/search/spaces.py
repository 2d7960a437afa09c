"""Opening the spaces of the two stages, and what the smallest student in them costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from torch import Tensor, nn

from n2n.data.base import TrainingData
from n2n.data.prepare import prepare
from n2n.distill.teacher import Teacher
from n2n.reward import Budget
from n2n.search.errors import SearchError
from n2n.search.options import SearchOptions
from search_spaces import weight_gradients
from search_spaces.base import Architecture, Cost, Draft, SearchSpace, SpaceError, random_actions, replay
from search_spaces.layer_removal import LayerRemoval
from search_spaces.layer_shrinkage import LayerShrinkage
from search_spaces.teacher.analysis import Reading, ignored
from search_spaces.teacher.reading import read

GRADIENT_IMAGES = 512
"""Training images whose gradient ranks channels where importance is "taylor"."""


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
    gradients: Mapping[str, Tensor] | None = None

    @cached_property
    def reading(self) -> Reading:
        """The teacher, read once for all spaces."""
        return read(self.network, self.example_inputs)

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
            kernels=self.options.kernels,
            kept=self._kept,
            start=start,
            max_parameters=budget.max_parameters,
            max_macs=budget.max_macs,
            gradients=self.gradients,
        )

    @property
    def _kept(self) -> frozenset[str]:
        return ignored(self.reading, self.options.ignored_layers)


def gradients(teacher: Teacher, training: TrainingData, options: SearchOptions) -> dict[str, Tensor] | None:
    """What the importance "taylor" needs: gradients on some training images; None for the others."""
    if options.importance != "taylor":
        return None
    some, split = slice(GRADIENT_IMAGES), training.train
    images = prepare(split.images[some], mean=training.mean, std=training.std).to(teacher.device)
    return weight_gradients(teacher.network, images, split.labels[some].to(teacher.device))


SWEEPS = 4
"""How often a descent goes over all decisions at most."""
DRAFTS = 16
"""Random drafts from which the smallest starts one more descent."""


def smallest(space: SearchSpace) -> Architecture:
    """The student of the lowest legal action at every decision: for widths the smallest there is."""
    return space.student(replay(space, (0,) * space.num_decisions))


def descents(space: SearchSpace) -> Iterator[Architecture]:
    """Small students of a space where fewer layers may cost more, for a removed bottleneck widens what reads it.

    From everything, from nothing and from a random draft, a decision changes wherever that makes the student smaller;
    first for the parameters, then for the MACs.
    """
    rng = np.random.default_rng(0)
    drafts = [random_actions(space, rng) for _ in range(DRAFTS)]
    ends = [replay(space, (action,) * space.num_decisions) for action in (space.num_actions - 1, 0)]
    sizes: tuple[Callable[[Cost], int], ...] = (lambda cost: cost.parameters, lambda cost: cost.macs)
    for size in sizes:
        lucky = min(drafts, key=lambda draft: size(space.cost(space.student(draft))))
        for start in (*ends, lucky):
            yield space.student(_descend(space, start, size))


def _descend(space: SearchSpace, draft: Draft, size: Callable[[Cost], int]) -> Draft:
    """The finished draft after changing single decisions for as long as that makes its student smaller."""
    best = size(space.cost(space.student(draft)))
    for _ in range(SWEEPS):
        before = best
        for decision in range(space.num_decisions):
            for action in range(space.num_actions):
                actions = (*draft.actions[:decision], action, *draft.actions[decision + 1 :])
                found = _size(space, actions, size)
                if found is not None and found < best and _legal_from(space, actions, decision):
                    draft, best = Draft(actions), found
        if best == before:
            break
    return draft


def _size(space: SearchSpace, actions: tuple[int, ...], size: Callable[[Cost], int]) -> int | None:
    """The size of a student, or None where its actions do not go together."""
    try:
        return size(space.cost(space.student(Draft(actions))))
    except SpaceError:
        return None


def _legal_from(space: SearchSpace, actions: tuple[int, ...], first: int) -> bool:
    """Whether the actions from decision `first` on are legal; keeping is, so it is not asked."""
    keep = space.num_actions - 1
    return all(
        actions[at] == keep or bool(space.legal(Draft(actions[:at]))[actions[at]]) for at in range(first, len(actions))
    )


@dataclass(frozen=True)
class Reach:
    """How far the stages can go down: the fewest parameters and the fewest MACs, and the students that were tried.

    The two of `cost` may be of different students; `students` come with the space that builds them.
    """

    cost: Cost
    students: tuple[tuple[SearchSpace, Architecture], ...]


def reach(spaces: Spaces, stages: tuple[str, ...], budget: Budget | None = None) -> Reach:
    """The smallest students that the stages reach; the harder it is to meet the budget, the longer they are sought.

    Raises:
        SearchError: no stage finds anything to decide; the reasons of each are named.
    """
    reasons: list[str] = []
    removal: SearchSpace | None = None
    if "removal" in stages:
        try:
            removal = spaces.removal()
        except SpaceError as error:
            reasons.append(str(error))
    removed = [] if removal is None else [smallest(removal)]
    found = _shrunk(spaces, stages, removal, removed, reasons)
    if not found:
        raise SearchError(f"there is no decision to take in this network: {'; '.join(dict.fromkeys(reasons))}")
    if removal is not None and (budget or Budget()).refusal(_least(found)):
        removed += {one.fingerprint: one for one in descents(removal)}.values()
        found = _shrunk(spaces, stages, removal, removed, reasons)
    return Reach(_least(found), tuple(found))


def _shrunk(
    spaces: Spaces,
    stages: tuple[str, ...],
    removal: SearchSpace | None,
    removed: list[Architecture],
    reasons: list[str],
) -> list[tuple[SearchSpace, Architecture]]:
    """The narrowest versions of the teacher and of removal students; these themselves where nothing can be shrunk."""
    found: list[tuple[SearchSpace, Architecture]] = []
    for start in [None, *removed] if "shrinkage" in stages else []:
        try:
            space = spaces.shrinkage(start, Budget())
        except SpaceError as error:
            reasons.append(str(error))
        else:
            found.append((space, smallest(space)))
    return found or [(removal, one) for one in removed if removal is not None]


def _least(found: list[tuple[SearchSpace, Architecture]]) -> Cost:
    costs = [space.cost(one) for space, one in found]
    return Cost(min(cost.parameters for cost in costs), min(cost.macs for cost in costs))


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
