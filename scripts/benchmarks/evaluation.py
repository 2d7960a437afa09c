"""How well cheap judgements rank students, and what they cost, against a long distillation.

    python scripts/benchmarks/evaluation.py fashion-mnist --data-dir DIR            every rung, then table and picture
    python scripts/benchmarks/evaluation.py fashion-mnist --rungs refit:0 paper:5e  some of them
    python scripts/benchmarks/evaluation.py fashion-mnist --seconds                 what one takes, all in one run
    python scripts/benchmarks/evaluation.py fashion-mnist --table                   nothing is judged

A fixed panel of students is judged by each rung; every judgement is one row in `results/<name>-evaluators.csv`, and a
row that is there is not made again, so that the run can be stopped at any time. As that takes hours, beside whatever
else runs, its seconds are not comparable: `--seconds` judges a few students by every rung in one go (of long
distillations two short starts, and the line through them) and writes `results/<name>-seconds.csv`. The table goes to
`results/<name>-ranking.csv`, the picture beside it. Train the teacher first: `python scripts/benchmarks/teachers.py`.
"""

from __future__ import annotations

import argparse
import csv
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from n2n.data import example_inputs, load
from n2n.distill.recipe import Recipe, full_recipe
from n2n.distill.teacher import FEATURE_BYTES, Teacher
from n2n.evaluate.base import Evaluate
from n2n.evaluate.distillation import Distillation, distillation
from n2n.evaluate.fidelity import PanelError, ceiling, fidelities, in_words
from n2n.evaluate.judgements import Judgement, append_judgement, keys, read_judgements
from n2n.evaluate.rungs import parse_rung
from n2n.evaluate.scoring import scoring
from n2n.networks.latency import processor
from n2n.report.fidelity import CSV_COLUMNS, csv_rows, plain_table, plot_fidelity
from n2n.search.teachers import load_teacher
from search_spaces import layer_removal
from search_spaces.layer_shrinkage import FACTORS, LayerShrinkage
from search_spaces.panel import Member, in_turn, panel

RESULTS = Path(__file__).parent / "results"
TRUTH = "inherited:3e"
"""What the others are measured with, unless another is asked for: three epochs of KD on all images, twice."""
VALIDATION = 2000
TIMED = 6
"""Students that `--seconds` judges."""
SHORTENED = (0.02, 0.06)
"""The shares of their steps that distillations in epochs are timed with: the line through both says what all take."""


@dataclass(frozen=True)
class Bench:
    """One panel: the teacher's folder, its data, how many students, and the teacher's accuracy on validation."""

    teacher: str
    data: str
    size: int
    accuracy: float


BENCHES = {
    "fashion-mnist": Bench("resnet20-fashion-mnist", "fashion-mnist", 24, 0.9347),
    "cifar-10": Bench("resnet20-cifar-10", "cifar-10", 24, 0.7965),
}


@dataclass(frozen=True)
class Extra:
    """A rung beyond those that have a name in `n2n.evaluate.rungs`: arguments of `distillation`."""

    arguments: Mapping[str, Any] = field(default_factory=dict)


def paper(epochs: float) -> Extra:
    """N2N's recipe: from scratch, the teacher's logits by squared error, Adam at 5e-4 (Ashok et al., section 4)."""
    recipe = Recipe(objective="logit_mse", epochs=epochs, lr=5e-4, optimizer="adam", schedule="constant", warmup=0.0,
                    weight_decay=0.0, augment=False)  # fmt: skip
    return Extra({"recipe": recipe, "start": "fresh"})


def solved(**options: Any) -> Extra:
    """The closed form without a step of training, by other settings than the usual ones."""
    return Extra({"steps": 0, "start": "refit", "closed_form_options": options, "validation_subset": VALIDATION})


