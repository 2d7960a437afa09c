"""What the published spaces have in common: a student is a tuple of choices, and its cost follows from a formula.

A `Family` (`search_spaces.family`) says what is special of a space: its decisions, the units that a network of given
choices consists of, the network itself, and the short form in which its paper or tables write a student (its code).
`PublishedSpace` makes a `SearchSpace` of it. The network of largest choices stands where a search has a teacher;
nobody has trained it, so that there are no weights to inherit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import final

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
from search_spaces.family import Choices, Family, Images, Unit, total
from search_spaces.limits import NO_LIMITS, CostLimits

IMPORTANCE = ("l1", "l2", "bn_scale", "taylor", "random")


@final
@dataclass(frozen=True)
class PublishedArchitecture:
    """A student of a published space: its choices in the order of the decisions, and their short form."""

    space: str
    choices: Choices
    code: str
    images: Images

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the JSON form, first 16 digits."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def to_json(self) -> str:
        """Canonical JSON; the code says all that the choices do."""
        return json.dumps(
            {
                "kind": self.space,
                "code": self.code,
                "classes": self.images.classes,
                "channels": self.images.channels,
                "image_size": self.images.image_size,
            }
        )


@final
class PublishedSpace:
    """A `SearchSpace` over a family. Where a decision has fewer choices than actions, the last actions are legal.

    `all()` lists every student, `from_code` reads the short form. `limits` bind what is drawn, decided and listed: an
    action is legal where the cheapest choices behind it keep to them, so that every finished draft does.
    """

    def __init__(self, family: Family, limits: CostLimits = NO_LIMITS) -> None:
        """Opens the space.

        Raises:
            SpaceError: no student keeps to the limits.
        """
        self.family = family
        self.limits = limits
        self.name = family.name
        self.decisions = family.decisions
        self.num_decisions = len(family.decisions)
        self.num_actions = max(len(decision.choices) for decision in family.decisions)
        self._largest = family.units(self._filled(()))
        self._widest = max(max(unit.width_in, unit.width_out) for unit in self._largest)
        least = least_cost(family, ())
        if not limits.allow(least):
            raise SpaceError(f"{self.name}: {limits.too_tight(least, self.teacher_cost)}")

    def within(self, limits: CostLimits) -> PublishedSpace:
        """The same space with these limits.

        Raises:
            SpaceError: no student keeps to them; the least that there is is told.
        """
        return PublishedSpace(self.family, limits)

    @property
    def teacher_cost(self) -> Cost:
        """The cost of the largest network."""
        return total(*(unit.cost for unit in self._largest))

    def initial(self) -> Draft:
        """No action yet."""
        return Draft()

    def legal(self, draft: Draft) -> Mask:
        """Which actions [A] are open; the last is unless the limits forbid it, alone where nothing would change."""
        if draft.cursor >= self.num_decisions:
            raise SpaceError(f"{self.name}: all {self.num_decisions} decisions are taken; call student(draft)")
        mask = np.zeros(self.num_actions, dtype=np.bool_)  # [A]
        choices, open_ones = self._choices(draft), self.decisions[draft.cursor].choices
        mask[-len(open_ones) if self.family.matters(choices) else -1 :] = True
        if self.limits != NO_LIMITS:
            for action in np.flatnonzero(mask):
                chosen = open_ones[action - self.num_actions]  # the last choice is the last action
                mask[action] = self.limits.allow(least_cost(self.family, (*choices, chosen)))
        return mask

    def apply(self, draft: Draft, action: int) -> Draft:
        """The draft with one more action."""
        mask = self.legal(draft)
        if not 0 <= action < self.num_actions or not mask[action]:
            raise SpaceError(
                f"{self.name}: action {action} is not legal for {self.decision_name(draft.cursor)}; "
                f"legal actions: {np.flatnonzero(mask).tolist()}"
            )
        return Draft((*draft.actions, int(action)))

    def observe(self, draft: Draft) -> Floats:
        """One row per unit of the largest network: [N, F], in [0, 1]; a unit that the draft lacks has no width."""
        found = {unit.name: unit for unit in self.family.units(self._filled(self._choices(draft)))}
        whole = self.teacher_cost
        rows = np.zeros((len(self._largest), len(FEATURES)), dtype=np.float32)  # [N, F]
        for index, full in enumerate(self._largest):
            taken = [decision for decision in full.decisions if decision < draft.cursor]
            unit = found.get(full.name)
            values = {
                **one_hot_kind(full.kind if unit is None else unit.kind),
                **({} if unit is None else self._shape_features(unit, whole)),
                "position": index / len(self._largest),
                "group": (1 + full.decisions[0]) / self.num_decisions if full.decisions else 0.0,
                "decided": float(bool(taken)),
                "decision": draft.actions[taken[-1]] / (self.num_actions - 1) if taken else 1.0,
                "cursor": float(draft.cursor in full.decisions),
            }
            rows[index] = [values.get(name, 0.0) for name in FEATURES]
        return rows

    def _shape_features(self, unit: Unit, whole: Cost) -> dict[str, float]:
        return {
            "kernel": min(unit.kernel, 8) / 8,
            "stride": min(unit.stride, 4) / 4,
            "padding": min(unit.padding, 4) / 4,
            "width_in": unit.width_in / self._widest,
            "width_out": unit.width_out / self._widest,
            "spatial": unit.spatial / self.family.images.image_size if unit.spatial else 1.0,
            "parameter_share": unit.cost.parameters / whole.parameters,
            "mac_share": unit.cost.macs / whole.macs,
            "skip_start": float(unit.residual),
            "skip_end": float(unit.residual),
        }

    def student(self, draft: Draft) -> PublishedArchitecture:
        """The student of a finished draft."""
        if draft.cursor != self.num_decisions:
            raise SpaceError(
                f"{self.name}: the draft has {draft.cursor} of {self.num_decisions} decisions; apply the others first"
            )
        return self._architecture(self._choices(draft))

    def from_code(self, code: str) -> PublishedArchitecture:
        """The student of a short form.

        Raises:
            SpaceError: it has another shape, or says a choice that there is not (the valid ones are listed).
        """
        choices = self.family.parse(code)
        if choices is None:
            raise SpaceError(f"{self.name}: the code {code!r} is none of this space; expected {self.family.form}")
        for decision, choice in zip(self.decisions, choices, strict=True):
            if choice not in decision.choices:
                valid = ", ".join(str(one) for one in decision.choices)
                raise SpaceError(f"{self.name}: the code {code!r} has {choice} for {decision.name}; valid: {valid}")
        return self._architecture(choices)

    def build(
        self, architecture: Architecture, *, inherit: bool = True, importance: str = "l1", seed: int = 0
    ) -> nn.Module:
        """The network, initialised from `seed`: images [B, channels, H, W] to logits [B, classes].

        A published space has no trained teacher, so that `inherit` and `importance` find no weights to carry over.

        Raises:
            SpaceError: the architecture is of another space, or the importance is unknown.
        """
        if importance not in IMPORTANCE:
            raise SpaceError(f"unknown importance {importance!r}; choose one of {', '.join(IMPORTANCE)}")
        choices = self._check(architecture).choices
        with torch.random.fork_rng(devices=[]):  # layers draw from the global generator of the CPU only
            torch.default_generator.manual_seed(seed)
            return self.family.network(choices)

    def cost(self, architecture: Architecture) -> Cost:
        """The cost by formula."""
        return total(*(unit.cost for unit in self.family.units(self._check(architecture).choices)))

    def random(self, rng: np.random.Generator) -> PublishedArchitecture:
        """A student of uniformly drawn legal actions."""
        return self.student(random_actions(self, rng))

    def mutate(self, architecture: Architecture, rng: np.random.Generator) -> PublishedArchitecture:
        """A student with one decision redrawn, the others kept as far as they are legal; itself where it is alone."""
        known = self._check(architecture)
        actions = self.actions_of(known)
        options = [
            self.student(replay(self, (*actions[:at], action, *actions[at + 1 :])))
            for at in range(self.num_decisions)
            for action in range(self.num_actions)
        ]
        students = [student for student in dict.fromkeys(options) if student != known]
        return students[int(rng.integers(len(students)))] if students else known

    def decision_name(self, decision: int) -> str:
        """What is chosen there, such as "stage1.depth" or "edge 1<-0"."""
        return self.decisions[decision].name

    def describe(self) -> tuple[LayerRow, ...]:
        """The units of the largest network."""
        return tuple(
            LayerRow(
                name=unit.name,
                kind=unit.kind,
                status="removable" if unit.removable else "shrinkable" if unit.group else "frozen",
                group=unit.group,
                reason="" if unit.removable or unit.group else unit.reason,
                parameters=unit.cost.parameters,
                macs=unit.cost.macs,
                reads=unit.reads,
            )
            for unit in self._largest
        )

    def changes(self, architecture: Architecture) -> tuple[LayerChange, ...]:
        """The units of the largest network against those of a student."""
        found = {unit.name: unit for unit in self.family.units(self._check(architecture).choices)}
        return tuple(_change(full, found.get(full.name)) for full in self._largest)

    def from_json(self, text: str) -> PublishedArchitecture:
        """The architecture that `to_json` wrote."""
        try:
            fields = json.loads(text)
        except json.JSONDecodeError as error:
            raise SpaceError(f"{self.name}: expected the JSON of an architecture, found {text[:60]!r}") from error
        shape = {"kind": str, "code": str, "classes": int, "channels": int, "image_size": int}
        found = {key: type(value) for key, value in fields.items()} if isinstance(fields, dict) else None
        if found != shape or fields["kind"] != self.name:
            raise SpaceError(
                f"expected kind {self.name!r} with {', '.join(list(shape)[1:])}, found {text[:60]!r}; open the space "
                f"that the student came from"
            )
        images = Images(fields["classes"], fields["channels"], fields["image_size"])
        known = self.from_code(fields["code"])
        return self._check(PublishedArchitecture(self.name, known.choices, known.code, images))

    def all(self) -> Iterator[PublishedArchitecture]:
        """Every student within the limits, once, in the order of the actions; see `family.students` for how many."""
        yield from self._below(Draft())

    def _below(self, draft: Draft) -> Iterator[PublishedArchitecture]:
        if draft.cursor == self.num_decisions:
            yield self.student(draft)
            return
        for action in np.flatnonzero(self.legal(draft)):
            yield from self._below(Draft((*draft.actions, int(action))))

    def actions_of(self, architecture: Architecture) -> tuple[int, ...]:
        """The actions [T] that lead to a student."""
        choices = self._check(architecture).choices
        pairs = zip(self.decisions, choices, strict=True)
        return tuple(self.num_actions - len(one.choices) + one.choices.index(choice) for one, choice in pairs)

    def _choices(self, draft: Draft) -> Choices:
        """What the actions of a draft choose; the last choice where a decision changes nothing.

        Raises:
            SpaceError: an action that its decision does not have; drafts need not come from `apply`.
        """
        choices: Choices = ()
        for decision, action in zip(self.decisions, draft.actions, strict=False):  # a draft may be unfinished
            first = self.num_actions - len(decision.choices)
            if not first <= action < self.num_actions:
                raise SpaceError(
                    f"{self.name}: {decision.name} has no action {action}; expected {first} to {self.num_actions - 1}"
                )
            choices = (*choices, decision.choices[action - first if self.family.matters(choices) else -1])
        return choices

    def _filled(self, choices: Choices) -> Choices:
        """The choices, the largest ones behind them."""
        return (*choices, *(one.choices[-1] for one in self.decisions[len(choices) :]))

    def _architecture(self, choices: Choices) -> PublishedArchitecture:
        return PublishedArchitecture(self.name, choices, self.family.code(choices), self.family.images)

    def _check(self, architecture: Architecture) -> PublishedArchitecture:
        """The architecture, where it is of this space with these images and its choices are among the decisions'."""
        if (
            isinstance(architecture, PublishedArchitecture)
            and architecture.space == self.name
            and architecture.images == self.family.images
            and len(architecture.choices) == self.num_decisions
            and all(choice in one.choices for one, choice in zip(self.decisions, architecture.choices, strict=True))
            and architecture.code == self.family.code(architecture.choices)
        ):
            return architecture
        raise SpaceError(
            f"expected a student of {self.name} with {self.family.images}, found {architecture}; open the space with "
            f"the arguments that the student came from"
        )


@lru_cache(maxsize=2**16)
def least_cost(family: Family, choices: Choices) -> Cost:
    """The cost of the cheapest network that begins with these choices: choices ascend in what they cost."""
    for decision in family.decisions[len(choices) :]:
        choices = (*choices, decision.choices[0 if family.matters(choices) else -1])
    return total(*(unit.cost for unit in family.units(choices)))


def _change(full: Unit, mine: Unit | None) -> LayerChange:
    width_in, width_out, kernel, parameters = (
        (0, 0, 0, 0) if mine is None else (mine.width_in, mine.width_out, mine.kernel, mine.cost.parameters)
    )
    return LayerChange(
        name=full.name,
        kind=full.kind,
        removed=mine is None,
        width_in=(full.width_in, width_in),
        width_out=(full.width_out, width_out),
        kernel=(full.kernel, kernel),
        parameters=(full.cost.parameters, parameters),
    )
