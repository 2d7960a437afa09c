"""What the spaces over a teacher share: a reading, students, costs and observations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from search_spaces.base import (
    Architecture,
    Cost,
    Draft,
    Floats,
    LayerChange,
    LayerRow,
    Mask,
    SpaceError,
    random_actions,
    replay,
)
from search_spaces.teacher.analysis import CONNECTED, Layer, Reading
from search_spaces.teacher.architecture import TeacherArchitecture, architecture_from_json
from search_spaces.teacher.changes import changes
from search_spaces.teacher.channels import Plan
from search_spaces.teacher.costs import CostTable
from search_spaces.teacher.features import COLUMN, SIZE_COLUMNS, size_columns, static_rows
from search_spaces.teacher.flows import Ints, WidthConflict
from search_spaces.teacher.inherit import kept_classes
from search_spaces.teacher.record import Recorder
from search_spaces.teacher.removal import (
    Shape,
    canonical,
    emptied_branches,
    keeps_widths,
    outermost,
    removal_plan,
    shape_of,
)
from search_spaces.teacher.sizes import Sizes
from search_spaces.teacher.student_builder import build
from search_spaces.teacher.targets import Targets, targets
from search_spaces.teacher.verify import verify

_CACHE = 4096


def _openers(reading: Reading) -> frozenset[str]:
    """The layers that take channels of unknown origin and give known ones."""
    names = set()
    for layer in reading.layers:
        node = reading.nodes[layer.nodes[0]]
        if layer.kind in CONNECTED and layer.name in reading.full.ends:
            given, taken = reading.full.ends[layer.name].incoming, reading.full.values.get(node.inputs[0])
            if taken is None or taken.axis != given.axis:
                names.add(layer.name)
    return frozenset(names)


@dataclass(frozen=True, eq=False)
class _Marks:
    """The rows that each decision marks: those of decision i are `rows[starts[i]:starts[i + 1]]`."""

    rows: Ints
    decisions: Ints
    starts: Ints

    @classmethod
    def of(cls, marked: Sequence[Sequence[int]]) -> _Marks:
        sizes = [len(one) for one in marked]
        return cls(
            np.array([row for one in marked for row in one], dtype=np.int64),
            np.repeat(np.arange(len(marked)), sizes),
            np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        )

    def groups(self, layers: int) -> Floats:
        """(1 + the first decision that marks a row) over the decisions, [N]; 0 where none does."""
        count = len(self.starts) - 1
        first = np.full(layers, count, dtype=np.int64)
        np.minimum.at(first, self.rows, self.decisions)
        places: Floats = np.where(first < count, (first + 1) / count, 0.0).astype(np.float32)
        return places

    def write(self, rows: Floats, actions: tuple[int, ...], num_actions: int) -> None:
        """Writes what was decided, and which decision comes next."""
        done = self.starts[len(actions)]
        marked = self.rows[:done]
        rows[marked, COLUMN["decided"]] = 1.0
        rows[marked, COLUMN["decision"]] = np.array(actions)[self.decisions[:done]] / max(1, num_actions - 1)
        if len(actions) + 1 < len(self.starts):
            rows[self.rows[done : self.starts[len(actions) + 1]], COLUMN["cursor"]] = 1.0


class TeacherSpace(ABC):
    """A space whose students are edits of one teacher. Subclasses say what the decisions are."""

    def __init__(
        self,
        name: str,
        reading: Reading,
        layers: tuple[Layer, ...],
        num_actions: int,
        gradients: Mapping[str, torch.Tensor] | None,
    ) -> None:
        self.name = name
        self.reading = reading
        self.num_actions = num_actions
        self._gradients = gradients
        self._layers = layers
        self._row = {layer.name: i for i, layer in enumerate(layers)}
        self._static = static_rows(reading, layers)
        self._sizes: dict[TeacherArchitecture, Floats] = {}
        self._plans: dict[frozenset[str], Plan] = {}
        self._conflicts: set[frozenset[str]] = set()
        self._verified: set[str] = set()
        self._bytes = Sizes.of(reading)
        self._tables: dict[frozenset[str], CostTable] = {}
        self._neutral = frozenset(layer.name for layer in reading.layers if keeps_widths(layer))
        self._core_costs: dict[frozenset[str], Ints] = {}
        self._table_place = {layer.name: i for i, layer in enumerate(reading.layers)}
        self._wide_branches = [
            one for one in reading.branches if one.weights and not self._neutral.issuperset(one.weights)
        ]
        self._openers = _openers(reading)
        self._absorbing = frozenset(layer.name for layer in reading.layers if layer.kind in {"conv", "linear"})
        self._removal_costs: dict[frozenset[str], Cost] = {}
        self._masks: tuple[Draft | None, Mask] = (None, np.ones(0, dtype=bool))
        self._marks: _Marks | None = None

    @property
    @abstractmethod
    def num_decisions(self) -> int:
        """T, the same for every student."""

    @abstractmethod
    def legal(self, draft: Draft) -> Mask:
        """Which actions [A] the next decision allows."""

    @abstractmethod
    def decision_name(self, decision: int) -> str:
        """The layer, branch or group that a decision speaks of."""

    @abstractmethod
    def describe(self) -> tuple[LayerRow, ...]:
        """The layers of the teacher, what may happen to them, and why not."""

    @abstractmethod
    def _layers_of(self, decision: int) -> tuple[str, ...]:
        """The layers whose rows a decision marks."""

    @abstractmethod
    def _so_far(self, draft: Draft) -> TeacherArchitecture:
        """The student of a draft whose missing decisions all keep."""

    @abstractmethod
    def _actions(self, architecture: TeacherArchitecture) -> tuple[int, ...]:
        """The actions that lead to an architecture, as near as this space comes to it."""

    @property
    def teacher_cost(self) -> Cost:
        """The cost of the untouched teacher."""
        return Cost(self.reading.parameters, self.reading.macs, self._bytes.teacher)

    def initial(self) -> Draft:
        """The draft before its first decision."""
        return Draft()

    def apply(self, draft: Draft, action: int) -> Draft:
        """The draft after one more decision; raises `SpaceError` where the action is not legal."""
        mask = self._masks[1] if self._masks[0] is draft else self.legal(draft)
        if not (0 <= action < self.num_actions and mask[action]):
            legal = ", ".join(str(i) for i in np.flatnonzero(mask))
            raise SpaceError(
                f"{self.name}: action {action} is not legal for {self.decision_name(draft.cursor)}; legal are {legal}"
            )
        return Draft((*draft.actions, int(action)))

    def observe(self, draft: Draft) -> Floats:
        """The observation [N, F] of a draft, all in [0, 1]."""
        rows = self._static.copy()
        rows[:, SIZE_COLUMNS] = self._size_columns(self._so_far(draft))
        if self._marks is None:
            marked = [[self._row[name] for name in self._layers_of(i)] for i in range(self.num_decisions)]
            self._marks = _Marks.of(marked)
            rows[:, COLUMN["group"]] = self._static[:, COLUMN["group"]] = self._marks.groups(len(rows))
        self._marks.write(rows, draft.actions, self.num_actions)
        return rows

    def student(self, draft: Draft) -> TeacherArchitecture:
        """The student of a finished draft."""
        if draft.cursor != self.num_decisions:
            raise SpaceError(
                f"{self.name}: expected {self.num_decisions} decisions, the draft has {draft.cursor}; "
                f"the next is about {self.decision_name(draft.cursor)}"
            )
        return self._so_far(draft)

    def build(
        self,
        architecture: Architecture,
        *,
        inherit: bool = True,
        importance: str = "l1",
        seed: int = 0,
    ) -> nn.Module:
        """The network of an architecture; see `SearchSpace.build`. It has been run once, forward and backward."""
        own = self._own(architecture)
        network = build(self.reading, own, inherit=inherit, importance=importance, gradients=self._gradients, seed=seed)
        if own.fingerprint not in self._verified:
            verify(self.reading, self._shape(own), network)
            self._verified.add(own.fingerprint)
        return network

    def targets(self, architecture: Architecture, *, importance: str = "l1", seed: int = 0) -> Targets:
        """Which values of the teacher the layers of a student stand for, if it was built with the same arguments."""
        shape = self._shape(architecture)
        keep = kept_classes(self.reading, shape, importance, gradients=self._gradients, seed=seed)
        return targets(self.reading, shape, keep)

    def recorder(self, example: torch.Tensor) -> Recorder:
        """What runs the teacher on batches of the size of `example` and shows the values inside."""
        return Recorder(self.reading, example)

    def cost(self, architecture: Architecture) -> Cost:
        """Parameters, MACs and bytes of an architecture, without building it."""
        shape = self._shape(architecture)
        return self._table(shape).cost(np.array(shape.kept), shape.kernels)

    def _removal_cost(self, removed: frozenset[str]) -> Cost:
        """The cost of a student whose widths are all kept, `removed` being canonical and legal."""
        found = self._removal_costs.get(removed)
        if found is None:
            if len(self._removal_costs) >= _CACHE:
                self._removal_costs.clear()
            found = self._removal_costs[removed] = self._cost_without(removed)
        return found

    def _cost_without(self, removed: frozenset[str]) -> Cost:
        # No layer of `rest` changes a width: the costs are those of the student that has them, without theirs.
        core = self._core(removed)
        rest = [self._table_place[name] for name in removed - core]
        shape = self._shape(TeacherArchitecture(self.reading.fingerprint, self._ordered(core)))
        table, costs, kept = self._table(shape), self._core_costs.get(shape.removed), np.array(shape.kept)
        if costs is None:
            parameters, macs = table.by_layer(kept, {})
            costs = np.stack([parameters, macs, table.bytes_by_layer(kept, parameters)])
            self._core_costs[shape.removed] = costs
        left = np.ones(len(self.reading.layers), dtype=np.int64)
        left[rest] = 0
        total = table.total(kept, *(costs * left))
        counted = {branch.add for branch in outermost(shape.emptied)}
        gone = [one for one in outermost(emptied_branches(self.reading, removed)) if one.add not in counted]
        parameters_gone = sum(branch.parameters for branch in gone)
        return Cost(
            total.parameters - parameters_gone,
            total.macs - sum(branch.macs for branch in gone),
            total.bytes - self._bytes.usual * parameters_gone,
        )

    def _core(self, removed: frozenset[str]) -> frozenset[str]:
        """Of removed layers those that change widths, and those that would otherwise take a changed width back.

        The others see the teacher's width and pass it on, so that they change nothing. Where channels of unknown origin
        are passed on, or the core alone does not fit together, it is all of them.
        """
        if not self._openers.isdisjoint(removed):
            return removed
        core = removed - self._neutral
        if not core:
            return core
        core = core.union(*(one.layers for one in self._wide_branches if removed.issuperset(one.weights)))
        while (found := self._plan(core)) is not None:
            changed = {one for one in removed - core if one in self._absorbing and self._sees_another_width(found, one)}
            if not changed:
                return core
            core |= changed
        return removed

    def _sees_another_width(self, found: Plan, name: str) -> bool:
        """Whether the channels that reach a surviving layer with weights are not as many as in the teacher."""
        ends, full = found.ends.get(name), self.reading.full.ends.get(name)
        return ends is not None and full is not None and len(ends.incoming.classes) != len(full.incoming.classes)

    def _plan(self, removed: frozenset[str]) -> Plan | None:
        """The groups that remain, remembered; None where what is left does not fit together."""
        if removed not in self._plans and removed not in self._conflicts:
            if len(self._plans) >= _CACHE:
                self._plans.clear()
            try:
                self._plans[removed] = removal_plan(self.reading, removed)
            except WidthConflict:
                self._conflicts.add(removed)
        return self._plans.get(removed)

    def _table(self, shape: Shape) -> CostTable:
        """The costs of all students with the same layers removed."""
        found = self._tables.get(shape.removed)
        if found is None:
            if len(self._tables) >= _CACHE:
                self._tables.clear()
            found = self._tables[shape.removed] = CostTable(self.reading, self._bytes, shape)
        return found

    def changes(self, architecture: Architecture) -> tuple[LayerChange, ...]:
        """What became of each layer of the teacher; see `SearchSpace.changes`."""
        return changes(self.reading, self._shape(architecture))

    def random(self, rng: np.random.Generator) -> TeacherArchitecture:
        """A student from uniformly drawn legal actions."""
        return self.student(random_actions(self, rng))

    def mutate(self, architecture: Architecture, rng: np.random.Generator) -> TeacherArchitecture:
        """A student that differs in one decision and in what follows from it, where any other is legal."""
        actions = self._actions(self._own(architecture))
        for decision in rng.permutation(self.num_decisions):
            for action in rng.permutation(self.num_actions):
                if action != actions[decision]:
                    changed = (*actions[:decision], int(action), *actions[decision + 1 :])
                    student = self.student(replay(self, changed))
                    if student != architecture:
                        return student
        return self._own(architecture)

    def from_json(self, text: str) -> TeacherArchitecture:
        """The architecture that `to_json` wrote, checked against the teacher."""
        found = architecture_from_json(text)
        shape = self._shape(found)
        full = {group.name: group.width for group in shape.plan.groups}
        kernels = {layer.name: layer.kernel for layer in self.reading.layers}
        return TeacherArchitecture(
            found.teacher,
            self._ordered(shape.removed),
            tuple(sorted((name, width) for name, width in found.widths if full[name] != width)),
            tuple(sorted((name, kernel) for name, kernel in found.kernels if kernels[name] != kernel)),
        )

    def _row_of(self, layer: Layer, status: str, group: str, reason: str, reads: str = "") -> LayerRow:
        """A line of the description; the reason names the source line."""
        why = layer.because(reason)
        return LayerRow(layer.name, layer.kind, status, group, why, layer.parameters, layer.macs, reads)

    def _ordered(self, removed: frozenset[str]) -> tuple[str, ...]:
        """Removed layers in graph order, with what is left of emptied branches."""
        gone = canonical(self.reading, removed)
        return tuple(layer.name for layer in self.reading.layers if layer.name in gone)

    def _own(self, architecture: Architecture) -> TeacherArchitecture:
        if not isinstance(architecture, TeacherArchitecture):
            raise SpaceError(f"{self.name}: expected a TeacherArchitecture, found {type(architecture).__name__}")
        return architecture

    def _shape(self, architecture: Architecture) -> Shape:
        if len(self._plans) >= _CACHE:
            self._plans.clear()
        return shape_of(self.reading, self._own(architecture), plans=self._plans)

    def _size_columns(self, architecture: TeacherArchitecture) -> Floats:
        if architecture.widths or architecture.kernels:
            return self._remembered_columns(architecture)
        removed = frozenset(architecture.removed)
        core = self._core(removed)
        # What changes no width leaves the columns of the others as they are, and costs nothing any more.
        columns = self._remembered_columns(TeacherArchitecture(architecture.teacher, self._ordered(core))).copy()
        columns[[self._row[name] for name in removed - core if name in self._row], 2:] = 0.0
        return columns

    def _remembered_columns(self, architecture: TeacherArchitecture) -> Floats:
        found = self._sizes.get(architecture)
        if found is None:
            if len(self._sizes) >= _CACHE:
                self._sizes.clear()
            shape = self._shape(architecture)
            found = size_columns(self.reading, self._layers, shape, self._table(shape))
            self._sizes[architecture] = found
        return found
