"""The main job from a trained teacher to a run folder, on real digits with a tiny network."""

from __future__ import annotations

import csv
import json
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import n2n
from n2n.agents.reinforce import reinforce
from n2n.data import Data, example_inputs, load
from n2n.distill.accuracy import accuracy
from n2n.distill.fit import train_teacher
from n2n.distill.precision import cpu_has_bf16
from n2n.distill.probe import thread_counts
from n2n.evaluate.base import Evaluate, Evaluation, Status
from n2n.evaluate.fake import fake
from n2n.job import SearchResult
from n2n.policies import PolicyError, PolicyMeta, save_policy
from n2n.report import write_report
from n2n.search.errors import ArtefactError, ChanceLevelWarning, SearchError
from n2n.search.files import read_json
from n2n.search.judges import pool_threads
from n2n.search.store import read_records
from search_spaces.base import FEATURES, Architecture, SearchSpace

FILES = (
    "config.json",
    "environment.json",
    "evaluations.sqlite",
    "learning_curve.csv",
    "front.csv",
    "result.json",
    "report.md",
    "front.png",
    "reward.png",
    "run.log",
)
SMALL: dict[str, Any] = {
    "agent": "reinforce",
    "evaluations": 8,
    "rollouts": 2,
    "steps": 8,
    "final_epochs": 2.0,
    "factors": (0.25, 0.5, 1.0),
    "progress": False,
}


def csv_rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.fixture(scope="module")
def digits() -> Data:
    return load("digits")


@pytest.fixture(scope="module")
def teacher(digits: Data) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(256, 10),
        )
    train_teacher(network, digits.training, epochs=6)
    return network


@pytest.fixture(scope="module")
def run(teacher: nn.Module, digits: Data, tmp_path_factory: pytest.TempPathFactory) -> SearchResult:
    out = tmp_path_factory.mktemp("runs") / "one"
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    result = n2n.search(teacher, example_inputs(digits), digits, out=out, max_params="50%", **SMALL)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    return result


def test_the_function_and_the_room_share_a_name() -> None:
    from n2n.search.front import pareto

    assert callable(n2n.search)
    assert n2n.search is n2n.main_job.search
    assert pareto([1], [1]) == [0]


def test_the_run_folder_is_whole(run: SearchResult) -> None:
    for name in FILES:
        assert (run.out / name).stat().st_size > 0, name
    assert read_json(run.out / "config.json")["max_params"] == "50%"
    assert not list(run.out.rglob(".*")), "no temporary file stays"
    records = read_records(run.out)
    judged = [one for one in records if not one.cached and one.evaluation.status is not Status.INVALID]
    assert 4 <= run.evaluations == len(judged) <= 8
    assert {one.stage for one in records} == {"removal", "shrinkage"}
    front = csv_rows(run.out / "front.csv")
    assert all(float(row["latency_ms"]) > 0 and float(row["latency_iqr_ms"]) >= 0 for row in front)
    page = (run.out / "report.md").read_text()
    assert f"{float(front[0]['latency_ms']):.3f} ms" in page
    assert [row["fingerprint"] for row in front if row["on_parameters"] == "1"] == [e.fingerprint for e in run.front]


def test_no_student_is_timed_twice(run: SearchResult) -> None:
    timed = {one.evaluation.fingerprint: one.evaluation for one in read_records(run.out)}
    for student in run.students:
        judged = timed[student.fingerprint]
        figures = student.figures
        assert (figures.latency_ms, figures.latency_iqr_ms) == (judged.latency_ms, judged.latency_iqr_ms)
        assert figures.device == judged.latency_device == run.teacher.device
        assert figures.size_mb == pytest.approx(judged.size_mb)


def test_a_student_comes_back_as_it_was_measured(run: SearchResult, teacher: nn.Module, digits: Data) -> None:
    assert run.meets_budget
    best = run.students[0]
    network = n2n.load_student(run.out / best.folder, network=teacher)
    right, _ = accuracy(network, digits.test, mean=digits.training.mean, std=digits.training.std)
    assert right == best.figures.test_accuracy
    count = sum(weight.numel() for weight in network.parameters())
    assert count == best.figures.parameters <= run.teacher.parameters / 2
    assert right > 0.3, "it has learned something"


