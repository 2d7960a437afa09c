"""The two protocols that every space meets, and the one definition of what an agent observes.

A space speaks of `num_decisions` decisions, each with the same `num_actions` actions. The last action always keeps what
the teacher has (removal: 0 removes, 1 keeps; shrinkage: factors in ascending order, the last is 1.0), so that a draft
of last actions is the teacher itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from torch import nn

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

OBSERVATION_VERSION = 2
"""Raised whenever FEATURES or the meaning of a column changes; a policy of another version is refused."""

KINDS = ("conv", "depthwise_conv", "linear", "batch_norm", "other_norm", "activation", "pool", "dropout", "other")
"""The layer types of the one-hot columns."""

FEATURES: tuple[str, ...] = (
    *(f"is_{kind}" for kind in KINDS),  # one-hot of the layer's type
    "kernel",  # min(kernel, 8) / 8; 0 where a layer has none
    "stride",  # min(stride, 4) / 4
    "padding",  # min(padding, 4) / 4
    "width_in",  # channels that come in, in the draft, over the widest layer of the teacher
    "width_out",  # channels that go out, in the draft, over the widest layer of the teacher
    "spatial",  # output height of the layer over the input height of the network (1 where there is none)
    "parameter_share",  # parameters of the layer in the draft over the parameters of the teacher
    "mac_share",  # MACs of the layer in the draft over the MACs of the teacher
    "skip_start",  # 1 where a skip connection leaves the layer's input
    "skip_end",  # 1 where the layer's output is added to a skip connection
    "position",  # index of the layer over the number of layers
    "group",  # (1 + index of the first decision about the layer) over the number of decisions; 0 where there is none
    "decided",  # 1 once a decision about the layer was made
    "decision",  # the last action about the layer over (num_actions - 1); 1 (keep) while undecided
    "cursor",  # 1 for the layers that the current decision speaks of
    "goal_parameters",  # in all rows: the share of the teacher's parameters to keep to; 0 where nothing is asked
    "goal_macs",  # the same of its MACs; spaces leave both at 0, `envs.GoalVectorEnv` writes them
)
CURSOR = FEATURES.index("cursor")
"""The column that marks the rows of the current decision."""
GOALS = (FEATURES.index("goal_parameters"), FEATURES.index("goal_macs"))
"""The columns that tell a policy what is asked of the student."""


class SpaceError(ValueError):
    """A space cannot be opened, or was asked for something that is not in it."""


@runtime_checkable
class Architecture(Protocol):
    """A student as a small frozen value: everything that is needed to build it again, and nothing else."""

    @property
    def fingerprint(self) -> str:
        """A stable hexadecimal hash: equal for equal networks of one teacher, whatever the route to them."""
        ...

    def to_json(self) -> str:
        """The value as canonical JSON; `space.from_json` reads it back."""
        ...


@dataclass(frozen=True)
class Draft:
    """An unfinished student: the actions taken so far, first decision first."""

    actions: tuple[int, ...] = ()

    @property
    def cursor(self) -> int:
        """Index of the decision that comes next."""
        return len(self.actions)


@dataclass(frozen=True)
class Cost:
    """What a network costs for one example, known without training it; `macs` are multiply-accumulates.

    `bytes` are those of its parameters and buffers, at the precision that they are stored in (0 in the cost of a single
    layer, which does not count them).
    """

    parameters: int
    macs: int
    bytes: int = 0

    @property
    def size_mb(self) -> float:
        """The bytes in MB (10^6 bytes)."""
        return self.bytes / 1e6


@dataclass(frozen=True)
class LayerRow:
    """One line of `SearchSpace.describe()`.

    `status` is "removable", "shrinkable" or "frozen"; `group` names the channel group where there is one; `reason` says
    why a frozen layer is frozen (and is empty for the others). `reads` names the group of the channels that come in,
    where a decision changes how many: the layer's weight is then another one, even if its own width is frozen.
    """

    name: str
    kind: str
    status: str
    group: str
    reason: str
    parameters: int
    macs: int
    reads: str = ""


@dataclass(frozen=True)
class LayerChange:
    """What became of one layer in a student; pairs are (in the teacher, in the student).

    Widths are the channels (or features) that come in and go out, of layers without weights always the teacher's;
    `kernel` is 0 where a layer has none. Of a removed layer the student has no parameters and a width of 0.
    """

    name: str
    kind: str
    removed: bool
    width_in: tuple[int, int]
    width_out: tuple[int, int]
    kernel: tuple[int, int]
    parameters: tuple[int, int]

    @property
    def changed(self) -> bool:
        """Whether the layer is not as it was in the teacher."""
        return self.removed or any(a != b for a, b in (self.width_in, self.width_out, self.kernel, self.parameters))


class SearchSpace(Protocol):
    """Which decisions there are, which actions are legal, what they do, what an agent sees, how a student is built."""

    @property
    def name(self) -> str:
        """The name of the space, e.g. "layer_removal"."""
        ...

    @property
    def num_decisions(self) -> int:
        """T, the same for every student."""
        ...

    @property
    def num_actions(self) -> int:
        """A, the same for every decision; the last one keeps."""
        ...

    @property
    def teacher_cost(self) -> Cost:
        """The cost of the untouched teacher."""
        ...

    def initial(self) -> Draft:
        """The draft before its first decision."""
        ...

    def legal(self, draft: Draft) -> Mask:
        """Which actions [A] the next decision allows; the last is among them unless a budget forbids it.

        Raises:
            SpaceError: the draft is finished.
        """
        ...

    def apply(self, draft: Draft, action: int) -> Draft:
        """The draft after one more decision.

        Raises:
            SpaceError: the draft is finished, or the action is not legal (layer and legal actions are named).
        """
        ...

    def observe(self, draft: Draft) -> Floats:
        """What an agent sees: [N, F], N layers (the same for every draft), F = len(FEATURES), all in [0, 1]."""
        ...

    def student(self, draft: Draft) -> Architecture:
        """The student of a finished draft.

        Raises:
            SpaceError: decisions are missing.
        """
        ...

    def build(
        self, architecture: Architecture, *, inherit: bool = True, importance: str = "l1", seed: int = 0
    ) -> nn.Module:
        """The network of an architecture: new, owned by the caller, in train mode, on the teacher's device.

        `inherit` carries the teacher's weights over (`importance` names how channels are ranked), otherwise every layer
        starts afresh from `seed`.

        Raises:
            SpaceError: the architecture is of another space or teacher.
        """
        ...

    def cost(self, architecture: Architecture) -> Cost:
        """Parameters, MACs and bytes of the network that `build` would give, without building it."""
        ...

    def random(self, rng: np.random.Generator) -> Architecture:
        """A student from uniformly drawn legal actions."""
        ...

    def mutate(self, architecture: Architecture, rng: np.random.Generator) -> Architecture:
        """A student that differs in at least one decision, where any other is legal."""
        ...

    def decision_name(self, decision: int) -> str:
        """What decision `decision` speaks of: a layer's or a group's name."""
        ...

    def describe(self) -> tuple[LayerRow, ...]:
        """The layers of the teacher, one row each, with what may happen to them and why not."""
        ...

    def changes(self, architecture: Architecture) -> tuple[LayerChange, ...]:
        """What became of each layer of the teacher in a student, in the order in which they run."""
        ...

    def from_json(self, text: str) -> Architecture:
        """The architecture that `to_json` wrote.

        Raises:
            SpaceError: not JSON, of another kind or teacher, or naming layers that the teacher does not have.
        """
        ...


def one_hot_kind(kind: str) -> Mapping[str, float]:
    """The one-hot feature columns of a layer type; an unknown type counts as "other"."""
    known = kind if kind in KINDS else "other"
    return {f"is_{name}": float(name == known) for name in KINDS}


def random_actions(space: SearchSpace, rng: np.random.Generator) -> Draft:
    """A finished draft of uniformly drawn legal actions."""
    draft = space.initial()
    for _ in range(space.num_decisions):
        draft = space.apply(draft, int(rng.choice(np.flatnonzero(space.legal(draft)))))
    return draft


def nearest_legal(mask: Mask, action: int) -> int:
    """The legal action nearest to `action`; of two equally near ones the larger."""
    legal = np.flatnonzero(mask)
    distance = np.abs(legal - action)
    return int(legal[distance == distance.min()].max())


def replay(space: SearchSpace, actions: tuple[int, ...]) -> Draft:
    """The finished draft of wished-for actions, each replaced by the nearest legal one where it is not legal."""
    draft = space.initial()
    for action in actions:
        draft = space.apply(draft, nearest_legal(space.legal(draft), action))
    return draft
