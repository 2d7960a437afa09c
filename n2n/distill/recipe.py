"""How to train: one frozen record, and the learning rate that it means at every step."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

from n2n.distill.objectives.expression import parse
from n2n.networks.depth import Layers

OPTIMIZERS = ("sgd", "adam")
SCHEDULES = ("cosine", "one_cycle", "constant")


@dataclass(frozen=True)
class Recipe:
    """How to train one network.

    Attributes:
        objective: a weighted sum of objectives, e.g. "kd" or "kd:0.9,T=2 + similarity"; kept in its shortest form.
        epochs: length in passes over the training images, may be a fraction; set either this or `steps`.
        steps: length in optimiser steps.
        batch_size: images a step; fewer where the training images are fewer.
        lr: the peak learning rate.
        optimizer: "sgd" or "adam" (AdamW).
        momentum: of SGD.
        nesterov: of SGD.
        weight_decay: on weights with two or more axes; norms and biases are not decayed.
        warmup: share of the steps, in [0, 1), over which the rate rises linearly to its peak.
        schedule: after the warm-up, down to 0 along a half "cosine" or a line ("one_cycle"), or "constant".
        augment: whether the data's augmentation is applied.
        views: 0 draws a fresh augmented view every step and runs the teacher on it; k > 0 goes round k views that are
            drawn once and whose teacher outputs are kept, which is the cheaper where few images are seen often.
        clip_norm: the gradient's norm is clipped to this, if set.
        reestimate: batches on which batch-norm statistics are re-estimated before the first step.
        ema: decay of an average of the weights over the steps that is given back instead of the last weights, if set.
        layers: pairs of module names, of the network and the teacher, whose maps objectives compare; matched by
            relative depth where it is empty.
    """

    objective: str = "kd"
    epochs: float | None = None
    steps: int | None = None
    batch_size: int = 128
    lr: float = 0.05
    optimizer: str = "sgd"
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    warmup: float = 0.1
    schedule: str = "cosine"
    augment: bool = True
    views: int = 0
    clip_norm: float | None = None
    reestimate: int = 0
    ema: float | None = None
    layers: Layers = ()

    def __post_init__(self) -> None:
        """Refuses what cannot be trained.

        Raises:
            ObjectiveError: an objective that does not exist or cannot be read.
            ValueError: a value out of its range, or an unknown name.
        """
        object.__setattr__(self, "objective", str(parse(self.objective)))
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(f"a recipe needs exactly one of epochs and steps; got {self.epochs} and {self.steps}")
        _check("epochs", self.epochs, self.epochs is None or self.epochs > 0, "above 0")
        _check("steps", self.steps, self.steps is None or self.steps >= 0, "0 or more")
        _check("batch_size", self.batch_size, self.batch_size >= 1, "1 or more")
        _check("lr", self.lr, 0 < self.lr < math.inf, "above 0 and finite")
        _check("optimizer", self.optimizer, self.optimizer in OPTIMIZERS, f"one of {', '.join(OPTIMIZERS)}")
        _check("momentum", self.momentum, 0 <= self.momentum < 1, "in [0, 1)")
        _check("weight_decay", self.weight_decay, self.weight_decay >= 0, "0 or more")
        _check("warmup", self.warmup, 0 <= self.warmup < 1, "in [0, 1)")
        _check("schedule", self.schedule, self.schedule in SCHEDULES, f"one of {', '.join(SCHEDULES)}")
        _check("views", self.views, self.views >= 0, "0 or more")
        _check("clip_norm", self.clip_norm, self.clip_norm is None or self.clip_norm > 0, "above 0")
        _check("reestimate", self.reestimate, self.reestimate >= 0, "0 or more")
        _check("ema", self.ema, self.ema is None or 0 < self.ema < 1, "between 0 and 1, or None")
        if self.nesterov and self.optimizer == "sgd" and self.momentum == 0:
            raise ValueError("recipe: nesterov needs a momentum above 0; set momentum=0.9 or nesterov=False")


def _check(name: str, value: object, holds: bool, expected: str) -> None:
    if not holds:
        raise ValueError(f"recipe: {name} must be {expected}; got {value!r}")


def identity(recipe: Recipe) -> str:
    """A text that two recipes share where they train alike, for keys of what is kept on disk.

    It is that which earlier versions wrote: with an empty `objective_options`, and without the fields that they did not
    have where these are as usual, so that what they judged is found again.
    """
    said = [(one.name, getattr(recipe, one.name), one.default) for one in fields(recipe)]
    shown = [f"{name}={value!r}" for name, value, usual in said if name not in ("ema", "layers") or value != usual]
    shown.insert(1, "objective_options=()")
    return f"Recipe({', '.join(shown)})"


def quick_recipe(*, steps: int = 100, objective: str = "kd", lr: float = 0.03, batch_size: int = 32) -> Recipe:
    """The short schedule inside a search: cached views, batch norm re-estimated first, the rate annealed to 0.

    Many small steps rather than few large ones: a student learns more from the same images in the same time.
    """
    return Recipe(objective=objective, steps=steps, lr=lr, batch_size=batch_size, views=4, reestimate=4)


def full_recipe(*, epochs: float = 3.0, objective: str = "kd", lr: float = 0.05, batch_size: int = 64) -> Recipe:
    """The long schedule for the chosen students: all images, another view every epoch (up to four in turn).

    The views and the teacher's outputs on them are computed once and serve every student that is distilled.
    """
    views = min(4, max(1, math.ceil(epochs)))
    return Recipe(objective=objective, epochs=epochs, lr=lr, batch_size=batch_size, views=views, reestimate=4)


def gentle(recipe: Recipe) -> Recipe:
    """The same for a network that was solved in closed form: large steps would undo what it starts with."""
    return replace(recipe, lr=0.4 * recipe.lr, clip_norm=1.0)


FEWEST_STEPS = 600
"""Of a long distillation whose length was not asked for."""


def full_epochs(examples: int) -> float:
    """How long the chosen students are distilled where nothing else is asked: three epochs, and at least 600 steps."""
    steps = max(1, examples // min(64, examples))
    return max(3.0, float(math.ceil(FEWEST_STEPS / steps)))


def teacher_recipe(
    *, epochs: float, lr: float = 0.1, batch_size: int = 128, weight_decay: float = 5e-4, warmup: float = 0.2
) -> Recipe:
    """Training from scratch on labels: SGD with Nesterov momentum, one cycle that peaks early."""
    return Recipe(
        objective="ce",
        epochs=epochs,
        lr=lr,
        batch_size=batch_size,
        weight_decay=weight_decay,
        warmup=warmup,
        schedule="one_cycle",
    )


def total_steps(recipe: Recipe, examples: int) -> int:
    """Optimiser steps of a recipe on so many training images (incomplete batches are left out)."""
    if recipe.steps is not None:
        return recipe.steps
    assert recipe.epochs is not None
    return max(1, round(recipe.epochs * (examples // min(recipe.batch_size, examples))))


def forward_passes(recipe: Recipe, examples: int, looked_at: int) -> int:
    """Forward passes of one example that a recipe on so many training images takes, and looking at others after it.

    A trained image costs three, as the backward pass takes about two (Kaplan et al., "Scaling Laws for Neural Language
    Models", 2020, section 2.1); one that is looked at costs one.
    """
    return 3 * min(recipe.batch_size, examples) * total_steps(recipe, examples) + looked_at


def learning_rate(recipe: Recipe, step: int, total: int) -> float:
    """The rate of step `step` (from 0) of `total`: a linear rise to `lr`, then down to 0 at step `total`."""
    rise = round(recipe.warmup * total)
    if step < rise:
        return recipe.lr * (step + 1) / (rise + 1)
    done = (step - rise) / max(1, total - rise)  # in [0, 1)
    if recipe.schedule == "constant":
        return recipe.lr
    if recipe.schedule == "one_cycle":
        return recipe.lr * (1 - done)
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * done))
