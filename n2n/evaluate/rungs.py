"""The rungs of a ladder of fidelities by name: what a user writes, and the recipe that it means."""

from __future__ import annotations

import re
from dataclasses import dataclass

from n2n.distill.objectives.expression import Expression, ObjectiveError, parse
from n2n.distill.recipe import Recipe, full_recipe, gentle, quick_recipe
from n2n.evaluate.distillation import STARTS
from n2n.scores import SCORES

EXAMPLES = "refit:0 (solved, no step), inherited:100 (100 steps), refit:60:logit_mse, inherited:3e (three epochs)"
QUICK = "kd"
"""The objective of rungs in steps where that of the search brings modules of its own."""
_DISTILLATION = re.compile(r"(?P<start>[a-z]+):(?P<length>\d+(?:\.\d+)?)(?P<epochs>e?)(?::(?P<objective>.+))?")


class RungError(ValueError):
    """The name of a rung that cannot be read; the message says what is expected."""


@dataclass(frozen=True)
class Rung:
    """One way of judging a student.

    Attributes:
        name: as the user wrote it.
        start: what the student starts from, one of `STARTS`.
        recipe: how it is trained; None where it is scored.
        short: whether it sees a subset that fits its steps, and a subset of the validation images; a rung in epochs
            sees all of both.
        score: by which it is scored without training, one of `SCORES`; empty where it is distilled.
    """

    name: str
    start: str
    recipe: Recipe | None
    short: bool
    score: str = ""

    @property
    def length(self) -> tuple[int, float]:
        """By which rungs are ordered: scores, then steps, then epochs."""
        if self.recipe is None:
            return 0, 0.0
        return (1, float(self.recipe.steps or 0)) if self.short else (2, self.recipe.epochs or 0.0)


def parse_rung(name: str, *, objective: str = "kd") -> Rung:
    """The rung of a name `START:STEPS[:OBJECTIVE]`, `START:EPOCHSe[:OBJECTIVE]` or `score:NAME`.

    Args:
        name: e.g. "refit:0", "inherited:100", "inherited:3e".
        objective: where the name has none; a rung in steps takes `kd` instead of one that brings modules of its own,
            which few steps would not train.

    Raises:
        RungError: not of that form, an unknown start or objective, one that brings modules of its own for a rung in
            steps, or a length that cannot judge anything.
    """
    kind, _, score = name.partition(":")
    if kind == "score":
        if score not in SCORES:
            raise RungError(f"rung {name!r}: unknown score {score!r}; choose one of {', '.join(SCORES)}")
        return Rung(name, "fresh", None, short=True, score=score)
    found = _DISTILLATION.fullmatch(name)
    if found is None or (not found["epochs"] and "." in found["length"]):
        raise RungError(f"rung {name!r}: expected START:STEPS or START:EPOCHSe, e.g. {EXAMPLES}")
    start = found["start"]
    if start not in STARTS:
        raise RungError(f"rung {name!r}: unknown start {start!r}; choose one of {', '.join(STARTS)}")
    asked = _objective(name, found["objective"], objective, short=not found["epochs"])
    length = float(found["length"])
    if length == 0 and (found["epochs"] or start == "fresh"):
        raise RungError(f"rung {name!r}: a length of 0 judges nothing; {EXAMPLES}")
    if length == 0 and found["objective"]:
        raise RungError(f"rung {name!r}: without a step nothing follows the objective; write {f'{start}:0'!r}")
    if found["epochs"]:
        recipe = full_recipe(epochs=length, objective=asked)
    else:
        recipe = quick_recipe(steps=int(length), objective=asked)
    return Rung(name, start, gentle(recipe) if start == "refit" else recipe, short=not found["epochs"])


def _objective(rung: str, named: str | None, otherwise: str, *, short: bool) -> str:
    """The objective of a rung: its own, or that of the search where this can be trained in so few steps.

    Raises:
        RungError: it does not exist, cannot be read, or brings modules of its own to a rung in steps.
    """
    try:
        asked = parse(named or otherwise)
    except ObjectiveError as error:
        raise RungError(f"rung {rung!r}: {error}") from error
    if not (short and asked.needs_side):
        return str(asked)
    if named is None:
        return QUICK
    raise RungError(f"rung {rung!r}: {_with_sides(asked)}; use {QUICK!r}, or a rung in epochs such as 'inherited:3e'")


def _with_sides(expression: Expression) -> str:
    names = [term.name for term in expression.all if term.objective.needs.side]
    return f"a few steps do not train the modules that {' and '.join(names)} has besides the student"


def parse_ladder(names: tuple[str, ...], *, objective: str = "kd") -> tuple[Rung, ...]:
    """The rungs of a ladder, cheapest first.

    Raises:
        RungError: a name that cannot be read, one that comes twice, a longer rung before a shorter one, or a score
            where accuracies are needed.
    """
    if len(set(names)) < len(names):
        raise RungError(f"ladder {', '.join(names)}: every rung may come once only")
    rungs = tuple(parse_rung(name, objective=objective) for name in names)
    alike = {(rung.start, rung.recipe, rung.score) for rung in rungs}
    if len(alike) < len(rungs):
        raise RungError(f"ladder {', '.join(names)}: two of the rungs judge alike; leave out one")
    if rungs and rungs[-1].score:
        raise RungError(f"ladder {', '.join(names)}: the last rung must give accuracies; add one, e.g. refit:0")
    ordered = cheapest_first(names)
    if ordered != names:
        raise RungError(f"ladder {', '.join(names)}: expected the cheapest rung first; say {', '.join(ordered)}")
    return rungs


def cheapest_first(names: tuple[str, ...]) -> tuple[str, ...]:
    """The rungs as they are, or, where a longer one comes before a shorter one of the same start, by their lengths."""
    rungs = [parse_rung(name) for name in names]
    turned = any(
        one.start == other.start and bool(one.score) == bool(other.score) and one.length > other.length
        for place, one in enumerate(rungs)
        for other in rungs[place:]
    )
    return tuple(one.name for one in sorted(rungs, key=lambda rung: rung.length)) if turned else names
