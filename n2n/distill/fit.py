"""The training loop: one network, one recipe, with or without a teacher."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from n2n.data.augment import augment
from n2n.data.base import TrainingData
from n2n.data.prepare import prepare
from n2n.distill.accuracy import reestimate_batch_norm
from n2n.distill.features import INSTEAD, Features
from n2n.distill.objectives import Objective, make_objective, needs_features, needs_teacher
from n2n.distill.precision import Precision, Wish, resolve
from n2n.distill.recipe import Recipe, learning_rate, teacher_recipe, total_steps
from n2n.distill.views import View, select
from n2n.networks.stages import Stage, last_stage, reading

if TYPE_CHECKING:
    from n2n.distill.teacher import Teacher

Progress = Callable[[int, int, float], None]
"""Called after every step with (steps done, steps in all, loss)."""


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
) -> FitResult:
    """Trains a network in place and leaves it in eval mode, without gradients.

    Args:
        network: trained in place, moved to `device`.
        training: the images; the validation split is not looked at.
        recipe: how to train.
        teacher: needed by every objective but "ce".
        seed: of the order of the images, of their augmentation and of dropout; the global generator is left as it was.
        device: where to train.
        precision: "auto", "fp32", "bf16", or a decision of `n2n.distill.probe`.
        subset: indices [m] into the training split to use instead of all of it.
        progress: called after every step.
        deadline: a `time.monotonic()` value after which no step is begun.

    Raises:
        ValueError: the objective needs a teacher and none was given, or there are no images.
        StageError: the objective needs feature maps, and the network or the teacher has none.
    """
    if teacher is None and needs_teacher(recipe.objective):
        raise ValueError(f"objective {recipe.objective!r} needs a teacher; pass teacher=, or use objective 'ce'")
    examples = len(training.train) if subset is None else len(subset)
    if examples == 0:
        raise ValueError(f"no training images in {training.name}; give a larger subset or split")
    start = time.monotonic()
    network.to(device)
    settings = resolve(precision, network, device)
    with _layout(network, settings), _seeded(seed, device):
        loop = _Loop(network, training, recipe, teacher, settings, torch.device(device), subset, seed, examples)
        steps, loss, reason = loop.run(progress, deadline)
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


def check_objective(objective: str, teacher: Teacher) -> None:
    """Refuses, before anything is trained, an objective that looks at feature maps which the teacher does not have.

    Raises:
        StageError: so it is; the message names other objectives.
    """
    if needs_features(objective):
        _ = teacher.last_stage


def prepare_views(training: TrainingData, recipe: Recipe, teacher: Teacher, subset: Tensor | None = None) -> None:
    """Has the teacher look at every view that `fit` will show by this recipe, so that its outputs are there already."""
    if _draws_anew(training, recipe):
        return
    examples = len(training.train) if subset is None else len(subset)
    steps_each = examples // min(recipe.batch_size, examples)
    epochs = max(1, math.ceil(total_steps(recipe, examples) / steps_each))
    for index in range(min(epochs, max(1, recipe.views))):
        teacher.view(training, subset, index, augmented=recipe.augment, features=needs_features(recipe.objective))


def _draws_anew(training: TrainingData, recipe: Recipe) -> bool:
    """Whether every batch is augmented anew, so that no teacher output can be kept."""
    policy = training.augmentation
    return recipe.augment and recipe.views == 0 and bool(policy.pad or policy.flip)


@dataclass(frozen=True)
class _Batch:
    """Prepared images [B, C, H, W], labels [B], and the teacher's logits [B, K] and maps [B, C, *spatial] on them."""

    inputs: Tensor
    labels: Tensor
    logits: Tensor | None
    features: Tensor | None


