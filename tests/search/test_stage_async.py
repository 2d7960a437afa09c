"""Rollouts that wait for no other: everybody is judged once, the limits hold, and late rollouts are corrected."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from n2n.agents import AGENTS, PATIENT
from n2n.agents.base import Patient, Trajectory
from n2n.agents.reinforce import reinforce
from n2n.evaluate import Memory, Status, fake
from n2n.evaluate.flight import Flight, InTurn, RememberedFlight
from n2n.reward import make_reward
from n2n.search.errors import SearchError
from n2n.search.limits import Limits
from n2n.search.options import SearchOptions
from n2n.search.progress import Silent
from n2n.search.stage import StageResult
from n2n.search.stage_async import run_stage_async
from n2n.search.store import Store, read_records
from search_spaces.base import FEATURES
from search_spaces.toy import ToySpace, toy


@pytest.fixture
def space() -> ToySpace:
    return toy()


def agent_of(name: str, space: ToySpace) -> Any:
    return AGENTS[name](len(FEATURES), space.num_actions, space.num_decisions, seed=0)


def run(space: ToySpace, flight: Flight, out: Path, agent: str = "reinforce", **more: Any) -> StageResult:
    reward = make_reward(teacher_accuracy=1.0, teacher_parameters=space.teacher_cost.parameters)
    settings: dict[str, Any] = {"rollouts": 3, "limits": Limits(14), **more}
    with Store(out / "evaluations.sqlite") as store:
        return run_stage_async("shrinkage", space, flight, reward, agent_of(agent, space), store=store,
                               curve=out / "learning_curve.csv", display=Silent(), **settings)  # fmt: skip


def worth(student: Any) -> float:
    return 0.3 + 0.6 * int(student.fingerprint[:4], 16) / 0xFFFF


@pytest.mark.parametrize("agent", PATIENT)
@pytest.mark.parametrize("order", ["first", "last", "any"])
def test_everybody_is_judged_once_and_the_limit_is_kept_to(
    space: ToySpace, tmp_path: Path, agent: str, order: str
) -> None:
    draw = random.Random(0)
    choose = {"first": lambda n: 0, "last": lambda n: n - 1, "any": draw.randrange}[order]
    inner = fake(space, worth)
    found = run(space, InTurn(inner, 4, choose), tmp_path, agent)
    judged = [key for batch in inner.batches for key in batch]
    assert len(judged) == len(set(judged)) == found.evaluations == 14
    assert found.stopped == "evaluations"
    records = read_records(tmp_path)
    assert [one.evaluation.fingerprint for one in records if not one.cached] == [
        one.evaluation.fingerprint for one in found.records if not one.cached
    ]
    assert {one.evaluation.fingerprint for one in records} == set(judged)
    assert all(one.evaluation.accuracy == pytest.approx(worth(one.evaluation)) for one in records)
    assert all(len([r for r in records if r.iteration == i]) <= 3 for i in range(found.updates))


def test_a_file_of_judgements_is_asked_first(space: ToySpace, tmp_path: Path) -> None:
    def flight(inner: Any) -> Flight:
        memory = Memory(tmp_path / "judged.sqlite", teacher="t", data="d")
        return RememberedFlight(InTurn(inner, 2), memory, recipe="r", seed=0)

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = fake(space, worth), fake(space, worth)
    found = run(space, flight(first), tmp_path / "a", "random")
    again = run(space, flight(second), tmp_path / "b", "random")
    rewards = {one.evaluation.fingerprint: one.reward for one in found.records}
    assert rewards == {one.evaluation.fingerprint: one.reward for one in again.records}
    assert second.batches == []


def test_agents_that_cannot_are_refused(space: ToySpace, tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="its latest rollouts only"):
        run(space, InTurn(fake(space, worth), 2), tmp_path, "uniform")
    with pytest.raises(SearchError, match="choose one of reinforce"):
        SearchOptions(agent="uniform", asynchronous=True, workers=2)
    with pytest.raises(SearchError, match="needs workers"):
        SearchOptions(asynchronous=True)
    with pytest.raises(SearchError, match="a ladder"):
        SearchOptions(asynchronous=True, workers=2, ladder=("refit:0", "refit:5"))


def test_the_list_of_patient_agents_is_true(space: ToySpace) -> None:
    assert {name for name in ("reinforce", "random", "evolution", "uniform") if
            isinstance(agent_of(name, space), Patient)} == set(PATIENT)  # fmt: skip


def trajectory(space: ToySpace, agent: Any) -> Trajectory:
    generator = torch.Generator().manual_seed(0)
    steps, batch = space.num_decisions, 4
    seen = torch.rand(steps, batch, 3, len(FEATURES), generator=generator)
    legal = torch.ones(steps, batch, space.num_actions, dtype=torch.bool)
    actions = torch.randint(space.num_actions, (steps, batch), generator=generator)
    return Trajectory(seen, legal, actions, torch.tensor([0.1, 0.9, 0.4, 0.6]))


def learned(space: ToySpace, behaviour: Any) -> dict[str, torch.Tensor]:
    agent = reinforce(len(FEATURES), space.num_actions, space.num_decisions, seed=0, policy="shrinkage")
    made = trajectory(space, agent)
    agent.learn(replace(made, behaviour=behaviour(agent, made)))
    return agent.state()


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_rollouts_of_the_present_policy_count_as_they_are(space: ToySpace) -> None:
    plain = learned(space, lambda agent, made: None)
    noted = learned(space, lambda agent, made: agent.behaviour(made))
    assert all(torch.allclose(plain[name], noted[name], atol=1e-6) for name in plain)


def test_a_late_rollout_counts_by_its_likelihood_now_and_never_for_more_than_one(space: ToySpace) -> None:
    """Twice as likely then as now: half the advantage. Less likely then than now: as it is."""

    def shifted(by: float) -> Any:
        return lambda agent, made: agent.behaviour(made) + torch.tensor(by) / made.actions.shape[0]

    plain = learned(space, lambda agent, made: agent.behaviour(made))
    assert same(learned(space, shifted(-1.0)), plain)
    agent = reinforce(len(FEATURES), space.num_actions, space.num_decisions, seed=0, policy="shrinkage",
                      entropy_weight=0.0, normalise=False)  # fmt: skip
    made = trajectory(space, agent)
    twice = agent.behaviour(made) + math.log(2) / made.actions.shape[0]
    late = agent.learn(replace(made, behaviour=twice))
    agent = reinforce(len(FEATURES), space.num_actions, space.num_decisions, seed=0, policy="shrinkage",
                      entropy_weight=0.0, normalise=False)  # fmt: skip
    present = agent.learn(made)
    assert late.loss == pytest.approx(0.5 * present.loss, rel=1e-4)
    assert late.gradient_norm == pytest.approx(0.5 * present.gradient_norm, rel=1e-4)


@pytest.mark.ray
@pytest.mark.slow
def test_workers_that_wait_for_no_batch(tmp_path: Path) -> None:
    import n2n
    from n2n.data import load
    from n2n.distill.fit import train_teacher
    from n2n.networks import build_teacher

    data = load("digits")
    network = build_teacher("mlp", inputs=64, hidden=(16, 16), classes=10, seed=0)
    train_teacher(network, data.training, epochs=3, batch_size=32)
    result = n2n.search(network, None, data, out=tmp_path / "run", evaluations=9, rollouts=3, steps=4,
                        final_epochs=0.1, finalists=1, workers=2, asynchronous=True, progress=False)  # fmt: skip
    assert result.evaluations == 9
    records = [one for one in read_records(tmp_path / "run") if not one.cached]
    judged = [one.evaluation.fingerprint for one in records if one.evaluation.status is not Status.INVALID]
    assert len(judged) == 9  # those that are no smaller than the teacher cost nothing, and do not count
    with pytest.raises(ValueError, match=r"came to its end|asynchronous"):
        n2n.search(network, None, data, out=tmp_path / "run", resume=True, progress=False)
