"""Contrastive representation distillation: an example's two embeddings agree, those of different examples do not."""

from __future__ import annotations

import math
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from n2n.distill.objectives.base import Batch, Needs, Objective, Seen
from n2n.distill.objectives.exact import exact, need, over_length
from n2n.distill.objectives.sides import seeded


@exact
def crd(
    student: Seen,
    teacher: Seen,
    batch: Batch,
    *,
    side: Memory,
    negatives: int = 16384,
    temperature: float = 0.07,
    momentum: float = 0.5,
    partition: bool = True,
) -> Tensor:
    """`-1/B sum_b [log h(g_t, g_s) + sum_N log(1 - h(., .))]`, anchored at the student and at the teacher, summed.

    Tian et al., ICLR 2020, arXiv:1910.10699, eq. 11 to 19, with `h = e^x / (e^x + Z N/M)`, `x = g_t.g_s/T`, in (0, 1):
    see `log_odds`. g are linear embeddings of the penultimate features, of length 1. In [0, inf). The N negatives of an
    anchor are drawn from the batch's generator, with replacement, among the other examples of the training split; their
    embeddings of the other network are remembered from when they were last seen, and each new embedding is mixed with
    the one remembered, which keeps the share `momentum`. The positive is that of the batch, as in the paper, where the
    authors' code takes it from the memory. Negatives may be of the anchor's class.

    Args:
        student: features [B, D_s].
        teacher: features [B, D_t].
        batch: with indices.
        side: embeddings and memory.
        negatives: N.
        temperature: T.
        momentum: of the memory.
        partition: Z is M times the mean of `e^x` in the first batch, as in the authors' code, whose results are the
            published ones: the critic then starts from odds of about 1 to N. False is eq. 19 to the letter, Z = 1:
            there an untrained critic takes most of the N negatives for positives, so that the loss is of the size of N
            and asks for a far smaller weight.

    Raises:
        ValueError: no indices, or fewer than two examples.
    """
    if batch.examples < 2:
        found = batch.examples
        raise ValueError(f"crd: expected a training split of 2 examples or more, found {found}; use 'kd' instead")
    index = need(batch.indices, "crd", "each example's index in the training split")
    embedded: tuple[Tensor, Tensor] = side(student.maps[0], teacher.maps[0])
    ours, theirs = embedded  # [B, E]
    others = other_examples(index.cpu(), negatives, batch.examples, batch.generator).to(ours.device)  # [B, N]
    pairs = (ours * theirs).sum(dim=1, keepdim=True)  # [B, 1]
    share, loss = negatives / batch.examples, ours.new_zeros(())
    for place, (anchors, remembered) in enumerate(((ours, side.teachers), (theirs, side.students))):
        products = torch.cat([pairs, (anchors @ remembered.to(anchors).T).gather(1, others)], dim=1)  # [B, 1 + N]
        odds = log_odds(products, temperature, share)
        if partition:
            odds = odds - side.log_partition(place, products.detach() / temperature)
        loss = loss - (F.logsigmoid(odds[:, 0]) + F.logsigmoid(-odds[:, 1:]).sum(dim=1)).mean()
    side.remember(index, ours.detach(), theirs.detach(), momentum)
    return loss


def log_odds(product: Tensor, temperature: float, share: float) -> Tensor:
    """`log h/(1 - h) = x/T - log(N/M)` of the critic h for products x of unit embeddings; `share` is N/M, Z is 1."""
    return product / temperature - math.log(share)


def other_examples(index: Tensor, count: int, examples: int, generator: torch.Generator) -> Tensor:
    """`count` examples other than its own for each index [B], uniform with replacement: [B, count], on the CPU."""
    drawn = torch.randint(examples - 1, (len(index), count), generator=generator)
    return drawn + (drawn >= index[:, None]).long()


@final
class Memory(nn.Module):
    """Embeddings [B, E] of both networks' features, and all examples' as they were last seen: [M, E] each."""

    students: Tensor
    teachers: Tensor
    log_z: Tensor

    def __init__(self, width_s: int, width_t: int, dim: int, examples: int) -> None:
        super().__init__()
        self.embed_s, self.embed_t = nn.Linear(width_s, dim), nn.Linear(width_t, dim)
        self.register_buffer("students", over_length(torch.randn(examples, dim), 1))
        self.register_buffer("teachers", over_length(torch.randn(examples, dim), 1))
        self.register_buffer("log_z", torch.full((2,), math.nan))  # of anchors of the student's and of the teacher's

    def forward(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """The embeddings, of length 1."""
        return over_length(self.embed_s(student), 1), over_length(self.embed_t(teacher), 1)

    @torch.no_grad()
    def log_partition(self, place: int, powers: Tensor) -> Tensor:
        """`log Z`, a scalar, estimated from the exponents [B, 1 + N] where it has not been before, and kept."""
        if bool(self.log_z[place].isnan()):
            mean = powers.flatten().logsumexp(dim=0) - math.log(powers.numel())
            self.log_z[place] = mean + math.log(len(self.students))
        return self.log_z[place].to(powers).clone()

    @torch.no_grad()
    def remember(self, index: Tensor, ours: Tensor, theirs: Tensor, momentum: float) -> None:
        """Mixes new embeddings [B, E] into those remembered; new tensors, for the old are needed to go backwards."""
        index = index.to(self.students.device)
        for name, new in (("students", ours), ("teachers", theirs)):
            bank: Tensor = getattr(self, name)
            mixed = over_length(momentum * bank[index] + (1 - momentum) * new.to(bank), 1)
            setattr(self, name, bank.index_copy(0, index, mixed))


def open_crd(student: Seen, teacher: Seen, *, examples: int, classes: int, seed: int, dim: int = 128) -> Memory:
    """Both embeddings, to `dim` numbers, and the memory of as many examples as the training split has."""
    del classes
    widths = student.maps[0].shape[1], teacher.maps[0].shape[1]
    return seeded(seed, lambda: Memory(*widths, dim, examples))


CRD = Objective("crd", Needs(indices=True, features="penultimate", side=True), crd, open_crd)
