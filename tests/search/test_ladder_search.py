"""A search that judges by a ladder: what it stores, what a cache saves, with workers, and after an interrupt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import n2n
from n2n.data import Data
from n2n.distill.fit import train_teacher
from n2n.evaluate.base import Status
from n2n.evaluate.memory import CacheError
from n2n.job import SearchResult
from n2n.networks import build_teacher
from n2n.search.errors import SearchError
from n2n.search.files import read_json
from n2n.search.options import SearchOptions
from n2n.search.store import Record, read_records

LADDER = ("refit:0", "refit:20")
SMALL: dict[str, Any] = {
    "agent": "reinforce",
    "evaluations": 12,
    "rollouts": 6,
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
    arguments = {**SMALL, "ladder": LADDER, "promote": 0.4, **changed}
    return n2n.search(network, None, data, out=out, **arguments)


@pytest.fixture(scope="module")
def cold(teacher: nn.Module, digits: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a search with its cache beside it."""
    folder = tmp_path_factory.mktemp("ladder")
    search(teacher, digits, folder / "run", cache=folder / "judged.sqlite")
    return folder / "run"


def untimed(record: Record) -> Record:
    """A record without what another run measures anew."""
    timed = {"seconds": 0.0, "latency_ms": None, "latency_iqr_ms": None, "latency_device": None}
    return replace(record, evaluation=replace(record.evaluation, **timed))


def rows(out: Path) -> list[Record]:
    return [untimed(record) for record in read_records(out)]


def fine(out: Path) -> list[Record]:
    """The records of students that could be judged; those that are refused are refused anew."""
    return [one for one in read_records(out) if one.evaluation.status is Status.OK]


def test_every_student_has_its_rung_and_an_estimate(cold: Path) -> None:
    judged = [one.evaluation for one in read_records(cold) if one.evaluation.status is Status.OK]
    assert {one.rung for one in judged} == set(LADDER)
    for one in judged:
        assert one.estimate is not None
        assert 0 <= one.estimate <= 1
        assert "20 steps" in one.fidelity if one.rung == "refit:20" else "solved on" in one.fidelity
        if one.rung == "refit:20":
            assert one.estimate == one.accuracy
    assert sum(one.rung == "refit:20" for one in judged) >= 6, "the first students climb whatever is said of them"


def test_the_options_are_kept(cold: Path) -> None:
    config = read_json(cold / "config.json")
    assert (config["ladder"], config["promote"]) == (list(LADDER), 0.4)
    assert config["cache"].endswith("judged.sqlite")


def test_a_warm_cache_gives_the_same_rows_and_judges_nobody(
    cold: Path, teacher: nn.Module, digits: Data, tmp_path: Path
) -> None:
    cache = cold.parent / "judged.sqlite"
    before = cache.read_bytes()
    search(teacher, digits, tmp_path / "warm", cache=cache)
    assert rows(tmp_path / "warm") == rows(cold)
    # seconds and latencies are those of the first run, to the last bit: nobody was judged or timed again
    assert fine(tmp_path / "warm") == fine(cold)
    assert cache.read_bytes() == before, "whoever is judged is entered"
    search(teacher, digits, tmp_path / "without")
    assert rows(tmp_path / "without") == rows(cold), "a cache changes nothing but the time"


def test_the_cache_of_another_teacher_is_refused_before_anything_is_written(
    cold: Path, digits: Data, tmp_path: Path
) -> None:
    other = build_teacher("mlp", inputs=64, hidden=(32, 32, 32), classes=10, seed=1)
    train_teacher(other, digits.training, epochs=2, batch_size=32)
    cache = cold.parent / "judged.sqlite"
    before = cache.read_bytes()
    with pytest.raises(CacheError, match=r"judged\.sqlite holds judgements of another teacher: [0-9a-f]+, while this"):
        search(other, digits, tmp_path / "run", cache=cache)
    assert not (tmp_path / "run").exists()
    assert cache.read_bytes() == before


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("how", [{}, {"ladder": (), "promote": 0.4, "start": "refit", "steps": 0}])
def test_workers_give_the_same_rows(teacher: nn.Module, digits: Data, tmp_path: Path, how: dict[str, Any]) -> None:
    search(teacher, digits, tmp_path / "one", **how)
    search(teacher, digits, tmp_path / "two", workers=2, **how)
    assert rows(tmp_path / "two") == rows(tmp_path / "one")


