"""Searches on a teacher of the benchmarks: agents side by side, on the same evaluator and the same budget.

    python scripts/benchmarks/searches.py fashion-mnist --data-dir DIR --agents reinforce uniform --seeds 0 1 2
    python scripts/benchmarks/searches.py fashion-mnist --data-dir DIR --agents random --seeds 1 --loop-only
    python scripts/benchmarks/searches.py mnist --data-dir DIR

Train the teachers first: `python scripts/benchmarks/teachers.py`. Every search appends one row to
`results/<name>.csv` and its judged students to `results/<name>_evaluations.csv`; a row that is already there is not
made again. Timings of searches that ran beside other work on the machine say little: the column `processes` tells.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import n2n
from n2n.data import example_inputs, load
from n2n.job import Job
from n2n.reward import make_reward
from n2n.search.files import claim_folder
from n2n.search.finish import choose
from n2n.search.options import SearchOptions
from n2n.search.progress import display
from n2n.search.store import first_judgements
from n2n.search.teachers import load_teacher

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Bench:
    """One comparison: its teacher's folder, its data, and the arguments of every search in it."""

    teacher: str
    data: str
    arguments: dict[str, Any]


EARLIER = {"start": "inherited", "shortfall": 1.0}
"""How searches judged, and what they rewarded, when the rows that are committed were made."""
BENCHES = {
    # Four agents, three seeds each, on a budget that lets all of them finish on two cores.
    "fashion-mnist": Bench(
        "resnet20-fashion-mnist",
        "fashion-mnist",
        {
            "max_params": "10%",
            "granularity": "block",
            "evaluations": 40,
            "steps": 60,
            **EARLIER,
            "final_epochs": 1.0,
            "finalists": 1,
        },
    ),
    # The main job at the length that a user would give it.
    "fashion-mnist-long": Bench(
        "resnet20-fashion-mnist",
        "fashion-mnist",
        {
            "max_params": "10%",
            "granularity": "block",
            "evaluations": 60,
            "steps": 100,
            **EARLIER,
            "final_epochs": 12.0,
            "finalists": 1,
        },
    ),
    # A milder budget, fewer students and a longer distillation, for uniform scaling.
    "fashion-mnist-8x": Bench(
        "resnet20-fashion-mnist",
        "fashion-mnist",
        {"max_params": "12.4%", "evaluations": 12, "steps": 100, "final_epochs": 13.0, "finalists": 1, **EARLIER},
    ),
    "mnist": Bench(
        "vgg13-mnist",
        "mnist",
        {
            "max_params": "0.78%",
            "factors": (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0),
            "evaluations": 24,
            "steps": 40,
            **EARLIER,
            "final_epochs": 8.0,
            "finalists": 1,
        },
    ),
}
COLUMNS = (
    "bench", "agent", "seed", "max_params", "evaluations", "steps", "final_epochs", "search_seconds", "judging_seconds",
    "overhead_share", "finish_seconds", "total_seconds", "teacher_test_accuracy", "teacher_parameters", "teacher_macs",
    "teacher_latency_ms", "student_parameters", "student_macs", "student_latency_ms", "compression", "best_reward",
    "quick_accuracy", "student_validation_accuracy", "student_test_accuracy", "threads", "processes", "machine",
    "torch",
)  # fmt: skip


def run(name: str, agent: str, seed: int, *, data_dir: str, teachers: Path, runs: Path, processes: int) -> None:
    """One search with its end, one row."""
    bench = BENCHES[name]
    network, card = load_teacher(teachers / bench.teacher)
    data = load(bench.data, data_dir=data_dir, validation=card.origin.validation, seed=card.origin.seed)
    out = runs / name / f"{agent}-{seed}"
    begun = time.perf_counter()
    named = {"name": card.name, "kwargs": card.arguments}
    result = n2n.search(
        network, None, data, out=out, agent=agent, seed=seed, teacher_name=named, force=True, **bench.arguments
    )
    total = time.perf_counter() - begun
    summary = json.loads((out / "result.json").read_text())
    student, teacher = result.students[0], result.teacher
    figures = {
        "finish_seconds": round(summary["finish_seconds"], 1),
        "teacher_test_accuracy": teacher.test_accuracy,
        "teacher_latency_ms": round(teacher.latency_ms, 3),
        "student_latency_ms": round(student.figures.latency_ms, 3),
        "student_validation_accuracy": student.figures.validation_accuracy,
        "student_test_accuracy": student.figures.test_accuracy,
    }
    search = {
        "evaluations": result.evaluations,
        "search_seconds": round(result.seconds, 1),
        "overhead_share": round(result.overhead, 5),
        "teacher_parameters": teacher.parameters,
        "teacher_macs": teacher.macs,
        "student_parameters": student.figures.parameters,
        "student_macs": student.figures.macs,
        "best_reward": round(student.reward, 5),
        "quick_accuracy": student.quick_accuracy,
    }
    record(name, agent, seed, {**search, **figures}, out, total=total, processes=processes)


