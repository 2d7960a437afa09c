"""What an objective is: what it needs, what it sees of a batch, and a loss that says nothing of where that comes from.

The trainer (`n2n.distill.fit`) reads `Needs`, provides exactly that on any pair of networks, and calls `loss`. The
keyword-only parameters of `loss` and `open` that are not named here are the objective's options, which a user sets in
an expression such as `"kd:0.9,T=4 + similarity:3000"` (`n2n.distill.objectives.expression`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Needs:
    """What an objective has to be given.

    Attributes:
        logits: the teacher's logits.
        labels: of the batch.
        indices: each example's index among those that are trained on.
        class_means: of the teacher's penultimate features over the training images, in eval mode, of unit length.
        features: "none"; "stages": the last maps of every stage; "own_stages": these of the student alone; "middle": of
            one stage in the middle; "last": of the last stage; "penultimate": what enters the classifier, [B, D];
            "stage_ends": the first and the last map of every stage.
        before_activation: maps as they are before the activation.
        side: the objective brings modules of its own, made by `open`.
        initial: it is an initial stage of its own: the student is trained on it alone first, then on something else.
    """

    logits: bool = False
    labels: bool = False
    indices: bool = False
    class_means: bool = False
    features: str = "none"
    before_activation: bool = False
    side: bool = False
    initial: bool = False


@dataclass(frozen=True)
class Seen:
    """What one network says of a batch.

    Attributes:
        logits: [B, K].
        maps: [B, C, *spatial] each (or [B, D] for "penultimate"), the student's and the teacher's paired by position;
            for "stage_ends" first, last, first, last, ...
    """

    logits: Tensor
    maps: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Batch:
    """What is known of a batch besides.

    Attributes:
        labels: [B] int64.
        indices: [B] int64, among the examples that are trained on.
        class_means: [K, D], of length 1 each.
        progress: share of the steps done, 0 to 1.
        epoch: epochs done so far, with fraction.
        generator: on the CPU, for what an objective draws.
        classes: K.
        examples: how many are trained on, M.
    """

    labels: Tensor | None
    indices: Tensor | None
    class_means: Tensor | None
    progress: float
    epoch: float
    generator: torch.Generator
    classes: int
    examples: int


@dataclass(frozen=True)
class Objective:
    """A distillation loss.

    Attributes:
        name: in the registry.
        needs: what it has to be given.
        loss: `(student: Seen, teacher: Seen, batch: Batch, *, side: nn.Module (where needs.side), **options)` to a
            scalar.
        open: `(student: Seen, teacher: Seen, *, examples: int, classes: int, seed: int, **options)` to the side
            modules.
        before: `(side: nn.Module, teacher_batches: Iterable[Seen])`, trains what has to be trained before.
        labels_term: whether the published form contains a cross-entropy of its own.
    """

    name: str
    needs: Needs
    loss: Callable[..., Tensor]
    open: Callable[..., nn.Module] | None = None
    before: Callable[..., None] | None = None
    labels_term: bool = False
