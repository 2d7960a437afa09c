"""The training loop: batches on the teacher's views, one step after another, and what is said after each epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from n2n.data.augment import augment
from n2n.data.base import TrainingData
from n2n.data.prepare import prepare
from n2n.distill.accuracy import logits_of, reestimate_batch_norm
from n2n.distill.matching import Looks, looks
from n2n.distill.objectives.base import Batch
from n2n.distill.objectives.expression import INITIAL_SHARE, Expression, Term, parse
from n2n.distill.optimizer import Average, make_optimizer
from n2n.distill.precision import Precision
from n2n.distill.recipe import Recipe, learning_rate, total_steps
from n2n.distill.state import (
    Epoch,
    State,
    generator_tensors,
    load_generators,
    load_optimizer,
    optimizer_tensors,
    prefixed,
)
from n2n.distill.terms import Output, Sum, open_sum, train_before
from n2n.distill.views import View, select
from n2n.networks.stages import Stage, reading_all

if TYPE_CHECKING:
    from n2n.distill.teacher import Teacher

Progress = Callable[[int, int, float], None]
"""Called after every step with (steps done, steps in all, loss)."""
NO_LOOKS = Looks({}, (), ())


@dataclass(frozen=True)
class Told:
    """Whom a training tells of its steps, of the end of its epochs, and from which state it goes on."""

    progress: Progress | None = None
    epoch_end: Callable[[Epoch], None] | None = None
    resume: State | None = None


@dataclass(frozen=True)
class Loop:
    """One network, one recipe; `run` trains."""

    network: nn.Module
    training: TrainingData
    recipe: Recipe
    teacher: Teacher | None
    settings: Precision
    device: torch.device
    subset: Tensor | None
    seed: int
    examples: int
    generators: dict[str, torch.Generator] = field(default_factory=dict)

    def run(self, told: Told, deadline: float | None, clock: Callable[[], float]) -> tuple[int, float, str]:
        """Steps taken in all, last loss, and why it ended early ("" where it did not)."""
        recipe, network, resume = self.recipe, self.network, told.resume
        total = total_steps(recipe, self.examples)
        offsets = {"order": 0, "augment": 1, "draw": 2}
        self.generators.update({name: torch.Generator().manual_seed(self.seed + at) for name, at in offsets.items()})
        opened = self._opened(train=resume is None)
        self._reestimate(opened)
        optimizer = make_optimizer(network, recipe, opened.sides if len(opened.sides) else None)
        average = None if recipe.ema is None else Average(network, recipe.ema)
        step, loss = 0, math.nan
        if resume is not None:
            step, loss = resume.step, resume.loss
            self._load(resume, opened, optimizer, average)
        while step < total:
            losses: list[float] = []
            for batch in self._epoch(opened, step, total):
                if deadline is not None and clock() >= deadline:
                    self._finish(average)
                    return step, loss, f"stopped at the deadline after {step} of {total} steps"
                loss = self._step(opened, optimizer, batch, step, total)
                step += 1
                if not math.isfinite(loss):
                    why = f"the loss became {loss} at step {step} of {total}; lower lr ({recipe.lr}) or clip"
                    return step, loss, why
                losses.append(loss)
                if average is not None:
                    average.update(step)
                if told.progress is not None:
                    told.progress(step, total, loss)
            if told.epoch_end is not None:
                self._tell(told.epoch_end, opened, optimizer, average, step, total, losses)
        self._finish(average)
        return step, loss, ""

    @property
    def expression(self) -> Expression:
        """What is trained on."""
        return parse(self.recipe.objective)

    def _finish(self, average: Average | None) -> None:
        if average is not None:
            self.network.load_state_dict(average.values)

    def _tell(
        self,
        epoch_end: Callable[[Epoch], None],
        opened: Sum,
        optimizer: torch.optim.Optimizer,
        average: Average | None,
        step: int,
        total: int,
        losses: list[float],
    ) -> None:
        """Tells of the end of an epoch; the state is made of the weights in training, not of their average."""

        def state() -> State:
            tensors = {
                **prefixed("network", weights),
                **prefixed("side", opened.sides.state_dict()),
                **prefixed("average", {} if average is None else average.values),
                **prefixed("optimizer", optimizer_tensors(optimizer)),
                **prefixed("generator", generators),
            }
            return State(step, losses[-1], tensors)

        weights = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
        generators = generator_tensors(self.generators, self.device)
        terms = " + ".join(map(str, self.expression.active((step - 1) / total)))
        with nullcontext() if average is None else average.lent():
            rate = learning_rate(self.recipe, step - 1, total)
            epoch_end(Epoch(step, total, sum(losses) / len(losses), rate, terms, state))

    def _load(self, state: State, opened: Sum, optimizer: torch.optim.Optimizer, average: Average | None) -> None:
        self.network.load_state_dict(state.part("network"))
        opened.sides.load_state_dict(state.part("side"))
        if average is not None:
            average.load(state.part("average"))
        load_optimizer(optimizer, state.part("optimizer"))
        load_generators(self.generators, self.device, state.part("generator"))

    def _opened(self, *, train: bool) -> Sum:
        """The terms with their side modules, and, where asked for, what of these is trained before the student."""
        expression, teacher = self.expression, self.teacher
        if teacher is None or not (expression.needs_features or expression.needs_side):
            return Sum(expression, NO_LOOKS, nn.ModuleDict())
        inputs = self._prepared(select(self.training.train, self.subset).images[:2].to(self.device))
        found = looks(expression, self.network, inputs, teacher, self.recipe.layers)
        opened = open_sum(
            expression,
            found,
            self.network,
            teacher,
            inputs,
            examples=self.examples,
            classes=self.training.classes,
            seed=self.seed,
        )
        if train:
            train_before(opened, lambda term: self._teacher_batches(found, term))
        opened.sides.train()
        return opened

    def _teacher_batches(self, found: Looks, term: Term) -> Iterator[Output]:
        """What the teacher gives for as many batches as an initial stage has steps, in the order of the first view."""
        assert self.teacher is not None
        images = self._view(0, found).images
        chunks = torch.split(images, min(self.recipe.batch_size, self.examples))
        steps = max(1, round((term.schedule.initial or INITIAL_SHARE) * total_steps(self.recipe, self.examples)))
        for step in range(steps):
            inputs = self._prepared(chunks[step % len(chunks)].to(self.device))
            logits, maps = self.teacher.outputs(inputs, found.teacher)
            yield Output(logits, dict(zip(found.teacher, maps, strict=True)))

    def _step(self, opened: Sum, optimizer: torch.optim.Optimizer, batch: _Shown, step: int, total: int) -> float:
        """One step of the optimiser, where the loss is finite; gives the loss."""
        rate = learning_rate(self.recipe, step, total)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
        value = opened(self._student(opened, batch), batch.teacher, batch.batch)
        loss = value.item()
        if math.isfinite(loss):
            value.backward()  # type: ignore[no-untyped-call]
            if self.recipe.clip_norm is not None:
                trained = [*self.network.parameters(), *opened.sides.parameters()]
                nn.utils.clip_grad_norm_(trained, self.recipe.clip_norm)
            optimizer.step()
        return loss

    def _student(self, opened: Sum, batch: _Shown) -> Output:
        """What the student gives for a batch, with its maps where the terms look at any."""
        places = opened.looks.student
        with reading_all(self.network, places) as take, self.settings.autocast():
            logits = logits_of(self.network, batch.inputs).float()  # [B, K], as objectives of one's own expect
        maps = {place: one.float() for place, one in zip(places, take(), strict=True)}
        return Output(logits, maps)

    def _epoch(self, opened: Sum, step: int, total: int) -> Iterator[_Shown]:
        """The batches of the epoch that begins with a step, all on the same view for teacher and student."""
        size = min(self.recipe.batch_size, self.examples)
        each = self.examples // size
        self.network.train()  # at the start of every epoch, whatever was measured in between
        view = self._view(step // each, opened.looks)
        order = torch.randperm(self.examples, generator=self.generators["order"])  # [n]
        for number, chosen in enumerate(torch.split(order[: each * size], size)[: total - step]):
            yield self._shown(view, chosen, opened, step + number, total, each)

    def _shown(self, view: View, chosen: Tensor, opened: Sum, step: int, total: int, each: int) -> _Shown:
        images = view.images[chosen].to(self.device)  # [B, C, H, W]
        policy = self.training.augmentation
        if self._fresh and (policy.pad or policy.flip):
            images = augment(images, pad=policy.pad, flip=policy.flip, generator=self.generators["augment"])
        inputs = self._prepared(images)
        batch = Batch(
            labels=view.labels[chosen].to(self.device),
            indices=chosen.to(self.device),
            class_means=self._class_means(opened),
            progress=step / total,
            epoch=step / each,
            generator=self.generators["draw"],
            classes=self.training.classes,
            examples=self.examples,
        )
        return _Shown(inputs, batch, self._taught(view, chosen, inputs, opened.looks.teacher))

    def _taught(self, view: View, chosen: Tensor, inputs: Tensor, places: tuple[Stage, ...]) -> Output:
        """What the teacher gives for a batch: what was kept where that was, what it says now otherwise."""
        if self.teacher is None or not self.expression.needs_teacher:
            return Output(torch.empty(0), {})
        if places and (view.logits is None or view.features is None):
            logits, maps = self.teacher.outputs(inputs, places)
            return Output(logits, dict(zip(places, maps, strict=True)))
        logits = self.teacher(inputs) if view.logits is None else view.logits[chosen].to(self.device)
        kept = view.features or ()
        return Output(logits, {place: one[chosen].to(self.device) for place, one in zip(places, kept, strict=True)})

    def _class_means(self, opened: Sum) -> Tensor | None:
        """Of the teacher's penultimate features, [K, D], where a term asks for them."""
        if self.teacher is None or not any(term.objective.needs.class_means for term in self.expression.all):
            return None
        ((_, (place,)),) = [pair for kind, pair in opened.looks.pairs.items() if kind[0] == "penultimate"]
        return self.teacher.class_means(self.training, place).to(self.device)

    @property
    def _fresh(self) -> bool:
        """Whether every batch is augmented anew; without a teacher there is nothing that could be kept."""
        recipe = self.recipe if self.teacher is not None else replace(self.recipe, views=0)
        return draws_anew(self.training, recipe)

    def _prepared(self, images: Tensor) -> Tensor:
        return self.settings.place(prepare(images, mean=self.training.mean, std=self.training.std))

    def _view(self, epoch: int, found: Looks) -> View:
        if self.teacher is None or self._fresh:
            return select(self.training.train, self.subset)
        index = epoch % max(1, self.recipe.views)
        return self.teacher.view(self.training, self.subset, index, augmented=self.recipe.augment, places=found.teacher)

    def _reestimate(self, opened: Sum) -> None:
        """Inherited batch norms carry the teacher's statistics, which an edited network no longer has."""
        if not self.recipe.reestimate:
            return
        view, size = self._view(0, opened.looks), self.recipe.batch_size
        chunks = (view.images[at * size : (at + 1) * size] for at in range(self.recipe.reestimate))
        prepared = [self._prepared(chunk.to(self.device)) for chunk in chunks if len(chunk) > 0]
        reestimate_batch_norm(self.network, prepared)


@dataclass(frozen=True)
class _Shown:
    """Prepared images [B, C, H, W], what is known of them, and what the teacher says of them."""

    inputs: Tensor
    batch: Batch
    teacher: Output


def draws_anew(training: TrainingData, recipe: Recipe) -> bool:
    """Whether every batch is augmented anew, so that no teacher output can be kept."""
    policy = training.augmentation
    return recipe.augment and recipe.views == 0 and bool(policy.pad or policy.flip)