def test_the_policies_come_back_and_start_another_search(
    run: SearchResult, teacher: nn.Module, digits: Data, tmp_path: Path
) -> None:
    policy = n2n.load_policy(run.out / "policies" / "shrinkage")
    assert (policy.meta.stage, policy.meta.num_actions, policy.meta.updates > 0) == ("shrinkage", 3, True)
    again = search(teacher, digits, tmp_path / "two", policy=run.out, make_evaluate=half)
    assert read_json(again.out / "config.json")["policies"] == ["removal", "shrinkage"]
    with pytest.raises(PolicyError, match=r"trained with 3 factors, the search has 2: say --factor 0\.25"):
        search(teacher, digits, tmp_path / "three", policy=run.out, factors=(0.5, 1.0))
    assert not (tmp_path / "three").exists()


def test_the_report_can_be_written_again_from_the_folder(run: SearchResult) -> None:
    before = (run.out / "report.md").read_text()
    (run.out / "report.md").unlink()
    (run.out / "front.png").unlink()
    write_report(run.out)
    assert (run.out / "report.md").read_text() == before
    assert (run.out / "front.png").read_bytes().startswith(b"\x89PNG")
    assert f"{run.students[0].figures.test_accuracy:.2%}" in before
    with pytest.raises(ArtefactError, match=r"config.json is missing"):
        write_report(run.out / "students")


def half(space: SearchSpace) -> Evaluate:
    return fake(space, lambda student: 0.5)


def search(
    teacher: nn.Module,
    digits: Data,
    out: Path,
    *,
    example: Tensor | None = None,
    make_evaluate: Callable[[SearchSpace], Evaluate] | None = half,
    **changed: Any,
) -> SearchResult:
    arguments = {**SMALL, "final_epochs": 0.2, "finalists": 1, **changed}
    return n2n.search(teacher, example, digits, out=out, make_evaluate=make_evaluate, **arguments)


def test_an_interrupt_concludes_with_what_was_found(teacher: nn.Module, digits: Data, tmp_path: Path) -> None:
    calls: list[int] = []

    def interrupted(space: SearchSpace) -> Evaluate:
        inner = half(space)

        def evaluate(students: Sequence[Architecture]) -> list[Evaluation]:
            calls.append(len(students))
            if len(calls) == 3:
                raise KeyboardInterrupt
            return inner(students)

        return evaluate

    result = search(teacher, digits, tmp_path / "run", make_evaluate=interrupted, evaluations=40)
    assert result.stopped == "interrupted"
    assert len(result.students) == 1
    assert n2n.load_student(result.out / "students" / "1", network=teacher) is not None
    assert "interrupted" in (result.out / "report.md").read_text()


@dataclass(frozen=True)
class Jumpy(Data):
    """Interrupts once for each item of `armed`, when the test split is opened."""

    armed: list[int] = field(default_factory=list)

    def __getattribute__(self, name: str) -> Any:
        if name == "test" and self.armed:
            self.armed.pop()
            raise KeyboardInterrupt
        return super().__getattribute__(name)


def test_an_interrupt_while_the_teacher_is_measured_still_ends_in_a_report(
    teacher: nn.Module, digits: Data, tmp_path: Path
) -> None:
    data = Jumpy(digits.training, digits.test)
    data.armed.append(1)
    result = search(teacher, data, tmp_path / "run", finalists=2)
    assert result.stopped == "interrupted", "so that it can be gone on with"
    assert len(result.students) == 1, "what an interrupt leaves time for"
    assert read_json(result.out / "result.json")["teacher"]["figures"]["test_accuracy"] > 0.3
    assert "interrupted" in (result.out / "report.md").read_text()


def test_the_seconds_bound_the_whole_call(teacher: nn.Module, digits: Data, tmp_path: Path) -> None:
    begun = time.monotonic()
    result = search(teacher, digits, tmp_path / "run", seconds=5.0, evaluations=10_000, final_epochs=5000.0)
    assert 0 < result.students[0].steps < 5000
    assert "was cut short: stopped at the deadline" in (result.out / "report.md").read_text()
    assert time.monotonic() - begun < 60, "undisturbed the distillation alone takes many minutes"


