"""A space so small that its best student is found by looking at all of them; made for tests and first steps.

The teacher is a chain of `decisions` linear layers of equal width with a linear classifier behind them. Decision `t`
chooses the width of layer `t` as `(action + 1) / num_actions` of the teacher's. Some actions are illegal: two narrowest
layers may not follow each other, and where `first_needs_half` is set the first layer keeps half of its width at least.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from search_spaces.base import (
    FEATURES,
    Architecture,
    Cost,
    Draft,
    Floats,
    LayerChange,
    LayerRow,
    Mask,
    SpaceError,
    one_hot_kind,
    random_actions,
    replay,
)

_CLASSES = 2
_IMPORTANCE = ("l1", "l2", "bn_scale", "taylor", "random")


@dataclass(frozen=True)
class ToyArchitecture:
    """A toy student: the widths of its layers, first layer first, and of the teacher they come from."""

    widths: tuple[int, ...]
    teacher_width: int

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the JSON form, first 16 digits."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def to_json(self) -> str:
        """Canonical JSON."""
        return json.dumps({"kind": "toy", "teacher_width": self.teacher_width, "widths": list(self.widths)})


class ToySpace:
    """See the module; `all()` lists every student."""

    name = "toy"

    def __init__(self, decisions: int, actions: int, width: int, first_needs_half: bool) -> None:
        self.num_decisions = decisions
        self.num_actions = actions
        self.width = width
        self.first_needs_half = first_needs_half
        self._teacher = self._fresh((width,) * decisions, seed=0)

    @property
    def teacher_cost(self) -> Cost:
        """The cost of the chain at full width."""
        return self._cost((self.width,) * self.num_decisions)

    def initial(self) -> Draft:
        """No action yet."""
        return Draft()

    def legal(self, draft: Draft) -> Mask:
        """Which actions [A] are open; the last always is."""
        if draft.cursor >= self.num_decisions:
            raise SpaceError(f"all {self.num_decisions} decisions are taken; call student(draft)")
        mask = np.ones(self.num_actions, dtype=np.bool_)  # [A]
        if draft.cursor == 0 and self.first_needs_half:
            mask[: (self.num_actions - 1) // 2] = False
        if draft.actions and draft.actions[-1] == 0:
            mask[0] = False
        return mask

    def apply(self, draft: Draft, action: int) -> Draft:
        """The draft with one more action."""
        mask = self.legal(draft)
        if not 0 <= action < self.num_actions or not mask[action]:
            raise SpaceError(
                f"action {action} is not legal for {self.decision_name(draft.cursor)}; "
                f"legal actions: {np.flatnonzero(mask).tolist()}"
            )
        return Draft((*draft.actions, int(action)))

    def observe(self, draft: Draft) -> Floats:
        """One row per layer, classifier last: [N, F] with N = T + 1, in [0, 1]."""
        widths = [self._width_of(action) for action in draft.actions]
        widths += [self.width] * (self.num_decisions - len(widths))
        sizes = [self.width, *widths, _CLASSES]
        total = self.teacher_cost
        rows = np.zeros((self.num_decisions + 1, len(FEATURES)), dtype=np.float32)  # [N, F]
        for layer, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
            decided = layer < draft.cursor
            values = {
                **one_hot_kind("linear"),
                "width_in": inputs / self.width,
                "width_out": outputs / self.width,
                "spatial": 1.0,
                "parameter_share": (inputs + 1) * outputs / total.parameters,
                "mac_share": inputs * outputs / total.macs,
                "position": layer / (self.num_decisions + 1),
                "group": (layer + 1) / self.num_decisions if layer < self.num_decisions else 0.0,
                "decided": float(decided),
                "decision": draft.actions[layer] / max(self.num_actions - 1, 1) if decided else 1.0,
                "cursor": float(layer == draft.cursor < self.num_decisions),
            }
            rows[layer] = [values.get(name, 0.0) for name in FEATURES]
        return rows

    def student(self, draft: Draft) -> ToyArchitecture:
        """The student of a finished draft."""
        if draft.cursor != self.num_decisions:
            raise SpaceError(f"the draft has {draft.cursor} of {self.num_decisions} decisions; apply the others first")
        return ToyArchitecture(tuple(self._width_of(action) for action in draft.actions), self.width)

    def build(
        self, architecture: Architecture, *, inherit: bool = True, importance: str = "l1", seed: int = 0
    ) -> nn.Sequential:
        """Linear layers with ReLU between them: input [B, width], output [B, 2].

        With `inherit` the first rows and columns of the teacher's matrices are kept; the order stands in for every
        `importance`.
        """
        widths = self._check(architecture).widths
        if importance not in _IMPORTANCE:
            raise SpaceError(f"unknown importance {importance!r}; choose one of {', '.join(_IMPORTANCE)}")
        network = self._fresh(widths, seed=seed)
        if inherit:
            with torch.no_grad():
                for mine, theirs in zip(network.parameters(), self._teacher.parameters(), strict=True):
                    mine.copy_(theirs[tuple(slice(size) for size in mine.shape)])
        return network

    def cost(self, architecture: Architecture) -> Cost:
        """The cost by formula."""
        return self._cost(self._check(architecture).widths)

    def random(self, rng: np.random.Generator) -> ToyArchitecture:
        """A student of uniformly drawn legal actions."""
        return self.student(random_actions(self, rng))

    def mutate(self, architecture: Architecture, rng: np.random.Generator) -> ToyArchitecture:
        """A student with one decision redrawn, the others kept as far as they are legal."""
        known = self._check(architecture)
        actions = self.actions_of(known)
        options = [
            replay(self, (*actions[:layer], action, *actions[layer + 1 :]))
            for layer in range(self.num_decisions)
            for action in range(self.num_actions)
        ]
        students = [student for draft in options if (student := self.student(draft)) != known]
        return students[int(rng.integers(len(students)))] if students else known

    def decision_name(self, decision: int) -> str:
        """`layer0`, `layer1`, ..."""
        return f"layer{decision}"

    def describe(self) -> tuple[LayerRow, ...]:
        """Every layer is shrinkable except the classifier."""
        sizes = [self.width] * (self.num_decisions + 1)
        rows = [
            LayerRow(
                self.decision_name(i), "linear", "shrinkable", f"group{i}", "", (n + 1) * n, n * n,
                reads=f"group{i - 1}" if i else "",
            )
            for i, n in enumerate(sizes[1:])
        ]  # fmt: skip
        classifier = ((self.width + 1) * _CLASSES, self.width * _CLASSES)
        reads = f"group{self.num_decisions - 1}"
        return (*rows, LayerRow("classifier", "linear", "frozen", "", "it gives the classes", *classifier, reads=reads))

    def changes(self, architecture: Architecture) -> tuple[LayerChange, ...]:
        """Every layer, and the classifier last."""
        sizes = [self.width, *self._check(architecture).widths, _CLASSES]
        full = [*(self.width for _ in range(self.num_decisions + 1)), _CLASSES]
        names = [*(self.decision_name(i) for i in range(self.num_decisions)), "classifier"]
        return tuple(
            LayerChange(
                name, "linear", False, (full[i], sizes[i]), (full[i + 1], sizes[i + 1]), (0, 0),
                parameters=((full[i] + 1) * full[i + 1], (sizes[i] + 1) * sizes[i + 1]),
            )
            for i, name in enumerate(names)
        )  # fmt: skip

    def from_json(self, text: str) -> ToyArchitecture:
        """The architecture that `to_json` wrote."""
        try:
            fields = json.loads(text)
        except json.JSONDecodeError as error:
            raise SpaceError(f"expected the JSON of a toy architecture, found {text[:60]!r}") from error
        shape = {"kind": str, "teacher_width": int, "widths": list}
        found = {key: type(value) for key, value in fields.items()} if isinstance(fields, dict) else None
        if found != shape or fields["kind"] != "toy" or not all(isinstance(width, int) for width in fields["widths"]):
            raise SpaceError(f"expected kind 'toy' with teacher_width and a list of widths, found {text[:60]!r}")
        return self._check(ToyArchitecture(tuple(fields["widths"]), fields["teacher_width"]))

    def all(self) -> Iterator[ToyArchitecture]:
        """Every student of the space, once."""
        for actions in itertools.product(range(self.num_actions), repeat=self.num_decisions):
            draft = replay(self, actions)
            if draft.actions == actions:
                yield self.student(draft)

    def actions_of(self, architecture: Architecture) -> tuple[int, ...]:
        """The actions [T] that lead to a student."""
        return tuple(self._action_of(width) for width in self._check(architecture).widths)

    def _width_of(self, action: int) -> int:
        return max(1, (action + 1) * self.width // self.num_actions)

    def _action_of(self, width: int) -> int:
        return [self._width_of(action) for action in range(self.num_actions)].index(width)

    def _cost(self, widths: tuple[int, ...]) -> Cost:
        macs = sum(inputs * outputs for inputs, outputs in itertools.pairwise((self.width, *widths, _CLASSES)))
        parameters = macs + sum(widths) + _CLASSES
        return Cost(parameters, macs, bytes=4 * parameters)  # float32, no buffers

    def _fresh(self, widths: tuple[int, ...], *, seed: int) -> nn.Sequential:
        with torch.random.fork_rng(devices=[]):  # nn.Linear draws from the global generator only
            torch.manual_seed(seed)
            layers: list[nn.Module] = []
            for inputs, outputs in itertools.pairwise((self.width, *widths)):
                layers += [nn.Linear(inputs, outputs), nn.ReLU()]
            return nn.Sequential(*layers, nn.Linear(widths[-1], _CLASSES))

    def _check(self, architecture: Architecture) -> ToyArchitecture:
        known = {self._width_of(action) for action in range(self.num_actions)}
        if (
            not isinstance(architecture, ToyArchitecture)
            or architecture.teacher_width != self.width
            or len(architecture.widths) != self.num_decisions
            or not set(architecture.widths) <= known
        ):
            raise SpaceError(
                f"expected a toy student of {self.num_decisions} layers with widths among {sorted(known)}, "
                f"found {architecture}; open the space with the arguments that the student came from"
            )
        return architecture


def toy(*, decisions: int = 4, actions: int = 3, width: int = 12, first_needs_half: bool = True) -> ToySpace:
    """Opens a toy space.

    Args:
        decisions: T, the number of shrinkable layers, 1 to 8.
        actions: A, the number of widths per layer, 2 to 6.
        width: the teacher's width, at least `actions` so that every action gives another width.
        first_needs_half: forbids the narrowest choices for the first layer.

    Raises:
        SpaceError: an argument is out of its range.
    """
    if not 1 <= decisions <= 8 or not 2 <= actions <= 6 or width < actions:
        raise SpaceError(
            f"expected decisions in 1..8, actions in 2..6 and width >= actions, "
            f"found decisions={decisions}, actions={actions}, width={width}"
        )
    return ToySpace(decisions, actions, width, first_needs_half)
