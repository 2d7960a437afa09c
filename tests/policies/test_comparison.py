"""Policies beside agents that have learned nothing: the same students, the same judge, the same count."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

import n2n
from n2n.agents import AGENTS
from n2n.comparison import Compared, Side, comparison
from n2n.data import Data
from n2n.evaluate.base import Status
from n2n.networks import Timings
from n2n.policies import PolicyError, PolicyMeta, save_policy
from n2n.reward import SHORTFALL, make_reward
from n2n.search.errors import SearchError
from n2n.search.store import read_records
from search_spaces.base import FEATURES


@pytest.fixture
def half(policy: Callable[[str, int], Path]) -> Path:
    """A policy that is all but sure of half of each width."""
    return policy("half", 4) / "shrinkage"


Compare = Callable[..., Compared]


@pytest.fixture
def compare(teacher: nn.Module, digits: Data) -> Compare:
    def run(*policies: object, **changed: object) -> Compared:
        options = {"judged": 4, "seeds": 2, "rollouts": 2, "progress": False, **changed}
        return n2n.compare_policies(policies, teacher, None, digits, **options)  # type: ignore[arg-type]

    return run


def test_the_sides_are_what_searches_of_their_own_find(
    compare: Compare, half: Path, teacher: nn.Module, digits: Data, tmp_path: Path
) -> None:
    found = compare(half, against=("random",))
    assert [one.name for one in found.sides] == [str(half), "random"]
    likeliest = set()
    for side, options in ((found.sides[0], {"policy": half, "policy_mode": "zero-shot"}), (found.sides[1], {})):
        for seed in (0, 1):
            out = tmp_path / f"{side.name.replace('/', '-')}-{seed}"
            agent = None if options else "random"
            run = n2n.search(teacher, None, digits, out=out, agent=agent, removal=False, evaluations=4, rollouts=2,
                             ladder=("refit:0",), seed=seed, final_epochs=0.1, finalists=1, progress=False,
                             **options)  # type: ignore[arg-type]  # fmt: skip
            accuracy = run.teacher.validation_accuracy
            whole = run.teacher.parameters
            reward = make_reward(teacher_accuracy=accuracy, teacher_parameters=whole, shortfall=SHORTFALL, chance=0.1)
            good = [one.evaluation for one in read_records(out) if one.evaluation.status is Status.OK]
            rewards = [reward(one) for one in good]
            likeliest |= {good[0].fingerprint} if options else set()
            assert side.first[seed] == pytest.approx(rewards[0])
            assert side.best[seed] == pytest.approx(max(rewards))
            assert side.curves[seed] == pytest.approx([max(rewards[: many + 1]) for many in range(4)])
    assert len(likeliest) == 1, "the likeliest student has no seed; the images that it is solved on have one"


def test_no_student_is_timed(compare: Compare, monkeypatch: pytest.MonkeyPatch) -> None:
    """A latency takes as long as a judgement in closed form, and nothing here asks for it."""

    def of(self: Timings, fingerprint: str, network: nn.Module) -> None:
        raise AssertionError(f"{fingerprint} was timed")

    monkeypatch.setattr(Timings, "of", of)
    assert compare(against=("random",), seeds=1).side("random").mean_best is not None


def test_only_students_within_the_budget_count(compare: Compare, half: Path) -> None:
    found = compare(half, against=("uniform",), max_params="30%")
    assert found.budget == "params 30%"
    assert all(value is not None for side in found.sides for value in side.best)
    assert found.side("uniform").mode == ""


def test_agents_can_be_compared_without_a_policy_in_both_stages(compare: Compare) -> None:
    found = compare(against=("random", "evolution"), max_params="50%")
    assert [(one.name, one.mode) for one in found.sides] == [("random", ""), ("evolution", "")]
    assert all(len(curve) == 4 for side in found.sides for curve in side.curves)
    assert all(side.curves[0][-1] is not None for side in found.sides)


def test_a_side_without_a_student_has_no_mean_and_no_line_for_the_card() -> None:
    none = Side("p", "zero-shot", ((None, None), (None, 0.5)))
    some = Side("random", "", ((None, 0.25, 0.5), (0.75, 0.75, 1.0)))
    compared = Compared("net", "digits", "ab", "none", ("shrinkage",), 4, 2, (none, some))
    assert (none.mean_best, some.mean_first, some.mean_best) == (None, 0.5, 0.75)
    assert none.first == none.best == (None, 0.5)
    assert comparison(compared, "p", "zero-shot", held_back=True) is None
    line = comparison(compared, "random", "", held_back=False)
    assert line is not None
    assert (line.policy, line.random, line.judged, line.seeds) == (0.75, 0.75, 4, 2)


def test_what_cannot_be_compared_is_refused(compare: Compare, half: Path, tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="expected a policy or an agent"):
        compare(against=())
    with pytest.raises(SearchError, match="against='nobody' does not exist"):
        compare(half, against=("nobody",))
    with pytest.raises(PolicyError, match="no policy of that name"):
        compare(tmp_path / "nowhere")
    state = AGENTS["ppo"](len(FEATURES), 2, 1, seed=0).state()
    meta = PolicyMeta(agent="ppo", stage="removal", num_actions=2, num_decisions=2)
    with pytest.raises(SearchError, match="no stage in common"):
        compare(half, save_policy(tmp_path / "other", state, meta))
