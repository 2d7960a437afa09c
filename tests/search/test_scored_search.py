"""Searches that judge by a training-free score: what is rewarded, stored, chosen and gone on with."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import n2n
from n2n.data import Data
from n2n.distill.fit import train_teacher
from n2n.evaluate.base import Status
from n2n.job import SearchResult
from n2n.networks import build_teacher
from n2n.reward import score_share
from n2n.scores import NEEDS_TEACHER, SCORES
from n2n.search.checks import SAME_WIDTH
from n2n.search.errors import SearchError
from n2n.search.files import read_json
from n2n.search.options import SearchOptions
from n2n.search.store import Record, read_records

SMALL: dict[str, Any] = {
    "agent": "reinforce",
    "evaluations": 16,
    "rollouts": 4,
    "factors": (0.125, 0.25, 0.5, 1.0),
    "final_epochs": 0.1,
    "finalists": 1,
    "threads": 1,
    "progress": False,
}


@pytest.fixture(scope="module")
def teacher(digits: Data) -> nn.Module:
    network = build_teacher("mlp", inputs=64, hidden=(32, 32, 32), classes=10, seed=0)
    train_teacher(network, digits.training, epochs=3, batch_size=32)
    return network


def search(network: nn.Module, data: Data, out: Path, **changed: Any) -> SearchResult:
    return n2n.search(network, None, data, out=out, **{**SMALL, "evaluate": "synflow", **changed})


def rows(out: Path) -> list[Record]:
    """The records without what another run measures anew."""
    timed = {"seconds": 0.0, "latency_ms": None, "latency_iqr_ms": None, "latency_device": None}
    return [replace(one, evaluation=replace(one.evaluation, **timed)) for one in read_records(out)]


@pytest.mark.parametrize("agent", ["reinforce", "evolution", "random", "uniform", "ppo"])
def test_every_agent_searches_by_a_score(teacher: nn.Module, digits: Data, tmp_path: Path, agent: str) -> None:
    result = search(teacher, digits, tmp_path, agent=agent, max_params="40%")
    judged = [one.evaluation for one in read_records(tmp_path) if one.evaluation.status is Status.OK]
    assert result.evaluations <= 16
    assert all(one.accuracy is None and one.score is not None for one in judged)
    assert result.students[0].figures.test_accuracy > 0.3, "the chosen is distilled, from the teacher's weights"
    assert result.meets_budget
    assert "training-free score" in (tmp_path / "report.md").read_text()
    header, first, *_ = (tmp_path / "front.csv").read_text().splitlines()
    values = dict(zip(header.split(","), first.split(","), strict=False))
    assert values["accuracy"] == ""
    assert float(values["score"]) == result.front[0].score


def test_the_best_scored_student_within_the_budget_is_chosen(teacher: nn.Module, digits: Data, tmp_path: Path) -> None:
    result = search(teacher, digits, tmp_path, max_params="40%", removal=False, agent="random", evaluate="params")
    fine = [one for one in read_records(tmp_path) if one.evaluation.status is Status.OK]
    best = max(fine, key=lambda one: one.reward)
    assert result.students[0].fingerprint == best.evaluation.fingerprint
    whole = 32 * 64 + 32 + 2 * (32 * 32 + 32) + 32 * 10 + 10
    for one in fine:  # by hand: C (2 - C) q, where the score is the number of parameters
        c = 1 - one.evaluation.parameters / whole
        assert 0 < one.reward < 1
        share = one.reward / (c * (2 - c))
        above = [other for other in fine if other.evaluation.parameters > one.evaluation.parameters]
        for other in above:
            more = 1 - other.evaluation.parameters / whole
            assert other.reward / (more * (2 - more)) > share, "the higher the score, the higher its share"


def test_latency_holds_where_it_is_bounded(teacher: nn.Module, digits: Data, tmp_path: Path) -> None:
    search(teacher, digits, tmp_path, max_latency_ms=1000, evaluations=6, shrinkage=False)
    judged = [one.evaluation for one in read_records(tmp_path) if one.evaluation.status is Status.OK]
    assert judged
    assert all(one.latency_ms is not None and one.latency_device for one in judged)


def test_a_resumed_run_goes_on_as_it_would_have(teacher: nn.Module, digits: Data, tmp_path: Path) -> None:
    class Fuse(nn.Module):
        """Interrupts at a forward pass; a copy shares it."""

        left = -1

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            Fuse.left -= 1
            if Fuse.left == 0:
                raise KeyboardInterrupt
            return x * 1.0

    network = nn.Sequential(Fuse(), teacher)
    how: dict[str, Any] = {"ignored_layers": ("0",), "agent": "evolution", "population": 4, "tournament": 2}
    whole = search(network, digits, tmp_path / "whole", **how)
    counted = Fuse.left
    search(network, digits, tmp_path / "again", **how)
    passes = counted - Fuse.left
    assert rows(tmp_path / "again") == rows(tmp_path / "whole")
    Fuse.left = passes // 2
    cut = search(network, digits, tmp_path / "cut", **how)
    assert cut.stopped == "interrupted"
    result = search(network, digits, tmp_path / "cut", resume=True, **how)
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
    assert [one.fingerprint for one in result.students] == [one.fingerprint for one in whole.students]


def test_a_cache_saves_scoring(teacher: nn.Module, digits: Data, tmp_path: Path) -> None:
    search(teacher, digits, tmp_path / "cold", cache=tmp_path / "judged.sqlite")
    warm = search(teacher, digits, tmp_path / "warm", cache=tmp_path / "judged.sqlite")
    assert rows(tmp_path / "warm") == rows(tmp_path / "cold")
    assert warm.reused > warm.evaluations / 2, "the reference students, too"


@pytest.mark.ray
@pytest.mark.slow
def test_workers_give_the_same_rows(teacher: nn.Module, digits: Data, tmp_path: Path) -> None:
    search(teacher, digits, tmp_path / "one")
    search(teacher, digits, tmp_path / "two", workers=2)
    assert rows(tmp_path / "two") == rows(tmp_path / "one")


@pytest.mark.parametrize("score", SAME_WIDTH)
def test_scores_that_compare_channels_are_refused_at_the_door(
    teacher: nn.Module, digits: Data, tmp_path: Path, score: str
) -> None:
    with pytest.raises(SearchError, match=rf"'{score}' compares the 32 channels .* take 'diswot_free'"):
        search(teacher, digits, tmp_path / "run", evaluate=score)
    assert not (tmp_path / "run").exists()
    with pytest.raises(SearchError, match="diswot_free"):
        search(teacher, digits, tmp_path / "run", evaluate=None, prefilter=score)
    result = search(teacher, digits, tmp_path / "kept", evaluate=score, shrinkage=False, evaluations=4)
    assert result.students, "without shrinkage every student has the teacher's width there"


def test_the_scores_that_compare_channels_are_known() -> None:
    assert set(SAME_WIDTH) < NEEDS_TEACHER
    assert {"diswot_free", "diswot_relation"} <= NEEDS_TEACHER - set(SAME_WIDTH)


def test_the_options_are_kept(teacher: nn.Module, digits: Data, tmp_path: Path) -> None:
    search(teacher, digits, tmp_path, agent="evolution", population=5, tournament=2, evaluations=4)
    config = read_json(tmp_path / "config.json")
    assert (config["evaluate"], config["population"], config["tournament"]) == ("synflow", 5, 2)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"evaluate": "best"}, "evaluate='best' does not exist; choose one of params, macs"),
        ({"prefilter": "best"}, "prefilter='best' does not exist"),
        ({"evaluate": "az_nas"}, "evaluate='az_nas' is an aggregate, .* take one of its parts .az_expressivity"),
        ({"evaluate": "naswot", "steps": 5}, "judges students without distilling any, so that steps=5"),
        ({"evaluate": "naswot", "ladder": ("refit:0",)}, "so that ladder="),
        ({"evaluate": "naswot", "prefilter": "macs"}, "so that prefilter='macs'"),
        ({"prefilter_ratio": 4}, "prefilter_ratio=4 without a prefilter"),
        ({"prefilter": "naswot", "prefilter_ratio": 1}, "expected 2 or more"),
        ({"prefilter": "naswot", "ladder": ("score:macs", "refit:0")}, "both choose by a score"),
        ({"prefilter": "naswot", "workers": 2, "asynchronous": True}, "prefilter compares the rollouts of a batch"),
        ({"population": 5}, "population=5 with agent='reinforce' has no effect"),
        ({"agent": "evolution", "population": 2}, "population=2 and tournament=3: expected"),
        ({"agent": "evolution", "tournament": 0}, "tournament=0"),
    ],
)
def test_what_cannot_be_is_refused(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(SearchError, match=words):
        SearchOptions(**changed)


def test_what_a_score_is_worth() -> None:
    reference = (10.0, 2.0, 4.0, 4.0)  # 2, 4, 10: a quarter, a half, three quarters; w = 8
    shares = {value: score_share(value, reference) for value in (-6.0, 2.0, 3.0, 4.0, 7.0, 10.0, 18.0, 34.0)}
    expected = {-6.0: 1 / 8, 2.0: 1 / 4, 3.0: 3 / 8, 4.0: 1 / 2, 7.0: 5 / 8, 10.0: 3 / 4, 18.0: 7 / 8, 34.0: 15 / 16}
    assert shares == pytest.approx(expected)
    assert score_share(5.0, (5.0,)) == 0.5
    assert score_share(10.0, (5.0,)) == 0.75
    assert score_share(0.0, (0.0, 0.0)) == 0.5
    with pytest.raises(ValueError, match="found none"):
        score_share(1.0, ())


@pytest.mark.parametrize("scale", [1.0, 1e20, 1e-9])
def test_shares_rise_with_the_score_and_do_not_mind_the_scale(scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    reference = torch.randn(16, generator=generator).double()
    values = torch.randn(200, generator=generator).double().mul(3).sort().values
    found = [score_share(value * scale, [one * scale for one in reference.tolist()]) for value in values.tolist()]
    assert all(0 < low < high < 1 for low, high in itertools.pairwise(found))
    plain = [score_share(value, reference.tolist()) for value in values.tolist()]
    assert found == pytest.approx(plain)


def test_every_score_has_a_name_that_can_be_said() -> None:
    for name in SCORES:
        assert SearchOptions(evaluate=name).scores == (name,)
        assert SearchOptions(prefilter=name).scores == (name,)
