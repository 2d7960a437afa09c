"""How well cheap judgements rank students, and what they cost, against a long distillation.

    python scripts/benchmarks/evaluation.py fashion-mnist --data-dir DIR --rungs epoch closed-form-256 --against epoch
    python scripts/benchmarks/evaluation.py fashion-mnist --data-dir DIR          every rung, then the table

A fixed panel of students is judged by each rung; every judgement is one row in `results/<name>-evaluators.csv`, and a
row that is there is not made again, so that the run can be stopped at any time. The table (Kendall's tau against the
long distillation `--against`, with a bootstrap interval; seconds of a student) goes to `results/<name>-ranking.csv`.
Train the teacher first: `python scripts/benchmarks/teachers.py`.
"""

from __future__ import annotations

import argparse
import csv
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from n2n.data import example_inputs, load
from n2n.data.base import TrainingData
from n2n.distill.recipe import Recipe, full_recipe, quick_recipe
from n2n.distill.teacher import Teacher
from n2n.evaluate.base import Evaluate, Evaluation, Status
from n2n.evaluate.distillation import distillation
from n2n.evaluate.ranking import Ranking, ranking
from n2n.search.teachers import load_teacher
from search_spaces import layer_removal
from search_spaces.layer_removal import LayerRemoval
from search_spaces.layer_shrinkage import FACTORS, LayerShrinkage
from search_spaces.panel import Member, panel

RESULTS = Path(__file__).parent / "results"
TRUTH = "three-epochs"
"""What the others are measured with, unless another is asked for."""
VALIDATION = 2000
COLUMNS = (
    "rung", "seed", "fingerprint", "parameters", "macs", "share", "removed", "status", "accuracy", "agreement", "loss",
    "seconds", "threads", "processes", "machine", "torch",
)  # fmt: skip


@dataclass(frozen=True)
class Bench:
    """One panel: the teacher's folder, its data, and the students."""

    teacher: str
    data: str
    size: int
    options: Mapping[str, Any] = field(default_factory=dict)


BENCHES = {"fashion-mnist": Bench("resnet20-fashion-mnist", "fashion-mnist", 24)}


@dataclass(frozen=True)
class Rung:
    """One way of judging: arguments of `distillation`, and how many seeds it is repeated with."""

    arguments: Mapping[str, Any]
    seeds: int = 1


def paper(epochs: float) -> Recipe:
    """N2N's recipe: from scratch, the teacher's logits by squared error, Adam at 5e-4 (Ashok et al., section 4)."""
    return Recipe(objective="logit_mse", epochs=epochs, lr=5e-4, optimizer="adam", schedule="constant", warmup=0.0,
                  weight_decay=0.0, augment=False)  # fmt: skip


def started(start: str, steps: int, *, lr: float = 0.03, objective: str = "kd", **options: Any) -> Rung:
    """Some steps of distillation from a start."""
    recipe = quick_recipe(steps=steps, lr=lr, objective=objective)
    return Rung({"recipe": recipe, "start": start, "validation_subset": VALIDATION, **options})


def solved(**options: Any) -> Rung:
    """The closed form without a step of training."""
    return started("refit", 0, closed_form_options=options)


RUNGS: dict[str, Rung] = {
    # The order is that of a run without --rungs: what the rest is measured with comes first.
    "closed-form-256": solved(images=256),
    "closed-form-512": solved(images=512),
    "inherited-0": started("inherited", 0),
    "inherited-60": started("inherited", 60),
    "refit-60": started("refit", 60, lr=0.02),
    "epoch": Rung({"recipe": full_recipe(epochs=1.0), "start": "inherited"}, seeds=2),
    "three-epochs": Rung({"recipe": full_recipe(epochs=3.0), "start": "inherited"}, seeds=2),
    "closed-form-128": solved(images=128),
    "closed-form-1024": solved(images=1024),
    "closed-form-256-inherited": solved(images=256, toward="inherited", strength=1e-2),
    "closed-form-256-weak": solved(images=256, strength=1e-5),
    "closed-form-256-strong": solved(images=256, strength=1e-1),
    "refit-20": started("refit", 20, lr=0.02),
    "inherited-100": started("inherited", 100),
    "refit-100": started("refit", 100, lr=0.02),
    "refit-60-mse": started("refit", 60, lr=0.02, objective="logit_mse"),
    "paper-1": Rung({"recipe": paper(1.0), "start": "fresh", "validation_subset": VALIDATION}),
    "paper-5": Rung({"recipe": paper(5.0), "start": "fresh", "validation_subset": VALIDATION}),
}


