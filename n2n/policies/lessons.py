"""Teaching policies what searches found on many networks and sizes, so that they do at once what took a search.

Expert iteration (Anthony, Tian, Barber 2017, arXiv 1705.08439): on each network and goal evolution, whose founders and
mutations are drawn from the policy as it is, looks for students better than the policy's own; the best rollouts of all
are then imitated, and the better policy guides the next searches. A policy gradient compares a handful of students of
a batch; a search compares a hundred of one network and goal before anything is learned.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

import numpy as np
import torch
from torch import Tensor, nn

from envs import Goal, drawn_goals
from n2n.agents import AGENTS
from n2n.agents.actor_critic import ActorCriticAgent
from n2n.agents.base import Agent, Learned, Stats, Trajectory, no_state, reward_stats, rollout
from n2n.agents.elite import Elite
from n2n.agents.frozen import FrozenAgent
from n2n.agents.masks import masked_log_probabilities
from n2n.agents.policies import Memory, Stepping
from n2n.policies.training import Round, Task
from search_spaces.base import FEATURES

READINESS = (2.0, 1.0, 0.5, 0.25, 0.0, -0.25, -0.5, -0.75, -1.0, -1.25, -1.5, -2.0, -2.5, -3.0)
"""What `kept` tries to add to the logit of keeping a layer; of students that are worth the same the first is taken."""
STAGES = ("shrinkage", "removal")
"""Removal last: it is rewarded for what shrinkage makes of its students."""


@dataclass(frozen=True)
class Lesson:
    """What a search found for one network and goal.

    Attributes:
        stage, task, goal: of the search.
        at_once: the reward of the policy's likeliest student, before.
        rollouts: the best ones, as one batch; that of the policy's likeliest student may be among them.
    """

    stage: str
    task: str
    goal: Goal
    at_once: float
    rollouts: Trajectory = field(repr=False)

    @property
    def best(self) -> float:
        """The highest reward that was found."""
        return float(self.rollouts.rewards.max())


def lessons(
    agents: Mapping[str, Agent],
    tasks: Sequence[Task],
    stage: str,
    *,
    each: int,
    batches: int,
    students: int,
    keep: int,
    seed: int,
    least: float = 0.05,
    most: float = 0.6,
) -> Iterator[Lesson]:
    """Searches every network for `each` goals, from the policies as they are; nobody learns here.

    Args:
        agents: by stage; their policies can be acted with.
        tasks: the networks. One that has nothing to remove gives lessons of shrinkage in place of removal.
        stage: "removal" or "shrinkage".
        each: searches of each network.
        batches: of each search; the first is the policy's own, its likeliest student first.
        students: of each batch, 2 or more; evolution remembers as many.
        keep: rollouts that are kept of a search.
        seed: of goals, starts and searches.
        least, most: the smallest and the largest share of a teacher's parameters or MACs that is asked for.

    Raises:
        ValueError: no search, batch or rollout to keep, fewer than two students, or shares out of order or range.
        SpaceError: a network whose smallest students exceed all goals that were drawn.
    """
    if min(each, batches, keep) < 1 or students < 2 or not tasks:
        raise ValueError(
            f"expected each, batches, keep >= 1, students >= 2 and at least one task, found each={each},"
            f" batches={batches}, keep={keep}, students={students} and {len(tasks)} tasks"
        )
    rng = np.random.default_rng(seed)
    goals = drawn_goals(rng, least=least, most=most)
    for _ in range(each):
        for task in tasks:
            one = Round(agents, task, goals, rng, students)
            yield _searched(one, stage, batches=batches, keep=keep, seed=int(rng.integers(2**31)))


def _searched(one: Round, stage: str, *, batches: int, keep: int, seed: int) -> Lesson:
    stage, goal, env = one.open(stage)
    policy = one.agents[stage]
    assert isinstance(policy, Learned)
    sizes = env.space.num_actions, env.space.num_decisions
    search = AGENTS["evolution"](
        len(FEATURES), *sizes, seed=seed, population=one.students, tournament=min(3, one.students),
        proposal=policy.acting,
    )  # fmt: skip
    player: Agent = FrozenAgent(policy.acting, *sizes, seed=seed)
    elite, at_once = Elite(keep), 0.0
    for batch in range(batches):
        trajectory = rollout(env, player).trajectory
        search.learn(trajectory)
        elite.add(trajectory)
        if not batch:
            player, at_once = search, float(trajectory.rewards[0])
    return Lesson(stage, one.task.name, goal, at_once, elite.trajectory())


def kept(
    agents: Mapping[str, Agent],
    tasks: Sequence[Task],
    *,
    each: int,
    seed: int,
    readiness: Sequence[float] = READINESS,
    least: float = 0.05,
    most: float = 0.6,
) -> Iterator[Lesson]:
    """Searches how many layers to keep, in the policy's own order.

    Of the policy's likeliest students under several biases of keeping a layer the best one is the lesson of a network
    and goal.

    Evolution tells which layers good students lost, a few by chance each time, so that after imitation no layer is
    likelier to go than to stay. These lessons agree with the policy on which layers go first, and tell it how far to
    go for a goal.

    Args:
        agents: of both stages; nobody learns here.
        tasks: the networks; one that has nothing to remove gives no lesson.
        each: goals of each network.
        seed: of the goals.
        readiness: the biases; of students that are worth the same the first is taken.
        least, most: the smallest and the largest share of a teacher's parameters or MACs that is asked for.

    Raises:
        ValueError: no goal, network or bias.
        SpaceError: a network whose smallest students exceed all goals that were drawn.
    """
    if each < 1 or not tasks or not readiness:
        raise ValueError(f"expected each >= 1, tasks and readiness, found each={each}, {len(tasks)} tasks, {readiness}")
    rng = np.random.default_rng(seed)
    goals = drawn_goals(rng, least=least, most=most)
    policy = _teachable(agents["removal"]).acting
    for _ in range(each):
        for task in tasks:
            stage, goal, env = Round(agents, task, goals, rng, len(readiness)).open("removal")
            if stage != "removal":
                continue
            trajectory = rollout(env, _Biased(policy, readiness)).trajectory
            elite = Elite(1)
            elite.add(trajectory)
            nearest = min(range(len(readiness)), key=lambda index: abs(readiness[index]))
            yield Lesson(stage, task.name, goal, float(trajectory.rewards[nearest]), elite.trajectory())


class _Biased:
    """Plays what a policy finds likeliest with one bias of its last action for each draft; it never learns."""

    def __init__(self, policy: Stepping, biases: Sequence[float]) -> None:
        self._policy, self._biases = policy, torch.tensor(biases)
        self.reset(0)

    def reset(self, batch_size: int) -> None:
        self._memory: Memory | None = None
        self._actions: list[Tensor] = []

    @torch.no_grad()
    def act(self, observation: Tensor, legal: Tensor) -> Tensor:
        batch, actions = legal.shape
        before = nn.functional.one_hot(self._actions[-1], actions) if self._actions else torch.zeros(batch, actions)
        logits, self._memory = self._policy.step(observation, before.float(), self._memory)
        logits = logits.clone()
        logits[:, -1] += self._biases
        self._actions.append(masked_log_probabilities(logits, legal).argmax(1))
        return self._actions[-1]

    def learn(self, trajectory: Trajectory) -> Stats:
        return reward_stats(trajectory)

    def state(self) -> dict[str, Tensor]:
        return {}

    def load(self, state: Mapping[str, Tensor]) -> None:
        no_state(state, "biased")


def teach(
    agents: Mapping[str, Agent], taught: Sequence[Lesson], *, epochs: int, seed: int, averaged: bool = False
) -> list[float]:
    """Has the agents imitate the lessons of their stages, each lesson once an epoch, in an order drawn by `seed`.

    Args:
        agents: by stage; those with lessons change.
        taught: the lessons.
        epochs: how often each is shown.
        seed: of the orders.
        averaged: takes the mean of the weights after each epoch of the second half (Izmailov et al. 2018, "Averaging
            weights leads to wider optima and better generalization"). A step has one lesson, and without this the last
            ones count for more than they are worth; with it, what an agent keeps beside its weights starts afresh.

    Returns:
        The mean loss of each epoch, in nats for each decision at which there was a choice.

    Raises:
        ValueError: an agent that cannot imitate.
    """
    rng = np.random.default_rng(seed)
    learners = {stage: _teachable(agents[stage]) for stage in dict.fromkeys(lesson.stage for lesson in taught)}
    losses, seen = [], []
    for epoch in range(epochs):
        order = rng.permutation(len(taught))
        losses.append(fmean(learners[taught[index].stage].imitate(taught[index].rollouts) for index in order))
        if averaged and epoch >= epochs // 2:
            seen.append({stage: learner.state() for stage, learner in learners.items()})
    for stage, learner in learners.items() if seen else ():
        learner.load({name: torch.stack([one[stage][name] for one in seen]).mean(0) for name in seen[0][stage]})
    return losses


def _teachable(agent: Agent) -> ActorCriticAgent:
    if not isinstance(agent, ActorCriticAgent):
        raise ValueError(f"{type(agent).__name__} cannot imitate; teach a PPO or actor-critic agent")
    return agent