EXTRAS: dict[str, Extra] = {
    "paper:1e": paper(1.0),
    "paper:5e": paper(5.0),
    "refit:3e usual steps": Extra({"recipe": full_recipe(epochs=3.0), "start": "refit"}),
    "refit:0 128 images": solved(images=128),
    "refit:0 512 images": solved(images=512),
    "refit:0 1024 images": solved(images=1024),
    "refit:0 4 positions": solved(positions=4),
    "refit:0 ridge 1e-5": solved(strength=1e-5),
    "refit:0 ridge 1e-1": solved(strength=1e-1),
    "refit:0 toward inherited": solved(toward="inherited", strength=1e-2),
}
SHORT = (
    "refit:0", "score:params", "score:naswot", "score:synflow", "score:live_capacity", "score:taught_capacity",
    "inherited:0", "refit:20", "refit:40", "refit:60", "refit:100", "inherited:60", "inherited:100",
    "refit:40:logit_mse", "refit:40:nst", "refit:60:logit_mse", "refit:60:nst",
    "inherited:100:logit_mse", "inherited:100:nst",
)  # fmt: skip
SEEDS = {TRUTH: 2}
ALL = (TRUTH, *SHORT, *EXTRAS)


@dataclass(frozen=True)
class World:
    """Everything that a rung is opened with."""

    teacher: Teacher
    training: Any
    space: Any

    def judge(self, rung: str, seed: int, *, share: float = 1.0) -> Evaluate:
        """The evaluator of a rung, with what it does once for all students done; `share` of its epochs."""
        extra = EXTRAS.get(rung)
        if extra is None and (named := parse_rung(rung)).recipe is None:
            return scoring(self.space, self.training, score=named.score, seed=seed, teacher=self.teacher)
        if extra is None:
            validation = VALIDATION if named.short else None
            arguments: dict[str, Any] = {"recipe": named.recipe, "start": named.start, "validation_subset": validation}
        else:
            arguments = dict(extra.arguments)
        recipe = arguments.get("recipe")
        if recipe is not None and recipe.epochs is not None:
            arguments["recipe"] = replace(recipe, epochs=share * recipe.epochs, views=1 if share < 1 else recipe.views)
        judge: Distillation = distillation(self.space, self.teacher, self.training, seed=seed, **arguments)
        judge.prepare()
        return judge


def opened(bench: Bench, data_dir: str, teachers: Path, *, feature_bytes: int = FEATURE_BYTES
           ) -> tuple[World, tuple[Member, ...]]:  # fmt: skip
    """The teacher, its data, and the panel, smallest student first; the same in every run."""
    data = load(bench.data, data_dir=data_dir, validation=0.1, seed=0)
    network, card = load_teacher(teachers / bench.teacher)
    teacher = Teacher(network, data.training, name=card.name, feature_bytes=feature_bytes)
    space = layer_removal(network, example_inputs(data.training), granularity="block")

    def shrinkage(start: Any) -> LayerShrinkage:
        return LayerShrinkage(space.reading, factors=FACTORS, round_to=1, kernels=False, kept=frozenset(), start=start,
                              may_be_empty=True)  # fmt: skip

    members = panel(space, shrinkage, size=bench.size)
    print(f"{len(members)} students, teacher {teacher.accuracy:.4f} on validation", flush=True)
    return World(teacher, data.training, space), members


def run(name: str, world: World, members: tuple[Member, ...], wanted: list[str], more: Mapping[str, object],
        only_seed: int | None) -> None:  # fmt: skip
    """Makes the rows that are missing, in the order of the members."""
    path = RESULTS / f"{name}-evaluators.csv"
    for rung in wanted:
        for seed in range(SEEDS.get(rung, 1)) if only_seed is None else [only_seed]:
            judge = None
            for member in members:
                if (rung, seed, member.architecture.fingerprint) in keys(read_judgements(path)):
                    continue
                judge = judge or world.judge(rung, seed)
                (found,) = judge([member.architecture])
                share = member.cost.parameters / world.teacher.parameters
                append_judgement(path, Judgement.of(rung, seed, found, share=share, removed=member.removed), more)
                print(rung, seed, f"{member.cost.parameters:,}", found.accuracy, found.agreement, found.score,
                      f"{found.seconds:.1f} s", found.reason, flush=True)  # fmt: skip