def students(space: LayerRemoval, size: int) -> tuple[Member, ...]:
    """The panel, the same in every run."""

    def shrinkage(start: Any) -> LayerShrinkage:
        return LayerShrinkage(space.reading, factors=FACTORS, round_to=1, kernels=False, kept=frozenset(), start=start,
                              may_be_empty=True)  # fmt: skip

    return panel(space, shrinkage, size=size)


def judge(
    space: LayerRemoval, teacher: Teacher, training: TrainingData, rung: Rung, seed: int, threads: int
) -> Evaluate:
    """The evaluator of a rung; what it does once for all students is done before the first is timed."""
    torch.set_num_threads(threads)
    evaluate = distillation(space, teacher, training, seed=seed, **rung.arguments)
    evaluate.prepare()
    return evaluate


def run(name: str, wanted: list[str], *, data_dir: str, teachers: Path, threads: int, processes: int) -> None:
    """Makes the rows that are missing."""
    bench = BENCHES[name]
    path = RESULTS / f"{name}-evaluators.csv"
    data = load(bench.data, data_dir=data_dir, validation=0.1, seed=0)
    network, card = load_teacher(teachers / bench.teacher)
    teacher = Teacher(network, data.training, name=card.name)
    space = layer_removal(network, example_inputs(data.training), granularity="block")
    members = students(space, bench.size)
    members = tuple(one for start in range(3) for one in members[start::3])  # every part of the run sees all sizes
    print(f"{len(members)} students, teacher {teacher.accuracy:.4f} on validation", flush=True)
    for rung in wanted:
        for seed in range(RUNGS[rung].seeds):
            missing = [one for one in members if (rung, str(seed), one.architecture.fingerprint) not in known(path)]
            if not missing:
                continue
            evaluate = judge(space, teacher, data.training, RUNGS[rung], seed, threads)
            evaluate([members[0].architecture])  # whatever happens once at the first student is not timed
            for member in missing:
                (found,) = evaluate([member.architecture])
                append(path, row(rung, seed, member, found, teacher.parameters, threads, processes))
                print(rung, seed, f"{member.cost.parameters:,}", found.accuracy, found.agreement,
                      f"{found.seconds:.1f} s", found.reason, flush=True)  # fmt: skip


def row(
    rung: str, seed: int, member: Member, found: Evaluation, whole: int, threads: int, processes: int
) -> dict[str, Any]:
    """One judgement as a row."""
    return {"rung": rung, "seed": seed, "fingerprint": found.fingerprint, "parameters": found.parameters,
              "macs": found.macs, "share": round(found.parameters / whole, 4), "removed": round(member.removed, 3),
              "status": found.status.value, "accuracy": found.accuracy, "agreement": found.agreement,
              "loss": found.loss, "seconds": round(found.seconds, 3), "threads": threads, "processes": processes,
              "machine": f"{platform.machine()}, {processor()}", "torch": torch.__version__}  # fmt: skip


def processor() -> str:
    """The processor's name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def append(path: Path, values: dict[str, Any]) -> None:
    """Adds a row to the file."""
    path.parent.mkdir(exist_ok=True)
    fresh = not path.exists()
    with path.open("a", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if fresh:
            table.writeheader()
        table.writerow(values)


def rows(path: Path) -> list[dict[str, str]]:
    """What earlier runs left."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def known(path: Path) -> set[tuple[str, str, str]]:
    """The judgements that need not be made again."""
    return {(one["rung"], one["seed"], one["fingerprint"]) for one in rows(path)}


