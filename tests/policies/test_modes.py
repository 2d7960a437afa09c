"""What a search does with a policy: learns on, only acts, or lets evolution draw from it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import n2n
from n2n.data import Data
from n2n.evaluate.base import Evaluate, Evaluation
from n2n.evaluate.fake import fake
from n2n.networks import build_teacher
from n2n.policies import PolicyError
from n2n.policies.files import load_policies, save_policy
from n2n.policies.library import Library
from n2n.search.errors import ChanceLevelWarning
from n2n.search.files import read_json
from n2n.search.store import read_records
from search_spaces.base import Architecture, SearchSpace

Make = Callable[[str, int], Path]
QUICK: dict[str, Any] = {"start": "refit", "steps": 0, "final_epochs": 0.5, "finalists": 1, "progress": False}


def actions_of(out: Path, stage: str) -> list[str]:
    """The architectures of a stage in the order in which they were judged."""
    return [one.evaluation.architecture for one in read_records(out) if one.stage == stage]


def test_zero_shot_plays_the_likeliest_student_first_and_learns_nothing(
    teacher: nn.Module, digits: Data, policy: Make, tmp_path: Path
) -> None:
    found = n2n.search(teacher, None, digits, out=tmp_path / "run", policy=policy("half", 4), policy_mode="zero-shot",
                       removal=False, evaluations=3, rollouts=3, **QUICK)  # fmt: skip
    first, *others = actions_of(found.out, "shrinkage")
    assert set(json.loads(first)["widths"].values()) == {16}, "half of 32 everywhere"
    assert first not in others
    assert not (found.out / "policies").exists()
    assert read_json(found.out / "config.json")["agent"] == "ppo"


def test_the_budget_bounds_what_a_policy_wishes(teacher: nn.Module, digits: Data, policy: Make, tmp_path: Path) -> None:
    found = n2n.search(teacher, None, digits, out=tmp_path / "run", policy=policy("all", 9), policy_mode="zero-shot",
                       max_params="30%", evaluations=2, rollouts=1, **QUICK)  # fmt: skip
    assert found.meets_budget
    assert found.evaluations == 2
    limit = 0.3 * found.teacher.parameters
    assert 0.5 * limit < found.students[0].figures.parameters <= limit


def test_evolution_draws_from_the_policy(teacher: nn.Module, digits: Data, policy: Make, tmp_path: Path) -> None:
    found = n2n.search(teacher, None, digits, out=tmp_path / "run", policy=policy("half", 4), policy_mode="proposal",
                       removal=False, evaluations=6, rollouts=6, **QUICK)  # fmt: skip
    config = read_json(found.out / "config.json")
    assert (config["agent"], config["policy_mode"]) == ("evolution", "proposal")
    widths = [width for text in actions_of(found.out, "shrinkage") for width in json.loads(text)["widths"].values()]
    assert widths.count(16) > len(widths) / 2  # four of five, and a tenth of the rest


def test_warm_learns_on_with_the_policys_agent_and_options(teacher: nn.Module, digits: Data, tmp_path: Path) -> None:
    first = n2n.search(teacher, None, digits, out=tmp_path / "one", agent="ppo", removal=False, evaluations=4,
                       rollouts=2, **QUICK)  # fmt: skip
    again = n2n.search(teacher, None, digits, out=tmp_path / "two", policy=first.out, removal=False, evaluations=4,
                       rollouts=2, **QUICK)  # fmt: skip
    assert read_json(again.out / "config.json")["agent"] == "ppo"
    (old,), (new,) = (load_policies(one.out).values() for one in (first, again))
    assert old.meta == new.meta
    assert any(not value.equal(old.state[name]) for name, value in new.state.items())
    entry = Library(tmp_path / "none").find(again.out)
    assert entry.card is not None
    assert entry.card.made_by == "n2n search, from the policy one"
    assert [one.teacher for one in entry.card.trained] == ["Sequential"], "one network, twice"
    assert entry.card.judged == 4


def test_what_was_learned_on_comes_along_and_other_decisions_are_told(
    teacher: nn.Module, digits: Data, policy: Make, tmp_path: Path
) -> None:
    other = build_teacher("mlp", seed=1, hidden=[24, 24])
    short: dict[str, Any] = {"removal": False, "evaluations": 2, "rollouts": 2, **QUICK}
    factors = (0.25, 0.5, 1.0)
    with pytest.warns(ChanceLevelWarning):
        n2n.search(other, None, digits, out=tmp_path / "one", agent="ppo", factors=factors, **short)
    found = n2n.search(teacher, None, digits, out=tmp_path / "two", policy=tmp_path / "one", factors=(0.2, 0.4, 1.0),
                       **short)  # fmt: skip
    card = Library(tmp_path / "none").find(found.out).card
    assert card is not None
    assert [one.parameters for one in card.trained] == [2410, found.teacher.parameters]
    assert any(
        "was trained with factors [0.25, 0.5, 1.0], the search has [0.2, 0.4, 1.0]" in one for one in found.notes
    )
    with pytest.raises(PolicyError, match=r"trained with 3 factors, the search has 10: say --factor 0.25 --factor 0.5"):
        n2n.search(teacher, None, digits, out=tmp_path / "three", policy=tmp_path / "one", **short)


def test_a_run_is_gone_on_with_when_its_policy_is_gone(
    teacher: nn.Module, digits: Data, policy: Make, tmp_path: Path
) -> None:
    class Killed(Exception):  # noqa: N818 - as in the tests of resuming
        """The process is gone."""

    def judge(space: SearchSpace) -> Evaluate:
        many = iter(range(3))

        def killed(students: Sequence[Architecture]) -> list[Evaluation]:
            if next(many, None) is None:
                raise Killed
            return fake(space, lambda student: 0.5)(students)

        return killed

    def whole(space: SearchSpace) -> Evaluate:
        return fake(space, lambda student: 0.5)

    start = policy("start", 4)
    short: dict[str, Any] = {"policy": start, "removal": False, "evaluations": 8, "rollouts": 2, "final_epochs": 0.5,
                             "finalists": 1, "progress": False}  # fmt: skip
    n2n.search(teacher, None, digits, out=tmp_path / "left", make_evaluate=whole, **short)
    with pytest.raises(Killed):
        n2n.search(teacher, None, digits, out=tmp_path / "cut", make_evaluate=judge, **short)
    start.rename(tmp_path / "elsewhere")
    n2n.search(teacher, None, digits, out=tmp_path / "cut", make_evaluate=whole, resume=True, **short)
    assert actions_of(tmp_path / "cut", "shrinkage") == actions_of(tmp_path / "left", "shrinkage")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"policy_mode": "zero-shot"}, "policy_mode='zero-shot' without a policy"),
        ({"policy": "nowhere"}, "no folder nowhere, and no policy of that name"),
        ({"policy": "made/shrinkage", "policy_mode": "zero-shot"}, "no policy for removal"),
        ({"policy": "made", "policy_mode": "proposal", "agent": "ppo"}, "is for evolution, not for agent='ppo'"),
        ({"policy": "made", "agent": "reinforce"}, "of the agent 'ppo', the search has 'reinforce': leave out --agent"),
        ({"policy": "made", "factors": (0.5, 1.0)}, "num_actions is 10, the search has 2"),
        ({"policy": "sb3", "policy_mode": "zero-shot"}, "can only learn on"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_written(
    changed: dict[str, Any], words: str, teacher: nn.Module, digits: Data, policy: Make, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    made = load_policies(policy("made", 3))
    for stage, one in made.items():
        meta = type(one.meta)(**{**one.meta.__dict__, "agent": "sb3_ppo"})
        save_policy(tmp_path / "sb3" / stage, one.state, meta)
    with pytest.raises(PolicyError, match=words):
        n2n.search(teacher, None, digits, out="run", **{**QUICK, **changed})
    assert not Path("run").exists()
