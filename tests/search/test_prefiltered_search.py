"""Searches that distil only what a score lets through: what is stored and counted, and gone on with."""

from __future__ import annotations

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
from n2n.search.files import read_json
from n2n.search.query import query
from n2n.search.store import Record, first_judgements, read_records

SMALL: dict[str, Any] = {
    "agent": "reinforce",
    "evaluations": 12,
    "rollouts": 3,
    "steps": 3,
    "factors": (0.125, 0.25, 0.5, 1.0),
    "final_epochs": 0.1,
    "finalists": 1,
    "threads": 1,
    "progress": False,
    "removal": False,
    "prefilter": "synflow",
    "prefilter_ratio": 4,
}


@pytest.fixture(scope="module")
def teacher(digits: Data) -> nn.Module:
    network = build_teacher("mlp", inputs=64, hidden=(32, 32, 32), classes=10, seed=0)
    train_teacher(network, digits.training, epochs=3, batch_size=32)
    return network


def search(network: nn.Module, data: Data, out: Path, **changed: Any) -> SearchResult:
    return n2n.search(network, None, data, out=out, **{**SMALL, **changed})


def rows(out: Path) -> list[Record]:
    """The records without what another run measures anew."""
    timed = {"seconds": 0.0, "latency_ms": None, "latency_iqr_ms": None, "latency_device": None}
    return [replace(one, evaluation=replace(one.evaluation, **timed)) for one in read_records(out)]


@pytest.mark.parametrize("agent", ["reinforce", "evolution", "random", "uniform", "ppo"])
def test_only_some_are_distilled_and_only_these_count(
    teacher: nn.Module, digits: Data, tmp_path: Path, agent: str
) -> None:
    result = search(teacher, digits, tmp_path, agent=agent)
    records = read_records(tmp_path)
    judged = {one.evaluation.fingerprint for one in first_judgements(records) if one.evaluation.accuracy is not None}
    held = {one.evaluation.fingerprint for one in records if one.evaluation.filtered} - judged
    assert len(judged) == result.evaluations <= 12
    assert result.filtered == len(held)
    assert held or agent == "uniform", "its levels are too few to choose among"
    batches: dict[int, list[Record]] = {}
    for one in records:
        batches.setdefault(one.iteration, []).append(one)
    for index, batch in batches.items():
        assert len(batch) <= (3 if index < 2 else 12), "the first six are distilled without a choice"
        fresh = [one for one in batch if not one.cached and one.evaluation.accuracy is not None]
        assert len(fresh) <= 3
    for one in records:
        if one.evaluation.filtered:
            assert one.evaluation.status is Status.OK
            assert one.evaluation.accuracy is None
            assert one.evaluation.score is not None
            assert one.evaluation.estimate is not None
            assert "synflow" in one.evaluation.fidelity
    assert result.students[0].fingerprint in judged
    assert all(one.fingerprint in judged for one in result.front)
    saved = read_json(tmp_path / "result.json")
    assert (saved["evaluations"], saved["filtered"]) == (result.evaluations, result.filtered)
    told = f"{len(held)} more students were scored and held back" in (tmp_path / "report.md").read_text()
    assert told == bool(held)
    answer = query(tmp_path, "SELECT count(DISTINCT fingerprint) FROM evaluations WHERE rung = 'prefilter:synflow'")
    assert answer.rows[0][0] >= len(held)  # type: ignore[operator]  # a count


def test_two_stages_share_what_the_score_has_shown(teacher: nn.Module, digits: Data, tmp_path: Path) -> None:
    result = search(teacher, digits, tmp_path, removal=True, evaluations=18, max_params="50%")
    assert result.meets_budget
    last = [one for one in read_records(tmp_path) if one.stage == "shrinkage" and one.iteration == 0]
    assert len(last) == 12, "the removal stage has shown enough"


class Fuse(nn.Module):
    """Interrupts at a training step; a copy shares it."""

    left = -1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and torch.is_grad_enabled():
            Fuse.left -= 1
            if Fuse.left == 0:
                raise KeyboardInterrupt
        return x * 1.0


@pytest.mark.parametrize("agent", ["reinforce", "evolution"])
def test_a_resumed_run_goes_on_as_it_would_have(teacher: nn.Module, digits: Data, tmp_path: Path, agent: str) -> None:
    network = nn.Sequential(teacher, Fuse())
    how: dict[str, Any] = {"agent": agent}
    Fuse.left = -1
    whole = search(network, digits, tmp_path / "whole", **how)
    for at in (10, 29):  # within the first batches, and behind the first with a choice
        out = tmp_path / f"cut at {at}"
        Fuse.left = at
        assert search(network, digits, out, **how).stopped == "interrupted"
        Fuse.left = -1
        result = search(network, digits, out, resume=True, **how)
        assert rows(out) == rows(tmp_path / "whole")
        assert (result.evaluations, result.filtered) == (whole.evaluations, whole.filtered)
        assert [one.fingerprint for one in result.students] == [one.fingerprint for one in whole.students]


@pytest.mark.ray
@pytest.mark.slow
def test_workers_give_the_same_rows(teacher: nn.Module, digits: Data, tmp_path: Path) -> None:
    search(teacher, digits, tmp_path / "one")
    search(teacher, digits, tmp_path / "two", workers=2)
    assert rows(tmp_path / "two") == rows(tmp_path / "one")


def test_a_prefilter_that_had_nothing_to_do_says_so(teacher: nn.Module, digits: Data, tmp_path: Path) -> None:
    idle = search(teacher, digits, tmp_path / "few", evaluations=6)
    assert idle.filtered == 0
    assert any("prefilter synflow held nobody back: it does not choose" in note for note in idle.notes)
    busy = search(teacher, digits, tmp_path / "more")
    assert busy.filtered
    assert not any("held nobody back" in note for note in busy.notes)
