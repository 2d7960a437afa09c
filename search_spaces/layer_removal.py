"""Stage 1 of N2N: one keep/remove decision for each layer, or for each residual branch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import nn

from search_spaces.base import Draft, LayerRow, Mask, SpaceError
from search_spaces.teacher.analysis import Reading, ignored
from search_spaces.teacher.architecture import TeacherArchitecture
from search_spaces.teacher.channels import WidthConflict
from search_spaces.teacher.reading import read
from search_spaces.teacher.removal import canonical, emptied_branches, removal_plan
from search_spaces.teacher.space import TeacherSpace
from search_spaces.teacher.trace import ExampleInputs, ForwardFn

Granularity = Literal["layer", "block"]


def layer_removal(
    network: nn.Module,
    example_inputs: ExampleInputs,
    *,
    granularity: Granularity = "layer",
    ignored_layers: Sequence[str | type[nn.Module]] = (),
    forward_fn: ForwardFn | None = None,
    gradients: Mapping[str, torch.Tensor] | None = None,
) -> LayerRemoval:
    """Open the space of removals over a teacher.

    Args:
        network: the teacher; it is copied, never edited.
        example_inputs: one batch as the network receives it: a tensor, a tuple or a dict.
        granularity: "layer" decides about each layer by itself, as in the paper; "block" about whole residual branches.
        ignored_layers: layers to keep: names, shell-style patterns, or module types.
        forward_fn: `(network, example_inputs) -> output`, where the network is not simply called.
        gradients: of the weights by name (`search_spaces.weight_gradients`), for importance "taylor".

    Raises:
        SpaceError: the network cannot be read, nothing in it can be removed, or an ignored layer does not exist.
    """
    reading = read(network, example_inputs, forward_fn=forward_fn)
    return LayerRemoval(reading, granularity=granularity, kept=ignored(reading, ignored_layers), gradients=gradients)


class LayerRemoval(TeacherSpace):
    """Action 0 removes, action 1 keeps. A removed layer passes its input on; an emptied branch adds nothing."""

    def __init__(
        self,
        reading: Reading,
        *,
        granularity: Granularity,
        kept: frozenset[str],
        gradients: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        if granularity not in ("layer", "block"):
            raise SpaceError(f"granularity: expected 'layer' or 'block', found {granularity!r}")
        super().__init__("layer_removal", reading, reading.layers, 2, gradients)
        self.granularity = granularity
        self._reasons = {layer.name: layer.reason for layer in reading.layers}
        self._kept = kept
        self._reasons |= dict.fromkeys(kept, "is ignored on request")
        self._decisions = self._by_layer() if granularity == "layer" else self._by_block()
        if not self._decisions:
            reasons = "; ".join(f"{name} {reason}" for name, reason in list(self._reasons.items())[:6])
            raise SpaceError(
                f"layer_removal: no {granularity} of {type(reading.network).__name__} can be removed ({reasons})"
            )
        self._conflicts: set[frozenset[str]] = set()

    def _by_layer(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        return tuple((name, (name,)) for name, reason in self._reasons.items() if not reason)

    def _by_block(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Each branch that can be emptied and holds nothing that must stay, named by its module."""
        decisions = []
        for branch in self.reading.branches:
            must_stay = ("is the first layer", "is the classifier", "is ignored on request")
            why = branch.reason or next((r for n in branch.layers if (r := self._reasons[n]) in must_stay), "")
            if not why:
                decisions.append((branch.name, branch.layers))
            else:
                for name in branch.layers:
                    self._reasons[name] = self._reasons[name] or f"is in the branch {branch.name}, which {why}"
        decided = {name for _, layers in decisions for name in layers}
        for name in self._reasons:
            self._reasons[name] = "" if name in decided else self._reasons[name] or "is in no residual branch"
        return tuple(decisions)

    @property
    def num_decisions(self) -> int:
        """T: removable layers or branches."""
        return len(self._decisions)

    def legal(self, draft: Draft) -> Mask:
        """Whether the next layer may go [2]; keeping is always legal."""
        if draft.cursor >= self.num_decisions:
            raise SpaceError(f"{self.name}: the draft is finished, there is no decision {draft.cursor}")
        removed = self._removed(draft).union(self._decisions[draft.cursor][1])
        return np.array([self._fit(removed), True])

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
        gone = (layers for (_, layers), action in zip(self._decisions, draft.actions, strict=False) if action == 0)
        return frozenset(name for layers in gone for name in layers)

    def _fit(self, removed: frozenset[str]) -> bool:
        """Whether what remains fits together when all later decisions keep."""
        gone = canonical(self.reading, removed)
        if gone & self._kept:
            return False  # emptying a branch would take an ignored layer with it
        if self._neutral.issuperset(gone):
            return not any(branch.reason for branch in emptied_branches(self.reading, gone))
        if gone not in self._plans and gone not in self._conflicts:
            try:
                self._plans[gone] = removal_plan(self.reading, gone)
            except WidthConflict:
                self._conflicts.add(gone)
        return gone not in self._conflicts

    def _layers_of(self, decision: int) -> tuple[str, ...]:
        return self._decisions[decision][1]

    def _so_far(self, draft: Draft) -> TeacherArchitecture:
        return TeacherArchitecture(self.reading.fingerprint, self._ordered(self._removed(draft)))

    def _actions(self, architecture: TeacherArchitecture) -> tuple[int, ...]:
        gone = set(architecture.removed)
        return tuple(int(not gone.issuperset(layers)) for _, layers in self._decisions)
