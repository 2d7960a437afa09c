"""How long it takes to read a network, to build a student, and to take a decision.

    python scripts/benchmarks/reading.py

Appends nothing: `results/reading.csv` is written anew, one row for each network and space. Nothing is trained and no
data is needed; times are the median of `--repeats`. The decisions of a draft are timed one by one (observation, mask,
the action itself), so that the first quarter of a draft can be held against the last.
"""

from __future__ import annotations

import argparse
import csv
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from n2n.networks import build_teacher
from search_spaces import layer_removal, layer_shrinkage
from search_spaces.base import Draft, SearchSpace

RESULTS = Path(__file__).parent / "results" / "reading.csv"
NETWORKS = {"resnet20": (3, 32, 32), "resnet56": (3, 32, 32), "resnet110": (3, 32, 32), "vgg16_bn": (3, 32, 32)}
SPACES: dict[str, Callable[..., SearchSpace]] = {
    "removal, by layer": lambda network, inputs, least: layer_removal(network, inputs),
    "removal, by block": lambda network, inputs, least: layer_removal(network, inputs, granularity="block"),
    "shrinkage": lambda network, inputs, least: layer_shrinkage(network, inputs),
    "shrinkage, 20% of the parameters": lambda network, inputs, least: layer_shrinkage(
        network, inputs, max_parameters=0.2 * least
    ),
}


def examine(name: str, label: str, repeats: int) -> dict[str, Any]:
    """The row of one network and space."""
    network, inputs = build_teacher(name).eval(), torch.randn(2, *NETWORKS[name])
    parameters = sum(value.numel() for value in network.parameters())
    opened, space = timed(lambda: SPACES[label](network, inputs, parameters))
    rng, builds, decisions = np.random.default_rng(0), [], []
    for _ in range(repeats):
        draft, seconds = decided(space, rng)
        decisions.append(seconds)
        builds.append(timed(partial(space.build, space.student(draft)))[0])
    each = np.median(np.array(decisions), axis=0) * 1e3  # [T], ms
    quarter = max(1, len(each) // 4)
    return {
        "network": name,
        "space": label,
        "parameters": parameters,
        "decisions": len(each),
        "open_seconds": round(opened, 3),
        "build_seconds": round(median(builds), 4),
        "decision_ms": round(float(each.mean()), 4),
        "first_quarter_ms": round(float(each[:quarter].mean()), 4),
        "last_quarter_ms": round(float(each[-quarter:].mean()), 4),
        "threads": torch.get_num_threads(),
        "machine": f"{platform.machine()}, {processor()}",
        "torch": torch.__version__,
    }


def decided(space: SearchSpace, rng: np.random.Generator) -> tuple[Draft, list[float]]:
    """A finished draft of random legal actions, and the seconds of each decision."""
    draft, seconds = space.initial(), []
    for _ in range(space.num_decisions):
        start = time.perf_counter()
        space.observe(draft)
        legal = np.flatnonzero(space.legal(draft))
        draft = space.apply(draft, int(rng.choice(legal)))
        seconds.append(time.perf_counter() - start)
    return draft, seconds


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what came of it."""
    start = time.perf_counter()
    found = work()
    return time.perf_counter() - start, found


def processor() -> str:
    """The processor's name, where the machine tells it."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor()


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.export.export(torch.nn.ReLU(), (torch.ones(1),))  # imports what every export needs, outside of the timing
    rows = []
    for name in NETWORKS:
        for label in SPACES:
            if name.startswith("vgg") and "block" in label:
                continue  # no residual branches
            row = examine(name, label, asked.repeats)
            rows.append(row)
            print(row, flush=True)
    with RESULTS.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


if __name__ == "__main__":
    main()
