"""The trials of a sweep: every combination once, each under a name of its own that every file system takes."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from n2n.sweep.trials import SweepError, expand, name_of, unique

DEFAULTS = {"agent": "reinforce", "max_params": None, "seed": 0, "steps": 100, "evaluations": 60}
keys = st.sampled_from(["agent", "max_params", "seed", "steps"])
values = st.one_of(st.integers(-3, 10**6), st.text(max_size=150), st.floats(allow_nan=False), st.lists(st.integers()))
grids = st.dictionaries(keys, st.lists(values, min_size=1, max_size=3, unique_by=repr), max_size=3)


@given(grids)
@settings(deadline=None)
def test_a_grid_is_every_combination_once(grid: dict[str, list[object]]) -> None:
    trials = expand({"evaluations": 5}, grid, [], DEFAULTS)
    wanted = [dict(zip(grid, one, strict=True)) for one in itertools.product(*grid.values())]
    assert [{key: one.settings[key] for key in grid} for one in trials] == wanted
    assert all(one.settings["evaluations"] == 5 for one in trials)
    assert {key for one in trials for key in one.varied} == {key for key, of in grid.items() if len(of) > 1}


@given(grids)
@settings(deadline=None)
def test_names_are_unique_and_safe(grid: dict[str, list[object]]) -> None:
    names = [one.name for one in expand({}, grid, [], DEFAULTS)]
    assert len({name.casefold() for name in names}) == len(names)
    for name in names:
        assert re.fullmatch(r"[A-Za-z][A-Za-z0-9._-]*", name)
        assert len(name.encode()) <= 120
        assert Path(name).name == name


def test_a_grid_with_single_trials_beside_it() -> None:
    grid = {"agent": ["reinforce", "uniform"], "seed": [0, 1]}
    trials = expand({"steps": 5}, grid, [{"agent": "evolution", "steps": 9}], DEFAULTS)
    assert [one.name for one in trials] == [
        "agent-reinforce_seed-0_steps-5",
        "agent-reinforce_seed-1_steps-5",
        "agent-uniform_seed-0_steps-5",
        "agent-uniform_seed-1_steps-5",
        "agent-evolution_seed-0_steps-9",
    ]
    assert trials[4].settings == {"agent": "evolution", "steps": 9}
    assert trials[4].varied == {"agent": "evolution", "seed": 0, "steps": 9}  # the seed is the default


def test_only_single_trials_and_none_at_all() -> None:
    assert [one.settings for one in expand({"steps": 5}, {}, [{"seed": 1}, {}], DEFAULTS)] == [
        {"steps": 5, "seed": 1},
        {"steps": 5},
    ]
    (alone,) = expand({"steps": 5}, {}, [], DEFAULTS)
    assert (alone.name, alone.varied) == ("trial", {})


def test_names_speak_of_values() -> None:
    assert name_of({"max_params": "10%", "teacher": "/runs/big/", "ladder": ["refit:0", "refit:60"]}) == (
        "max_params-10_teacher-big_ladder-refit-0-refit-60"
    )
    assert unique(["a", "A", "b", "a", "a-2"]) == ["a", "A-2", "b", "a-3", "a-2-2"]


def test_a_key_without_values_is_refused() -> None:
    with pytest.raises(SweepError, match=r"grid: seed = \[\] has no values"):
        expand({}, {"seed": []}, [], DEFAULTS)


def test_the_same_search_twice_is_refused_by_place() -> None:
    with pytest.raises(SweepError, match="combination 2 of the grid is the same search as combination 1"):
        expand({}, {"seed": [1, 1]}, [], DEFAULTS)
    with pytest.raises(SweepError, match=r"\[\[trials\]\] 2 is the same search as combination 1 of the grid"):
        expand({}, {"seed": [0, 1]}, [{"seed": 2}, {}], DEFAULTS)  # it takes the default seed, 0
