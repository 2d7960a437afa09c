"""What each part of training a policy on many networks is worth on networks that it has not seen.

    python scripts/benchmarks/train_policies.py --set residual-plain --out runs/policies/some
    python scripts/benchmarks/training_ablations.py --lessons runs/policies/FOLDER --seeds 5
    python scripts/benchmarks/training_ablations.py --table

For each seed one policy is trained in each of the ways of `WAYS`: with PPO on a training-free score; by imitating what
the first round of searches of `train_policies.py` found, whose files are in `--lessons`; then by lessons about how many
layers to keep for a goal, or by PPO on closed-form distillation; and by both kinds of lessons with one thing changed:
not told the goal, which it then notices only by the actions that are not allowed, or with another encoder. Seeds are of
weights, orders, goals and PPO; the searches are the same. Each policy makes a student at once for networks that it has
not seen, at several shares of the parameters, and so do uniform scaling and random choice. One row of
`results/policies-training.csv` for each seed, way, network and share: agreement with the teacher after closed-form
distillation, the share of the parameters that was used, and the minutes of training, without those of the searches.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from policies_table import training_lines
from policy_lessons import read
from policy_networks import HELD_BACK, SETS
from rows import RESULTS, rows_of
from torch import Tensor
from train_policies import (
    CHEAP,
    DEAR,
    HIDDEN,
    LEAST,
    MOST,
    RATE,
    REMOVAL_SHARE,
    TEACH_RATE,
    agents_of,
    kept_layers,
    task_of,
    teacher_of,
)

from envs import Goal
from n2n.agents import AGENTS
from n2n.agents.base import Agent
from n2n.data import load
from n2n.evaluate.base import Evaluation, Status
from n2n.policies.lessons import Lesson, teach
from n2n.policies.training import Task, played, train, zero_shot
from search_spaces.base import FEATURES, GOALS

NAME = "policies-training"
COLUMNS = ("way", "seed", "network", "share", "agreement", "accuracy", "used", "minutes")
SHARES = (0.1, 0.2, 0.4)


@dataclass(frozen=True)
class Way:
    """A way to train: epochs of imitation, batches of PPO by the score or in closed form, rounds of layers to keep."""

    teach: int = 0
    cheap: int = 0
    dear: int = 0
    keeping: int = 0
    tells: bool = True
    encoder: str = "attention"


SEARCHES = 20
"""Epochs of imitation, half of those in `train_policies.py`."""
KEEPING, KEEPING_EACH = 2, 3
"""Rounds of lessons about how many layers to keep, and goals of each network in one."""
WAYS = {
    "score": Way(cheap=200),
    "searches": Way(teach=SEARCHES),
    "searches, then layers to keep": Way(teach=SEARCHES, keeping=KEEPING),
    "searches, then closed form": Way(teach=SEARCHES, dear=100),
    "layers to keep, not told the goal": Way(teach=SEARCHES, keeping=KEEPING, tells=False),
    "layers to keep, encoder layers": Way(teach=SEARCHES, keeping=KEEPING, encoder="layers"),
}
Imitated = dict[Way, tuple[dict[str, dict[str, Tensor]], float]]
"""Weights after imitation and its seconds, by the way without what follows, so that no imitation is made twice."""
UNTRAINED = ("uniform", "random")


def row(way: str, seed: int, task: Task, share: float, found: Evaluation, minutes: float) -> dict[str, object]:
    """One row; a student that could not be judged agrees with nothing."""
    judged = found.status is Status.OK
    return {
        "way": way, "seed": seed, "network": task.name, "share": share,
        "agreement": f"{(found.agreement or 0.0) if judged else 0.0:.5f}",
        "accuracy": f"{(found.accuracy or 0.0) if judged else 0.0:.5f}",
        "used": f"{(found.parameters or 0) / task.parameters:.4f}", "minutes": f"{minutes:.2f}",
    }  # fmt: skip


def untrained(name: str, task: Task, share: float, seed: int) -> Evaluation:
    """What an agent that has learned nothing makes of a network at once: its first student of the shrinkage space."""
    goal = Goal(parameters=share)
    space = task.spaces.shrinkage(None, task.budget(goal))
    agent = AGENTS[name](len(FEATURES), space.num_actions, space.num_decisions, seed=seed)
    return task.judge(space)([played(agent, space, goal)])[0]


def main() -> None:
    """Makes the rows that are missing, then prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", default="residual-plain", choices=list(SETS))
    parser.add_argument("--networks", nargs="+", default=list(HELD_BACK), help="that no policy has seen")
    parser.add_argument("--lessons", type=Path, help="the folder where `train_policies.py` keeps those of the set")
    parser.add_argument("--rounds", type=int, default=1, help="of searches whose lessons are taught")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--students", type=int, default=8, help="of a batch")
    parser.add_argument("--hidden", type=int, default=HIDDEN)
    parser.add_argument("--work", type=Path, default=Path("runs/policies"), help="where teachers are kept")
    parser.add_argument("--epochs", type=float, default=30, help="that a teacher is trained for")
    parser.add_argument("--table", action="store_true", help="nothing is trained")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if not asked.table:
        if asked.lessons is None or not any(asked.lessons.glob("*.lessons.safetensors")):
            parser.error("--lessons FOLDER with *.lessons.safetensors is needed, or --table")
        make(asked)
    for line in training_lines(rows_of(NAME))[1]:
        print("  ".join(line))