@pytest.mark.parametrize("budget", [{"max_params": 2800}, {"max_size_mb": "55%"}, {"max_macs": "30%"}])
def test_removal_alone_meets_the_budget_by_construction(
    teacher: nn.Module, digits: Data, tmp_path: Path, budget: dict[str, float | str]
) -> None:
    """The policy starts by keeping nine layers of ten, which would miss every one of these."""
    result = search(teacher, digits, tmp_path / "run", shrinkage=False, evaluations=2, **budget)
    assert result.meets_budget
    judged = [one.evaluation for one in read_records(result.out)]
    assert all(one.parameters <= 2800 for one in judged) or "max_params" not in budget
    whole = sum(value.numel() * value.element_size() for value in teacher.state_dict().values()) / 1e6
    assert all((one.size_mb or 1) <= 0.55 * whole for one in judged) or "max_size_mb" not in budget


class Naps(nn.Module):
    """Takes a while and changes nothing."""

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(0.05)
        return x * 1.0


def test_no_student_under_the_budget_is_said(teacher: nn.Module, digits: Data, tmp_path: Path) -> None:
    assert isinstance(teacher, nn.Sequential)
    slow = nn.Sequential(*teacher[:3], Naps(), *teacher[3:])
    limits = {"max_latency_ms": "50%", "shrinkage": False, "evaluations": 1}  # the first student keeps the nap
    result = search(slow, digits, tmp_path / "run", **limits)
    assert not result.meets_budget
    assert result.students[0].figures.latency_ms >= 50
    assert result.students[0].violations
    assert "No judged student meets the budget" in (result.out / "report.md").read_text()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"max_params": 5}, "max_params=5 is impossible.*ask for"),
        ({"max_macs": "0.01%"}, "max_macs=.* is impossible"),
        ({"max_size_mb": "0.1%"}, "max_size_mb=.* is impossible.*ask for"),
        ({"max_latency_ms": "0.01%"}, "max_latency_ms=.* is impossible.*ask for"),
        ({"max_latency_ms": "soon"}, "max_latency_ms: .*not a number"),
        ({"max_params": "much"}, "not a number"),
        ({"agent": "nobody"}, "choose one of reinforce"),
        ({"example": torch.zeros(1, 3, 8, 8)}, "example_inputs hold examples of shape"),
        ({"objective": "mse"}, "objective='mse' does not exist"),
        ({"precision": "fp8"}, "precision='fp8' does not exist"),
        ({"device": "gpu"}, "device='gpu' does not exist"),
        ({"max_latency_ms": 1e-6}, "max_latency_ms=0.00000100 is impossible.*ask for"),
        ({"teacher_name": "resnet20"}, "teacher_name='resnet20' is not this network"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    teacher: nn.Module, digits: Data, tmp_path: Path, changed: dict[str, Any], words: str
) -> None:
    with pytest.raises(SearchError, match=words):
        search(teacher, digits, tmp_path / "run", **changed)
    assert not (tmp_path / "run").exists()
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "config.json").write_text("{}")
    with pytest.raises(SearchError, match=words):
        search(teacher, digits, tmp_path / "old", force=True, **changed)
    assert (tmp_path / "old" / "config.json").exists(), "the run that would have been replaced is still there"


def test_a_policy_that_cannot_be_used_is_refused(teacher: nn.Module, digits: Data, tmp_path: Path) -> None:
    agent = reinforce(len(FEATURES), 3, 2, seed=0, policy="shrinkage", hidden=8)
    meta = PolicyMeta(agent="reinforce", stage="shrinkage", num_actions=3, num_decisions=2)
    save_policy(tmp_path / "policy", agent.state(), meta)
    with pytest.raises(PolicyError, match=r"the shrinkage policy does not fit: .* is \(32,"):
        search(teacher, digits, tmp_path / "run", policy=tmp_path / "policy")
    with pytest.raises(PolicyError, match=r"for the stage shrinkage, and this search runs removal only"):
        search(teacher, digits, tmp_path / "run", policy=tmp_path / "policy", shrinkage=False)
    assert not (tmp_path / "run").exists()