class Fuse(nn.Module):
    """Interrupts at the training step at which it burns through; a copy shares it."""

    left = 0

    def forward(self, x: Tensor) -> Tensor:
        if self.training and torch.is_grad_enabled():
            Fuse.left -= 1
            if Fuse.left == 0:
                raise KeyboardInterrupt
        return x * 1.0


def test_an_interrupt_keeps_what_was_judged(teacher: nn.Module, digits: Data, tmp_path: Path) -> None:
    network, ladder = nn.Sequential(teacher, Fuse()), ("inherited:2", "inherited:5")
    how: dict[str, Any] = {"ladder": ladder, "cache": tmp_path / "judged.sqlite", "shrinkage": False}
    how["ignored_layers"] = ("1",)  # every student keeps the fuse
    Fuse.left = burnt = 24
    result = search(network, digits, tmp_path / "cut", **how)
    assert result.stopped == "interrupted"
    assert len(result.students) == 1, "what was judged is good for a finished student"
    reached = {one.evaluation.fingerprint: one.evaluation for one in fine(tmp_path / "cut")}
    rungs = [one.rung for one in reached.values()]
    assert set(rungs) == set(ladder)
    assert all(one.estimate is not None for one in reached.values())
    steps = 2 * len(rungs) + 5 * rungs.count("inherited:5")
    assert burnt - 5 <= steps < burnt, "the judgement that was going on is lost, and no other"
    search(network, digits, tmp_path / "again", **how)
    again = {one.evaluation.fingerprint: one.evaluation for one in fine(tmp_path / "again")}
    top = [one for one in reached.values() if one.rung == "inherited:5"]
    assert [again[one.fingerprint] for one in top] == top, "from the cache, seconds and all"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"ladder": ("refit:0", "refit:0")}, "every rung may come once only"),
        ({"ladder": ("refit:0", "score:params")}, "the last rung must give accuracies; add one, e.g. refit:0"),
        ({"ladder": ("refit:fast",)}, "rung 'refit:fast': expected START:STEPS"),
        ({"ladder": ("fresh:0",)}, "a length of 0 judges nothing"),
        ({"ladder": LADDER, "steps": 5}, "steps=5 beside a ladder: say it in the ladder, e.g. 'refit:20'"),
        ({"ladder": LADDER, "start": "inherited"}, "start='inherited' beside a ladder"),
        ({"promote": 0.0}, "promote=0.0 must be a share above 0 and at most 1"),
        ({"promote": 1.5}, "promote=1.5"),
        ({"promote": float("nan")}, "promote=nan"),
        ({"steps": 0, "start": "inherited"}, "steps=0 must be at least 1, or 0 with start='refit'"),
    ],
)
def test_ladders_that_cannot_be_are_refused(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(SearchError, match=words):
        SearchOptions(**changed)


def test_what_a_ladder_means() -> None:
    options = SearchOptions(ladder=("score:params", "refit:0", "inherited:2e:ce"), objective="logit_mse")
    assert [one.name for one in options.rungs] == ["score:params", "refit:0", "inherited:2e:ce"]
    recipes = [one.recipe for one in options.rungs]
    assert recipes[0] is None
    assert [one.objective for one in recipes if one is not None] == ["logit_mse", "ce"]
    assert options.begins == "inherited"
    assert options.to_json()["ladder"] == ["score:params", "refit:0", "inherited:2e:ce"]
    plain = SearchOptions(start="refit", steps=0)
    assert [one.name for one in plain.rungs] == ["refit:0"]
    assert plain.begins == "inherited"
    assert SearchOptions(start="fresh").begins == "fresh"
    assert SearchOptions(evaluate="params", start="fresh").begins == "fresh"
    assert SearchOptions(start="fresh", final_start="refit").begins == "refit"
    with pytest.raises(SearchError, match="final_start='warm' does not exist; choose one of inherited, refit, fresh"):
        SearchOptions(final_start="warm")