def make(asked: argparse.Namespace) -> None:
    """Trains the policies whose rows are missing, and adds these."""
    data, folder = load("digits"), asked.work / f"teachers-{asked.epochs:g}"

    def tasks(names: Sequence[str], rung: str) -> list[Task]:
        return [task_of(name, teacher_of(name, data, folder, asked.epochs), data, rung) for name in names]

    known = {rung: tasks(SETS[asked.set], rung) for rung in (CHEAP, DEAR)}
    new = tasks(asked.networks, DEAR)
    paths = [path for number in range(asked.rounds) for path in asked.lessons.glob(f"*, {number}.lessons.safetensors")]
    shown = [lesson for path in sorted(paths) for lesson in read(path)]

    def tried(way: str, seed: int, minutes: float, student: Callable[[Task, float], Evaluation]) -> None:
        append([row(way, seed, task, share, student(task, share), minutes) for task in new for share in SHARES])
        print(f"{way}, seed {seed}: done", flush=True)

    for seed in range(asked.seeds):
        have = {(one["way"], one["seed"]) for one in rows_of(NAME)}
        imitated: Imitated = {}
        for name in UNTRAINED:
            if (name, str(seed)) not in have:
                tried(name, seed, 0.0, lambda task, share, name=name, seed=seed: untrained(name, task, share, seed))
        for name, way in WAYS.items():
            if (name, str(seed)) in have:
                continue
            agents, minutes = trained(way, known, shown, seed, imitated, students=asked.students, hidden=asked.hidden)
            tried(name, seed, minutes, lambda task, share, agents=agents, way=way: at_once(agents, task, share, way))


def trained(way: Way, tasks: Mapping[str, Sequence[Task]], shown: Sequence[Lesson], seed: int, imitated: Imitated, *,
            students: int, hidden: int) -> tuple[dict[str, Agent], float]:  # fmt: skip
    """Policies of both stages, trained in a way, and the minutes; the optimiser starts afresh with each phase."""
    first, begun = dataclasses.replace(way, cheap=0, dear=0, keeping=0), time.monotonic()
    if first not in imitated:
        agents = agents_of(seed, way.encoder, hidden, TEACH_RATE)
        teach(agents, [one if way.tells else untold(one) for one in shown], epochs=way.teach, seed=seed)
        imitated[first] = {stage: agent.state() for stage, agent in agents.items()}, time.monotonic() - begun
    (states, before), begun = imitated[first], time.monotonic()
    agents = _going_on(states, seed, way, hidden)
    for index, (rung, batches) in enumerate(((CHEAP, way.cheap), (DEAR, way.dear))):
        agents = _going_on({stage: agent.state() for stage, agent in agents.items()}, 1000 * seed + index, way, hidden)
        told = [dataclasses.replace(task, tells=way.tells) for task in tasks[rung]]
        for _ in train(agents, told, batches=batches, students=students, seed=1000 * seed + index, least=LEAST,
                       most=MOST, removal_share=REMOVAL_SHARE[rung]):  # fmt: skip
            pass
    known: list[Lesson] = []
    for number in range(way.keeping):
        learner = agents_of(seed, way.encoder, hidden, TEACH_RATE)["removal"]
        told = [dataclasses.replace(task, tells=way.tells) for task in tasks[DEAR]]
        known = kept_layers(agents, learner, told, known, each=KEEPING_EACH, epochs=SEARCHES, seed=100 * seed + number)
    return agents, (before + time.monotonic() - begun) / 60


def _going_on(states: Mapping[str, Mapping[str, Tensor]], seed: int, way: Way, hidden: int) -> dict[str, Agent]:
    """Agents with these weights and an optimiser that knows nothing."""
    agents = agents_of(seed, way.encoder, hidden, RATE)
    for stage, agent in agents.items():
        agent.load(states[stage])
    return agents


def untold(lesson: Lesson) -> Lesson:
    """The same without the goal in what is seen."""
    seen = lesson.rollouts.observations.clone()
    seen[..., list(GOALS)] = 0
    return dataclasses.replace(lesson, rollouts=dataclasses.replace(lesson.rollouts, observations=seen))


def at_once(agents: Mapping[str, Agent], task: Task, share: float, way: Way) -> Evaluation:
    """The policies' likeliest student; a policy that was not told goals is not told this one either."""
    return zero_shot(agents, dataclasses.replace(task, tells=way.tells), Goal(parameters=share))


def append(found: Sequence[Mapping[str, object]]) -> None:
    """Adds rows to the file."""
    path = RESULTS / f"{NAME}.csv"
    fresh = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if fresh:
            writer.writeheader()
        writer.writerows(found)


if __name__ == "__main__":
    main()
