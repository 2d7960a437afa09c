"""What each distillation objective brings two students of one teacher, and what a step by it costs.

    python scripts/benchmarks/objectives.py fashion-mnist --data-dir DIR --teachers DIR             the runs
    python scripts/benchmarks/objectives.py fashion-mnist --objectives none kd dkd --seeds 0:5      some of them
    python scripts/benchmarks/objectives.py fashion-mnist --quick                                   as quick judgements
    python scripts/benchmarks/objectives.py fashion-mnist --seconds                                 what a step takes
    python scripts/benchmarks/objectives.py fashion-mnist --table                                   nothing is trained

**A run** trains one student by one objective with one seed and is one row of `results/objectives-<bench>.csv`; a row
that is there is not made again, so that the run can be stopped at any time, and all objectives have had a seed before
the next one begins. One that fails or diverges is a row with the reason. An objective is what `--objective NAME` means
to `n2n search` and `n2n distill`: its published weight, the labels beside losses on feature maps alone, and `kd` after
an initial stage, whose steps are of the same budget. `fsp` has its adapter, as widths differ; `none` is labels alone;
`dkd` comes once more without its 20 epochs of warm-up, of which so short a training sees the start only.

**The students** are `found`, a member of the panel of `evaluation.py` with an eighth of the teacher's parameters (seven
of nine blocks removed, all widths shrunk), which starts with the teacher's weights, and `resnet-8`, with a block a
stage at the teacher's widths and fresh weights of the seed. Both are trained as a search trains its finalists, but for
280 steps instead of 600 or more, with the same images in the same order for all objectives of a seed; accuracy is that
after the last step on the validation split. The test split is not looked at.

**`--quick`** judges the first students of the panel by 60 steps with each objective that has no modules of its own; the
rungs that `evaluation.py` has judged them by are taken from there. **`--seconds`** times steps in rounds, in each of
which every objective has its turn, in another order; `none` and `kd` alternate in many more. Processor time is counted,
too, which minds other work on the machine less. The teacher's logits are kept, and what enters its classifier; its
other maps, which are too many for memory on most data, are computed in every step. Those are kept for the runs, which
need not say what a step costs: some 5 GiB a process.
"""

from __future__ import annotations

import argparse
import csv
import io
import multiprocessing
import platform
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from statistics import median

import evaluation
import objectives_table
import torch
from objectives_table import BASELINE, NAMES, STUDENTS, TITLES, expression_of, rows_in
from torch import nn

from n2n.data.base import TrainingData
from n2n.distill.accuracy import accuracy_of, agreement, predict
from n2n.distill.fit import fit, prepare_views
from n2n.distill.objectives.expression import ObjectiveError, parse
from n2n.distill.teacher import Teacher
from n2n.evaluate.base import Status
from n2n.evaluate.judgements import keys, read_judgements
from n2n.networks import parameters
from n2n.networks.latency import processor
from n2n.networks.stages import StageError
from n2n.search.finish import distill_student, long_recipe
from search_spaces.cifar_resnet import ResNet
from search_spaces.panel import Member, in_turn

RESULTS = Path(__file__).parent / "results"
FOUND = {"fashion-mnist": "c5ed8684bbc0924b", "cifar-10": "f17afd5093f020c9"}
"""The fingerprint of the found student, by bench: the same layers and widths on both."""
STEPS = 280
"""Of a run: an epoch of two train batches of CIFAR-10. 312 runs of 600 would take two processes three hours."""
FEATURE_BYTES = 64 * 2**20
"""Of the teacher's maps that `--seconds` keeps: enough for what enters its classifier, too little for all others."""
RUN_BYTES = 5 * 2**30
"""Of those that the runs keep: all after an activation, which several objectives look at, and so every run is short."""
KEPT = "attention + hint + similarity + nd"
"""Objectives that look at all of them between them."""
TIMED_STEPS, WARM = 30, 2
"""Steps of one objective in a round of `--seconds`, and those at their start that are not counted."""
ALTERNATING = 5
"""Further rounds of `none` and `kd` alone, for each round of all."""