def run_loop(name: str, agent: str, seed: int, *, data_dir: str, teachers: Path, runs: Path, processes: int) -> None:
    """The search loop alone, one row: the same judgements, but no student is distilled further or tested."""
    bench = BENCHES[name]
    network, card = load_teacher(teachers / bench.teacher)
    data = load(bench.data, data_dir=data_dir, validation=card.origin.validation, seed=card.origin.seed)
    out = runs / name / f"{agent}-{seed}-loop"
    begun = time.perf_counter()
    options = SearchOptions(agent=agent, seed=seed, **bench.arguments)
    job = Job.prepare(network, example_inputs(data), data, options, None, began=None, deadline=None)
    claim_folder(out, force=True)
    found = job.loop(out, display(True))
    teacher = job.finish.teacher
    reward = make_reward(teacher_accuracy=teacher.accuracy, teacher_parameters=teacher.parameters)
    judged = [one.evaluation for one in first_judgements(found.records)]
    best = choose(judged, job.budget, reward, finalists=1)[0]
    search = {
        "evaluations": found.evaluations,
        "search_seconds": round(found.seconds, 1),
        "overhead_share": round(found.overhead, 5),
        "teacher_parameters": teacher.parameters,
        "teacher_macs": teacher.macs,
        "student_parameters": best.evaluation.parameters,
        "student_macs": best.evaluation.macs,
        "best_reward": round(best.reward, 5),
        "quick_accuracy": best.evaluation.accuracy,
    }
    record(name, agent, seed, search, out, total=time.perf_counter() - begun, processes=processes)


def record(name: str, agent: str, seed: int, found: dict[str, Any], out: Path, *, total: float, processes: int) -> None:
    """Appends a search's row and its judged students; columns that the search did not come to stay empty."""
    append(RESULTS / f"{name}_evaluations.csv", [{"agent": agent, "seed": seed, **one} for one in evaluations(out)])
    arguments = BENCHES[name].arguments
    row = {
        "bench": name,
        "agent": agent,
        "seed": seed,
        "max_params": arguments["max_params"],
        "steps": arguments["steps"],
        "final_epochs": arguments["final_epochs"] if "finish_seconds" in found else "",
        "judging_seconds": round(found["search_seconds"] * (1 - found["overhead_share"]), 1),
        "total_seconds": round(total, 1),
        "compression": round(found["teacher_parameters"] / found["student_parameters"], 2),
        "threads": torch.get_num_threads(),
        "processes": processes,
        "machine": f"{platform.machine()}, {processor()}",
        "torch": torch.__version__,
        **found,
    }
    append(RESULTS / f"{name}.csv", [{column: row.get(column, "") for column in COLUMNS}])
    print(json.dumps(row), flush=True)


def evaluations(out: Path) -> list[dict[str, Any]]:
    """The judged students of a run, in order."""
    query = (
        "SELECT stage, iteration, reward, cached, status, accuracy, parameters, macs, seconds, fingerprint "
        "FROM evaluations ORDER BY rowid"
    )
    with sqlite3.connect(out / "evaluations.sqlite") as store:
        store.row_factory = sqlite3.Row
        return [dict(row) for row in store.execute(query)]


def append(path: Path, rows: list[dict[str, Any]]) -> None:
    """Adds rows to a CSV file, with a header where it is new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(rows)


def done(name: str) -> set[tuple[str, int]]:
    """The searches that have a row."""
    path = RESULTS / f"{name}.csv"
    if not path.exists():
        return set()
    with path.open(newline="") as file:
        return {(row["agent"], int(row["seed"])) for row in csv.DictReader(file)}


def processor() -> str:
    """The processor's name and the number of cores."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return f"{len(names)} cores {names[0]}" if names else platform.processor()


def main() -> None:
    """The searches that are asked for and not done yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", choices=BENCHES)
    parser.add_argument("--agents", nargs="+", default=["reinforce"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--teachers", type=Path, default=Path("teachers"))
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1, help="how many run side by side, for the CSV")
    parser.add_argument("--loop-only", action="store_true", help="judge students, but finish none")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    for seed in asked.seeds:
        for agent in asked.agents:
            if (agent, seed) not in done(asked.bench):
                (run_loop if asked.loop_only else run)(
                    asked.bench,
                    agent,
                    seed,
                    data_dir=asked.data_dir,
                    teachers=asked.teachers,
                    runs=asked.runs,
                    processes=asked.processes,
                )


if __name__ == "__main__":
    main()
