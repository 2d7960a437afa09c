"""Weighted sums of objectives as text: `"kd:0.9,T=4 + similarity:3000"`, read, checked and written back.

    expression := term { "+" term }
    term       := NAME [":" WEIGHT] { "," OPTION "=" VALUE }

WEIGHT multiplies the objective's loss; where it is not said it is the published one (`WEIGHTS`, else 1). OPTION is one
of the objective's own (`T` is short for `temperature`), or of its schedule: see `Schedule`.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any

from n2n.distill.objectives import OBJECTIVES, WEIGHTS
from n2n.distill.objectives.base import Objective

Value = bool | int | float | str | tuple[float, ...]
_PLUS = re.compile(r"\+(?=\s*[A-Za-z_])")  # not that of 1e+5
_HEAD = re.compile(r"(?P<name>[A-Za-z]\w*)\s*(?::\s*(?P<weight>[^\s,:=]+))?")
_SHORT = {"T": "temperature"}
_GIVEN = {"student", "teacher", "batch", "side", "examples", "classes", "seed"}
_RANGES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "temperature": (lambda value: value > 0, "above 0"),
    "kd.alpha": (lambda value: 0 <= value <= 1, "a share in [0, 1]"),
    "label_smoothing": (lambda value: 0 <= value < 1, "a share in [0, 1)"),
}
"""What options must be, those of one objective by "objective.option"; others check theirs when they open."""
INITIAL_SHARE = 0.25
"""Of the steps, for objectives that are an initial stage of their own."""


class ObjectiveError(ValueError):
    """An objective that does not exist, cannot be read, or cannot be had on these networks or data."""


@dataclass(frozen=True)
class Schedule:
    """When a term counts, and how much; the same options for every objective.

    Attributes:
        ramp: the weight rises from 0 along a line over this share of the steps, in [0, 1].
        warmup: the weight rises from 0 along a line over so many epochs, 0 or more.
        until: the term stops after this share of the steps, in (0, 1]; 0.6 of `kd` is early-stopped distillation.
        initial: the term is alone for this share of the steps and gone afterwards, in [0, 1); 0 makes it a term like
            all others. Only of objectives that are an initial stage of their own, of which it is 0.25.
    """

    ramp: float = 0.0
    warmup: float = 0.0
    until: float = 1.0
    initial: float = 0.0

    def factor(self, progress: float, epoch: float) -> float:
        """What the weight is multiplied by after a share of the steps and so many epochs; in [0, 1]."""
        rise = 1.0 if progress >= self.ramp else progress / self.ramp
        return rise if epoch >= self.warmup else rise * epoch / self.warmup


@dataclass(frozen=True)
class Term:
    """One objective of a sum: `weight` times its loss with `options`, as pairs, when its `schedule` says so."""

    name: str
    weight: float = 1.0
    options: tuple[tuple[str, Value], ...] = ()
    schedule: Schedule = Schedule()

    @property
    def objective(self) -> Objective:
        """The objective of that name."""
        return OBJECTIVES[self.name]

    def options_of(self, function: object) -> dict[str, Value]:
        """Those options that a function of the objective (`loss`, `open`) takes."""
        return {name: value for name, value in self.options if name in _own(function)}

    def __str__(self) -> str:
        weight = "" if self.weight == WEIGHTS.get(self.name, 1.0) else f":{_text(self.weight)}"
        usual = _schedule(self.objective)
        said = [(name, value) for name, value in vars(self.schedule).items() if value != getattr(usual, name)]
        options = "".join(f",{name}={_text(value)}" for name, value in (*self.options, *said))
        return f"{self.name}{weight}{options}"


@dataclass(frozen=True)
class Expression:
    """A weighted sum of objectives: what the user wrote (`terms`) and what is trained on (`active`).

    Terms with an initial stage are alone at first; after them come the others, or `kd` where there are none. A sum that
    looks at feature maps alone has the cross-entropy of the labels beside it, with weight 1, for nothing else trains
    the classifier; where all terms have stopped, that cross-entropy is left.
    """

    terms: tuple[Term, ...]

    @property
    def initial_share(self) -> float:
        """Share of the steps that the initial stage takes; 0 where there is none."""
        return max(term.schedule.initial for term in self.terms)

    @property
    def main(self) -> tuple[Term, ...]:
        """The terms after the initial stage."""
        later = tuple(term for term in self.terms if not term.schedule.initial) or (Term("kd"),)
        return later if any(trains_classifier(term.objective) for term in later) else (*later, Term("ce"))

    @property
    def all(self) -> tuple[Term, ...]:
        """Every term that is trained on at some step."""
        first = tuple(term for term in self.terms if term.schedule.initial)
        return (*first, *self.main)

    def active(self, progress: float) -> tuple[Term, ...]:
        """The terms that count after a share of the steps, never none."""
        if progress < self.initial_share:
            return tuple(term for term in self.terms if progress < term.schedule.initial)
        return tuple(term for term in self.main if progress < term.schedule.until) or (Term("ce"),)

    @property
    def needs_teacher(self) -> bool:
        """Whether any term looks at the teacher."""
        return any(looks_at_teacher(term.objective) for term in self.all)

    @property
    def needs_features(self) -> bool:
        """Whether any term looks at feature maps."""
        return any(term.objective.needs.features != "none" for term in self.all)

    @property
    def needs_side(self) -> bool:
        """Whether any term brings modules of its own."""
        return any(term.objective.needs.side for term in self.all)

    def __str__(self) -> str:
        return " + ".join(map(str, self.terms))


def trains_classifier(objective: Objective) -> bool:
    """Whether a loss trains the classifier by itself: it has a cross-entropy of its own, or is one of logits."""
    return objective.labels_term or objective.needs.features == "none"


def looks_at_teacher(objective: Objective) -> bool:
    """Whether a loss compares with a teacher, as far as it says what it needs."""
    needs = objective.needs
    return needs.logits or needs.class_means or needs.features != "none"


@cache
def parse(text: str) -> Expression:
    """Reads an expression.

    Raises:
        ObjectiveError: it cannot be read, or names an objective, an option or a value that does not exist.
    """
    found = Expression(tuple(_term(part.strip(), text) for part in _PLUS.split(text)))
    if not any(term.weight for term in found.main):
        raise ObjectiveError(
            f"objective {text!r}: all weights are 0, so that nothing would be learned; give one a weight"
        )
    return found


def _term(part: str, text: str) -> Term:
    head, *pairs = (piece.strip() for piece in part.split(","))
    found = _HEAD.fullmatch(head)
    if found is None:
        raise ObjectiveError(
            f"objective {text!r}: cannot read {part!r}; expected NAME, NAME:WEIGHT or NAME:WEIGHT,OPTION=VALUE, with +"
            " between terms, e.g. 'kd:0.9,T=4 + similarity:3000'"
        )
    name = found["name"]
    if name not in OBJECTIVES:
        close = get_close_matches(name, OBJECTIVES, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ObjectiveError(f"unknown objective {name!r}{hint}; choose one of {', '.join(OBJECTIVES)}")
    weight = WEIGHTS.get(name, 1.0)
    if found["weight"] is not None:
        weight = _number(found["weight"], f"objective {name!r}: the weight")
        if weight < 0:
            raise ObjectiveError(f"objective {name!r}: the weight must be 0 or more; got {found['weight']}")
    return _with_options(name, weight, pairs)


def _with_options(name: str, weight: float, pairs: list[str]) -> Term:
    objective = OBJECTIVES[name]
    own = {**_own(objective.loss), **_own(objective.open)}
    schedule = vars(_schedule(objective)).copy()
    usual = {**schedule, **own}  # an objective's own option comes before one of the schedule
    given: dict[str, Value] = {}
    for pair in pairs:
        key, equals, value = (piece.strip() for piece in pair.partition("="))
        key = _SHORT[key] if key not in usual and _SHORT.get(key) in usual else key
        if not equals or key not in usual:
            known = ", ".join([*own, *(one for one in schedule if one not in own)])
            raise ObjectiveError(f"objective {name!r} has no option {key!r}; it has {known} (write OPTION=VALUE)")
        if key in given:
            raise ObjectiveError(f"objective {name!r}: option {key!r} is given twice; leave one out")
        given[key] = _value(value, usual[key], f"objective {name!r}: option {key!r}")
        holds, expected = _RANGES.get(f"{name}.{key}", _RANGES.get(key, (lambda value: True, "")))
        if not holds(given[key]):
            raise ObjectiveError(f"objective {name!r}: option {key!r} must be {expected}; got {value}")
    schedule.update({key: value for key, value in given.items() if key not in own})
    options = tuple(sorted((key, value) for key, value in given.items() if key in own and value != own[key]))
    return Term(name, weight, options, _checked(name, Schedule(**schedule)))


def _checked(name: str, schedule: Schedule) -> Schedule:
    faults = {
        "ramp": (0 <= schedule.ramp <= 1, "a share of the steps in [0, 1]"),
        "warmup": (schedule.warmup >= 0, "a number of epochs, 0 or more"),
        "until": (0 < schedule.until <= 1, "a share of the steps above 0 and at most 1"),
        "initial": (0 <= schedule.initial < 1, "a share of the steps in [0, 1)"),
    }
    for key, (holds, expected) in faults.items():
        if not holds:
            raise ObjectiveError(f"objective {name!r}: {key} must be {expected}; got {getattr(schedule, key):g}")
    return schedule


def _schedule(objective: Objective) -> Schedule:
    return Schedule(initial=INITIAL_SHARE) if objective.needs.initial else Schedule()


def _own(function: object) -> Mapping[str, Value | None]:
    """The options of a function and their defaults: its keyword-only parameters but for those that are provided."""
    if function is None or not callable(function):
        return {}
    parameters = inspect.signature(function).parameters.values()
    return {one.name: one.default for one in parameters if one.kind is one.KEYWORD_ONLY and one.name not in _GIVEN}


def _value(text: str, usual: Value | None, what: str) -> Value:
    """The value of an option, of the kind of its default."""
    if isinstance(usual, bool):
        if text.lower() not in ("true", "false"):
            raise ObjectiveError(f"{what} must be true or false; got {text!r}")
        return text.lower() == "true"
    if isinstance(usual, str):
        return text
    if isinstance(usual, tuple):
        return tuple(_number(part, what) for part in text.split("/"))
    number = _number(text, what)
    if not isinstance(usual, int):
        return number
    if number != int(number):
        raise ObjectiveError(f"{what} must be a whole number; got {text!r}")
    return int(number)


def _number(text: str, what: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ObjectiveError(f"{what} must be a finite number; got {text!r}")
    return number


def _text(value: Value) -> str:
    if isinstance(value, tuple):
        return "/".join(map(_text, value))
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    return str(value).lower() if isinstance(value, bool) else str(value)
