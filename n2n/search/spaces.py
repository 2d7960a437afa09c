"""Opening the spaces of the two stages, and what the smallest student in them costs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from torch import Tensor, nn

from envs import Goal
from n2n.data.base import TrainingData
from n2n.data.prepare import prepare
from n2n.distill.teacher import Teacher
from n2n.distill.teacher import fingerprint as teacher_fingerprint
from n2n.reward import Budget
from n2n.search.errors import SearchError
from n2n.search.options import SearchOptions
from search_spaces import weight_gradients
from search_spaces.base import Architecture, Cost, SearchSpace, SpaceError
from search_spaces.layer_removal import LayerRemoval
from search_spaces.layer_shrinkage import LayerShrinkage
from search_spaces.limits import CostLimits
from search_spaces.smallest import descents, smallest
from search_spaces.teacher.analysis import Reading, ignored
from search_spaces.teacher.reading import read

GRADIENT_IMAGES = 512
"""Training images whose gradient ranks channels where importance is "taylor"."""


class Spaces(Protocol):
    """Opens the space of a stage; a test can bring a small one."""

    def removal(self, budget: Budget) -> SearchSpace:
        """The space over the teacher's layers; all students meet the budget."""
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

    @property
    def key(self) -> str:
        """A hash of the teacher's weights and of what is computed with them: its modules, and the operations run."""
        weights = teacher_fingerprint(self.network)
        parts = (weights, repr(self.network), *(str(node.target) for node in self.reading.nodes))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    def removal(self, budget: Budget) -> SearchSpace:
        """The removal space; the parameters, MACs and size of the budget bind it."""
        return LayerRemoval(
            self.reading,
            granularity=self.options.granularity,
            kept=self._kept,
            limits=limits_of(budget),
            gradients=self.gradients,
        )

    def shrinkage(self, start: Architecture | None, budget: Budget) -> SearchSpace:
        """The shrinkage space of a student that removal left; the parameters, MACs and size of the budget bind."""
        return LayerShrinkage(
            self.reading,
            factors=self.options.factors,
            round_to=self.options.round_to,
            kernels=self.options.kernels,
            kept=self._kept,
            start=start,
            limits=limits_of(budget),
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


@dataclass(frozen=True)
class Reach:
    """How far the stages can go down: the fewest parameters, MACs and bytes, and the students that were tried.

    Those of `cost` may be of different students; `students` come with the space that builds them.
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
            removal = spaces.removal(Budget())
        except SpaceError as error:
            reasons.append(str(error))
    removed = [] if removal is None else [smallest(removal)]
    found = _shrunk(spaces, stages, removal, removed, reasons)
    if not found:
        told = list(dict.fromkeys(reasons))
        unread = len(told) == 1 and len(stages) > 1  # no space could be opened, for one and the same reason
        raise SearchError(told[0] if unread else f"there is no decision to take in this network: {'; '.join(told)}")
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
    """The narrowest versions of the teacher and of removal students; those of these that cannot shrink, themselves."""
    found: list[tuple[SearchSpace, Architecture]] = []
    for start in [None, *removed] if "shrinkage" in stages else []:
        try:
            space = spaces.shrinkage(start, Budget())
        except SpaceError as error:
            reasons.append(str(error))
            if start is not None and removal is not None:
                found.append((removal, start))  # nothing is left in it that could shrink
        else:
            found.append((space, smallest(space)))
    return found or [(removal, one) for one in removed if removal is not None]


def _least(found: list[tuple[SearchSpace, Architecture]]) -> Cost:
    costs = [space.cost(one) for space, one in found]
    return Cost(
        parameters=min(cost.parameters for cost in costs),
        macs=min(cost.macs for cost in costs),
        bytes=min(cost.bytes for cost in costs),
    )


def limits_of(budget: Budget) -> CostLimits:
    """What of a budget is known of a student before it is trained; its latency is not."""
    return CostLimits(budget.max_parameters, budget.max_macs, budget.max_bytes)


def goal_of(budget: Budget, teacher: Cost) -> Goal:
    """What a budget leaves of the teacher's parameters and MACs, as shares that a policy sees."""
    pairs = ((budget.max_parameters, teacher.parameters), (budget.max_macs, teacher.macs))
    return Goal(*(0.0 if limit is None or not whole else min(1.0, limit / whole) for limit, whole in pairs))


def opened(spaces: Spaces, stages: tuple[str, ...], budget: Budget) -> list[SearchSpace]:
    """The spaces in which the stages find something to decide, shrinkage from the teacher on.

    The budget binds the last stage alone.

    Raises:
        SpaceError: no stage does.
    """
    found: list[SearchSpace] = []
    for index, name in enumerate(stages):
        bound = budget if index == len(stages) - 1 else Budget()
        try:
            found.append(spaces.removal(bound) if name == "removal" else spaces.shrinkage(None, bound))
        except SpaceError:
            if not found and index == len(stages) - 1:
                raise
    return found
