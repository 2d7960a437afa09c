"""The loop over toy spaces with the shipped fake evaluator: what it stores, when it stops, what it survives."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from n2n.agents import AGENTS
from n2n.agents.base import Agent, Stats, Trajectory
from n2n.evaluate.base import Evaluate, Evaluation, Status, not_ok
from n2n.evaluate.cached import cached
from n2n.evaluate.fake import fake
from n2n.reward import Budget, make_reward
from n2n.search.errors import SearchError
from n2n.search.options import SearchOptions
from n2n.search.progress import Silent
from n2n.search.store import read_records
from n2n.search.two_stage import Found, Rewards, two_stage
from search_spaces.base import FEATURES, GOALS, Architecture, SearchSpace, SpaceError
from search_spaces.toy import toy


@dataclass
class ToySpaces:
    """Two toy spaces; remembers which starts were asked for, and refuses some."""

    no_removal: bool = False
    refuse: Callable[[Architecture | None], bool] = lambda start: False
    asked: list[Architecture | None] = field(default_factory=list)
    bounds: list[Budget] = field(default_factory=list)

    def removal(self, budget: Budget) -> SearchSpace:
        self.bounds.append(budget)
        if self.no_removal:
            raise SpaceError("no layer can be removed")
        return toy(decisions=4, actions=2)

    def shrinkage(self, start: Architecture | None, budget: Budget) -> SearchSpace:
        self.asked.append(start)
        if self.refuse(start):
            raise SpaceError("no student has so few parameters")
        return toy(decisions=4, actions=4)


def csv_rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def half(student: Architecture) -> float:
    return 0.5


def run(
    out: Path,
    spaces: ToySpaces,
    *,
    judge: Callable[[SearchSpace], Evaluate] | None = None,
    clock: Callable[[float], float] = lambda mean: 0.0,
    spent: float = 0.0,
    wrap: Callable[[Agent], Agent] = lambda agent: agent,
    budget: Budget | None = None,
    **changed: Any,
) -> Found:
    options = SearchOptions(**{"evaluations": 12, "rollouts": 3, "agent": "random", **changed})

    @contextmanager
    def open_judge(space: SearchSpace) -> Iterator[Evaluate]:
        yield cached(fake(space, half)) if judge is None else judge(space)

    def make_agent(stage: str, space: SearchSpace) -> Agent:
        return wrap(AGENTS[options.agent](len(FEATURES), space.num_actions, space.num_decisions, seed=options.seed))

    reward = make_reward(teacher_accuracy=0.5, teacher_parameters=toy(decisions=4).teacher_cost.parameters)
    return two_stage(
        spaces,
        options,
        open_judge=open_judge,
        make_agent=make_agent,
        rewards=Rewards(reward, reward),
        budget=budget or Budget(),
        out=out,
        display=Silent(),
        finish_seconds=clock,
        spent=spent,
    )


def test_both_stages_are_judged_stored_and_counted(tmp_path: Path) -> None:
    spaces = ToySpaces()
    found = run(tmp_path, spaces)
    assert [stage.name for stage in found.stages] == ["removal", "shrinkage"]
    assert found.evaluations == 12
    assert found.stopped == "evaluations"
    stored = read_records(tmp_path)
    assert tuple(stored) == found.records
    fresh = [one for one in stored if not one.cached]
    for stage in ("removal", "shrinkage"):
        prints = [one.evaluation.fingerprint for one in fresh if one.stage == stage]
        assert len(prints) == len(set(prints)) == 6
    assert len(stored) - len(fresh) == found.hits
    rows = csv_rows(tmp_path / "learning_curve.csv")
    assert int(rows[-1]["evaluations"]) == 6
    assert float(rows[0]["max_reward"]) == pytest.approx(max(one.reward for one in stored[:3]), rel=1e-5)
    assert 0 <= found.overhead <= 1


def test_shrinkage_starts_from_the_best_removal_student(tmp_path: Path) -> None:
    spaces = ToySpaces()
    found = run(tmp_path, spaces)
    best = max((one for one in found.records if one.stage == "removal"), key=lambda one: one.reward)
    assert spaces.asked[0] is not None
    assert spaces.asked[0].to_json() == best.evaluation.architecture


def test_a_start_that_cannot_meet_the_budget_is_passed_over(tmp_path: Path) -> None:
    spaces = ToySpaces(refuse=lambda start: start is not None)
    found = run(tmp_path, spaces)
    assert spaces.asked[-1] is None
    assert len(spaces.asked) > 2
    assert [stage.name for stage in found.stages] == ["removal", "shrinkage"]


@dataclass
class Watching:
    """An agent that keeps what it has seen of the goals."""

    agent: Agent
    seen: set[tuple[float, ...]]

    def reset(self, batch_size: int) -> None:
        self.agent.reset(batch_size)

    def act(self, observation: Tensor, legal: Tensor) -> Tensor:
        self.seen |= {tuple(goal) for goal in observation[..., list(GOALS)].flatten(0, 1).tolist()}
        return self.agent.act(observation, legal)

    def learn(self, trajectory: Trajectory) -> Stats:
        return self.agent.learn(trajectory)

    def state(self) -> dict[str, Tensor]:
        return {}

    def load(self, state: Mapping[str, Tensor]) -> None:
        raise AssertionError("nothing to load")


def test_the_agents_of_both_stages_see_what_the_budget_leaves(tmp_path: Path) -> None:
    whole = toy(decisions=4).teacher_cost
    seen: set[tuple[float, ...]] = set()
    budget = Budget(max_parameters=whole.parameters / 4, max_macs=whole.macs * 2)
    for name in ("asked", "free"):
        (tmp_path / name).mkdir()
    run(tmp_path / "asked", ToySpaces(), wrap=lambda agent: Watching(agent, seen), budget=budget)
    assert seen == {(0.25, 1.0)}
    seen.clear()
    run(tmp_path / "free", ToySpaces(), wrap=lambda agent: Watching(agent, seen))
    assert seen == {(0.0, 0.0)}


def narrow_first(start: Architecture | None) -> bool:
    return start is not None and not start.to_json().split("[")[1].startswith("12")


def test_a_student_that_no_shrinkage_saves_is_not_judged(tmp_path: Path) -> None:
    judged: list[str] = []

    def judge(space: SearchSpace) -> Evaluate:
        def note(student: Architecture) -> float:
            judged.append(student.to_json())
            return 0.5

        return cached(fake(space, note))

    spaces = ToySpaces(refuse=narrow_first)
    found = run(tmp_path, spaces, judge=judge, budget=Budget(max_parameters=100), evaluations=16)
    removal = [one.evaluation for one in found.records if one.stage == "removal"]
    refused = [one for one in removal if one.status is Status.INVALID]
    assert refused
    assert len(refused) < len(removal)
    for one in removal:
        hopeless = '"widths": [12' not in one.architecture
        assert (one in refused) == hopeless
        assert one.architecture not in judged or not hopeless
    reason = refused[0].reason
    assert reason == "no shrinkage of it meets the budget: no student has so few parameters"
    start = spaces.asked[-1]
    assert start is not None
    assert not narrow_first(start)


def test_where_nothing_bounds_size_no_student_is_refused(tmp_path: Path) -> None:
    found = run(tmp_path, ToySpaces(refuse=narrow_first), budget=Budget(max_latency_ms=1.0))
    assert {one.evaluation.status for one in found.records} == {Status.OK}


@pytest.mark.parametrize(("shrinkage", "expected"), [(False, Budget(max_macs=1e6)), (True, Budget())])
def test_the_last_stage_is_bound_and_the_one_before_is_not(tmp_path: Path, shrinkage: bool, expected: Budget) -> None:
    spaces = ToySpaces()
    run(tmp_path, spaces, shrinkage=shrinkage, budget=Budget(max_macs=1e6))
    assert spaces.bounds == [expected]


def test_a_stage_without_a_decision_is_left_out(tmp_path: Path) -> None:
    found = run(tmp_path, ToySpaces(no_removal=True))
    assert [stage.name for stage in found.stages] == ["shrinkage"]
    assert found.evaluations == 12


def test_a_space_with_few_students_ends_by_repeats(tmp_path: Path) -> None:
    found = run(tmp_path, ToySpaces(), evaluations=50, rollouts=10)
    removal = found.stages[0]
    assert removal.stopped == "repeats"
    assert removal.evaluations <= 2**4


def test_the_time_limit_keeps_what_the_finish_will_take(tmp_path: Path) -> None:
    found = run(tmp_path, ToySpaces(), evaluations=10_000, seconds=1e-6)
    assert [len(stage.records) for stage in found.stages] == [3, 3]
    assert found.stopped == "seconds"
    (tmp_path / "b").mkdir()
    short = run(tmp_path / "b", ToySpaces(), evaluations=12, seconds=1e6, clock=lambda mean: 1e9)
    assert short.stopped != "seconds", "at most six tenths of the limit are kept"


def test_an_interrupt_keeps_the_batches_before_it(tmp_path: Path) -> None:
    calls: list[int] = []

    def judge(space: SearchSpace) -> Evaluate:
        inner = fake(space, half)

        def evaluate(students: Sequence[Architecture]) -> list[Evaluation]:
            calls.append(len(students))
            if len(calls) == 3:
                raise KeyboardInterrupt
            return inner(students)

        return evaluate

    found = run(tmp_path, ToySpaces(), judge=judge, evaluations=100)
    assert found.stopped == "interrupted"
    assert [stage.name for stage in found.stages] == ["removal"]
    assert len(read_records(tmp_path)) == len(found.records) == 6


def test_an_interrupt_keeps_the_students_that_were_judged_before_it(tmp_path: Path) -> None:
    calls: list[int] = []

    def judge(space: SearchSpace) -> Evaluate:
        inner = fake(space, half)

        def evaluate(students: Sequence[Architecture]) -> list[Evaluation]:
            calls.append(len(students))
            if len(calls) == 3:
                raise KeyboardInterrupt
            return inner(students)

        return cached(evaluate, one_by_one=True)

    found = run(tmp_path, ToySpaces(), judge=judge, evaluations=100, rollouts=12)
    assert found.stopped == "interrupted"
    assert calls == [1, 1, 1]
    stored = read_records(tmp_path)
    assert tuple(stored) == found.records
    assert len({one.evaluation.fingerprint for one in stored}) == found.evaluations == 2
    assert [row["evaluations"] for row in csv_rows(tmp_path / "learning_curve.csv")] == ["2"]


class Hesitant:
    """Draws like its inner agent and is interrupted in the middle of its first update."""

    def __init__(self, inner: Agent) -> None:
        self.reset, self.act, self.state, self.load = inner.reset, inner.act, inner.state, inner.load

    def learn(self, trajectory: Trajectory) -> Stats:
        raise KeyboardInterrupt


def test_an_interrupt_of_the_update_keeps_the_batch(tmp_path: Path) -> None:
    found = run(tmp_path, ToySpaces(), wrap=Hesitant)
    assert found.stopped == "interrupted"
    assert tuple(read_records(tmp_path)) == found.records
    assert len(found.records) == 3
    assert len(csv_rows(tmp_path / "learning_curve.csv")) == 1


def failing(reason: Callable[[int], str]) -> Callable[[SearchSpace], Evaluate]:
    """A judge whose every student fails; the reason may depend on how many failed before."""
    count = iter(range(1000))

    def judge(space: SearchSpace) -> Evaluate:
        def evaluate(students: Sequence[Architecture]) -> list[Evaluation]:
            return [
                not_ok(Status.FAILED, reason(next(count)), one, space.cost(one), seconds=0.0, seed=0, fidelity="none")
                for one in students
            ]

        return cached(evaluate)

    return judge


@pytest.mark.parametrize("rollouts", [1, 4])
def test_a_cause_that_all_students_share_stops_the_search(tmp_path: Path, rollouts: int) -> None:
    with pytest.raises(SearchError, match="same reason, so the search was stopped: does not run: boom"):
        run(tmp_path, ToySpaces(), judge=failing(lambda index: "does not run: boom"), rollouts=rollouts)
    assert {one.evaluation.reason for one in read_records(tmp_path)} == {"does not run: boom"}


def test_students_that_fail_each_in_its_own_way_do_not_stop_it(tmp_path: Path) -> None:
    found = run(tmp_path, ToySpaces(no_removal=True), judge=failing(lambda index: f"diverged at step {index}"))
    assert found.evaluations == 12


def test_one_evaluation_goes_to_the_last_stage(tmp_path: Path) -> None:
    found = run(tmp_path, ToySpaces(), evaluations=1)
    assert [(stage.name, stage.evaluations) for stage in found.stages] == [("shrinkage", 1)]


def test_time_that_was_spent_before_the_loop_counts(tmp_path: Path) -> None:
    found = run(tmp_path, ToySpaces(), evaluations=10_000, seconds=1e6, spent=1e6)
    assert [len(stage.records) for stage in found.stages] == [3, 3]
    assert found.stopped == "seconds"


def test_an_error_in_the_evaluator_is_not_swallowed(tmp_path: Path) -> None:
    def judge(space: SearchSpace) -> Evaluate:
        def evaluate(students: Sequence[Architecture]) -> list[Evaluation]:
            raise TypeError("a bug")

        return evaluate

    with pytest.raises(TypeError, match="a bug"):
        run(tmp_path, ToySpaces(), judge=judge)


@pytest.mark.parametrize("agent", ["reinforce", "evolution", "uniform"])
def test_every_agent_can_search(tmp_path: Path, agent: str) -> None:
    found = run(tmp_path, ToySpaces(), agent=agent)
    assert found.evaluations > 0
    assert bool(found.stages[-1].state) == (agent == "reinforce")
    assert found.stages[0].name == ("shrinkage" if agent == "uniform" else "removal")
