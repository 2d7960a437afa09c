"""Settings: defaults, then the file, then the flags; whatever is wrong is named with what would be right."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

import n2n
from n2n.agents import AGENTS
from n2n.cli.config import ConfigError, EvaluateSettings, SearchSettings, assignments, known, settings
from n2n.cli.search import arguments


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "n2n.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_flags_win_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    file = write(tmp_path, "evaluations = 7\nrollouts = 3\nfactors = [0.5, 1.0]\n")
    made = settings(SearchSettings, file, {"evaluations": 9})
    assert (made.evaluations, made.rollouts, made.factors, made.steps) == (9, 3, (0.5, 1.0), 60)


def test_network_arguments_of_file_and_flags_are_merged(tmp_path: Path) -> None:
    file = write(tmp_path, "[network_args]\nwidth = 4\nclasses = 10\n")
    made = settings(SearchSettings, file, {"network_args": {"width": 8}})
    assert made.network_args == {"width": 8, "classes": 10}


def test_an_unknown_key_of_the_file_is_refused_with_the_valid_ones(tmp_path: Path) -> None:
    file = write(tmp_path, "evalutions = 7\n")
    with pytest.raises(ConfigError, match=r"n2n.toml: unknown key 'evalutions' \(did you mean 'evaluations'"):
        settings(SearchSettings, file, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("evaluations = 0", "evaluations: .*greater than 0.*found 0"),
        ('removal = "perhaps"', "removal: .*found 'perhaps'"),
        ('granularity = "atom"', "granularity: .*'layer' or 'block'"),
        ('agent = "reinforced"', "unknown agent 'reinforced' .*did you mean 'reinforce'"),
        ('objective = "kl"', "unknown objective 'kl'.*logit_mse"),
        ('device = "gpu"', "unknown device 'gpu'.*cpu"),
        ('device = "mps"', "device 'mps': this PyTorch sees no mps device; use --device cpu"),
        ('device = "cuda:99"', "device 'cuda:99': this PyTorch sees"),
        ('device = "cuda:x"', "device 'cuda:x': expected auto, cpu"),
        ("threads = 0", "threads 0: expected auto, or a number from 1"),
        ("threads = true", "threads True: expected auto"),
        ("workers = -1", "workers -1: expected auto, or a number"),
        ('workers = "all"', "workers 'all': expected auto"),
        ('threads = "all"', "threads 'all': expected auto"),
        ("evaluations =", "is not TOML"),
    ],
)
def test_a_bad_value_is_named_with_what_was_expected(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(SearchSettings, write(tmp_path, text), {})


def test_a_bad_flag_is_named_as_a_flag() -> None:
    with pytest.raises(ConfigError, match=r"--seed: .*found -1"):
        settings(EvaluateSettings, None, {"seed": -1})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: No such file"):
        settings(EvaluateSettings, tmp_path / "none.toml", {})


@pytest.mark.parametrize(("key", "value"), [("kernels", True), ("kernels", False)])
def test_what_the_search_takes_as_it_is(key: str, value: bool) -> None:
    made = settings(SearchSettings, None, {key: value})
    assert arguments(made)[key] is value
    assert set(arguments(made)) <= set(inspect.signature(n2n.search).parameters)


def test_workers_are_a_number_or_as_many_as_fit(tmp_path: Path) -> None:
    assert settings(SearchSettings, None, {}).workers == 0
    given = {"workers": "3", "address": "auto", "gpus_per_worker": 0.25}
    passed = arguments(settings(SearchSettings, write(tmp_path, 'workers = "auto"\n'), given))
    assert (passed["workers"], passed["address"], passed["gpus_per_worker"]) == (3, "auto", 0.25)
    assert settings(SearchSettings, write(tmp_path, 'workers = "auto"\n'), {}).workers == "auto"


def test_threads_are_a_number_or_measured(tmp_path: Path) -> None:
    assert settings(SearchSettings, None, {}).threads == "auto"
    assert settings(SearchSettings, write(tmp_path, "threads = 1\n"), {}).threads == 1
    assert arguments(settings(SearchSettings, write(tmp_path, "threads = 1\n"), {"threads": "2"}))["threads"] == 2
    assert settings(SearchSettings, write(tmp_path, "threads = 1\n"), {"threads": "auto"}).threads == "auto"


def test_every_agent_is_a_valid_name() -> None:
    for name in AGENTS:
        assert settings(SearchSettings, None, {"agent": name}).agent == name


def test_known_lists_all_names() -> None:
    assert known("a", ("a", "b"), "letter") == "a"
    with pytest.raises(ConfigError, match="unknown letter 'zzz'; valid: a, b"):
        known("zzz", ("a", "b"), "letter")


def test_assignments_read_json_values_and_plain_words() -> None:
    read = assignments(["width=8", "hidden=[32, 16]", "name=wide", "bias=true", "drop-out=0.5"])
    assert read == {"width": 8, "hidden": [32, 16], "name": "wide", "bias": True, "drop_out": 0.5}
    with pytest.raises(ConfigError, match="expected NAME=VALUE"):
        assignments(["width"])
