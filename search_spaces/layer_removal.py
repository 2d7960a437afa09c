"""Stage 1 of N2N: one keep/remove decision for each layer, or for each residual branch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import Literal

import numpy as np
import torch
from torch import nn

from search_spaces.base import Cost, Draft, LayerRow, Mask, SpaceError, replay
from search_spaces.limits import NO_LIMITS, RESERVE, CostLimits
from search_spaces.smallest import descents, smallest
from search_spaces.teacher.analysis import Reading, ignored
from search_spaces.teacher.architecture import TeacherArchitecture
from search_spaces.teacher.branches import Branch
from search_spaces.teacher.capture import ExampleInputs, ForwardFn
from search_spaces.teacher.reachable import reachable
from search_spaces.teacher.reading import read
from search_spaces.teacher.removal import canonical, conflict, emptied_branches
from search_spaces.teacher.space import TeacherSpace

Granularity = Literal["layer", "block"]


def layer_removal(
    network: nn.Module,
    example_inputs: ExampleInputs,
    *,
    granularity: Granularity = "layer",
    ignored_layers: Sequence[str | type[nn.Module]] = (),
    forward_fn: ForwardFn | None = None,
    max_parameters: float | None = None,
    max_macs: float | None = None,
    max_bytes: float | None = None,
    gradients: Mapping[str, torch.Tensor] | None = None,
) -> LayerRemoval:
    """Open the space of removals over a teacher.

    Args:
        network: the teacher; it is copied, never edited.
        example_inputs: one batch as the network receives it: a tensor, a tuple or a dict.
        granularity: "layer" decides about each layer by itself, as in the paper; "block" about whole residual branches.
        ignored_layers: layers to keep: names, shell-style patterns, or module types.
        forward_fn: `(network, example_inputs) -> output`, where the network is not simply called.
        max_parameters, max_macs, max_bytes: a hard budget, met by every student: actions after which it could not be
            met any more are not legal, so that keeping is illegal somewhere. Where shrinkage follows, bound that
            instead: a removal student need not meet the budget itself.
        gradients: of the weights by name (`search_spaces.weight_gradients`), for importance "taylor".

    Raises:
        SpaceError: the network cannot be read, nothing in it can be removed, an ignored layer does not exist, or no
            student is found that meets the budget (the least that can be reached is named).
    """
    reading = read(network, example_inputs, forward_fn=forward_fn)
    return LayerRemoval(
        reading,
        granularity=granularity,
        kept=ignored(reading, ignored_layers),
        limits=CostLimits(max_parameters, max_macs, max_bytes),
        gradients=gradients,
    )


class LayerRemoval(TeacherSpace):
    """Action 0 removes, action 1 keeps. A removed layer passes its input on; an emptied branch adds nothing."""

    def __init__(
        self,
        reading: Reading,
        *,
        granularity: Granularity,
        kept: frozenset[str],
        limits: CostLimits = NO_LIMITS,
        gradients: Mapping[str, torch.Tensor] | None = None,
        may_be_empty: bool = False,
    ) -> None:
        if granularity not in ("layer", "block"):
            raise SpaceError(f"granularity: expected 'layer' or 'block', found {granularity!r}")
        super().__init__("layer_removal", reading, reading.layers, 2, gradients)
        self.granularity = granularity
        self._reasons = {layer.name: layer.reason for layer in reading.layers}
        self._kept = kept
        self._reasons |= dict.fromkeys(kept, "is ignored on request")
        self._removals: dict[tuple[int, ...], frozenset[str]] = {}
        self._decisions = self._by_layer() if granularity == "layer" else self._by_block()
        self._drop_unreachable()
        if not self._decisions and not may_be_empty:
            reasons = "; ".join(f"{name} {reason}" for name, reason in list(self._reasons.items())[:6])
            raise SpaceError(
                f"layer_removal: no {granularity} of {type(reading.network).__name__} can be removed ({reasons})"
            )
        self._limits = NO_LIMITS
        self._way_down: tuple[int, ...] = ()
        if limits != NO_LIMITS:
            self._way_down = self._find_way_down(limits)
            self._limits = limits

    def _by_layer(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        return tuple((name, (name,)) for name, reason in self._reasons.items() if not reason)

    def _by_block(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Each branch that can be emptied and holds nothing that must stay, named by its module."""
        decisions = []
        for branch in self.reading.branches:
            why = self._why_whole(branch)
            if not why:
                decisions.append((branch.name, branch.layers))
            else:
                for name in branch.layers:
                    self._reasons[name] = self._reasons[name] or f"is in the branch {branch.name}, which {why}"
        decided = {name for _, layers in decisions for name in layers}
        for name in self._reasons:
            self._reasons[name] = "" if name in decided else self._reasons[name] or "is in no residual branch"
        return tuple(decisions)

    def _drop_unreachable(self) -> None:
        """Leaves out the decisions that no legal draft takes, with the reason."""
        possible = reachable(self.reading, [layers for _, layers in self._decisions], self._fit)
        for (_, layers), found in zip(self._decisions, possible, strict=True):
            if not found:
                self._reasons |= dict.fromkeys(layers, self._why_not_alone(layers))
        self._decisions = tuple(one for one, found in zip(self._decisions, possible, strict=True) if found)

    def _why_not_alone(self, layers: tuple[str, ...]) -> str:
        """Why layers that might be removed are in no legal draft, and what removes them all the same."""
        around = [one for one in self.reading.branches if set(one.layers).issuperset(layers)]
        whole = [one for one in around if not self._why_whole(one) and self._fit(frozenset(one.layers))]
        if whole and self.granularity == "layer":
            name = min(whole, key=lambda one: len(one.layers)).name
            return f"can only go together with other layers; granularity 'block' removes the branch {name}"
        why = conflict(self.reading, canonical(self.reading, layers)) or "an ignored layer would go with it"
        return f"cannot go alone ({why}); no granularity removes it together with others"

    def _why_whole(self, branch: Branch) -> str:
        """Why a branch cannot go as a whole, or empty."""
        must_stay = ("is the first layer", "is the classifier", "is ignored on request")
        return branch.reason or next((r for n in branch.layers if (r := self._reasons[n]) in must_stay), "")

    @property
    def num_decisions(self) -> int:
        """T: removable layers or branches."""
        return len(self._decisions)

    def legal(self, draft: Draft) -> Mask:
        """Whether the next layer may go and may stay [2]; it may always stay where there is no budget."""
        if draft.cursor >= self.num_decisions:
            raise SpaceError(f"{self.name}: the draft is finished, there is no decision {draft.cursor}")
        mask = np.array([self._fit_next(draft), True])
        if self._limits != NO_LIMITS:
            mask &= [bool(mask[action]) and self._can_end_within(draft, action) for action in (0, 1)]
        self._masks = (draft, mask)
        return mask

    def _fit_next(self, draft: Draft) -> bool:
        return self._fit(self._removed(draft).union(self._decisions[draft.cursor][1]))

    def _can_end_within(self, draft: Draft, action: int) -> bool:
        """Whether the budget is met after an action when all that follow keep, or when they follow the way down.

        What is found here for an action holds for the first of those that follow it, too: no draft ends up without a
        legal action.
        """
        ahead = Draft((*draft.actions, action))
        return self._allows(ahead) or self._allows(self._followed(ahead))

    def _allows(self, draft: Draft) -> bool:
        return self._limits.allow(self._cost_of(draft))

    def _cost_of(self, draft: Draft) -> Cost:
        """The cost of a draft whose missing decisions all keep; `SpaceError` where what is left does not fit."""
        removed = self._removed(draft)
        if not self._fit(removed):
            raise SpaceError(f"{self.name}: what is left does not fit together")
        return self._removal_cost(canonical(self.reading, removed))

    def _followed(self, draft: Draft) -> Draft:
        """A draft whose missing decisions take the way down, and keep where that does not fit together."""
        whole = Draft((*draft.actions, *self._way_down[draft.cursor :]))
        gone = self._removed(whole)
        if self._neutral.issuperset(gone) and self._fit(gone):
            return whole  # no width changes, so whatever is removed on the way fits together as well
        while draft.cursor < self.num_decisions:
            removes = self._way_down[draft.cursor] == 0 and self._fit_next(draft)
            draft = Draft((*draft.actions, int(not removes)))
        return draft

    def _find_way_down(self, limits: CostLimits) -> tuple[int, ...]:
        """Actions [T] whose student meets the budget with some to spare; not the smallest student, if others do.

        Raises:
            SpaceError: no student is found that meets it.
        """
        drafts = [
            replay(self, self._actions(self._own(one))) for one in (smallest(self), *descents(self, self._cost_of))
        ]
        costs = [self.cost(self.student(draft)) for draft in drafts]
        meeting = [draft for draft, cost in zip(drafts, costs, strict=True) if limits.allow(cost)]
        if not meeting:
            least = Cost(*(min(sizes) for sizes in zip(*map(astuple, costs), strict=True)))
            raise SpaceError(f"layer_removal: {limits.too_tight(least, self.teacher_cost)}")
        draft, roomy = meeting[0], limits.scaled(RESERVE)
        for decision in np.random.default_rng(0).permutation(self.num_decisions):
            if draft.actions[decision] == 0:
                fuller = replay(self, (*draft.actions[:decision], 1, *draft.actions[decision + 1 :]))
                if roomy.allow(self.cost(self.student(fuller))):
                    draft = fuller
        return draft.actions

    def decision_name(self, decision: int) -> str:
        """The layer or branch that a decision speaks of."""
        return self._decisions[decision][0]

    def describe(self) -> tuple[LayerRow, ...]:
        """The layers: removable, or frozen with the reason and the source line."""
        group_of = {layer: name for name, layers in self._decisions for layer in layers}
        return tuple(
            self._row_of(layer, "frozen" if why else "removable", group_of.get(layer.name, ""), why)
            for layer in self.reading.layers
            for why in (self._reasons[layer.name],)
        )

    def _removed(self, draft: Draft) -> frozenset[str]:
        """The layers that the decisions of a draft remove, built up from those of the draft before the last one."""
        known, actions = self._removals, draft.actions
        missing = 0
        while missing < len(actions) and actions[: len(actions) - missing] not in known:
            missing += 1
        removed = known.get(actions[: len(actions) - missing], frozenset())
        if len(known) > 4096:
            known.clear()
        for cursor in range(len(actions) - missing, len(actions)):
            if actions[cursor] == 0:
                removed = removed.union(self._decisions[cursor][1])
            known[actions[: cursor + 1]] = removed
        return removed

    def _fit(self, removed: frozenset[str]) -> bool:
        """Whether what remains fits together when all later decisions keep."""
        gone = canonical(self.reading, removed)
        if gone & self._kept:
            return False  # emptying a branch would take an ignored layer with it
        if any(branch.reason for branch in emptied_branches(self.reading, gone)):
            return False
        return self._plan(self._core(gone)) is not None

    def _layers_of(self, decision: int) -> tuple[str, ...]:
        return self._decisions[decision][1]

    def _so_far(self, draft: Draft) -> TeacherArchitecture:
        return TeacherArchitecture(self.reading.fingerprint, self._ordered(self._removed(draft)))

    def _actions(self, architecture: TeacherArchitecture) -> tuple[int, ...]:
        gone = set(architecture.removed)
        return tuple(int(not gone.issuperset(layers)) for _, layers in self._decisions)
