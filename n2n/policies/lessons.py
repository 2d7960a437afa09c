"""Teaching policies what searches found on many networks and sizes, so that they do at once what took a search.

Expert iteration (Anthony, Tian, Barber 2017, arXiv 1705.08439): on each network and goal evolution, whose founders and
mutations are drawn from the policy as it is, looks for students better than the policy's own; the best rollouts of all
are then imitated, and the better policy guides the next searches. A policy gradient compares a handful of students of
a batch; a search compares a hundred of one network and goal before anything is learned.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from envs import Goal, drawn_goals
from n2n.agents import AGENTS
from n2n.agents.actor_critic import ActorCriticAgent
from n2n.agents.base import Agent, Learned, Trajectory, rollout
from n2n.agents.elite import Elite
from n2n.agents.frozen import FrozenAgent
from n2n.policies.training import Round, Task, met, zero_shot
from search_spaces.base import FEATURES

BIASES = (0.0, 0.25, -0.25, 0.5, -0.5, 1.0, -1.0, 2.0, -2.0, 4.0)
"""What `settle` tries to add to the logit of keeping a layer; of equals the first."""
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


def teach(agents: Mapping[str, Agent], taught: Sequence[Lesson], *, epochs: int, seed: int) -> list[float]:
    """Has the agents imitate the lessons of their stages, each lesson once an epoch, in an order drawn by `seed`.

    Returns the mean loss of each epoch, in nats for each decision at which there was a choice.

    Raises:
        ValueError: an agent that cannot imitate.
    """
    rng = np.random.default_rng(seed)
    losses = []
    for _ in range(epochs):
        found = []
        for index in rng.permutation(len(taught)):
            found.append(_teachable(agents[taught[index].stage]).imitate(taught[index].rollouts))
        losses.append(float(np.mean(found)))
    return losses


def settle(
    agents: Mapping[str, Agent],
    tasks: Sequence[Task],
    *,
    each: int,
    seed: int,
    biases: Sequence[float] = BIASES,
    least: float = 0.05,
    most: float = 0.6,
) -> dict[float, float]:
    """Sets how readily the removal policy keeps layers to what is best for the likeliest students of the networks.

    Imitation learns each layer's odds apart from the others'; a student of all that is likelier than not can lose far
    more layers than any that was shown, or none although each lost some.

    Args:
        agents: of both stages; the one of removal changes.
        tasks: the networks.
        each: goals for each network.
        seed: of the goals.
        biases: candidates to add to the logit of keeping; of equals the first is taken.
        least, most: the smallest and the largest share of a teacher's parameters or MACs that is asked for.

    Returns:
        For each bias the mean reward of the likeliest students.

    Raises:
        ValueError: no goal, network or bias, or an agent without such a logit.
        SpaceError: a network whose smallest students exceed all goals that were drawn.
    """
    if each < 1 or not tasks or not biases:
        raise ValueError(f"expected each >= 1, tasks and biases, found each={each}, {len(tasks)} tasks, {biases}")
    removal = _teachable(agents["removal"])
    goals = drawn_goals(np.random.default_rng(seed), least=least, most=most)
    cases = [(task, met(task, goals)) for _ in range(each) for task in tasks]
    found: dict[float, float] = {}
    for bias in biases:
        removal.lean(bias)
        found[bias] = float(np.mean([task.reward(zero_shot(agents, task, goal)) for task, goal in cases]))
        removal.lean(-bias)
    removal.lean(max(found, key=lambda bias: found[bias]))
    return found


def _teachable(agent: Agent) -> ActorCriticAgent:
    if not isinstance(agent, ActorCriticAgent):
        raise ValueError(f"{type(agent).__name__} cannot imitate; teach a PPO or actor-critic agent")
    return agent
