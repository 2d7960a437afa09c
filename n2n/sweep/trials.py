"""From a base, a grid and single trials to the list of searches, each with a name of its own."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LONGEST_NAME = 100
"""Characters of a trial's name, before the number that makes it unique; file systems allow 255 bytes."""


class SweepError(ValueError):
    """A sweep cannot start as asked; the message says what to change."""


@dataclass(frozen=True)
class Trial:
    """One search of a sweep.

    `settings` are keys of `n2n search`; `varied` are the values, defaults included, of the keys in which the trials of
    the sweep differ, those of the grid first. `name` is made of `varied`; it is safe as a file name.
    """

    name: str
    settings: Mapping[str, Any]
    varied: Mapping[str, Any]


def expand(
    base: Mapping[str, Any],
    grid: Mapping[str, Sequence[Any]],
    singles: Sequence[Mapping[str, Any]],
    defaults: Mapping[str, Any],
) -> tuple[Trial, ...]:
    """Every combination of the grid's values, the last key changing fastest, and then the single trials.

    Where both are empty the base alone is the only trial.

    Args:
        base: settings of all trials; grid and single trials win over it.
        grid: the values to combine, by key.
        singles: the keys in which each of the single trials differs from the base.
        defaults: what a key means that is not said.

    Raises:
        SweepError: a key of the grid has no values, or two trials are the same.
    """
    for key, values in grid.items():
        if not values:
            raise SweepError(f"grid: {key} = [] has no values; list one at least, or leave the key out")
    product = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    combined = product if grid or not singles else []
    merged = [{**base, **one} for one in (*combined, *singles)]
    full = [{**defaults, **one} for one in merged]
    _refuse_repeats(full, in_grid=len(combined))
    said = dict.fromkeys(key for one in (*combined, *singles) for key in one)  # a dict keeps the order
    varying = [key for key in said if len({_text(one.get(key)) for one in full}) > 1]
    varied = [{key: one.get(key) for key in varying} for one in full]
    names = unique([name_of(one) for one in varied])
    return tuple(Trial(*parts) for parts in zip(names, merged, varied, strict=True))


def _refuse_repeats(full: Sequence[Mapping[str, Any]], *, in_grid: int) -> None:
    """Raises `SweepError` where two trials have the same settings; they are told by where they were said."""
    places: dict[str, str] = {}
    for index, one in enumerate(full):
        place = f"combination {index + 1} of the grid" if index < in_grid else f"[[trials]] {index - in_grid + 1}"
        first = places.setdefault(_text(one), place)
        if first != place:
            raise SweepError(f"{place} is the same search as {first}; leave one out, or give it another seed")


def name_of(varied: Mapping[str, Any]) -> str:
    """`agent-reinforce_max_params-10_seed-0`: keys and values, of letters, digits, dot, minus and underscore only."""
    parts = [f"{key}-{_word(value)}" for key, value in varied.items()]
    return "_".join(parts)[:LONGEST_NAME].rstrip(".") or "trial"


def unique(names: Sequence[str]) -> list[str]:
    """The names, with `-2`, `-3`, ... behind those that were there before, whatever their case (so some disks read)."""
    taken: set[str] = set()
    made = []
    for name in names:
        tried = (name if number == 1 else f"{name}-{number}" for number in itertools.count(1))
        new = next(one for one in tried if one.casefold() not in taken)
        taken.add(new.casefold())
        made.append(new)
    return made


def _word(value: Any) -> str:
    """A value as part of a file name; of a path its last part says the most."""
    text = value.rstrip("/").rpartition("/")[2] if isinstance(value, str) else "" if value is None else _text(value)
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-") or "none"


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
