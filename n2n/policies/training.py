"""Training policies on many networks and many sizes, so that they act at once on a network that they have not seen.

A batch has one network and one goal (a share of its parameters or MACs, which bounds the shrinkage space), and trains
the agent of one stage. Removal is rewarded for what becomes of its students: each is shrunk to the goal by the
shrinkage policy as it is then. Rewards of different networks and goals do not compare, so agents should look at ranks
within the batch: `trainee` makes such ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import numpy as np

from envs import Goal, GoalVectorEnv, drawn_goals
from envs.goals import NO_GOAL, Goals, always
from n2n.agents import AGENTS
from n2n.agents.base import Agent, Learned, Trajectory, rollout
from n2n.agents.frozen import FrozenAgent
from n2n.evaluate.base import Evaluate, Evaluation, Status, not_ok
from n2n.reward import Budget
from n2n.search.spaces import Spaces
from search_spaces.base import FEATURES, Architecture, SearchSpace, SpaceError

LOST = -1.0
"""The reward of a student that could not be judged, below all accuracies and agreements."""
TRIES = 20
"""Goals drawn for a batch before its network counts as one that no goal fits."""


@dataclass(frozen=True)
class Task:
    """One network to learn on.

    Attributes:
        name, data: what cards call it.
        spaces: opens its two spaces.
        judge: opens the judge of a space's students.
        value: from an evaluation with status OK to what is to be had most of: an accuracy, an agreement, a score.
        parameters, macs: of the teacher.
        accuracy: of the teacher on validation.
        tells: whether agents see the goal; without, they know no more of it than that some actions are not allowed.
    """

    name: str
    data: str
    spaces: Spaces
    judge: Callable[[SearchSpace], Evaluate]
    value: Callable[[Evaluation], float]
    parameters: int
    macs: int
    accuracy: float | None = None
    tells: bool = True

    def reward(self, evaluation: Evaluation) -> float:
        """The value of an evaluation, or `LOST`."""
        return self.value(evaluation) if evaluation.status is Status.OK else LOST

    def shown(self, goal: Goal) -> Goal:
        """What agents see of a goal."""
        return goal if self.tells else NO_GOAL

    def budget(self, goal: Goal) -> Budget:
        """The goal as a bound."""
        return Budget(max_parameters=goal.parameters * self.parameters or None, max_macs=goal.macs * self.macs or None)


@dataclass(frozen=True)
class Batch:
    """What was learned from: one row of the learning curve."""

    index: int
    stage: str
    task: str
    goal: Goal
    rewards: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Of the rewards."""
        return fmean(self.rewards)


def trainee(stage: str, actions: int, *, seed: int, keep_bias: float = 0.0, **options: Any) -> Agent:
    """A PPO agent that compares the students of a batch with one another only; `options` are those of `ppo`."""
    own: dict[str, Any] = {"baseline": "leave_one_out", "scale": "rank", "history": 2, "repeats": True, **options}
    bias = keep_bias if stage == "removal" else 0.0
    return AGENTS["ppo"](len(FEATURES), actions, 1, seed=seed, keep_bias=bias, **own)


def train(
    agents: Mapping[str, Agent],
    tasks: Sequence[Task],
    *,
    batches: int,
    students: int,
    seed: int,
    least: float = 0.05,
    most: float = 0.6,
    removal_share: float = 0.5,
) -> Iterator[Batch]:
    """Trains the agents of "removal" and "shrinkage" in turn; each batch comes back when it has been learned from.

    Args:
        agents: by stage; they change.
        tasks: networks, each as likely as the others.
        batches: how many.
        students: of each batch, 2 or more.
        seed: of networks, goals, stages and starts.
        least, most: the smallest and the largest share of a teacher's parameters or MACs that is asked for.
        removal_share: how often a batch is one of removal, where the network has layers to remove.

    Raises:
        ValueError: fewer than two students in a batch, no network, shares out of order or range, or an agent that
            keeps its policy to itself.
        SpaceError: a network whose smallest students exceed all goals that were drawn.
    """
    if students < 2 or not tasks:
        raise ValueError(f"expected students >= 2 in a batch and at least one task, found {students} and {len(tasks)}")
    if not isinstance(agents["shrinkage"], Learned):
        raise ValueError(f"{type(agents['shrinkage']).__name__} keeps its policy to itself; train a PPO agent")
    rng = np.random.default_rng(seed)
    goals = drawn_goals(rng, least=least, most=most)
    for index in range(batches):
        task = tasks[int(rng.integers(len(tasks)))]
        stage = "removal" if rng.random() < removal_share else "shrinkage"
        yield Round(agents, task, goals, rng, students).play(index, stage)


def met(task: Task, goals: Goals) -> Goal:
    """The first drawn goal that some widths of the teacher meet, so that there are students to judge.

    Raises:
        SpaceError: the smallest students exceed all of `TRIES` goals.
    """
    for _ in range(TRIES):
        (goal,) = goals(1)
        try:
            task.spaces.shrinkage(None, task.budget(goal))
        except SpaceError as error:
            why = error
        else:
            return goal
    raise SpaceError(f"{task.name}: none of {TRIES} goals can be met: {why}")