@dataclass(frozen=True)
class _Loop:
    network: nn.Module
    training: TrainingData
    recipe: Recipe
    teacher: Teacher | None
    settings: Precision
    device: torch.device
    subset: Tensor | None
    seed: int
    examples: int

    def run(self, progress: Progress | None, deadline: float | None) -> tuple[int, float, str]:
        """Steps taken, last loss, and why it ended early ("" where it did not)."""
        recipe, network = self.recipe, self.network
        total = total_steps(recipe, self.examples)
        objective = make_objective(recipe.objective, dict(recipe.objective_options))
        optimizer = make_optimizer(network, recipe)
        self._reestimate()
        stage = self._last_stage()
        step, loss = 0, math.nan
        for batch in self._batches(total):
            if deadline is not None and time.monotonic() >= deadline:
                return step, loss, f"stopped at the deadline after {step} of {total} steps"
            rate = learning_rate(recipe, step, total)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad(set_to_none=True)
            value = self._loss(objective, batch, stage)
            loss = value.item()
            step += 1
            if not math.isfinite(loss):
                return step, loss, f"the loss became {loss} at step {step} of {total}; lower lr ({recipe.lr}) or clip"
            value.backward()  # type: ignore[no-untyped-call]
            if recipe.clip_norm is not None:
                nn.utils.clip_grad_norm_(network.parameters(), recipe.clip_norm)
            optimizer.step()
            if progress is not None:
                progress(step, total, loss)
        return step, loss, ""

    def _loss(self, objective: Objective, batch: _Batch, stage: Stage | None) -> Tensor:
        """The objective's value on a batch, with the student's maps where it looks at features."""
        with ExitStack() as opened:
            reader = None if stage is None else opened.enter_context(reading(self.network, stage))
            opened.enter_context(self.settings.autocast())
            outputs = self.network(batch.inputs)  # [B, K]
        logits = outputs.detach() if batch.logits is None else batch.logits
        if reader is None:
            return objective(outputs, logits, batch.labels)
        assert batch.features is not None
        return objective(outputs, logits, batch.labels, Features(reader.take(), batch.features))

    def _last_stage(self) -> Stage | None:
        """Where the student gives the maps that the objective looks at; None where it looks at none."""
        if not self._features:
            return None
        images = self._view(0).images[:2].to(self.device)  # [2, C, H, W]
        inputs = self.settings.place(prepare(images, mean=self.training.mean, std=self.training.std))
        return last_stage(self.network, inputs, name="the student", instead=INSTEAD)

    def _batches(self, total: int) -> Iterator[_Batch]:
        """`total` batches, all on the same view for teacher and student."""
        order_by = torch.Generator().manual_seed(self.seed)
        augment_by = torch.Generator().manual_seed(self.seed + 1)
        size = min(self.recipe.batch_size, self.examples)
        done = epoch = 0
        while done < total:
            self.network.train()  # at the start of every epoch, whatever was measured in between
            view = self._view(epoch)
            order = torch.randperm(self.examples, generator=order_by)  # [n]
            whole = torch.split(order[: self.examples // size * size], size)
            for chosen in whole[: total - done]:
                yield self._batch(view, chosen, augment_by)
                done += 1
            epoch += 1

    def _batch(self, view: View, chosen: Tensor, augment_by: torch.Generator) -> _Batch:
        images = view.images[chosen].to(self.device)  # [B, C, H, W]
        policy = self.training.augmentation
        if self._fresh and (policy.pad or policy.flip):
            images = augment(images, pad=policy.pad, flip=policy.flip, generator=augment_by)
        inputs = self.settings.place(prepare(images, mean=self.training.mean, std=self.training.std))
        labels = view.labels[chosen].to(self.device)
        if self.teacher is None or not needs_teacher(self.recipe.objective):
            return _Batch(inputs, labels, None, None)
        if self._features and (view.logits is None or view.features is None):
            return _Batch(inputs, labels, *self.teacher.outputs(inputs))
        logits = self.teacher(inputs) if view.logits is None else view.logits[chosen].to(self.device)
        features = None if view.features is None else view.features[chosen].to(self.device)
        return _Batch(inputs, labels, logits, features)

    @property
    def _features(self) -> bool:
        """Whether the objective looks at feature maps."""
        return needs_features(self.recipe.objective)

    @property
    def _fresh(self) -> bool:
        """Whether every batch is augmented anew; without a teacher there is nothing that could be kept."""
        recipe = self.recipe if self.teacher is not None else replace(self.recipe, views=0)
        return _draws_anew(self.training, recipe)

    def _view(self, epoch: int) -> View:
        if self.teacher is None or self._fresh:
            return select(self.training.train, self.subset)
        return self.teacher.view(
            self.training,
            self.subset,
            epoch % max(1, self.recipe.views),
            augmented=self.recipe.augment,
            features=self._features,
        )

    def _reestimate(self) -> None:
        """Inherited batch norms carry the teacher's statistics, which an edited network no longer has."""
        view = self._view(0)
        size = self.recipe.batch_size
        chunks = (view.images[at * size : (at + 1) * size] for at in range(self.recipe.reestimate))
        reestimate_batch_norm(
            self.network,
            [
                self.settings.place(prepare(chunk.to(self.device), mean=self.training.mean, std=self.training.std))
                for chunk in chunks
                if len(chunk) > 0
            ],
        )


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser; weight decay falls on weights with two or more axes only."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    if recipe.optimizer == "adam":
        return torch.optim.AdamW(groups, lr=recipe.lr)
    nesterov = recipe.nesterov and recipe.momentum > 0
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=nesterov)


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
