"""Training: one network by one recipe, with or without a teacher."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from n2n.data.base import TrainingData
from n2n.distill.loop import Loop, Progress, Told, draws_anew
from n2n.distill.matching import places_in, reads_layers
from n2n.distill.objectives.expression import ObjectiveError, parse
from n2n.distill.precision import Precision, Wish, resolve
from n2n.distill.recipe import Recipe, teacher_recipe, total_steps
from n2n.distill.state import Epoch, State
from n2n.networks.depth import Layers

if TYPE_CHECKING:
    from n2n.distill.teacher import Teacher


@dataclass(frozen=True)
class FitResult:
    """What came of training.

    Attributes:
        steps: optimiser steps taken.
        seconds: wall time.
        final_loss: the last step's loss (NaN before any step).
        diverged: whether the loss stopped being finite.
        reason: why training ended early; empty where it did not.
    """

    steps: int
    seconds: float
    final_loss: float
    diverged: bool
    reason: str


def fit(
    network: nn.Module,
    training: TrainingData,
    recipe: Recipe,
    *,
    teacher: Teacher | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    precision: Wish = "auto",
    subset: Tensor | None = None,
    progress: Progress | None = None,
    deadline: float | None = None,
    epoch_end: Callable[[Epoch], None] | None = None,
    resume: State | None = None,
) -> FitResult:
    """Trains a network in place and leaves it in eval mode, without gradients.

    Args:
        network: trained in place, moved to `device`.
        training: the images; the validation split is not looked at.
        recipe: how to train.
        teacher: needed by every objective but "ce".
        seed: of the order of the images, of their augmentation, of side modules and of dropout; the global generator is
            left as it was.
        device: where to train.
        precision: "auto", "fp32", "bf16", or a decision of `n2n.distill.probe`.
        subset: indices [m] into the training split to use instead of all of it.
        progress: called after every step.
        deadline: a `time.monotonic()` value after which no step is begun.
        epoch_end: called after every epoch; the network has then the weights that it would be given back with.
        resume: goes on from there, with the same network, data, recipe, teacher and seed, as if it had never stopped.

    Raises:
        ObjectiveError: the objective needs a teacher and none was given, or cannot be had on these two networks.
        ValueError: there are no images.
        StageError: the objective needs feature maps, and the network or the teacher has none.
    """
    if teacher is None and parse(recipe.objective).needs_teacher:
        raise ObjectiveError(f"objective {recipe.objective!r} needs a teacher; pass teacher=, or use objective 'ce'")
    examples = len(training.train) if subset is None else len(subset)
    if examples == 0:
        raise ValueError(f"no training images in {training.name}; give a larger subset or split")
    start = time.monotonic()
    network.to(device)
    settings = resolve(precision, network, device)
    with _layout(network, settings), _seeded(seed, device):
        loop = Loop(network, training, recipe, teacher, settings, torch.device(device), subset, seed, examples)
        steps, loss, reason = loop.run(Told(progress, epoch_end, resume), deadline, time.monotonic)
    network.zero_grad(set_to_none=True)
    network.eval()
    return FitResult(steps, time.monotonic() - start, loss, steps > 0 and not math.isfinite(loss), reason)


def train_teacher(
    network: nn.Module,
    training: TrainingData,
    *,
    epochs: float,
    batch_size: int = 128,
    lr: float = 0.1,
    weight_decay: float = 5e-4,
    warmup: float = 0.2,
    seed: int = 0,
    device: torch.device | str = "cpu",
    precision: Wish = "auto",
    progress: Progress | None = None,
    deadline: float | None = None,
) -> FitResult:
    """Trains a network from scratch on the labels, in place: SGD with Nesterov momentum, one cycle that peaks early."""
    recipe = teacher_recipe(epochs=epochs, lr=lr, batch_size=batch_size, weight_decay=weight_decay, warmup=warmup)
    return fit(
        network,
        training,
        recipe,
        seed=seed,
        device=device,
        precision=precision,
        progress=progress,
        deadline=deadline,
    )


def check_objective(objective: str, teacher: Teacher, layers: Layers = ()) -> None:
    """Refuses, before anything is trained, an objective that looks at feature maps which the teacher does not have.

    Raises:
        ObjectiveError: it cannot be read, or looks at none of the layers that are named.
        StageError: the teacher has no such maps; the message says what to do.
    """
    expression = parse(objective)
    if layers and not reads_layers(expression):
        raise ObjectiveError(
            f"objective {objective!r} compares no maps that can be named: leave out the layers"
            f" {', '.join('='.join(pair) for pair in layers)}, or add a term that does, such as attention"
        )
    places_in(teacher, expression, layers)


def prepare_views(training: TrainingData, recipe: Recipe, teacher: Teacher, subset: Tensor | None = None) -> None:
    """Has the teacher look at every view that `fit` will show by this recipe, so that its outputs are there already."""
    if draws_anew(training, recipe):
        return
    places = places_in(teacher, parse(recipe.objective), recipe.layers)
    examples = len(training.train) if subset is None else len(subset)
    steps_each = examples // min(recipe.batch_size, examples)
    epochs = max(1, math.ceil(total_steps(recipe, examples) / steps_each))
    for index in range(min(epochs, max(1, recipe.views))):
        teacher.view(training, subset, index, augmented=recipe.augment, places=places)


@contextmanager
def _layout(network: nn.Module, settings: Precision) -> Iterator[None]:
    """Weights in channels_last while training, where that pays, and contiguous again afterwards."""
    if not settings.channels_last:
        yield
        return
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    try:
        yield
    finally:
        network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


@contextmanager
def _seeded(seed: int, device: torch.device | str) -> Iterator[None]:
    """Dropout draws from the global generator: seeded here, and put back as it was."""
    place = torch.device(device)
    devices = [place] if place.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
