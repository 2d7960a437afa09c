"""What workers bring, and what they cost.

    python scripts/benchmarks/scaling.py throughput     # evaluations per hour with 0, 1 and 2 workers, one thread each
    python scripts/benchmarks/scaling.py overhead       # milliseconds per evaluation of the pool, nothing to judge
    python scripts/benchmarks/scaling.py nodes          # the same on a simulated cluster, with up to 200 workers

Writes `results/scaling-PART.csv` anew. The aims are a parallel efficiency of 0.85 with two workers (on two cores; two
hyperthreads of one core cannot have it), 5 ms per evaluation of the pool, and a cost on the driver's side that does not
grow with the workers. Workers of `nodes` are bare Python processes of some 70 MB each, all on this machine; the cores
and the memory that its nodes have are only said. It needs an idle machine: the load at the start is in every row.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from n2n.data import example_inputs, load
from n2n.distill.fit import train_teacher
from n2n.distill.teacher import Teacher
from n2n.evaluate import Evaluate, distillation, fake, ray_pool
from n2n.evaluate.pool_plan import PoolOptions
from n2n.evaluate.ray_cluster import ray_running
from n2n.evaluate.ray_pool import RayPool
from n2n.networks import build_teacher
from n2n.networks.latency import processor
from search_spaces import layer_shrinkage
from search_spaces.base import Architecture, SearchSpace
from search_spaces.toy import toy

RESULTS = Path(__file__).parent / "results"
NODE = {"num_cpus": 1000, "memory": 10**13, "object_store_memory": 80 * 2**20}
"""What a simulated node says that it has: more than any number of workers asks for."""


class Nothing:
    """A worker that judges nothing and imports nothing, so that many fit on one machine."""

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def open(self, payload: object) -> None:
        """Takes nothing over."""

    def judge(self, student: Any, fidelity: str) -> SimpleNamespace:
        """Something that is returned."""
        return SimpleNamespace(status=None, seconds=0.0, fingerprint=student.fingerprint)


def drawn(space: SearchSpace, count: int) -> list[Architecture]:
    """So many different random students, the same in every run."""
    rng, found = np.random.default_rng(0), {}
    for _ in range(100 * count):
        student = space.random(rng)
        found[student.fingerprint] = student
        if len(found) == count:
            return list(found.values())
    raise SystemExit(f"only {len(found)} different students were drawn of a space, expected {count}; ask for fewer")


def throughput(asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Evaluations per hour of a small ResNet-20 on the digits."""
    torch.set_num_threads(1)
    data = load("digits")
    network = build_teacher("resnet20", width=8, channels=1, classes=10, seed=0)
    train_teacher(network, data.training, epochs=1)
    space = layer_shrinkage(network, example_inputs(data))
    judge = distillation(
        space, Teacher(network, data.training), data.training, steps=asked.steps, validation_subset=500
    )
    judge.prepare()
    warm, *students = drawn(space, asked.students + 1)
    alone = 0.0
    for workers in asked.workers:
        with opened(judge, space, workers) as evaluate:
            evaluate([warm])
            start = time.perf_counter()
            evaluate(students)
            seconds = time.perf_counter() - start
        rate = 3600 * len(students) / seconds
        alone = rate if workers == 1 else alone
        yield {"workers": workers, "students": len(students), "steps": asked.steps, "seconds": round(seconds, 2),
               "per_hour": round(rate, 1), "efficiency": round(rate / (workers * alone), 3) if workers and alone else ""
               }  # fmt: skip


@contextmanager
def opened(judge: Evaluate, space: SearchSpace, workers: int) -> Iterator[Evaluate]:
    """The evaluator in this process, or in so many that have all started."""
    if workers == 0:
        yield judge
        return
    with ray_running(workers), ray_pool(partial(given, judge), workers=workers, threads=1, space=space) as pool:
        pool.start()
        yield pool


def given(evaluate: Evaluate) -> Evaluate:
    """What it is given: an evaluator as the function that makes it."""
    return evaluate


def half(student: Architecture) -> float:
    """The same for everybody."""
    return 0.5


def overhead(asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What the pool adds to an evaluation that takes no time."""
    space = toy(decisions=6, actions=6)
    students = drawn(space, asked.empty)
    for workers in asked.workers:
        with opened(fake(space, half), space, workers) as evaluate:
            evaluate(students[:10])
            yield {"workers": workers, **costs(partial(evaluate, students), len(students))}


def nodes(asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What the pool costs on the driver's side, as workers grow."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(True, head_node_args={**NODE, "include_dashboard": False})
    try:
        for _ in range(asked.nodes - 1):
            cluster.add_node(**NODE)
        with ray_running("auto", address=cluster.address):
            for workers in asked.many:
                students: Sequence[Any] = [SimpleNamespace(fingerprint=str(index)) for index in range(asked.empty)]
                options = PoolOptions(workers, threads=1, start_seconds=1800)
                with RayPool(dict, options, space=None, prepare=None, images={}, worker=Nothing) as pool:
                    pool.start()
                    pool(students[: 2 * workers])
                    yield {"nodes": asked.nodes, "workers": workers, **costs(partial(pool, students), len(students))}
    finally:
        cluster.shutdown()


def costs(work: Any, count: int) -> dict[str, Any]:
    """Milliseconds per evaluation: of the clock, and of this process's own time on the processor."""
    clock, own = time.perf_counter(), time.process_time()
    work()
    return {"evaluations": count, "ms_per_evaluation": round(1e3 * (time.perf_counter() - clock) / count, 3),
            "driver_ms_per_evaluation": round(1e3 * (time.process_time() - own) / count, 3)}  # fmt: skip


PARTS = {"throughput": throughput, "overhead": overhead, "nodes": nodes}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=list(PARTS))
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], help="of throughput and overhead")
    parser.add_argument("--students", type=int, default=48, help="of throughput")
    parser.add_argument("--steps", type=int, default=100, help="distillation steps of throughput")
    parser.add_argument("--empty", type=int, default=1000, help="students of overhead and nodes")
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--many", type=int, nargs="+", default=[2, 10, 50, 100, 200], help="workers of nodes")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the CSV")
    asked = parser.parse_args()
    about = {"load": round(os.getloadavg()[0], 2), "cores": os.cpu_count(), "torch": torch.__version__,
             "machine": f"{platform.machine()}, {processor()}"}  # fmt: skip
    rows = []
    for row in PARTS[asked.part](asked):
        rows.append({**row, **about})
        print(rows[-1], flush=True)
    with (asked.out / f"scaling-{asked.part}.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


if __name__ == "__main__":
    main()
