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
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache

from n2n.distill.objectives import OBJECTIVES, WEIGHTS
from n2n.distill.objectives.base import Objective
from n2n.distill.objectives.ranges import range_of

Value = bool | int | float | str | tuple[float, ...]
_PLUS = re.compile(r"\+(?=\s*[A-Za-z_])")  # not that of 1e+5
_HEAD = re.compile(r"(?P<name>[A-Za-z]\w*)\s*(?::\s*(?P<weight>[^\s,:=]+))?")
_SHORT = {"T": "temperature"}
_GIVEN = {"student", "teacher", "batch", "side", "examples", "classes", "seed"}
INITIAL_SHARE = 0.25
"""Of the steps, for objectives that are an initial stage of their own."""


class ObjectiveError(ValueError):
    """An objective that does not exist, cannot be read, or cannot be had on these networks or data."""


@dataclass(frozen=True)
class Schedule:
    """When a term counts, and how much; the same options for every objective.

    Attributes:
        ramp: the weight rises from 0 along a line over this share of the steps, in [0, 1], once the term begins.
        warmup: the weight rises from 0 along a line over so many epochs, 0 or more, once the term begins.
        until: the term stops after this share of the steps, in (0, 1]; 0.6 of `kd` is early-stopped distillation.
        initial: the term is alone for this share of the steps and gone afterwards, in [0, 1); 0 makes it a term like
            all others. Where it is not said it is 0.25 of objectives that are an initial stage in their paper, else 0.
    """

    ramp: float = 0.0
    warmup: float = 0.0
    until: float = 1.0
    initial: float = 0.0

    def factor(self, progress: float, epoch: float, start: float = 0.0) -> float:
        """What the weight is multiplied by after a share of the steps and so many epochs; in [0, 1].

        Args:
            progress: share of the steps done, `start` at least.
            epoch: epochs done, with fraction.
            start: after which share of the steps the term has begun.
        """
        since = progress - start
        epochs = epoch * since / progress if start else epoch
        rise = 1.0 if since >= self.ramp else since / self.ramp
        return rise if epochs >= self.warmup else rise * epochs / self.warmup


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
        return {name: value for name, value in self.options if name in own_options(function)}

    def __str__(self) -> str:
        weight = "" if self.weight == WEIGHTS.get(self.name, 1.0) else f":{text_of(self.weight)}"
        usual = _schedule(self.objective)
        said = [(name, value) for name, value in vars(self.schedule).items() if value != getattr(usual, name)]
        options = "".join(f",{name}={text_of(value)}" for name, value in (*self.options, *said))
        return f"{self.name}{weight}{options}"


@dataclass(frozen=True)
class Expression:
    """A weighted sum of objectives: what the user wrote (`terms`) and what is trained on (`active`).

    Terms with an initial stage are alone at first; after them come the others, or `kd` where there are none. While
    those that count look at feature maps alone, or have the weight 0, the cross-entropy of the labels is beside them,
    with weight 1, for nothing else trains the classifier: from the start, once the others have stopped, and where all
    have. `ce:0` leaves it out.
    """

    terms: tuple[Term, ...]

    @property
    def initial_share(self) -> float:
        """Share of the steps that the initial stage takes; 0 where there is none."""
        return max(term.schedule.initial for term in self.terms)

    @property
    def main(self) -> tuple[Term, ...]:
        """The terms after the initial stage, without a cross-entropy that was not asked for."""
        return tuple(term for term in self.terms if not term.schedule.initial) or (Term("kd"),)

    @property
    def all(self) -> tuple[Term, ...]:
        """Every term that is trained on at some step, without a cross-entropy that was not asked for."""
        first = tuple(term for term in self.terms if term.schedule.initial)
        return (*first, *self.main)

    def active(self, progress: float) -> tuple[Term, ...]:
        """The terms that count after a share of the steps, never none."""
        if progress < self.initial_share:
            return tuple(term for term in self.terms if progress < term.schedule.initial)
        left = tuple(term for term in self.main if progress < term.schedule.until)
        return left if any(map(trains_classifier, left)) else (*left, Term("ce"))

    def factor(self, term: Term, progress: float, epoch: float) -> float:
        """What the weight of an active term is multiplied by, see `Schedule.factor`."""
        return term.schedule.factor(progress, epoch, 0.0 if term.schedule.initial else self.initial_share)

    @property
    def needs_teacher(self) -> bool:
        """Whether any term looks at the teacher."""
        return any(looks_at_teacher(term.objective) for term in self.all)

    @property
    def needs_features(self) -> bool:
        """Whether any term looks at feature maps, or at the means of the classes, which are of such."""
        needs = [term.objective.needs for term in self.all]
        return any(one.features != "none" or one.class_means for one in needs)

    @property
    def needs_side(self) -> bool:
        """Whether any term brings modules of its own."""
        return any(term.objective.needs.side for term in self.all)

    def __str__(self) -> str:
        return " + ".join(map(str, self.terms))


def trains_classifier(term: Term) -> bool:
    """Whether a term trains the classifier: it has a cross-entropy of its own or is one of logits, and has a weight.

    So does every `ce` that was asked for, with whatever weight.
    """
    of_logits = term.objective.labels_term or term.objective.needs.features == "none"
    return term.name == "ce" or (term.weight > 0 and of_logits)


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
    if not any(term.weight for term in found.terms):
        raise ObjectiveError(
            f"objective {text!r}: all weights are 0, so that nothing would be learned; give one a weight"
        )
    for term in found.terms:
        _check_times(term, found.initial_share)
    return found


def _check_times(term: Term, initial_share: float) -> None:
    """Refuses a term that ends before it begins, or whose end means nothing."""
    until, initial = term.schedule.until, term.schedule.initial
    if initial and until < 1:
        raise ObjectiveError(
            f"objective {term.name!r} ends with its stage, the first {initial:g} of the steps: say initial={until:g}"
            f" instead of until={until:g}, or initial=0 too, for a term like the others"
        )
    if not initial and until <= initial_share:
        raise ObjectiveError(
            f"objective {term.name!r} would stop at {until:g} of the steps, before it begins: another term is alone for"
            f" the first {initial_share:g}; say a later until"
        )


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
    own = {**own_options(objective.loss), **own_options(objective.open)}
    schedule = vars(_schedule(objective)).copy()
    usual = {**schedule, **own}  # an objective's own option comes before one of the schedule
    given: dict[str, Value] = {}
    for pair in pairs:
        key, equals, value = (piece.strip() for piece in pair.partition("="))
        key = _SHORT[key] if key not in usual and _SHORT.get(key) in usual else key
        if key not in usual:
            known = ", ".join([*own, *(one for one in schedule if one not in own)])
            raise ObjectiveError(f"objective {name!r} has no option {key!r}; it has {known}")
        if not equals:
            raise ObjectiveError(f"objective {name!r}: option {key!r} has no value; write {key}={text_of(usual[key])}")
        if key in given:
            raise ObjectiveError(f"objective {name!r}: option {key!r} is given twice; leave one out")
        given[key] = _value(value, usual[key], f"objective {name!r}: option {key!r}")
        expected = range_of(name, key)
        if expected is not None and not expected.holds(given[key]):
            raise ObjectiveError(f"objective {name!r}: option {key!r} must be {expected.expected}; got {value}")
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


def own_options(function: object) -> Mapping[str, Value | None]:
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


def text_of(value: Value) -> str:
    """The value of an option as it is written in an expression."""
    if isinstance(value, tuple):
        return "/".join(map(text_of, value))
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    return str(value).lower() if isinstance(value, bool) else str(value)