@dataclass(frozen=True)
class Run:
    """One row to be made."""

    student: str
    objective: str
    seed: int


@dataclass(frozen=True)
class Place:
    """Where a run finds its teacher and its data, and on how many threads it trains."""

    bench: str
    data_dir: str
    teachers: Path
    threads: int


def planned(students: Iterable[str], objectives: Iterable[str], seeds: Iterable[int]) -> list[Run]:
    """All runs, seed by seed, so that what is cut off compares as well."""
    wanted = list(objectives), list(students)
    return [Run(student, name, seed) for seed in seeds for name in wanted[0] for student in wanted[1]]


def append(path: Path, row: Mapping[str, object]) -> None:
    """Adds a row as one line, after the header where the file is new; half a line at its end is cut off first."""
    content = path.read_bytes() if path.exists() else b""
    whole = content.rfind(b"\n") + 1
    with path.open("ab") as file:
        if whole < len(content):
            file.truncate(whole)
        text = io.StringIO(newline="")
        table = csv.DictWriter(text, list(row), lineterminator="\n")
        if not whole:
            table.writeheader()
        table.writerow({key: " ".join(str(value).split()) for key, value in row.items()})
        file.write(text.getvalue().encode())


def unmade(path: Path, runs: Sequence[Run]) -> list[Run]:
    """The runs that have no row yet."""
    made = {(row["student"], row["objective"], row["seed"]) for row in rows_in(path)}
    return [one for one in runs if (one.student, one.objective, str(one.seed)) not in made]


def make(path: Path, runs: Sequence[Run], work: Callable[[Run], dict[str, object]], processes: int,
         more: Mapping[str, object]) -> None:  # fmt: skip
    """Makes the rows that are missing, each on disk as soon as it is there."""
    for row in _worked(unmade(path, runs), work, processes):
        append(path, {**row, **more})
        print(row["student"], row["objective"], row["seed"], row["status"], row["accuracy"], f"{row['seconds']} s",
              row["reason"], flush=True)  # fmt: skip


def _worked(runs: Sequence[Run], work: Callable[[Run], dict[str, object]], processes: int
            ) -> Iterator[dict[str, object]]:  # fmt: skip
    if processes == 1:
        yield from map(work, runs)
        return
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        waiting = [pool.submit(work, one) for one in runs]
        try:
            for done in as_completed(waiting):
                yield done.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # after Ctrl-C nothing more is begun


def opened(place: Place, feature_bytes: int = FEATURE_BYTES) -> tuple[evaluation.World, tuple[Member, ...]]:
    """Teacher, data and panel."""
    return evaluation.opened(
        evaluation.BENCHES[place.bench], place.data_dir, place.teachers, feature_bytes=feature_bytes
    )


@cache
def opened_once(place: Place) -> tuple[evaluation.World, tuple[Member, ...]]:
    """The same, once in a process, with the teacher's maps for all runs."""
    world, members = opened(place, RUN_BYTES)
    epochs = epochs_of(STEPS, world.training)
    prepare_views(world.training, long_recipe(epochs, KEPT, "inherited"), world.teacher)
    return world, members


