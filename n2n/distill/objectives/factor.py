"""Factor transfer: the teacher's maps in its own words, put into the student's."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import final

import torch
from torch import Tensor, nn

from n2n.distill.objectives.base import Batch, Needs, Objective, Seen
from n2n.distill.objectives.exact import exact, full, one_size, over_length
from n2n.distill.objectives.sides import conv, norm, seeded


@exact
def factor(student: Seen, teacher: Seen, batch: Batch, *, side: Factors) -> Tensor:
    """L1 distance of factors, each example's over its L2 norm (Kim et al., NeurIPS 2018, arXiv:1802.04977, eq. 3).

    `mean |F_t/||F_t|| - F_s/||F_s|||` over batch and elements, as in the authors' code behind the weights 200 to 500
    (the paper's norm sums). In [0, 2/sqrt(elements)]. F_t is the middle of an auto-encoder of the teacher's last maps,
    the paraphraser, trained before (`train_paraphraser`) and then frozen; F_s is what a translator makes of the
    student's. Where sizes differ the larger factors are average-pooled to the smaller. As in the paper it stands
    beside the labels for the whole training.
    """
    del batch
    with torch.no_grad():
        aim = side.paraphraser.encode(teacher.maps[0])  # [B, F, *spatial]
    ours, theirs = one_size(side.translator(student.maps[0]), aim, "factor")
    return (over_length(ours.flatten(1), 1) - over_length(theirs.flatten(1), 1)).abs().mean()


def train_paraphraser(side: nn.Module, teacher_batches: Iterable[Seen]) -> None:
    """Trains the paraphraser to give back the teacher's maps, one step of Adam (1e-3) a batch, and freezes it.

    The loss is `mean (t - decode(encode(t)))^2` (the paper's eq. 1, per element).
    """
    assert isinstance(side, Factors)
    paraphraser = side.paraphraser.requires_grad_(True)
    nn.Module.train(paraphraser)
    optimizer = torch.optim.Adam(paraphraser.parameters(), lr=1e-3)
    with torch.enable_grad():
        for seen in teacher_batches:
            maps = full(seen.maps[0].detach())
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(maps.device.type, enabled=False):
                loss = (maps - paraphraser.decode(paraphraser.encode(maps))).square().mean()
            loss.backward()
            optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    paraphraser.requires_grad_(False).eval()


@final
class Paraphraser(nn.Module):
    """An auto-encoder of maps [B, C, *spatial] by way of factors [B, F, *spatial]."""

    def __init__(self, axes: int, width: int, factors: int) -> None:
        super().__init__()
        self.encode = _layers(axes, (width, width, factors, factors))
        self.decode = _layers(axes, (factors, factors, width, width))
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Paraphraser:
        """Stays in evaluation whatever is asked for: it is frozen but while `train_paraphraser` runs."""
        del mode
        return super().train(False)


@final
class Factors(nn.Module):
    """The frozen paraphraser of the teacher, and the student's translator."""

    def __init__(self, paraphraser: Paraphraser, translator: nn.Module) -> None:
        super().__init__()
        self.paraphraser, self.translator = paraphraser, translator


def _layers(axes: int, widths: tuple[int, ...]) -> nn.Sequential:
    """3 x 3 convolutions, each with a batch norm and a leaky ReLU, as in the paper."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [conv(axes, inputs, outputs, kernel=3, bias=False), norm(axes, outputs), nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers)


def open_factor(student: Seen, teacher: Seen, *, examples: int, classes: int, seed: int, rate: float = 0.5) -> Factors:
    """Paraphraser and translator with `rate` times as many factors as the teacher has channels (the paper's k)."""
    del examples, classes
    ours, theirs = student.maps[0], teacher.maps[0]
    width, inputs = theirs.shape[1], ours.shape[1]
    count = max(1, round(rate * width))
    return seeded(
        seed,
        lambda: Factors(
            Paraphraser(theirs.dim() - 2, width, count),
            _layers(ours.dim() - 2, (inputs, inputs, count, count)),
        ),
    )


FACTOR = Objective("factor", Needs(features="last", side=True), factor, open_factor, before=train_paraphraser)
