"""The file of a sweep: what is wrong in it is named before anything starts, and what is kept reads back the same."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from n2n.cli.config import ConfigError
from n2n.cli.sweep_config import read_sweep, to_toml, toml_value, trials_of
from n2n.sweep.trials import SweepError


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "sweep.toml"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, with a teacher's."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "teacher").mkdir()
    return tmp_path


GOOD = """
trials_at_once = 3
scheduler = "asha"
[base]
teacher = "teacher"
evaluations = 9
[grid]
agent = ["reinforce", "uniform"]
max_params = ["10%", 200]
[[trials]]
agent = "evolution"
network_args = {width = 8, "odd key" = [1.5, true]}
"""


def test_a_sweep_is_read_and_its_trials_are_searches(here: Path) -> None:
    found = read_sweep(write(here, GOOD), {"out": Path("runs/all")})
    assert (found.trials_at_once, found.scheduler, found.retries, found.out) == (3, "asha", 2, here / "runs/all")
    trials, searches = trials_of(found)
    assert [one.name for one in trials][0::4] == [
        "agent-reinforce_max_params-10_network_args-none",
        "agent-evolution_max_params-none_network_args-odd-key-1.5-true-width-8",
    ]
    first = searches[trials[0].name]
    assert (first.teacher, first.evaluations, first.threads) == (here / "teacher", 9, 1)


def test_what_is_kept_reads_back_the_same(here: Path) -> None:
    found = read_sweep(write(here, GOOD), {})
    kept = here / "kept.toml"
    kept.write_text(to_toml(found), encoding="utf-8")
    assert read_sweep(kept, {}) == found


texts = st.text(st.characters(codec="utf-8"))
values = st.recursive(
    st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


@given(values)
@settings(deadline=None)
def test_values_survive_toml(value: object) -> None:
    assert tomllib.loads(f"key = {toml_value(value)}")["key"] == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trials_at_one = 2", r"unknown key 'trials_at_one' \(did you mean 'trials_at_once'"),
        ("trials_at_once = 0", "trials_at_once: .*greater than 0.*found 0"),
        ('scheduler = "pbt"', "scheduler: .*'none' or 'asha'"),
        ("[base]\nmax_parms = 1", r"base: unknown key 'max_parms' \(did you mean 'max_params'"),
        ("[grid]\nsed = [1]", r"grid: unknown key 'sed' \(did you mean 'seed'"),
        ("[grid]\nseed = 1", "grid: .*list.*found 1"),
        ("[[trials]]\n[[trials]]\nagnt = 'ppo'", r"\[\[trials\]\] 2: unknown key 'agnt' \(did you mean 'agent'"),
        ("[base]\nworkers = 2", "base: workers is not for a trial: trials run in parallel: say trials_at_once"),
        ("[grid]\naddress = ['auto']", "grid: address is not for a trial: say it at the top of the file"),
        ("[base]\nout = 'x'", "out is not for a trial: each trial has its own folder"),
        ("[base]\nseed = 1", "trial trial: no teacher: say teacher = FOLDER"),
        ("[base]\nteacher = 'nowhere'", "trial trial: teacher = .*nowhere is not there"),
        ("[base]\nteacher = 'teacher'\ncache = 'no/where.sqlite'", "there is no folder .*/no"),
        (
            "[base]\nteacher = 'teacher'\n[grid]\nagent = ['uniform', 'reinforced']",
            "trial agent-reinforced: unknown agent 'reinforced' .*did you mean 'reinforce'",
        ),
        (
            "[base]\nteacher = 'teacher'\n[grid]\nmax_params = ['10%', '200%']",
            "trial max_params-200: max_params: .*200%",
        ),
        (
            "[base]\nteacher = 'teacher'\nstart = 'inherited'\n[grid]\nsteps = [10, 0]",
            "trial steps-0: steps=0 must be at least 1",
        ),
    ],
)
def test_whatever_is_wrong_is_named_with_its_place(here: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        trials_of(read_sweep(write(here, text), {}))


def test_a_repeated_search_is_refused(here: Path) -> None:
    with pytest.raises(SweepError, match="is the same search as"):
        trials_of(read_sweep(write(here, "[base]\nteacher = 'teacher'\n[grid]\nsteps = [60]\n[[trials]]"), {}))


def test_storage_may_be_a_uri_or_a_path(here: Path) -> None:
    assert read_sweep(write(here, 'storage = "s3://bucket/sweeps"'), {}).storage == "s3://bucket/sweeps"
    assert read_sweep(write(here, 'storage = "shared"'), {}).storage == str(here / "shared")
