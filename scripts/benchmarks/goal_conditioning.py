"""What it is worth to a policy to see which size is asked for: goal-conditioning, told against not told.

    python scripts/benchmarks/goal_conditioning.py --seeds 5
    python scripts/benchmarks/goal_conditioning.py --table

For each seed two policies are trained alike, on the networks of `--set` with students judged by the score of the first
phase of `train_policies.py`; one sees the share that a goal leaves, the other has it as zero and notices only which
actions are not allowed. Then each makes a student at once for networks that neither has seen, at several shares of the
parameters, and so does uniform scaling. One row of `results/policies-goals.csv` for each seed, policy, network and
share: the agreement with the teacher after closed-form distillation, and the share of the parameters that was used.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean

import torch
from curves import interval
from policy_networks import HELD_BACK, SETS
from rows import RESULTS, rows_of
from train_policies import CHEAP, DEAR, LEAST, MOST, agents_of, task_of, teacher_of

from envs import Goal
from n2n.agents import AGENTS
from n2n.agents.base import Agent
from n2n.data import load
from n2n.evaluate.base import Evaluation, Status
from n2n.policies.training import Task, played, train, zero_shot
from search_spaces.base import FEATURES

NAME = "policies-goals"
COLUMNS = ("policy", "seed", "network", "share", "agreement", "accuracy", "used")
SHARES = (0.1, 0.2, 0.4)
POLICIES = {"told": True, "not told": False}
UNIFORM = "uniform"


def row(policy: str, seed: int, task: Task, share: float, found: Evaluation) -> dict[str, object]:
    """One row; a student that could not be judged agrees with nothing."""
    judged = found.status is Status.OK
    return {
        "policy": policy, "seed": seed, "network": task.name, "share": share,
        "agreement": f"{(found.agreement or 0.0) if judged else 0.0:.5f}",
        "accuracy": f"{(found.accuracy or 0.0) if judged else 0.0:.5f}",
        "used": f"{(found.parameters or 0) / task.parameters:.4f}",
    }  # fmt: skip


def uniform(task: Task, share: float) -> Evaluation:
    """What scaling all widths alike makes of a network."""
    goal = Goal(parameters=share)
    space = task.spaces.shrinkage(None, task.budget(goal))
    agent = AGENTS["uniform"](len(FEATURES), space.num_actions, space.num_decisions, seed=0)
    return task.judge(space)([played(agent, space, goal)])[0]


def lines(rows: Sequence[Mapping[str, str]]) -> Iterator[tuple[str, ...]]:
    """For each policy the mean agreement at each share, over networks, with the interval over seeds."""
    for policy in dict.fromkeys(one["policy"] for one in rows):
        mine = [one for one in rows if one["policy"] == policy]
        cells = []
        for share in SHARES:
            here = [one for one in mine if float(one["share"]) == share]
            by_seed = [fmean(float(one["agreement"]) for one in here if one["seed"] == seed)
                       for seed in dict.fromkeys(one["seed"] for one in here)]  # fmt: skip
            middle, half = interval(by_seed)
            cells.append(f"{middle:.3f}" + (f" ± {half:.3f}" if len(by_seed) > 1 else ""))
        yield policy, str(len({one["seed"] for one in mine})), *cells


def main() -> None:
    """Makes the rows that are missing, then prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", default="residual-plain", choices=list(SETS))
    parser.add_argument("--networks", nargs="+", default=list(HELD_BACK), help="that no policy has seen")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=200)
    parser.add_argument("--students", type=int, default=8, help="of a batch")
    parser.add_argument("--hidden", type=int, default=32)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--work", type=Path, default=Path("runs/policies"), help="where teachers are kept")
    parser.add_argument("--epochs", type=float, default=30, help="that a teacher is trained for")
    parser.add_argument("--table", action="store_true", help="nothing is trained")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if not asked.table:
        make(asked)
    for line in lines(rows_of(NAME)):
        print("  ".join(line))


def make(asked: argparse.Namespace) -> None:
    """Trains the policies whose rows are missing, and adds these."""
    data, folder = load("digits"), asked.work / f"teachers-{asked.epochs:g}"
    known = [task_of(name, teacher_of(name, data, folder, asked.epochs), data, CHEAP) for name in SETS[asked.set]]
    new = [task_of(name, teacher_of(name, data, folder, asked.epochs), data, DEAR) for name in asked.networks]
    have = {(one["policy"], one["seed"]) for one in rows_of(NAME)}
    if (UNIFORM, "0") not in have:
        append([row(UNIFORM, 0, task, share, uniform(task, share)) for task in new for share in SHARES])
    for seed in range(asked.seeds):
        for policy, tells in POLICIES.items():
            if (policy, str(seed)) in have:
                continue
            agents: dict[str, Agent] = agents_of(seed, "attention", asked.hidden, asked.rate)
            tasks = [dataclasses.replace(task, tells=tells) for task in known]
            for _ in train(agents, tasks, batches=asked.batches, students=asked.students, seed=seed, least=LEAST,
                           most=MOST):  # fmt: skip
                pass
            tried = [dataclasses.replace(task, tells=tells) for task in new]
            append([row(policy, seed, task, share, zero_shot(agents, task, Goal(parameters=share)))
                    for task in tried for share in SHARES])  # fmt: skip
            print(f"{policy}, seed {seed}: done", flush=True)


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