def test_a_folder_in_use_is_refused_before_the_work(teacher: nn.Module, digits: Data, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(ArtefactError, match="not empty"):
        search(teacher, digits, tmp_path)
    result = search(teacher, digits, tmp_path, force=True)
    assert (result.out / "mine.txt").read_text() == "keep"


def test_the_fastest_setting_is_measured_recorded_and_left_behind(
    teacher: nn.Module, digits: Data, tmp_path: Path
) -> None:
    before, state = torch.get_num_threads(), torch.get_rng_state()
    result = search(teacher, digits, tmp_path / "run", threads="auto")
    assert torch.get_num_threads() == before
    assert torch.equal(torch.get_rng_state(), state)
    assert result.students
    assert read_json(result.out / "config.json")["threads"] == "auto"
    ran_on = read_json(result.out / "environment.json")
    found = ran_on["probe"]
    assert found["threads"] == ran_on["threads"]
    tried = {(one["threads"], one["precision"], one["channels_last"]): one["ms"] for one in found["timings"]}
    assert all(ms > 0 for ms in tried.values())
    assert {(one, "fp32", True) for one in thread_counts(os.cpu_count() or 1)} <= set(tried) or cpu_has_bf16()
    assert (found["threads"], found["precision"], found["channels_last"]) in tried
    assert 8 <= found["batch"] <= 32
    log = (result.out / "run.log").read_text()
    assert re.search(rf"probe: {found['threads']} threads?, {found['precision']}, \w+: [\d.]+ ms a step; ", log), log


def test_a_number_of_threads_is_kept_to_and_gives_the_same_search_again(
    teacher: nn.Module, digits: Data, tmp_path: Path
) -> None:
    number, seen = os.cpu_count() or 1, []
    before = torch.get_num_threads()

    def counting(space: SearchSpace) -> Evaluate:
        seen.append(torch.get_num_threads())
        return fake(space, lambda student: 0.5)

    search(teacher, digits, tmp_path / "counted", threads=number, make_evaluate=counting)
    assert set(seen) == {number}
    runs = [search(teacher, digits, tmp_path / name, threads=1) for name in ("one", "two")]
    assert torch.get_num_threads() == before
    assert read_json(runs[0].out / "environment.json")["threads"] == 1
    assert read_json(runs[0].out / "environment.json")["probe"] is None
    one, two = (
        [(kept.fingerprint, kept.accuracy, kept.loss) for kept in (r.evaluation for r in read_records(run.out))]
        for run in runs
    )
    assert one == two
    first, again = (load_file(run.out / "students" / "1" / "model.safetensors") for run in runs)
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_threads_come_back_when_a_search_is_refused(teacher: nn.Module, digits: Data, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    number = 1 if before > 1 else os.cpu_count() or 1
    with pytest.raises(SearchError, match="is impossible"):
        search(teacher, digits, tmp_path / "run", threads=number, max_params=5)
    assert torch.get_num_threads() == before
    with pytest.raises(SearchError, match=r"threads=0 must be a number from 1 to \d+.*'auto' to measure"):
        search(teacher, digits, tmp_path / "run", threads=0)


def test_workers_share_the_cores() -> None:
    cores = os.cpu_count() or 1
    assert pool_threads(None, 2) is None
    assert pool_threads(cores, 1) == cores
    assert pool_threads(cores, cores) == pool_threads(cores, 2 * cores) == pool_threads(1, 1) == 1


def test_a_guessing_teacher_is_warned_of_and_reported(digits: Data, tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 10))
    nn.init.zeros_(network[-1].weight)
    with pytest.warns(ChanceLevelWarning, match="chance level"):
        result = search(network, digits, tmp_path / "run")
    assert "chance level" in json.dumps(result.notes)


def test_what_is_no_network_and_no_data_is_refused_at_the_door(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match=r"network: expected a torch.nn.Module, found str"):
        n2n.search("resnet20", None, "digits", out=tmp_path / "a")  # type: ignore[arg-type]
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.zeros(4, 1, 2, 2), torch.arange(4)))
    with pytest.raises(SearchError, match=r"a pair \(DataLoader, DataLoader\); of a DataLoader pass its .dataset"):
        n2n.search(nn.Linear(4, 2), None, (loader, loader), out=tmp_path / "b")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
