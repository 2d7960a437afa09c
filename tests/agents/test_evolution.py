"""Regularised evolution against what its paper says: ageing, tournaments and mutations, worked by hand."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch
from torch import Tensor

from envs import StudentVectorEnv
from n2n.agents import Trajectory, rollout
from n2n.agents.evolution import EvolutionAgent, evolution
from search_spaces.base import FEATURES, Architecture, Draft
from search_spaces.toy import toy


def judged(rows: list[list[int]], rewards: list[float], legal: Tensor | None = None, actions: int = 3) -> Trajectory:
    """One batch of students, a row of actions each; every action is legal unless `legal` [T, B, A] says otherwise."""
    taken = torch.tensor(rows).T  # [T, B]
    legal = torch.ones(*taken.shape, actions, dtype=torch.bool) if legal is None else legal
    return Trajectory(torch.zeros(*taken.shape, 1), legal, taken, torch.tensor(rewards))


def children(agent: EvolutionAgent, many: int, decisions: int = 4, legal: Tensor | None = None) -> Tensor:
    """The actions [many, T] of the next children."""
    mask = torch.ones(3, dtype=torch.bool) if legal is None else legal  # [A]
    agent.reset(many)
    return torch.stack([agent.act(torch.zeros(many, 1, 1), mask.expand(many, -1)) for _ in range(decisions)], dim=1)


def test_the_oldest_dies_the_best_one_too() -> None:
    agent = evolution(1, 3, 6, seed=0, population=3, tournament=3)
    best, second, third, fourth = [0] * 6, [1] * 6, [2] * 6, [0, 0, 1, 1, 2, 2]
    agent.learn(judged([best, second, third], [0.9, 0.1, 0.2]))
    agent.learn(judged([fourth], [0.3]))  # three are remembered: the first dies, though it is the best
    parents = Counter[int]()
    for child in children(agent, 300, decisions=6).tolist():
        near = [sum(a != b for a, b in zip(child, one, strict=True)) for one in (best, second, third, fourth)]
        # one decision is redrawn: every child is at distance 1 from its parent
        parents.update(index for index, distance in enumerate(near) if distance == 1)
    assert parents[0] == 0, "the dead have no children"
    # drawn with replacement, the best of three is missed with probability (2/3)^3 = 8/27, the two best with 1/27
    assert parents[3] == pytest.approx(300 * 19 / 27, abs=4 * (300 * 19 / 27 * 8 / 27) ** 0.5)
    assert parents[2] == pytest.approx(300 * 7 / 27, abs=4 * (300 * 7 / 27 * 20 / 27) ** 0.5)
    assert sum(parents.values()) == 300


def test_founders_fill_the_population_first() -> None:
    agent = evolution(1, 3, 4, seed=0, population=4, tournament=4)
    founders = children(agent, 1000)
    assert torch.bincount(founders.flatten(), minlength=3).float().sub(4000 / 3).abs().max() < 160
    agent.learn(judged([[1, 1, 1, 1]] * 2, [0.5, 0.5]))
    last = children(agent, 6)  # two more are founders, four are bred
    assert ((last[2:] != 1).sum(dim=1) == 1).all()
    assert ((last[:2] != 1).sum(dim=1) > 1).any()


def test_every_mutation_is_equally_likely() -> None:
    agent = evolution(1, 3, 4, seed=0, population=2, tournament=1)
    agent.learn(judged([[0, 1, 2, 1]] * 2, [0.5, 0.5]))
    found = Counter(tuple(child) for child in children(agent, 8000).tolist())
    assert len(found) == 4 * 2, "four decisions, two other actions each"
    assert all(abs(times - 1000) < 150 for times in found.values())


def test_only_decisions_with_a_choice_are_redrawn_and_only_by_what_is_legal() -> None:
    legal = torch.ones(4, 2, 3, dtype=torch.bool)
    legal[1:3, :, :2] = False  # at these two only the last action is
    agent = evolution(1, 3, 4, seed=0, population=2, tournament=1)
    agent.learn(judged([[0, 2, 2, 1]] * 2, [0.5, 0.5], legal))
    agent.reset(200)
    acted = torch.stack([agent.act(torch.zeros(200, 1, 1), legal[step, :1].expand(200, -1)) for step in range(4)])
    assert set(map(tuple, acted.T.tolist())) == {(1, 2, 2, 1), (2, 2, 2, 1), (0, 2, 2, 0), (0, 2, 2, 2)}


def test_a_student_that_cannot_be_has_no_children() -> None:
    agent = evolution(1, 3, 4, seed=0, population=2, tournament=2)
    agent.learn(judged([[0] * 4, [1] * 4, [2] * 4, [2] * 4], [-1.0, 0.1, 0.2, -1.0]))
    near = {tuple(sum(a != b for a, b in zip(child, [only] * 4, strict=True)) == 1 for only in range(3))
            for child in children(agent, 100).tolist()}  # fmt: skip
    assert near == {(False, True, False), (False, False, True)}


class Budgeted:
    """The toy space with a budget as a mask: what would leave no student within it is not legal."""

    def __init__(self, most: int) -> None:
        self._toy, self.most = toy(decisions=4, actions=4), most
        self._known: dict[tuple[int, ...], int] = {}
        self.name, self.num_decisions, self.num_actions = "budgeted", 4, 4

    def __getattr__(self, name: str) -> object:
        return getattr(self._toy, name)

    def legal(self, draft: Draft) -> object:
        mask = self._toy.legal(draft).copy()
        for action in range(4):
            mask[action] = mask[action] and self._least(self._toy.apply(draft, action)) <= self.most
        return mask

    def _least(self, draft: Draft) -> int:
        if draft.actions not in self._known:
            drafts = [draft]
            while drafts[0].cursor < 4:
                drafts = [self._toy.apply(one, a) for one in drafts for a in range(4) if self._toy.legal(one)[a]]
            self._known[draft.actions] = min(self._toy.cost(self._toy.student(one)).parameters for one in drafts)
        return self._known[draft.actions]


def test_every_child_keeps_to_the_budget_and_the_best_within_it_is_found() -> None:
    inner = toy(decisions=4, actions=4)
    costs = {one.fingerprint: inner.cost(one).parameters for one in inner.all()}
    most = sorted(costs.values())[len(costs) // 3]
    space = Budgeted(most)

    def worth(student: Architecture) -> float:
        widths = [action + 1 for action in inner.actions_of(student)]
        return sum(width * weight for width, weight in zip(widths, (1, 3, 2, 5), strict=True)) / 44

    optimum = max(worth(one) for one in inner.all() if costs[one.fingerprint] <= most)
    reached = 0
    for seed in range(10):
        met: list[Architecture] = []

        def judge(students: list[Architecture], met: list[Architecture] = met) -> list[float]:
            met += students
            return [worth(one) for one in students]

        agent = evolution(len(FEATURES), 4, 4, seed=seed, population=16, tournament=4)
        env = StudentVectorEnv(space, judge, float, 4)  # type: ignore[arg-type]  # it answers what a space does
        for _ in range(40):
            agent.learn(rollout(env, agent).trajectory)
        assert all(costs[one.fingerprint] <= most for one in met)
        reached += max(map(worth, met)) == optimum
    assert reached >= 8, reached  # one decision at a time, some runs end beside it


@pytest.mark.parametrize(
    "options", [{"population": 1}, {"tournament": 21}, {"tournament": 0}, {"mutations": 0}, {"mutations": 5}]
)
def test_what_makes_no_sense_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"expected population >= 2.* in 1\.\.4 \(decisions\)"):
        evolution(1, 3, 4, seed=0, **options)


def test_equal_seeds_breed_alike() -> None:
    def bred(seed: int) -> list[list[int]]:
        agent = evolution(1, 3, 4, seed=seed, population=2, tournament=2)
        agent.learn(
            judged([list(row) for row in itertools.islice(itertools.product(range(3), repeat=4), 8)], [0.1] * 8)
        )
        return children(agent, 20).tolist()

    assert bred(3) == bred(3)
    assert bred(3) != bred(4)
