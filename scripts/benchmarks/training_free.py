"""How well scores without training rank published students, what they cost, and what evolution finds by them.

    python scripts/benchmarks/training_free.py s0         DisWOT's 64 ResNets, five seeds, every score
    python scripts/benchmarks/training_free.py nb201      a fixed random sample of NAS-Bench-201, score by score
    python scripts/benchmarks/training_free.py cost       seconds of each score for one network
    python scripts/benchmarks/training_free.py evolution  the best of 1,000 scored cells, and its true accuracy
    python scripts/benchmarks/training_free.py table      Kendall's tau beside the published ones; nothing is scored

What is scored goes to `--raw`, row by row, and a row that is there is not made again, so that every part can be stopped
at any time, and `--scores NAME ...` splits the work over processes. `table` writes `results/training-free*.csv` and
a picture from it. Images are CIFAR-10's, two of its five train batches; S0's accuracies are on CIFAR-100, whose images
we do not have: its networks have 100 classes here too, and each of CIFAR-10's classes stands for ten, drawn at random.
"""

from __future__ import annotations

import argparse
import csv
import platform
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from training_free_table import SEEDLESS, SEEDS, nb201_codes, nb201_truth, s0_codes, table_of, write_tables

import n2n
from n2n.data import Data, TrainingData, load
from n2n.evaluate.base import evaluation_seed
from n2n.evaluate.probing import draw_probe
from n2n.networks.latency import processor
from n2n.population import largest, score_population
from n2n.scores import NEEDS_TEACHER, SCORES, SOLVES, Probe, ScoreError
from n2n.search.store import read_records
from search_spaces import cifar_resnet, nas_bench_201
from search_spaces.published import PublishedArchitecture, PublishedSpace

RESULTS = Path(__file__).parent / "results"
BATCH = {"s0": 64, "nb201": 32}
TIMED = 4
CLASSES = 100
EVALUATIONS, POPULATION, TOURNAMENT, SEARCHES = 1000, 36, 8, 2
AGENTS = ("evolution", "random")
SCORED = [name for name in SCORES if name not in SOLVES]
"""Without those that look at what students inherit, which order published ones as `live_capacity` does."""


def hundred_classes(training: TrainingData) -> TrainingData:
    """CIFAR-10 with each class split at random into ten, for networks of 100 classes."""
    generator = torch.Generator().manual_seed(0)
    shares = torch.randint(10, (len(training.train),), generator=generator)  # [n]
    labels = 10 * training.train.labels + shares
    return replace(training, name="cifar-10 in 100 classes", classes=CLASSES,
                   train=replace(training.train, labels=labels))  # fmt: skip


def score_s0(training: TrainingData, data_dir: Path, raw: Path, names: Sequence[str]) -> None:
    """Every score of the 64 networks, one file for each seed and score."""
    space, codes = cifar_resnet(classes=CLASSES), s0_codes(data_dir)
    for seed in range(SEEDS):
        for name in names if seed == 0 else [name for name in names if name not in SEEDLESS]:
            taken(space, codes, hundred_classes(training), raw, f"s0-{seed}", name, seed)


