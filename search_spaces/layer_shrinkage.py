"""Stage 2 of N2N: one factor for each group of channels (and for each kernel, where asked)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import lcm

import numpy as np
import torch
from torch import nn

from search_spaces.base import Architecture, Cost, Draft, LayerRow, Mask, SpaceError
from search_spaces.limits import NO_LIMITS, RESERVE, CostLimits
from search_spaces.teacher.analysis import Layer, Reading, ignored
from search_spaces.teacher.architecture import TeacherArchitecture
from search_spaces.teacher.capture import ExampleInputs, ForwardFn
from search_spaces.teacher.channels import Channels
from search_spaces.teacher.reading import read
from search_spaces.teacher.removal import shape_of
from search_spaces.teacher.space import TeacherSpace

FACTORS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def layer_shrinkage(
    network: nn.Module,
    example_inputs: ExampleInputs,
    *,
    factors: Sequence[float] = FACTORS,
    round_to: int = 1,
    kernels: bool = False,
    ignored_layers: Sequence[str | type[nn.Module]] = (),
    forward_fn: ForwardFn | None = None,
    start: Architecture | None = None,
    max_parameters: float | None = None,
    max_macs: float | None = None,
    max_bytes: float | None = None,
    gradients: Mapping[str, torch.Tensor] | None = None,
) -> LayerShrinkage:
    """Open the space of widths over a teacher, or over one of its removal students.

    Args:
        network: the teacher; it is copied, never edited.
        example_inputs: one batch as the network receives it: a tensor, a tuple or a dict.
        factors: what a width may be multiplied by, ascending, the last 1.0.
        round_to: widths are multiples of this (and of the number of groups of a grouped conv or norm).
        kernels: decide about kernel sizes too: the odd size nearest to the factor times the teacher's.
        ignored_layers: layers whose widths stay: names, shell-style patterns, or module types.
        forward_fn: `(network, example_inputs) -> output`, where the network is not simply called.
        start: a removal student of the same teacher that is shrunk instead of the whole teacher.
        max_parameters, max_macs, max_bytes: a hard budget, met by every student: actions that would break it are not
            legal, so that keeping everything is illegal somewhere. A factor stays affordable for all decisions to
            come, or the first layers would use up what the last ones need: the largest up to two thirds of the factor
            at which uniform scaling meets the budget, else the smallest.
        gradients: of the weights by name (`search_spaces.weight_gradients`), for importance "taylor".

    Raises:
        SpaceError: the network cannot be read, nothing in it can shrink, an argument is out of range, or no student
            meets the budget (the least that can be reached is named).
    """
    reading = read(network, example_inputs, forward_fn=forward_fn)
    return LayerShrinkage(
        reading,
        factors=tuple(factors),
        round_to=round_to,
        kernels=kernels,
        kept=ignored(reading, ignored_layers),
        start=start,
        limits=CostLimits(max_parameters, max_macs, max_bytes),
        gradients=gradients,
    )


@dataclass(frozen=True)
class Decision:
    """One shrinkage decision: `options[a]` is the width or kernel of action `a`; `layers` carry its channels.

    `group` is the index of the group whose width it is, -1 for a kernel.
    """

    name: str
    target: str
    options: tuple[int, ...]
    layers: tuple[str, ...]
    kernel: bool
    group: int = -1


class LayerShrinkage(TeacherSpace):
    """Action a multiplies a group's width by `factors[a]`; the last action keeps it."""

    def __init__(
        self,
        reading: Reading,
        *,
        factors: tuple[float, ...],
        round_to: int,
        kernels: bool,
        kept: frozenset[str],
        start: Architecture | None = None,
        limits: CostLimits = NO_LIMITS,
        gradients: Mapping[str, torch.Tensor] | None = None,
        may_be_empty: bool = False,
    ) -> None:
        ascending = all(low < high for low, high in pairwise(factors))
        if not factors or not ascending or factors[0] <= 0 or factors[-1] != 1.0:
            raise SpaceError(f"factors: expected ascending numbers above 0 that end with 1.0, found {factors}")
        if round_to < 1:
            raise SpaceError(f"round_to: expected at least 1, found {round_to}")
        base = start if start is not None else TeacherArchitecture(reading.fingerprint)
        if not isinstance(base, TeacherArchitecture) or base.widths or base.kernels:
            raise SpaceError("start: expected a removal student (no changed width or kernel) of the same teacher")
        self._start = base
        self._shape0 = shape_of(reading, base)
        alive = tuple(layer for layer in reading.layers if layer.name not in self._shape0.removed)
        super().__init__("layer_shrinkage", reading, alive, len(factors), gradients)
        self._factors, self._round_to, self._kept = factors, round_to, kept
        self._reasons: dict[str, str] = {}
        self._decisions = self._width_decisions() + (self._kernel_decisions() if kernels else ())
        if not self._decisions and not may_be_empty:
            reasons = "; ".join(f"{name} {reason}" for name, reason in list(self._reasons.items())[:6])
            raise SpaceError(f"layer_shrinkage: nothing in {type(reading.network).__name__} can shrink ({reasons})")
        self._memory: dict[tuple[int, ...], TeacherArchitecture] = {}
        self._limits = limits
        self._check_budget()

    def _check_budget(self) -> None:
        uniform = [self._cost_of_actions((a,) * self.num_decisions) for a in range(self.num_actions)]
        meeting = [action for action in range(self.num_actions) if self._limits.allow(uniform[action])]
        if not meeting:
            raise SpaceError(f"layer_shrinkage: {self._limits.too_tight(uniform[0], self.teacher_cost)}")
        affordable = self._factors[meeting[-1]] * RESERVE + 1e-9
        self._reserve = max((action for action in meeting if self._factors[action] <= affordable), default=0)

    def _can_end_within(self, draft: Draft, action: int) -> bool:
        """Whether a budget is met after an action when all that follow take the reserved factor."""
        rest = (self._reserve,) * (self.num_decisions - draft.cursor - 1)
        return self._limits.allow(self._cost_of_actions((*draft.actions, action, *rest)))

    def _cost_of_actions(self, actions: tuple[int, ...]) -> Cost:
        """The cost of a finished draft, without its architecture."""
        kept = np.array(self._shape0.kept)
        kernels = {}
        for decision, action in zip(self._decisions, actions, strict=True):
            if decision.kernel:
                kernels[decision.target] = decision.options[action]
            else:
                kept[decision.group] = decision.options[action] // self._shape0.plan.groups[decision.group].each
        return self._table(self._shape0).cost(kept, kernels)

    def _width_decisions(self) -> tuple[Decision, ...]:
        decisions = []
        for index, group in enumerate(self._shape0.plan.groups):
            members = {*group.producers, *group.scales}
            unit = lcm(self._round_to, group.unit)
            options = tuple(self._option(factor, group.width, unit) for factor in self._factors)
            stay = sorted(members & self._kept)
            reason = group.frozen or (f"holds {stay[0]}, which is ignored on request" if stay else "")
            if not reason and len(group.classes) == 1 < group.width:
                reason = f"has {group.width} channels that only go together"
            if not reason and len(set(options)) == 1:
                reason = f"has {group.width} channels, too few for multiples of {unit}"
            self._reasons[group.name] = reason
            if not reason:
                ends = self._shape0.plan.ends
                touched = tuple(name for name in self._row if name in ends and index in ends[name].outgoing.groups)
                decisions.append(Decision(group.name, group.name, options, touched, kernel=False, group=index))
        return tuple(decisions)

    @staticmethod
    def _option(factor: float, width: int, unit: int) -> int:
        """The multiple of `unit` nearest to factor · width, at least one unit; the whole width for factor 1."""
        if factor == 1.0:
            return width
        return min(width, max(unit, round(factor * width / unit) * unit))

    def _kernel_decisions(self) -> tuple[Decision, ...]:
        return tuple(
            Decision(
                f"{layer.name}.kernel",
                layer.name,
                tuple(max(1, 2 * round((factor * layer.kernel - 1) / 2) + 1) for factor in self._factors),
                (layer.name,),
                kernel=True,
            )
            for layer in self._layers
            if layer.resizable and layer.name not in self._kept
        )

    @property
    def num_decisions(self) -> int:
        """T: shrinkable groups, then kernels."""
        return len(self._decisions)

    def legal(self, draft: Draft) -> Mask:
        """The factors [A] after which the budget can still be met; all of them where there is none."""
        if draft.cursor >= self.num_decisions:
            raise SpaceError(f"{self.name}: the draft is finished, there is no decision {draft.cursor}")
        # Costs grow with the action, so the legal ones are the first few: find their number by bisection.
        fine, over = 0, self.num_actions
        if self._limits == NO_LIMITS or self._can_end_within(draft, over - 1):
            fine = over - 1
        else:
            over -= 1
        while over - fine > 1:
            middle = (fine + over) // 2
            fine, over = (middle, over) if self._can_end_within(draft, middle) else (fine, middle)
        self._masks = (draft, np.arange(self.num_actions) <= fine)
        return self._masks[1]

    def decision_name(self, decision: int) -> str:
        """The group (named by its first layer) or kernel that a decision speaks of."""
        return self._decisions[decision].name

    def describe(self) -> tuple[LayerRow, ...]:
        """The layers: shrinkable with their group, or frozen with the reason and the source line."""
        resized = {decision.target for decision in self._decisions if decision.kernel}
        return tuple(self._row_of(layer, *self._standing(layer, layer.name in resized)) for layer in self._layers)

    def _standing(self, layer: Layer, resized: bool) -> tuple[str, str, str, str]:
        """Status, groups, reason and the groups that are read; one that carries several shrinks with any of them."""
        ends = self._shape0.plan.ends.get(layer.name)
        if ends is None:
            return "frozen", "", "has no width of its own", ""
        groups, reads = (self._names(channels) for channels in (ends.outgoing, ends.incoming))
        free = [name for name in groups if not self._reasons[name]]
        read = ", ".join(name for name in reads if not self._reasons[name])
        if free or resized:
            return "shrinkable", ", ".join(free or groups[:1]), "", read
        return "frozen", groups[0], self._reasons[groups[0]], read

    def _names(self, channels: Channels) -> list[str]:
        return [self._shape0.plan.groups[index].name for index in sorted(channels.groups)]

    def _layers_of(self, decision: int) -> tuple[str, ...]:
        return self._decisions[decision].layers

    def _so_far(self, draft: Draft) -> TeacherArchitecture:
        if draft.actions not in self._memory:
            if len(self._memory) > 4096:
                self._memory.clear()
            chosen = [
                (decision, decision.options[action])
                for decision, action in zip(self._decisions, draft.actions, strict=False)
                if decision.options[action] != decision.options[-1]
            ]
            self._memory[draft.actions] = TeacherArchitecture(
                self.reading.fingerprint,
                self._ordered(frozenset(self._start.removed)),
                tuple(sorted((d.target, value) for d, value in chosen if not d.kernel)),
                tuple(sorted((d.target, value) for d, value in chosen if d.kernel)),
            )
        return self._memory[draft.actions]

    def _actions(self, architecture: TeacherArchitecture) -> tuple[int, ...]:
        widths, kernels = dict(architecture.widths), dict(architecture.kernels)
        actions = []
        for decision in self._decisions:
            value = (kernels if decision.kernel else widths).get(decision.target, decision.options[-1])
            distance = [abs(option - value) for option in decision.options]
            actions.append(max(i for i, far in enumerate(distance) if far == min(distance)))
        return tuple(actions)
