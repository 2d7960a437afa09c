"""A weighted sum of objectives on one pair of networks: its side modules, and its value on a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from n2n.distill.matching import Looks
from n2n.distill.objectives.base import Batch, Seen
from n2n.distill.objectives.expression import Expression, ObjectiveError, Term
from n2n.networks.stages import Stage, reading_all
from n2n.networks.untouched import untouched

if TYPE_CHECKING:
    from n2n.distill.teacher import Teacher


@dataclass(frozen=True)
class Output:
    """What one network gives for a batch: logits [B, K], and maps by their place."""

    logits: Tensor
    maps: Mapping[Stage, Tensor]


@dataclass(frozen=True)
class Sum:
    """An expression with the places where its terms look and the side modules that they bring, by their number."""

    expression: Expression
    looks: Looks
    sides: nn.ModuleDict

    def student(self, term: Term, output: Output) -> Seen:
        """What a term is shown of the student."""
        return Seen(output.logits, self.looks.of_student(term.objective.needs, output.maps))

    def teacher(self, term: Term, output: Output) -> Seen:
        """What a term is shown of the teacher."""
        return Seen(output.logits, self.looks.of_teacher(term.objective.needs, output.maps))

    def __call__(self, student: Output, teacher: Output, batch: Batch) -> Tensor:
        """The sum of the terms that count at this step.

        Raises:
            ObjectiveError: a term cannot be had on these maps; the message says what to do.
        """
        parts = [self._part(term, student, teacher, batch) for term in self.expression.active(batch.progress)]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total

    def _part(self, term: Term, student: Output, teacher: Output, batch: Batch) -> Tensor:
        objective = term.objective
        options: dict[str, object] = dict(term.options_of(objective.loss))
        if objective.needs.side:
            options["side"] = self.sides[self._key(term)]
        try:
            loss = objective.loss(self.student(term, student), self.teacher(term, teacher), batch, **options)
        except ValueError as error:
            raise ObjectiveError(f"objective {str(term)!r}: {error}") from error
        weight = term.weight * self.expression.factor(term, batch.progress, batch.epoch)
        return loss if weight == 1 else weight * loss

    def _key(self, term: Term) -> str:
        return str(self.expression.all.index(term))


def open_sum(
    expression: Expression,
    looks: Looks,
    network: nn.Module,
    teacher: Teacher,
    inputs: Tensor,
    *,
    examples: int,
    classes: int,
    seed: int,
) -> Sum:
    """Makes the side modules from what both networks give for a few prepared images [B, C, *spatial].

    Both networks are handed back as they were, and so is the global generator.

    Raises:
        ObjectiveError: a term cannot be had on these maps.
    """
    opened = Sum(expression, looks, nn.ModuleDict())
    if not expression.needs_side:
        return opened
    with untouched(network, parameters=False), torch.no_grad(), reading_all(network, looks.student) as take:
        logits = network.eval()(inputs).float()
        student = Output(logits, dict(zip(looks.student, (maps.float() for maps in take()), strict=True)))
    theirs = teacher.outputs(inputs, looks.teacher)
    given = Output(theirs[0], dict(zip(looks.teacher, theirs[1], strict=True)))
    for number, term in enumerate(expression.all):
        make = term.objective.open
        if term.objective.needs.side and make is not None:
            options = term.options_of(make)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                seen = opened.student(term, student), opened.teacher(term, given)
                try:
                    side = make(*seen, examples=examples, classes=classes, seed=seed, **options)
                except ValueError as error:
                    raise ObjectiveError(f"objective {str(term)!r}: {error}") from error
            opened.sides[str(number)] = side.to(inputs.device)
    return opened


def train_before(opened: Sum, batches: Callable[[Term], Iterable[Output]]) -> None:
    """Trains what side modules have to be trained before the student is, each on batches of the teacher's outputs."""
    for number, term in enumerate(opened.expression.all):
        before = term.objective.before
        if before is not None:
            before(opened.sides[str(number)], (opened.teacher(term, one) for one in batches(term)))
