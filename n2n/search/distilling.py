"""A long distillation that can go on: a checkpoint and a row of the learning curve after every epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from n2n.data.base import TrainingData
from n2n.distill.accuracy import accuracy
from n2n.distill.precision import Wish
from n2n.distill.state import Epoch, State
from n2n.search.artefacts import read_tensors
from n2n.search.errors import ArtefactError
from n2n.search.files import read_json, write_csv, write_json, write_tensors

CHECKPOINT, CURVE, PLOT = "checkpoint.json", "learning_curve.csv", "learning_curve.png"
COLUMNS = ("epoch", "step", "loss", "lr", "objective", "validation_accuracy", "validation_loss")


@dataclass(frozen=True)
class Row:
    """One epoch of a learning curve.

    Attributes:
        epoch: epochs done, from 1.
        step: optimiser steps done.
        loss: mean training loss of the epoch's steps.
        lr: learning rate of its last step.
        objective: the terms that its last step was on.
        validation_accuracy: share of right answers, of the averaged weights where there is an average.
        validation_loss: mean cross-entropy.
    """

    epoch: int
    step: int
    loss: float
    lr: float
    objective: str
    validation_accuracy: float
    validation_loss: float


@dataclass(frozen=True)
class Saved:
    """What a checkpoint holds."""

    state: State
    rows: tuple[Row, ...]


@dataclass
class Keeper:
    """Measures, keeps and tells each epoch of a distillation; give `epoch_end` to `n2n.distill.fit.fit`.

    Attributes:
        folder: where the checkpoint and the curve are written; it is made where it is not there.
        asked: what the distillation was asked for, as JSON values; a checkpoint of another one is refused.
        network: the student.
        training: its validation split is measured.
        device: as in `fit`.
        precision: as in `fit`.
        say: gets a line for each epoch.
        rows: the curve so far.
    """

    folder: Path
    asked: Mapping[str, Any]
    network: nn.Module
    training: TrainingData
    device: str = "cpu"
    precision: Wish = "auto"
    say: Callable[[str], None] = lambda text: None
    rows: list[Row] = field(default_factory=list)

    def epoch_end(self, epoch: Epoch) -> None:
        """Measures the student, then writes the checkpoint and the curve.

        Raises:
            WriteError: the file system refused; the last checkpoint is whole.
        """
        right, loss = self.measured()
        number = len(self.rows) + 1
        self.rows.append(Row(number, epoch.step, epoch.loss, epoch.rate, epoch.terms, right, loss))
        self._write(epoch.state())
        self.say(
            f"  epoch {number}, step {epoch.step} of {epoch.total}: loss {epoch.loss:.3f}, validation {right:.2%}"
            f" ({epoch.terms})"
        )

    def measured(self) -> tuple[float, float]:
        """The student's accuracy and mean cross-entropy on the validation split, as it is now."""
        return accuracy(
            self.network,
            self.training.validation,
            mean=self.training.mean,
            std=self.training.std,
            device=self.device,
            precision=self.precision,
        )

    def _write(self, state: State) -> None:
        """The tensors go first, under a name of their own: the JSON that names them makes them count."""
        name = f"checkpoint-{state.step}.safetensors"
        write_tensors(self.folder / name, state.tensors)
        record = {"tensors": name, "step": state.step, "loss": state.loss, "asked": dict(self.asked)}
        write_json(self.folder / CHECKPOINT, {**record, "curve": [asdict(row) for row in self.rows]})
        for other in self.folder.glob("checkpoint-*.safetensors"):
            if other.name != name:
                other.unlink()
        write_csv(self.folder / CURVE, COLUMNS, [[getattr(row, column) for column in COLUMNS] for row in self.rows])

    def resumed(self) -> State:
        """The state of the folder's checkpoint, whose curve is taken over.

        Raises:
            ArtefactError: there is none, it is damaged, or it is of a distillation that was asked for something else.
        """
        saved = _read(self.folder, self.asked)
        self.rows = list(saved.rows)
        return saved.state

    @property
    def best(self) -> Row | None:
        """The first epoch of the highest validation accuracy; None before the first."""
        return max(self.rows, key=lambda row: row.validation_accuracy, default=None)

    def clear(self) -> None:
        """Removes the checkpoint of a distillation that is done; the curve stays."""
        (self.folder / CHECKPOINT).unlink(missing_ok=True)
        for tensors in self.folder.glob("checkpoint-*.safetensors"):
            tensors.unlink()


def _read(folder: Path, asked: Mapping[str, Any]) -> Saved:
    path = folder / CHECKPOINT
    if not path.is_file():
        raise ArtefactError(
            f"{path} is missing: nothing was kept of a distillation there, or it is done; leave out --resume"
        )
    value = read_json(path, ("tensors", "step", "loss", "asked", "curve"))
    differing = [key for key in {**value["asked"], **asked} if value["asked"].get(key) != _plain(asked.get(key))]
    if differing:
        what, was, now = _first_difference(differing[0], value["asked"].get(differing[0]), asked.get(differing[0]))
        raise ArtefactError(
            f"{path} is of another distillation: {what} was {was!r}, now {now!r}; say the same again, or choose another"
            " --out"
        )
    try:
        rows = tuple(Row(**row) for row in value["curve"])
        step, loss = int(value["step"]), float(value["loss"])
    except (TypeError, ValueError) as error:
        raise ArtefactError(f"{path} is damaged ({error}); begin again in another --out") from error
    if not math.isfinite(loss) or Path(str(value["tensors"])).name != value["tensors"]:
        raise ArtefactError(f"{path} is damaged; begin again in another --out")
    return Saved(State(step, loss, read_tensors(folder / value["tensors"])), rows)


def _first_difference(name: str, was: Any, now: Any) -> tuple[str, Any, Any]:
    """The name of what differs, and what it was and is; within two records, of their first field that differs."""
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        for key in {**was, **now}:
            if was.get(key) != _plain(now.get(key)):
                return f"the {name}'s {key}", was.get(key), now.get(key)
    return name, was, now


def _plain(value: Any) -> Any:
    """A value as it comes back from JSON."""
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return {key: _plain(one) for key, one in value.items()} if isinstance(value, Mapping) else value