def score_nb201(training: TrainingData, data_dir: Path, raw: Path, names: Sequence[str]) -> None:
    """The scores of the sample, one file for each; first all of a quarter, so that there is a table early."""
    codes = nb201_codes(data_dir)
    for many in (len(codes) // 4, len(codes)):
        for name in names:
            taken(nas_bench_201(), codes[:many], training, raw, "nb201", name, 0)


def taken(space: PublishedSpace, codes: Sequence[str], training: TrainingData, raw: Path, part: str, name: str,
          seed: int) -> None:  # fmt: skip
    """One score of all codes; the rows that are missing are made."""
    start = time.monotonic()
    score_population(space, codes, training, scores=(name,), out=raw / f"{part}-{name}.csv", seed=seed,
                     batch=BATCH[part.split("-")[0]])  # fmt: skip
    print(f"{part} {name}: {time.monotonic() - start:.0f} s", flush=True)


def measure_cost(training: TrainingData, names: Sequence[str], more: dict[str, object]) -> None:
    """CPU seconds of each score for one network, over a few cells, the teacher known already."""
    space = nas_bench_201()
    rng = np.random.default_rng(0)
    cells = [space.random(rng) for _ in range(TIMED)]
    rows = []
    probe = draw_probe(training, batch=BATCH["nb201"], seed=0, teacher=space.build(largest(space), inherit=False))
    for name in names:
        took = [seconds(space, cell, name, probe) for cell in (cells[0], *cells)][1:]
        rows.append({"space": space.name, "score": name, "batch": BATCH["nb201"], "networks": TIMED,
                     "median_cpu_seconds": round(float(np.median(took)), 4),
                     "mean_cpu_seconds": round(float(np.mean(took)), 4), **more})  # fmt: skip
        print(name, rows[-1]["median_cpu_seconds"], flush=True)
    write(RESULTS / "training-free-cost.csv", rows)


def evolve(data_dir: Path, raw: Path, names: Sequence[str], more: dict[str, object]) -> None:
    """Searches by each score with each agent and seed; a row of the file that is there is not made again."""
    path, truth = RESULTS / "training-free-evolution.csv", nb201_truth(data_dir)
    data = load("cifar-10", data_dir=data_dir)
    for name, agent, seed in product(names, AGENTS, range(SEARCHES)):
        done = table_of(path) if path.exists() else []
        if not any((row["score"], row["agent"], row["seed"]) == (name, agent, str(seed)) for row in done):
            write(path, [*done, {**searched(data, truth, raw / f"{name}-{agent}-{seed}", name, agent, seed), **more}])


def searched(data: Data, truth: dict[str, float], out: Path, name: str, agent: str, seed: int) -> dict[str, object]:
    """One search by a score, and as many random cells beside it: a row."""
    options = {"population": POPULATION, "tournament": TOURNAMENT} if agent == "evolution" else {}
    start = time.monotonic()
    result = n2n.search_space("nas_bench_201", data, out=out, evaluate=name, agent=agent, evaluations=EVALUATIONS,
                              seed=seed, final_epochs=0, force=True, progress=False, threads=1, **options)  # fmt: skip
    minutes = (time.monotonic() - start) / 60
    space, best = nas_bench_201(), result.best[0].code
    codes = {space.from_json(one.evaluation.architecture).code for one in read_records(out)}
    ordered, rng = sorted(truth.values(), reverse=True), np.random.default_rng(seed)
    drawn = [truth[space.random(rng).code] for _ in range(EVALUATIONS)]
    row: dict[str, object] = {
        "score": name,
        "agent": agent,
        "seed": seed,
        "scored": len(codes),
        "minutes": round(minutes, 2),
        "cell": best,
        "accuracy": truth[best],
        "place": 1 + ordered.index(truth[best]),
        "table_best": ordered[0],
        "best_of_scored": max(truth[code] for code in codes),
        "random_mean": round(float(np.mean(drawn)), 3),
        "random_best_if_trained": max(drawn),
    }
    print(row, flush=True)
    return row


def seconds(space: PublishedSpace, cell: PublishedArchitecture, name: str, probe: Probe) -> float:
    """CPU seconds of building a network and taking its score: those of a clock say more of the work beside it."""
    start = time.process_time()
    score_of(space, cell, name, probe)
    return time.process_time() - start


def score_of(space: PublishedSpace, cell: PublishedArchitecture, name: str, probe: Probe) -> float:
    """The score of a cell, -inf where there is none."""
    own = evaluation_seed(0, cell.fingerprint)
    network = space.build(cell, inherit=False, seed=own)
    try:
        return SCORES[name](network, probe if name in NEEDS_TEACHER else replace(probe, seed=own))
    except ScoreError:
        return -float("inf")


def write(path: Path, rows: Sequence[dict[str, object]]) -> None:
    """A CSV file of rows with the same columns."""
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("s0", "nb201", "cost", "evolution", "table"))
    parser.add_argument("--scores", nargs="+", choices=SCORED, default=SCORED)
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--raw", type=Path, default=Path("runs/training-free"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1, help="busy processes on the machine, told in the rows")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    asked.raw.mkdir(parents=True, exist_ok=True)
    if asked.part == "table":
        write_tables(RESULTS, asked.raw, asked.data_dir)
        return
    training = load("cifar-10", data_dir=asked.data_dir).training
    more = {"threads": asked.threads, "processes": asked.processes, "torch": torch.__version__,
            "machine": f"{platform.machine()}, {processor()}"}  # fmt: skip
    if asked.part == "s0":
        score_s0(training, asked.data_dir, asked.raw, asked.scores)
    elif asked.part == "nb201":
        score_nb201(training, asked.data_dir, asked.raw, asked.scores)
    elif asked.part == "cost":
        measure_cost(training, asked.scores, more)
    else:
        evolve(asked.data_dir, asked.raw, asked.scores, more)


if __name__ == "__main__":
    main()
