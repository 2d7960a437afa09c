"""How the channels of one tensor lie, while the graph is walked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


class WidthConflict(Exception):  # noqa: N818 - a signal between two functions, not an error that users see
    """Two places that must agree in width do not, so the removal is not legal."""


@dataclass(frozen=True, eq=False)
class Flow:
    """The channels of a tensor along `axis`: `atoms[i]` says which channel entry i belongs to.

    An atom is one output channel of one layer of the teacher. `made` says what removed layers did on the way here, for
    consumers to make up for; None where entry i is entry i of the teacher.
    """

    axis: int
    atoms: Ints
    made: Mapped | Repeated | Joined | None = None

    def __len__(self) -> int:
        return len(self.atoms)

    @property
    def depth(self) -> int:
        """How many removed layers lie behind it."""
        if isinstance(self.made, Mapped):
            return 1 + self.made.before.depth
        if isinstance(self.made, Repeated):
            return self.made.before.depth
        return sum(part.depth for part in self.made.parts) if isinstance(self.made, Joined) else 0

    def on(self, axis: int) -> Flow:
        """The same channels on another axis."""
        return self if axis == self.axis else Flow(axis, self.atoms, self.made)


@dataclass(frozen=True, eq=False)
class Mapped:
    """A removed conv or linear layer took `before` in the teacher."""

    layer: str
    before: Flow


@dataclass(frozen=True, eq=False)
class Repeated:
    """Each entry of `before` became `many` neighbouring ones."""

    before: Flow
    many: int


@dataclass(frozen=True, eq=False)
class Joined:
    """The entries of several tensors, one after another."""

    parts: tuple[Flow, ...]


def repeated(flow: Flow, axis: int, many: int) -> Flow:
    """Each entry as `many` neighbouring ones."""
    if many == 1:
        return flow.on(axis)
    return Flow(axis, np.repeat(flow.atoms, many), Repeated(flow, many) if flow.made else None)


def joined(flows: list[Flow], axis: int) -> Flow:
    """One tensor's entries after another's."""
    made = Joined(tuple(flows)) if any(flow.made for flow in flows) else None
    return Flow(axis, np.concatenate([flow.atoms for flow in flows]), made)
