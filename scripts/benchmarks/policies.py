"""How fast agents learn where a judgement costs nothing, because a published table answers.

    python scripts/benchmarks/policies.py learning --space nas_bench_201    # agents, defaults
    python scripts/benchmarks/policies.py learning --space s0               # the 64 networks of DisWOT's S0
    python scripts/benchmarks/policies.py ablations --space nas_bench_201   # PPO with one option changed
    python scripts/benchmarks/policies.py plot --space nas_bench_201

Writes `results/policies-PART-SPACE.csv` anew, a row for each agent and seed, and `.png` beside that of `learning`.

**The reward** is the accuracy of the table: CIFAR-10 test accuracy after 200 epochs (NAS-Bench-201), CIFAR-100 accuracy
after distillation (S0). It has no noise, as a quick distillation would have, and no term for size.

**What is counted** is students judged for the first time: a budget of 100 ends with the 100th different student. A
student that was judged before costs nothing and gains nothing: its reward goes to the agent, the count stays. So nobody
is ahead by a cache, and nobody pays for repeats; how many students were played in all is in the column `played`. A
search that plays 40 times its budget without using it up ends there (`judged` is below `budget` then).

Agents play batches of `--rollouts` students as a search does by default; `_alone` after a name plays one at a time.
`bests` lists each improvement as COUNT:ACCURACY, so that the whole curve is in the row. Defaults of PPO were set
beforehand and tried once on seeds 1000 to 1039 of NAS-Bench-201; what is published is of seeds below 1000.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from curves import found_at, interval

from envs import NearestLegal, StudentEnv, StudentVectorEnv
from n2n.agents import AGENTS, rollout
from n2n.networks.latency import processor
from search_spaces import PUBLISHED
from search_spaces.base import FEATURES, Draft, Floats, Mask

RESULTS = Path(__file__).parent / "results"
DATA = Path(__file__).parents[3] / "shared" / "data"
BUDGETS = {"nas_bench_201": (10, 20, 50, 100, 200, 500), "s0": (5, 10, 20, 30, 40)}
LEARNERS = ("ppo", "evolution", "evolution_alone", "actor_critic", "reinforce", "sb3_ppo", "random")
CONTRIB = ("maskable_ppo", "recurrent_ppo")
ABLATIONS: dict[str, dict[str, Any]] = {
    "ppo": {},
    "baseline average": {"baseline": "average"},
    "baseline leave_one_out": {"baseline": "leave_one_out"},
    "scale standard": {"scale": "standard"},
    "entropy 0": {"entropy_weight": 0.0},
    "entropy 0.2": {"entropy_weight": 0.2},
    "encoder layers": {"encoder": "layers"},
    "encoder attention": {"encoder": "attention"},
    "self-imitation 0.3": {"imitation_weight": 0.3},
    "repeats allowed": {"repeats": True},
}


class Enough(Exception):  # noqa: N818 - it is no error, it says that the budget is used up
    """The budget is used up, or the agent does not leave the students that it knows."""


class Counted:
    """A table as evaluator, which remembers who was judged and each improvement."""

    def __init__(self, accuracies: dict[str, float], budget: int) -> None:
        self.accuracies, self.budget = accuracies, budget
        self.seen: set[str] = set()
        self.played = 0
        self.bests: list[tuple[int, float]] = []

    def __call__(self, students: Sequence[Any]) -> list[float]:
        """The accuracies [B] of students, in [0, 1]."""
        found = [self.accuracies[student.code] for student in students]
        for student, accuracy in zip(students, found, strict=True):
            self.played += 1
            if student.code in self.seen:
                continue
            self.seen.add(student.code)
            if not self.bests or accuracy > self.bests[-1][1]:
                self.bests.append((len(self.seen), accuracy))
            if len(self.seen) == self.budget:
                raise Enough
        if self.played >= 40 * self.budget:
            raise Enough
        return found


class Remembered:
    """A published space that computes every mask and observation once; all seeds share them."""

    def __init__(self, space: Any) -> None:
        self._space = space
        self.num_decisions, self.num_actions = space.num_decisions, space.num_actions
        self.legal: Callable[[Draft], Mask] = cache(space.legal)
        self.observe: Callable[[Draft], Floats] = cache(self._observe)
        self._end = space.observe(space.initial())

    def apply(self, draft: Draft, action: int) -> Draft:
        """The draft with one more action, which the environment has checked already."""
        return Draft((*draft.actions, action))

    def _observe(self, draft: Draft) -> Floats:
        """What the space shows; of a finished draft nobody decides any more, so that anything does."""
        return self._end if draft.cursor == self.num_decisions else self._space.observe(draft)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._space, name)


@cache
def table(name: str) -> tuple[Any, dict[str, float]]:
    """A space and its accuracies by code."""
    if name == "nas_bench_201":
        space, file = PUBLISHED[name](classes=10, channels=3, image_size=32), DATA / "nas-bench-201" / "cifar10.csv"
        code, column = (lambda row: row["ops"]), "cifar10_test_acc"
    else:
        space = PUBLISHED["cifar_resnet"](classes=100, channels=3, image_size=32)
        file, column = DATA / "diswot-s0" / "s0.csv", "distilled_acc"
        code = lambda row: f"{row['depth1']}-{row['depth2']}-{row['depth3']}"  # noqa: E731
    with file.open(newline="") as lines:
        accuracies = {code(row): float(row[column]) / 100 for row in csv.DictReader(lines)}
    if len(accuracies) != space.family.students:
        raise SystemExit(f"{file} has {len(accuracies)} networks, expected {space.family.students} of {space.name}")
    return Remembered(space), accuracies


def search(space_name: str, agent: str, options: dict[str, Any], seed: int, budget: int, rollouts: int) -> Counted:
    """Plays until the budget is used up."""
    space, accuracies = table(space_name)
    evaluate = Counted(accuracies, budget)
    if agent in CONTRIB:
        contrib(agent, space, evaluate, seed, rollouts)
        return evaluate
    name, alone = agent.removesuffix("_alone"), agent.endswith("_alone")
    player = AGENTS[name](len(FEATURES), space.num_actions, space.num_decisions, seed=seed, **options)
    env = StudentVectorEnv(space, evaluate, float, 1 if alone else rollouts)
    try:
        while True:
            player.learn(rollout(env, player).trajectory)
    except Enough:
        return evaluate


def contrib(name: str, space: Any, evaluate: Counted, seed: int, rollouts: int) -> None:
    """The learners of sb3-contrib on the Gymnasium environment, undiscounted, one batch of rollouts per update."""
    from gymnasium.wrappers import FlattenObservation
    from sb3_contrib import MaskablePPO, RecurrentPPO

    env: Any = StudentEnv(space, evaluate, float)
    steps = space.num_decisions * rollouts
    shared = {"n_steps": steps, "batch_size": steps, "gamma": 1.0, "learning_rate": 3e-3, "seed": seed, "device": "cpu"}
    if name == "maskable_ppo":
        model: Any = MaskablePPO("MlpPolicy", FlattenObservation(env), **shared)
    else:
        model = RecurrentPPO("MlpLstmPolicy", FlattenObservation(NearestLegal(env)), **shared)
    try:
        model.learn(10**9)
    except Enough:
        return


def row(job: tuple[str, str, str, dict[str, Any], int, int, int]) -> dict[str, Any]:
    """One search as a row."""
    space, label, agent, options, seed, budget, rollouts = job
    torch.set_num_threads(1)
    began = time.process_time()
    done = search(space, agent, options, seed, budget, rollouts)
    spent = time.process_time() - began
    return {
        "agent": label,
        "seed": seed,
        "budget": budget,
        "judged": len(done.seen),
        "played": done.played,
        "cpu_ms_per_student": round(1e3 * spent / done.played, 2),
        "bests": " ".join(f"{count}:{100 * accuracy:.2f}" for count, accuracy in done.bests),
    }


def summary(rows: Sequence[dict[str, Any]], budgets: Sequence[int]) -> Iterator[str]:
    """A line for each agent: best accuracy at each budget."""
    for agent in dict.fromkeys(one["agent"] for one in rows):
        mine = [one for one in rows if one["agent"] == agent]
        cells = [interval(found_at(mine, budget)) for budget in budgets]
        cost = np.median([float(one["cpu_ms_per_student"]) for one in mine])
        played = np.mean([int(one["played"]) / int(one["judged"]) for one in mine])
        text = "  ".join(
            f"{budget}: {mean:.2f}+-{half:.2f}" for budget, (mean, half) in zip(budgets, cells, strict=True)
        )
        yield f"{agent:24s} n={len(mine):3d}  {text}  played {played:.2f}x  {cost:.1f} ms"


def plot(rows: Sequence[dict[str, Any]], budgets: Sequence[int], path: Path, optimum: float) -> None:
    """What is missing to the best network of the table, against students judged; bands are 95% intervals."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    counts = np.unique(np.geomspace(min(budgets), max(budgets), 40).astype(int))
    figure, axes = plt.subplots(figsize=(7, 4.5))
    for agent in dict.fromkeys(one["agent"] for one in rows):
        mine = [one for one in rows if one["agent"] == agent]
        cells = [interval([optimum - best for best in found_at(mine, int(count))]) for count in counts]
        mean, half = np.array(cells).T
        axes.plot(counts, mean, label=f"{agent} ({len(mine)} seeds)")
        axes.fill_between(counts, mean - half, mean + half, alpha=0.2)
    axes.set(xscale="log", yscale="log", xlabel="students judged, repeats not counted",
             ylabel="points below the best network of the table")  # fmt: skip
    axes.grid(True, which="both", alpha=0.3)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def seeds_of(text: str) -> range:
    """`0:100` as the seeds 0 to 99."""
    first, _, last = text.partition(":")
    return range(int(first), int(last))


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["learning", "ablations", "plot"])
    parser.add_argument("--space", choices=list(BUDGETS), default="nas_bench_201")
    parser.add_argument("--agents", nargs="+", help="of learning, or the variants of ablations")
    parser.add_argument("--seeds", type=seeds_of, default=seeds_of("0:100"), help="FIRST:END, default 0:100")
    parser.add_argument("--rollouts", type=int, default=5, help="students per batch")
    parser.add_argument(
        "--most", type=int, help="the largest budget, where less than the largest of the space is wanted"
    )
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of CSV and plot")
    parser.add_argument("--append", action="store_true", help="adds to the CSV in place of writing it anew")
    asked = parser.parse_args()
    budgets = [one for one in BUDGETS[asked.space] if one <= (asked.most or one)]
    path = asked.out / f"policies-{'ablations' if asked.part == 'ablations' else 'learning'}-{asked.space}.csv"
    if asked.part != "plot":
        if asked.part == "learning":
            known = {name: (name, dict[str, Any]()) for name in (*LEARNERS, *CONTRIB)}
        else:
            known = {name: ("ppo", options) for name, options in ABLATIONS.items()}
        names = asked.agents or [name for name in known if name not in CONTRIB]
        jobs = [
            (asked.space, name, *known[name], seed, max(budgets), asked.rollouts)
            for seed, name in product(asked.seeds, names)  # seed by seed, so that what is cut off compares as well
        ]
        write(jobs, path, asked.processes, append=asked.append)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    print("\n".join(summary(rows, budgets)))
    if path.name.startswith("policies-learning"):
        plot(rows, budgets, path.with_suffix(".png"), 100 * max(table(asked.space)[1].values()))


def write(jobs: list[tuple[Any, ...]], path: Path, processes: int, *, append: bool) -> None:
    """Runs the searches; each row is on disk as soon as it is there."""
    about = {"rollouts": jobs[0][-1], "torch": torch.__version__,
             "machine": f"{platform.machine()}, {processor()}, {os.cpu_count()} threads"}  # fmt: skip
    with path.open("a" if append else "w", newline="") as file, ProcessPoolExecutor(processes) as pool:
        sheet: Any = None
        for one in pool.map(row, jobs, chunksize=1):
            if sheet is None:
                sheet = csv.DictWriter(file, [*one, *about], lineterminator="\n")
                if not append:
                    sheet.writeheader()
            sheet.writerow({**one, **about})
            file.flush()


if __name__ == "__main__":
    main()