@dataclass(frozen=True)
class Round:
    """What happens once: one network, one goal, batches of so many students."""

    agents: Mapping[str, Agent]
    task: Task
    goals: Goals
    rng: np.random.Generator
    students: int

    def play(self, index: int, stage: str) -> Batch:
        """One batch that the agent of the stage learns from."""
        stage, goal, env = self.open(stage)
        trajectory, _ = rollout(env, self.agents[stage])
        self.agents[stage].learn(trajectory)
        return Batch(index, stage, self.task.name, goal, _rewards(trajectory))

    def open(self, stage: str) -> tuple[str, Goal, GoalVectorEnv]:
        """A goal that some student meets, and the environment of the stage under it; shrinkage if nothing is to remove.

        Raises:
            SpaceError: the smallest students exceed all goals that were drawn.
        """
        goal = met(self.task, self.goals)
        stage, space, judge = self._opened(stage, goal)
        shown = always(self.task.shown(goal))
        return stage, goal, GoalVectorEnv(space, judge, lambda one, _: self.task.reward(one), self.students, shown)

    def _opened(self, stage: str, goal: Goal) -> tuple[str, SearchSpace, Evaluate]:
        """The space of a stage; shrinkage where there is nothing to remove."""
        budget = self.task.budget(goal)
        try:
            removal = self.task.spaces.removal(Budget())
        except SpaceError:
            removal = None
        if stage == "removal" and removal is not None:
            return stage, removal, Completed(removal, self.task, goal, self.agents["shrinkage"])
        start = None
        if removal is not None and self.rng.random() < 0.5:
            start = played(self.agents["removal"], removal, self.task.shown(goal))
        space = _shrinkage(self.task.spaces, start, budget)
        return "shrinkage", space, self.task.judge(space)


@dataclass
class Completed:
    """Judges removal students by what the shrinkage policy, at its likeliest, makes of them under the goal."""

    removal: SearchSpace
    task: Task
    goal: Goal
    agent: Agent
    made: dict[str, Evaluation] = field(default_factory=dict)

    def __call__(self, students: Sequence[Architecture]) -> list[Evaluation]:
        """One evaluation each, of the shrunk student; INVALID where no shrinkage reaches the goal."""
        return [self._judged(student) for student in students]

    def _judged(self, student: Architecture) -> Evaluation:
        if student.fingerprint not in self.made:
            self.made[student.fingerprint] = self._shrunk(student)
        return self.made[student.fingerprint]

    def _shrunk(self, student: Architecture) -> Evaluation:
        budget, cost = self.task.budget(self.goal), self.removal.cost(student)
        try:
            space = self.task.spaces.shrinkage(student, budget)
        except SpaceError as error:
            if not budget.refusal(cost):  # small enough, and nothing is left that could shrink
                return self.task.judge(self.removal)([student])[0]
            return not_ok(Status.INVALID, str(error), student, cost, seconds=0.0, seed=0, fidelity="not judged")
        return self.task.judge(space)([played(self.agent, space, self.task.shown(self.goal), likeliest=True)])[0]


def zero_shot(policies: Mapping[str, Agent], task: Task, goal: Goal) -> Evaluation:
    """What the policies make of a network at once: the evaluation of their likeliest student within the goal.

    Raises:
        SpaceError: no student of the network is within the goal.
    """
    budget, removal_agent, start = task.budget(goal), policies.get("removal"), None
    if removal_agent is not None:
        try:
            removal = task.spaces.removal(Budget())
        except SpaceError:
            removal = None
        if removal is not None:
            start = played(removal_agent, removal, task.shown(goal), likeliest=True)
    space = _shrinkage(task.spaces, start, budget)
    return task.judge(space)([played(policies["shrinkage"], space, task.shown(goal), likeliest=True)])[0]


def played(agent: Agent, space: SearchSpace, goal: Goal, *, likeliest: bool = False) -> Architecture:
    """A student that an agent's policy draws, or the likeliest one; nobody judges it, and nobody learns from it."""
    if likeliest:
        assert isinstance(agent, Learned)
        agent = FrozenAgent(agent.acting, space.num_actions, space.num_decisions, seed=0)
    env = GoalVectorEnv(space, list, lambda one, _: 0.0, 1, always(goal))
    student: Architecture = rollout(env, agent).evaluations[0]
    return student


def _shrinkage(spaces: Spaces, start: Architecture | None, budget: Budget) -> SearchSpace:
    """The shrinkage space of a start, or of the teacher where the start has nothing to shrink to the budget."""
    try:
        return spaces.shrinkage(start, budget)
    except SpaceError:
        if start is None:
            raise
        return spaces.shrinkage(None, budget)


def _rewards(trajectory: Trajectory) -> tuple[float, ...]:
    return tuple(trajectory.rewards.tolist())
