"""The closed form as the start of a judgement: what it needs of teacher and data, taken once for all students."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import final

import torch
from torch import Tensor, nn

from n2n.data.base import TrainingData
from n2n.data.prepare import prepare
from n2n.distill.refit import STRENGTH, TOWARD, RefitResult, refit
from n2n.distill.samples import CHUNK, MOST_BYTES, TeacherSamples
from n2n.evaluate.judging import digest
from search_spaces.base import Architecture, SearchSpace
from search_spaces.teacher.architecture import TeacherArchitecture
from search_spaces.teacher.space import TeacherSpace

IMAGES = 256
POSITIONS = 16


@final
@dataclass(frozen=True)
class ClosedForm:
    """See `closed_form`."""

    space: TeacherSpace
    images: Tensor = field(repr=False)
    positions: int
    strength: float
    toward: str
    importance: str
    seed: int

    @cached_property
    def samples(self) -> TeacherSamples:
        """The teacher's values at the sampled positions; each is computed when the first student asks for it."""
        recorder = self.space.recorder(self.images[: min(CHUNK, len(self.images))])
        return TeacherSamples(recorder, self.images, positions=self.positions, seed=self.seed)

    @property
    def parts(self) -> tuple[str, ...]:
        """What its solutions depend on, besides teacher and student: hashes and settings."""
        return digest(self.images), str(self.positions), str(self.strength), self.toward

    def prepare(self) -> None:
        """Takes the values that students which keep their layers stand for; others are taken when they are needed."""
        whole = TeacherArchitecture(self.space.reading.fingerprint)
        self.samples.take(self.space.targets(whole).axes)

    def __call__(self, network: nn.Module, student: Architecture, *, seed: int) -> RefitResult:
        """Solves a student that `space.build(student, importance=..., seed=seed)` gave, in place."""
        targets = self.space.targets(student, importance=self.importance, seed=seed)
        return refit(network, targets, self.samples, strength=self.strength, toward=self.toward)


def closed_form(
    space: SearchSpace,
    training: TrainingData,
    *,
    images: int = IMAGES,
    positions: int = POSITIONS,
    strength: float = STRENGTH,
    toward: str = "zero",
    importance: str = "l1",
    subset: Tensor | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    most_bytes: int = MOST_BYTES,
) -> ClosedForm:
    """What solves the students of a space layer by layer, without labels; see `n2n.distill.refit`.

    Args:
        space: over a teacher.
        training: the images; labels are not looked at.
        images: how many to use, drawn by `seed` from the split or from `subset`, indices [m] into it. Fewer are used,
            in batches of 64, where the student's values of one layer would take more than `most_bytes` bytes at once.
        positions: of each image at which layers are solved.
        strength, toward: of the ridge.
        importance: by which the students were built.
        seed: of the images and the positions.
        device: where the space's teacher is.

    Raises:
        ValueError: the space is not over a teacher, or a value is out of its range.
    """
    for name, value, least in (("images", images, 1), ("positions", positions, 1), ("strength", strength, 0)):
        if not least <= value < float("inf"):
            raise ValueError(f"closed form: {name} must be {least} or more, and finite; got {value}")
    if toward not in TOWARD:
        raise ValueError(f"closed form: toward must be one of {', '.join(TOWARD)}; got {toward!r}")
    if not isinstance(space, TeacherSpace):
        raise ValueError(
            f"the closed form needs the values of a teacher, and the space {space.name!r} has none; start from"
            " 'inherited' or 'fresh' instead"
        )
    largest = max((prod(node.shape) // max(1, node.shape[0]) for node in space.reading.nodes if node.shape), default=1)
    fitting = max(CHUNK, most_bytes // (4 * largest) // CHUNK * CHUNK)
    split = training.train
    pool = torch.arange(len(split)) if subset is None else subset
    order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed))
    chosen = pool[order[: min(images, fitting)]]
    prepared = prepare(split.images[chosen].to(device), mean=training.mean, std=training.std)
    return ClosedForm(space, prepared, positions, strength, toward, importance, seed)