def epochs_of(steps: int, training: TrainingData) -> float:
    """As which `long_recipe` knows so many steps."""
    return steps / (len(training.train) // min(64, len(training.train)))


@dataclass(frozen=True)
class Worker:
    """Makes the row of a run, in this process or another."""

    place: Place

    def __call__(self, run: Run) -> dict[str, object]:
        """See `Run`."""
        place = self.place
        torch.set_num_threads(place.threads)
        world, members = opened_once(place)
        network = student_of(run.student, place.bench, world, members, run.seed)
        size = parameters(network)
        found = trained(network, world.teacher, world.training, objective=expression_of(run.objective),
                        steps=STEPS, seed=run.seed)  # fmt: skip
        return {**vars(run), "expression": expression_of(run.objective), **found, "parameters": size,
                "teacher_accuracy": round(world.teacher.accuracy, 5)}  # fmt: skip


def student_of(name: str, bench: str, world: evaluation.World, members: Sequence[Member], seed: int) -> nn.Module:
    """One of the two students, untrained: `found` with the teacher's weights, `resnet-8` with those of the seed."""
    if name == "found":
        for member in members:
            if member.architecture.fingerprint == FOUND[bench]:
                built: nn.Module = world.space.build(member.architecture, inherit=True, importance="l1", seed=seed)
                return built
        known = ", ".join(one.architecture.fingerprint for one in members)
        raise ValueError(
            f"{bench}: expected student {FOUND[bench]} in the panel, found {known}; the panel or the teacher's network"
            " has changed: choose another one in FOUND and begin with new results"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        channels = world.training.train.images.shape[1]
        return ResNet((1, 1, 1), widths=(16, 32, 64), classes=world.training.classes, channels=channels)


def trained(network: nn.Module, teacher: Teacher, training: TrainingData, *, objective: str, steps: int, seed: int
            ) -> dict[str, object]:  # fmt: skip
    """Trains a student, in place, as a search trains its finalists; how that ended, in the columns of a row.

    Views and what the teacher says of them are prepared before the clock starts: they serve every run of a process. So
    do the class means of `nd`, but its first run pays for them.
    """
    epochs = epochs_of(steps, training)
    try:
        prepare_views(training, long_recipe(epochs, objective, "inherited"), teacher)
        processor_time = time.process_time()
        done = distill_student(network, teacher, training, epochs=epochs, objective=objective, seed=seed)
    except (RuntimeError, ValueError) as error:  # those by which objectives refuse networks are ValueErrors
        return _ended(Status.FAILED, reason=f"{type(error).__name__}: {error}")
    spent = {"steps": done.steps, "seconds": round(done.seconds, 2),
             "cpu_seconds": round(time.process_time() - processor_time, 2)}  # fmt: skip
    if done.diverged:
        return _ended(Status.FAILED, reason=done.reason, **spent)
    split = training.validation
    logits = predict(network, split.images, mean=training.mean, std=training.std, device="cpu", precision="auto")
    right, loss = accuracy_of(logits, split.labels)
    return _ended(Status.OK, accuracy=round(right, 5), agreement=round(agreement(logits, teacher.logits(split)), 5),
                  loss=round(loss, 5), **spent)  # fmt: skip


def _ended(status: Status, **known: object) -> dict[str, object]:
    columns = ("accuracy", "agreement", "loss", "steps", "seconds", "cpu_seconds", "reason")
    return {"status": status.value, **{name: known.get(name, "") for name in columns}}


def quick(place: Place, names: Sequence[str], starts: Sequence[str], students: int,
          more: Mapping[str, object]) -> None:  # fmt: skip
    """Judges the first students of the panel by the rungs of 60 steps that no other benchmark has judged them by."""
    judged = keys(read_judgements(RESULTS / f"{place.bench}-evaluators.csv"))
    world, members = opened(place)
    for rung in (objectives_table.rung_of(start, name) for start in starts for name in names):
        new = tuple(one for one in in_turn(members)[:students] if (rung, 0, one.architecture.fingerprint) not in judged)
        evaluation.run(f"objectives-{place.bench}", world, new, [rung], more, 0)


def measure_seconds(place: Place, names: Sequence[str], rounds: int, more: Mapping[str, object]) -> None:
    """Times steps of every objective on both students, and writes the rounds anew."""
    path = RESULTS / f"objectives-{place.bench}-seconds.csv"
    world, members = opened(place)
    training = world.training
    some = torch.arange(min(len(training.train), 64 * TIMED_STEPS))
    room = FEATURE_BYTES * len(some) // len(training.train)  # a share of the images has that share of the memory
    teacher = Teacher(world.teacher.network, training, name=world.teacher.name, feature_bytes=room)
    path.unlink(missing_ok=True)
    draw = random.Random(0)
    alternating = [name for name in (BASELINE, "kd") if name in names]
    for number in range(rounds * (1 + ALTERNATING if len(alternating) > 1 else 1)):
        turn = list(names if number < rounds else alternating)
        for student in STUDENTS:
            draw.shuffle(turn)
            for name in turn:
                network = student_of(student, place.bench, world, members, number)
                try:
                    took = step_ms(network, teacher, training, expression_of(name), some)
                except (ObjectiveError, StageError) as error:
                    print(student, name, error, flush=True)
                    continue
                append(path, {"student": student, "objective": name, "round": number, **took, **more})
        print(f"round {number + 1}", flush=True)


def step_ms(network: nn.Module, teacher: Teacher, training: TrainingData, objective: str, subset: torch.Tensor
            ) -> dict[str, float]:  # fmt: skip
    """Wall and processor time of a step in ms: the median, or those of both stages by their shares of the steps.

    What happens once is left out: side modules, the paraphraser of `factor`, and the first steps.
    """
    clocks: list[tuple[float, float]] = []
    # The rate is one by which no loss diverges: it is no matter for the clock, and a diverged step would be.
    recipe = replace(long_recipe(1.0, objective, "inherited"), epochs=None, steps=TIMED_STEPS, lr=1e-4)
    prepare_views(training, recipe, teacher, subset)
    fit(network, training, recipe, teacher=teacher, subset=subset,
        progress=lambda *_: clocks.append((time.perf_counter(), time.process_time())))  # fmt: skip
    share = parse(objective).initial_share
    found = {}
    for which, column in enumerate(("ms", "cpu_ms")):
        took = [1e3 * (after[which] - before[which]) for before, after in pairwise(clocks)]  # of steps 1, 2, ...
        first = [ms for step, ms in enumerate(took, start=1) if step >= WARM and step / TIMED_STEPS < share]
        later = [ms for step, ms in enumerate(took, start=1) if step >= WARM and step / TIMED_STEPS >= share]
        found[column] = round(share * (median(first) if first else 0.0) + (1 - share) * median(later), 3)
    return found


def show(bench: str) -> None:
    """The tables on the screen, and the picture."""
    found = objectives_table.read(bench, RESULTS)
    for header, lines in (objectives_table.accuracy_table(found), objectives_table.cost_table([found])):
        print("\n".join("  ".join(cells) for cells in (header, *lines)), end="\n\n")
    print(objectives_table.reading([found]))
    objectives_table.plot(found, RESULTS / f"objectives-{bench}.png")


def seeds_of(text: str) -> range:
    """`0:3` as the seeds 0 to 2."""
    first, _, last = text.partition(":")
    return range(int(first), int(last))


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", choices=list(TITLES))
    parser.add_argument("--data-dir", default="../shared/data")
    parser.add_argument("--teachers", type=Path, default=Path("teachers"))
    parser.add_argument("--objectives", nargs="+", choices=NAMES, default=list(NAMES), metavar="NAME")
    parser.add_argument("--students", nargs="+", choices=STUDENTS, default=list(STUDENTS), help="of the runs")
    parser.add_argument("--seeds", type=seeds_of, default=seeds_of("0:3"), help="FIRST:END, default 0:3")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1, help="runs at a time")
    parser.add_argument("--rounds", type=int, default=8, help="of --seconds")
    parser.add_argument("--starts", nargs="+", choices=("inherited", "refit"), default=["inherited"], help="of --quick")
    parser.add_argument("--panel", type=int, default=12, help="students that --quick judges")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--quick", action="store_true")
    what.add_argument("--seconds", action="store_true")
    what.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    place = Place(asked.bench, asked.data_dir, asked.teachers, asked.threads)
    more = {"threads": asked.threads, "processes": asked.processes, "torch": torch.__version__,
            "machine": f"{platform.machine()}, {processor()}"}  # fmt: skip
    if asked.quick:
        without = [name for name in asked.objectives if not parse(expression_of(name)).needs_side]
        quick(place, without, asked.starts, asked.panel, more)
    elif asked.seconds:
        measure_seconds(place, asked.objectives, asked.rounds, more)
    elif not asked.table:
        runs = planned(asked.students, asked.objectives, asked.seeds)
        make(RESULTS / f"objectives-{asked.bench}.csv", runs, Worker(place), asked.processes, more)
    show(asked.bench)


if __name__ == "__main__":
    main()