MEASURES: dict[str, Callable[[dict[str, str]], float]] = {
    "accuracy": lambda row: float(row["accuracy"]),
    "agreement": lambda row: float(row["agreement"]),
}


def table(name: str, against: str) -> list[dict[str, Any]]:
    """Each rung against a long distillation, on the students that both have judged."""
    found = [one for one in rows(RESULTS / f"{name}-evaluators.csv") if one["status"] == Status.OK.value]
    truth: dict[str, list[float]] = {}
    for one in found:
        if one["rung"] == against:
            truth.setdefault(one["fingerprint"], []).append(float(one["accuracy"]))
    seconds = np.mean([float(one["seconds"]) for one in found if one["rung"] == against]) if truth else np.nan
    lines = []
    sizes = {one["fingerprint"]: float(one["parameters"]) for one in found if one["fingerprint"] in truth}
    macs = {one["fingerprint"]: float(one["macs"]) for one in found if one["fingerprint"] in truth}
    for what, values in (("parameter count", sizes), ("MACs", macs)):
        lines.append(line(what, "", values, truth, 0.0, float(seconds)))
    for rung in dict.fromkeys(one["rung"] for one in found if one["rung"] != against):
        own = [one for one in found if one["rung"] == rung and one["fingerprint"] in truth]
        each = float(np.mean([float(one["seconds"]) for one in own])) if own else np.nan
        for measure, take in MEASURES.items():
            values = {one["fingerprint"]: take(one) for one in own if one[measure]}
            lines.append(line(rung, measure, values, truth, each, float(seconds)))
    twice = {key: both for key, both in truth.items() if len(both) > 1}
    if len(twice) > 2:
        first, second = ({key: both[i] for key, both in twice.items()} for i in (0, 1))
        lines.append(line(f"{against}, another seed", "accuracy", first, {k: [v] for k, v in second.items()},
                          float(seconds), float(seconds)))  # fmt: skip
    return [one for one in lines if one]


def line(
    rung: str, measure: str, values: Mapping[str, float], truth: Mapping[str, list[float]], each: float, whole: float
) -> dict[str, Any]:
    """One line of the table; empty where fewer than three students have both."""
    both = [key for key in truth if key in values]
    if len(both) < 3:
        return {}
    found: Ranking = ranking([values[key] for key in both], [float(np.mean(truth[key])) for key in both])
    return {"rung": rung, "measure": measure, "students": len(both), "tau": round(found.tau, 3),
            "low": round(found.low, 3), "high": round(found.high, 3), "seconds": round(each, 2),
            "times_cheaper": round(whole / each, 1) if each else ""}  # fmt: skip


def write_table(name: str, against: str) -> None:
    """The table as a file and on the screen."""
    lines = table(name, against)
    if not lines:
        print(f"no table yet: fewer than three students were judged by {against}")
        return
    with (RESULTS / f"{name}-ranking.csv").open("w", newline="") as file:
        out = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
        out.writeheader()
        out.writerows(lines)
    for one in lines:
        print(*one.values(), sep="\t")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", choices=list(BENCHES))
    parser.add_argument("--rungs", nargs="+", choices=list(RUNGS), default=list(RUNGS))
    parser.add_argument("--data-dir", default="../shared/data")
    parser.add_argument("--teachers", type=Path, default=Path("teachers"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1, help="busy processes on the machine, told in the rows")
    parser.add_argument("--against", choices=list(RUNGS), default=TRUTH, help="the long distillation of the table")
    parser.add_argument("--table-only", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    start = time.monotonic()
    if not asked.table_only:
        run(asked.bench, asked.rungs, data_dir=asked.data_dir, teachers=asked.teachers, threads=asked.threads,
            processes=asked.processes)  # fmt: skip
    write_table(asked.bench, asked.against)
    print(f"{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
