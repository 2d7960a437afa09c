from __future__ import annotations

import numpy as np
import pytest

from envs import Goal, GoalVectorEnv, drawn_goals
from envs.goals import Goals
from envs.registration import Size, size_evaluate
from n2n.agents import rollout
from n2n.agents.ppo import ppo
from search_spaces.base import FEATURES, GOALS
from search_spaces.toy import toy

SPACE = toy(decisions=4, actions=4, width=20, first_needs_half=False)


def asked(size: Size, goal: Goal) -> float:
    """The larger the better within the goal, so that the best student is the one that uses its goal up."""
    share = size.parameters / size.teacher_parameters
    return share if not goal.parameters or share <= goal.parameters else -min(1.0, np.log2(share / goal.parameters))


def drawn(**changed: float) -> Goals:
    return drawn_goals(np.random.default_rng(0), **{"least": 0.1, "most": 1.0, "macs": 0.0, **changed})


def test_every_row_of_every_draft_shows_its_goal() -> None:
    goals = (Goal(0.3), Goal(), Goal(0.5, 0.25))
    env = GoalVectorEnv(SPACE, size_evaluate(SPACE), asked, 3, lambda count: goals[:count])
    seen, info = env.reset()
    assert info["goal"] == goals
    for _ in range(4):
        for index, goal in enumerate(goals):
            np.testing.assert_allclose(seen[index][:, list(GOALS)], [[goal.parameters, goal.macs]] * 5, rtol=1e-6)
        plain = np.delete(seen, list(GOALS), axis=-1)
        np.testing.assert_array_equal(plain[0], plain[2])
        seen, rewards, _, _, info = env.step(np.full(3, 2))
    size = info["evaluation"][0]
    assert rewards.tolist() == [asked(size, goal) for goal in goals]
    assert rewards[0] == -1 < rewards[1]


def test_each_batch_has_new_goals() -> None:
    env = GoalVectorEnv(SPACE, size_evaluate(SPACE), asked, 2, drawn())
    assert env.reset()[1]["goal"] != env.reset()[1]["goal"]


def test_drawn_goals_are_log_uniform_shares_of_one_cost() -> None:
    goals = drawn(least=0.05, most=0.8, macs=0.3, free=0.25)(4000)
    assert abs(np.mean([goal == Goal() for goal in goals]) - 0.25) < 0.03
    asked_for = [goal for goal in goals if goal != Goal()]
    assert abs(np.mean([goal.parameters == 0 for goal in asked_for]) - 0.3) < 0.03
    shares = np.array([goal.parameters or goal.macs for goal in asked_for])
    assert shares.min() >= 0.05
    assert shares.max() <= 0.8
    assert abs((shares < 0.2).mean() - 0.5) < 0.03  # 0.2 is the geometric mean


@pytest.mark.parametrize("wrong", [{"least": 0.0}, {"least": 0.6, "most": 0.5}, {"macs": -1}, {"free": 2}])
def test_goals_that_cannot_be_drawn(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected 0 < least"):
        drawn(**wrong)


def test_what_is_wrong_with_a_goal_is_said() -> None:
    with pytest.raises(ValueError, match=r"macs must be a share of the teacher from 0 \(none\) to 1, found 20"):
        Goal(macs=20)
    env = GoalVectorEnv(SPACE, size_evaluate(SPACE), asked, 3, lambda count: [Goal()])
    with pytest.raises(ValueError, match=r"goals\(3\) gave 1 goals"):
        env.reset()


def test_one_policy_gives_a_student_for_every_goal() -> None:
    agent = ppo(len(FEATURES), SPACE.num_actions, SPACE.num_decisions, seed=0)
    env = GoalVectorEnv(SPACE, size_evaluate(SPACE), asked, 8, drawn())
    for _ in range(220):
        agent.learn(rollout(env, agent).trajectory)
    found = []
    for share in (0.15, 0.3, 0.6, 1.0):
        wanted = GoalVectorEnv(SPACE, size_evaluate(SPACE), asked, 30, lambda count, share=share: [Goal(share)] * count)
        sizes = [one.parameters / one.teacher_parameters for one in rollout(wanted, agent).evaluations]
        found.append(float(np.median(sizes)))
    assert found == sorted(found)
    assert found[0] < 0.25
    assert found[-1] > 0.5
