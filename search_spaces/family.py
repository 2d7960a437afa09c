"""What is special of one published space: its decisions, the units of its networks, and their costs by formula."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import nn

from search_spaces.base import Cost, SpaceError

Choices = tuple[int, ...]


@dataclass(frozen=True)
class Decision:
    """One decision: its choices in ascending order of what they cost, and how they are called where not by number."""

    name: str
    choices: Choices
    labels: tuple[str, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """The choices as they are printed."""
        return self.labels or tuple(str(choice) for choice in self.choices)


@dataclass(frozen=True)
class Unit:
    """A part of a network that decisions speak of as a whole: a stem, a residual block, an edge of a cell.

    `spatial` is the height of its output, 0 where it has none; `residual` says that its input is added to its output.
    `decisions` are the indices of those that speak of it. One that some student lacks is `removable`; otherwise `group`
    names what changes in its shape, and `reason` says why nothing can. `reads` is as in `LayerRow`.
    """

    name: str
    kind: str
    width_in: int
    width_out: int
    cost: Cost
    spatial: int = 0
    kernel: int = 0
    stride: int = 0
    padding: int = 0
    residual: bool = False
    decisions: tuple[int, ...] = ()
    removable: bool = False
    group: str = ""
    reads: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Images:
    """What the networks of a space take and give: images [B, channels, image_size, image_size], logits [B, classes]."""

    classes: int
    channels: int
    image_size: int

    def checked(self, space: str, *, multiple: int) -> Images:
        """The same.

        Raises:
            SpaceError: fewer than two classes, no channel, a size that is no multiple of `multiple`, no whole number.
        """
        whole = all(type(one) is int for one in (self.classes, self.channels, self.image_size))
        if (
            not whole
            or self.classes < 2
            or self.channels < 1
            or self.image_size < multiple
            or self.image_size % multiple
        ):
            raise SpaceError(
                f"{space}: expected classes >= 2, channels >= 1 and an image_size that is a multiple of {multiple}, "
                f"found classes={self.classes!r}, channels={self.channels!r}, image_size={self.image_size!r}"
            )
        return self


class Family(Protocol):
    """What is special of one space; a small value, so that it travels to workers."""

    def __hash__(self) -> int:
        """Equal for equal families, so that costs by formula are remembered."""
        ...

    @property
    def name(self) -> str:
        """The name of the space, as in `search_spaces.PUBLISHED`."""
        ...

    @property
    def images(self) -> Images:
        """What its networks take and give."""
        ...

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """The decisions in the order in which they are taken."""
        ...

    @property
    def students(self) -> int:
        """How many different networks there are."""
        ...

    @property
    def form(self) -> str:
        """How a code looks, in words and with an example; for error messages."""
        ...

    def matters(self, choices: Choices) -> bool:
        """Whether the decision that comes after `choices` changes the network; its last choice is taken otherwise."""
        ...

    def units(self, choices: Choices) -> tuple[Unit, ...]:
        """The units of a network, in the order in which they run; the largest network has all that others have."""
        ...

    def network(self, choices: Choices) -> nn.Module:
        """The network, initialised from torch's global generator."""
        ...

    def code(self, choices: Choices) -> str:
        """The short form of a student."""
        ...

    def parse(self, code: str) -> Choices | None:
        """The choices of a short form; None where it has another shape. Whether there are such is checked elsewhere."""
        ...


def total(*costs: Cost) -> Cost:
    """The sum of costs."""
    return Cost(
        parameters=sum(cost.parameters for cost in costs),
        macs=sum(cost.macs for cost in costs),
        bytes=sum(cost.bytes for cost in costs),
    )


def weights(parameters: int, macs: int = 0) -> Cost:
    """The cost of float32 parameters without buffers."""
    return Cost(parameters, macs, bytes=4 * parameters)


def norm(width: int) -> Cost:
    """Batch norm: scale and shift; buffers for mean, variance and an int64 count. It has no MACs."""
    return Cost(2 * width, 0, bytes=4 * (2 * width + 2 * width) + 8)


def conv_norm(inputs: int, outputs: int, kernel: int, size: int) -> Cost:
    """A square convolution without bias to `size` x `size`, and batch norm: `inputs outputs kernel^2 size^2` MACs."""
    parameters = inputs * outputs * kernel**2
    return total(weights(parameters, parameters * size**2), norm(outputs))


def linear(inputs: int, outputs: int, positions: int = 1) -> Cost:
    """A linear layer with bias over `positions`: MACs `inputs outputs positions`."""
    return weights((inputs + 1) * outputs, inputs * outputs * positions)
