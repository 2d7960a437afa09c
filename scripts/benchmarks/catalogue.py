"""The catalogue of distillation objectives for the pages in `docs/`, from the registry and its docstrings."""

from __future__ import annotations

from rows import markdown

from n2n.distill.objectives import OBJECTIVES, WEIGHTS, Objective
from n2n.distill.objectives.expression import own_options, text_of

MAPS = {
    "none": "",
    "stages": "the last of every stage",
    "own_stages": "the student's, the last of every stage",
    "middle": "the last of the middle stage",
    "last": "the last of the last stage",
    "penultimate": "what enters the classifier",
    "stage_ends": "the first and the last of every stage",
}


def catalogue() -> str:
    """A line for each objective: what it is, its weight, its options, and what it looks at."""
    header = ("objective", "loss", "weight", "options", "maps", "besides")
    return markdown(header, [_line(one) for one in OBJECTIVES.values()])


def _line(one: Objective) -> tuple[str, ...]:
    said = (one.loss.__doc__ or "").split("\n\n")[0].split()
    options = {**own_options(one.loss), **own_options(one.open)}
    maps = MAPS[one.needs.features] + (", before the activation" if one.needs.before_activation else "")
    formula = " ".join(said).replace("||", "‖").replace("|", "\\|")
    given = ", ".join(f"`{name}={'' if value is None else text_of(value)}`" for name, value in options.items())
    return f"`{one.name}`", formula, f"{WEIGHTS.get(one.name, 1.0):g}", given, maps, "; ".join(_besides(one))


def _besides(one: Objective) -> list[str]:
    needs = one.needs
    noted = {
        "has a cross-entropy of the labels itself": one.labels_term and one.name != "ce",
        "alone first": needs.initial,
        "trains modules of its own": needs.side,
        "needs the labels": needs.labels and not one.labels_term,
        "no labels": needs.features == "none" and not needs.labels,
    }
    return [words for words, holds in noted.items() if holds]
