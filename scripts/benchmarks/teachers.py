"""Trains the two teachers of the benchmarks from scratch and writes them, with how they came about, to a folder.

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

import torch
from safetensors.torch import save_file

from n2n.data import Augmentation, load
from n2n.distill.accuracy import accuracy
from n2n.distill.fit import train_teacher
from n2n.networks import build_teacher

VALIDATION = 0.1
DATA_SEED = 0


@dataclass(frozen=True)
class Plan:
    """One teacher: the network, its data and how it is trained."""

    name: str
    kwargs: tuple[tuple[str, int], ...]
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
    "vgg13-mnist": Plan("vgg13_bn", (("classes", 10), ("channels", 1)), "mnist", Augmentation(pad=2), 2, 0.05, 0.2),
}


def train(which: str, *, epochs: float | None, data_dir: str, out: Path, device: str, seed: int) -> None:
    """Trains one teacher and writes its folder."""
    plan = PLANS[which]
    data = load(plan.data, data_dir=data_dir, validation=VALIDATION, seed=DATA_SEED)
    training = dataclasses.replace(data.training, augmentation=plan.augmentation)
    torch.manual_seed(seed)  # of the initial weights; a script owns its process
    network = build_teacher(plan.name, **dict(plan.kwargs))
    start = time.monotonic()

    def progress(step: int, total: int, loss: float) -> None:
        if step % 20 == 0 or step == total:
            seconds = time.monotonic() - start
            left = seconds / step * (total - step)
            print(f"{which} step {step}/{total} loss {loss:.4f} {seconds:.0f} s, {left:.0f} s left", flush=True)

    length = plan.epochs if epochs is None else epochs
    result = train_teacher(
        network,
        training,
        epochs=length,
        lr=plan.lr,
        warmup=plan.warmup,
        seed=seed,
        device=device,
        progress=progress,
    )
    if result.diverged:
        raise SystemExit(f"{which}: {result.reason}")
    measured = {
        name: accuracy(network, split, mean=training.mean, std=training.std, device=device)[0]
        for name, split in (("validation", data.validation), ("test", data.test))
    }
    card = {
        "name": plan.name,
        "kwargs": dict(plan.kwargs),
        "data": plan.data,
        "data_seed": DATA_SEED,
        "validation_fraction": VALIDATION,
        "augmentation": dataclasses.asdict(plan.augmentation),
        "epochs": length,
        "lr": plan.lr,
        "warmup": plan.warmup,
        "seed": seed,
        "validation_accuracy": measured["validation"],
        "test_accuracy": measured["test"],
        "seconds": round(result.seconds, 1),
        "device": device,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    folder = out / which
    folder.mkdir(parents=True, exist_ok=True)
    weights = {key: value.cpu().contiguous() for key, value in network.state_dict().items()}
    partial = folder / "model.safetensors.part"
    save_file(weights, partial)
    partial.replace(folder / "model.safetensors")
    (folder / "teacher.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(card), flush=True)


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
        train(which, epochs=given.epochs, data_dir=given.data_dir, out=given.out, device=given.device, seed=given.seed)


if __name__ == "__main__":
    main()
