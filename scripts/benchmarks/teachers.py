"""Trains the teachers of the benchmarks from scratch and writes them, with how they came about, to a folder.

    python scripts/benchmarks/teachers.py --which all --data-dir DIR --out teachers/

Each teacher becomes `OUT/<which>/model.safetensors` and `OUT/<which>/teacher.json`. The validation split is the one
that the searches hold out (a tenth, seed 0); the test split is opened once, at the end.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from n2n.data import Augmentation, load
from n2n.networks import build_teacher
from n2n.search.teachers import TeacherCard, save_teacher, train_teacher

VALIDATION = 0.1
DATA_SEED = 0


@dataclass(frozen=True)
class Plan:
    """One teacher: the network, its data and how it is trained."""

    name: str
    kwargs: tuple[tuple[str, Any], ...]
    data: str
    augmentation: Augmentation
    epochs: float
    lr: float
    warmup: float


PLANS = {
    # In a handful of epochs light augmentation wins over heavy: mirror images only.
    "resnet20-fashion-mnist": Plan(
        "resnet20", (("classes", 10), ("channels", 1)), "fashion-mnist", Augmentation(flip=True), 5, 0.1, 0.2
    ),
    # Two of CIFAR-10's five train batches, where these are all that there is.
    "resnet20-cifar-10": Plan(
        "resnet20", (("classes", 10), ("channels", 3)), "cifar-10", Augmentation(pad=4, flip=True), 12, 0.1, 0.3
    ),
    "vgg11-fashion-mnist": Plan(
        "vgg11_bn",
        (("classes", 10), ("channels", 1), ("width", 16)),
        "fashion-mnist",
        Augmentation(flip=True),
        3,
        0.05,
        0.2,
    ),
    "vgg13-mnist": Plan("vgg13_bn", (("classes", 10), ("channels", 1)), "mnist", Augmentation(pad=2), 2, 0.05, 0.2),
}


def train(
    which: str, plan: Plan, *, epochs: float | None, data_dir: str | None, out: Path, device: str, seed: int
) -> TeacherCard:
    """Trains one teacher and writes its folder `OUT/<which>`, which `n2n search --teacher` takes too."""
    loaded = load(plan.data, data_dir=data_dir, validation=VALIDATION, seed=DATA_SEED)
    data = dataclasses.replace(loaded, training=dataclasses.replace(loaded.training, augmentation=plan.augmentation))
    network = build_teacher(plan.name, seed=seed, **dict(plan.kwargs))
    start = time.monotonic()

    def progress(step: int, total: int, loss: float) -> None:
        if step % 20 == 0 or step == total:
            seconds = time.monotonic() - start
            left = seconds / step * (total - step)
            print(f"{which} step {step}/{total} loss {loss:.4f} {seconds:.0f} s, {left:.0f} s left", flush=True)

    card = train_teacher(
        network,
        data,
        name=plan.name,
        arguments=dict(plan.kwargs),
        epochs=plan.epochs if epochs is None else epochs,
        lr=plan.lr,
        warmup=plan.warmup,
        seed=seed,
        device=device,
        progress=progress,
    )
    save_teacher(out / which, network, card)
    print(json.dumps(vars(card)), flush=True)
    return card


def main() -> None:
    """Reads the command line and trains."""
    parser = argparse.ArgumentParser(description="Train the teachers of the benchmarks from scratch.")
    parser.add_argument("--which", choices=[*PLANS, "all"], default="all")
    parser.add_argument("--epochs", type=float, default=None, help="instead of the plan's own number")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data-dir", default="../shared/data")
    parser.add_argument("--out", type=Path, default=Path("teachers"))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    for which in PLANS if given.which == "all" else [given.which]:
        train(
            which,
            PLANS[which],
            epochs=given.epochs,
            data_dir=given.data_dir,
            out=given.out,
            device=given.device,
            seed=given.seed,
        )


if __name__ == "__main__":
    main()