def measure_seconds(name: str, world: World, members: tuple[Member, ...], wanted: list[str], more: Mapping[str, object]
                    ) -> None:  # fmt: skip
    """Judges a few students of all sizes by every rung, one student after the other, and writes the seconds."""
    judges = {(rung, share): world.judge(rung, 0, share=share) for rung in wanted for share in shares(rung)}
    for judge in judges.values():
        judge([members[0].architecture])  # whatever happens once at the first student is not timed
    with (RESULTS / f"{name}-seconds.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, ("rung", "fingerprint", "parameters", "seconds", "extrapolated", *more),
                               lineterminator="\n")  # fmt: skip
        table.writeheader()
        for member in members[:: max(1, len(members) // TIMED)]:
            for rung in wanted:
                took = [judges[rung, share]([member.architecture])[0].seconds for share in shares(rung)]
                seconds = took[0]
                if len(took) > 1:
                    low, high = SHORTENED
                    seconds += (1 - low) * (took[1] - took[0]) / (high - low)
                table.writerow({"rung": rung, "fingerprint": member.architecture.fingerprint,
                                "parameters": member.cost.parameters, "seconds": round(seconds, 3),
                                "extrapolated": int(len(took) > 1), **more})  # fmt: skip
                file.flush()
                print(rung, f"{member.cost.parameters:,}", f"{seconds:.2f} s", flush=True)


def shares(rung: str) -> tuple[float, ...]:
    """With which shares of its steps a rung is timed."""
    return SHORTENED if ":" in rung and rung.split(":")[1].endswith("e") else (1.0,)


def write_table(name: str, truth: str) -> None:
    """The table as a file and on the screen, and the picture; the seconds are those of one run where there is one."""
    judgements = timed(read_judgements(RESULTS / f"{name}-evaluators.csv"), RESULTS / f"{name}-seconds.csv")
    lines, noise = fidelities(judgements, truth), ceiling(judgements, truth)
    with (RESULTS / f"{name}-ranking.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(CSV_COLUMNS)
        table.writerows(csv_rows(lines))
        if noise is not None:
            table.writerow((f"{truth}, two seeds", "accuracy", noise.students, *(round(v, 4) for v in
                            (noise.tau, noise.low, noise.high)), *[""] * 5))  # fmt: skip
    plot_fidelity(RESULTS / f"{name}-ranking.png", lines, noise)
    print(plain_table(lines))
    print("\n".join(in_words(lines, noise)))


def timed(judgements: list[Judgement], path: Path) -> list[Judgement]:
    """The judgements with the seconds of the one run that measured them, and without, where it did not."""
    if not path.exists():
        return judgements
    with path.open(newline="") as file:
        seconds = {(row["rung"], row["fingerprint"]): float(row["seconds"]) for row in csv.DictReader(file)}
    return [replace(one, seconds=seconds.get((one.rung, one.fingerprint), 0.0)) for one in judgements]


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", choices=list(BENCHES))
    parser.add_argument("--rungs", nargs="+", default=list(ALL))
    parser.add_argument("--data-dir", default="../shared/data")
    parser.add_argument("--teachers", type=Path, default=Path("teachers"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1, help="busy processes on the machine, told in the rows")
    parser.add_argument("--against", default=TRUTH, help="the long distillation of the table")
    parser.add_argument("--seed", type=int, default=None, help="of the rungs; all that they have by default")
    parser.add_argument(
        "--students",
        type=int,
        default=None,
        help="judge only the first so many of the panel, in an order that sees all sizes early",
    )
    parser.add_argument("--seconds", action="store_true")
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    start = time.monotonic()
    if not asked.table:
        world, members = opened(BENCHES[asked.bench], asked.data_dir, asked.teachers)
        more = {"threads": asked.threads, "processes": asked.processes, "torch": torch.__version__,
                "machine": f"{platform.machine()}, {processor()}"}  # fmt: skip
        if asked.seconds:
            measure_seconds(asked.bench, world, members, asked.rungs, more)
            return
        run(asked.bench, world, in_turn(members)[: asked.students], asked.rungs, more, asked.seed)
    try:
        write_table(asked.bench, asked.against)
    except PanelError as error:
        print(f"no table yet: {error}")
    print(f"{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
