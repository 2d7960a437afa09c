"""A perceptron to train policies on, whose best students are known, and agents of both stages."""

from __future__ import annotations

import torch

from n2n.agents.base import Agent
from n2n.evaluate.base import Evaluate
from n2n.evaluate.fake import fake
from n2n.networks import build_teacher
from n2n.policies.training import Task, trainee
from n2n.reward import Budget
from n2n.search.options import SearchOptions
from n2n.search.spaces import TeacherSpaces
from search_spaces.base import SearchSpace

OPTIONS = SearchOptions(factors=(0.25, 0.5, 0.75, 1.0))


def task(*hidden: int, name: str = "net") -> Task:
    """A perceptron whose students are worth the parameters that they have: the best one uses its goal up."""
    network = build_teacher("mlp", seed=0, hidden=list(hidden))
    spaces = TeacherSpaces(network, torch.zeros(1, 1, 8, 8), OPTIONS)
    cost = spaces.shrinkage(None, Budget()).teacher_cost

    def judge(space: SearchSpace) -> Evaluate:
        return fake(space, lambda student: space.cost(student).parameters / cost.parameters)

    return Task(name, "none", spaces, judge, lambda one: one.accuracy or 0.0, cost.parameters, cost.macs)


def agents(**options: object) -> dict[str, Agent]:
    return {
        "removal": trainee("removal", 2, seed=0, keep_bias=2.2, **options),
        "shrinkage": trainee("shrinkage", 4, seed=1, **options),
    }
