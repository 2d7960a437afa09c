"""What may change in a network, or what a published space holds, told before any search. Only composes the rooms."""

from __future__ import annotations

import inspect as signatures
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from torch import nn

from n2n.networks import Latency, latency
from n2n.report.reading import (
    DECISION_HEADER,
    LAYER_HEADER,
    RANGE_HEADER,
    SPACE_RANGE_HEADER,
    decision_rows,
    latency_note,
    layer_rows,
    range_rows,
    shares_text,
)
from n2n.report.tables import aligned
from search_spaces import PUBLISHED
from search_spaces.base import Architecture, Cost, SearchSpace, SpaceError
from search_spaces.coverage import Coverage, LayerCoverage, Range, chained_range, cost_range, coverage
from search_spaces.family import Decision
from search_spaces.layer_removal import Granularity, LayerRemoval
from search_spaces.layer_shrinkage import FACTORS, LayerShrinkage
from search_spaces.teacher.analysis import Reading, ignored
from search_spaces.teacher.capture import ExampleInputs, ForwardFn
from search_spaces.teacher.reading import read

BOTH = "removal, then shrinkage"


@dataclass(frozen=True)
class Inspection:
    """What is known of a teacher without a search.

    `outside` names the parameters that belong to no layer. `ranges` are by stage; `timings` holds the latency of the
    "teacher" and, by stage, that of the student of fewest parameters; it is empty where nothing was timed.
    """

    network: str
    teacher: Cost
    coverage: Coverage
    outside: tuple[str, ...]
    ranges: Mapping[str, Range]
    timings: Mapping[str, Latency]

    @property
    def rows(self) -> tuple[LayerCoverage, ...]:
        """The layers, in the order in which they run."""
        return self.coverage.layers

    def table(self) -> str:
        """Everything as plain text."""
        parts = [
            aligned(LAYER_HEADER, layer_rows(self.coverage, self.outside)),
            aligned(RANGE_HEADER, range_rows(self.ranges, self.timings)),
            shares_text(self.coverage),
        ]
        return "\n\n".join([*parts, *filter(None, [latency_note(self.timings)])])

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values; shares are in [0, 1]."""
        found = self.coverage
        return {
            "network": self.network,
            "teacher": asdict(self.teacher),
            "layers": [
                {**asdict(row), "status": row.status, "reasons": dict(row.reasons)} for row in self.coverage.layers
            ],
            "shares": {
                "removal": found.removal,
                "shrinkage": found.shrinkage,
                "either": found.either,
                "none": found.none,
            },
            "parameters_outside_layers": found.outside,
            "macs_outside_layers": found.outside_macs,
            "outside_layers": list(self.outside),
            "ranges": {
                stage: {"min": asdict(one.low), "middle": asdict(one.middle), "max": asdict(one.high)}
                for stage, one in self.ranges.items()
            },
            "latency": {name: asdict(one) for name, one in self.timings.items()},
        }


def inspect(
    network: nn.Module,
    example_inputs: ExampleInputs,
    *,
    removal: bool = True,
    shrinkage: bool = True,
    granularity: Granularity = "layer",
    factors: Sequence[float] = FACTORS,
    round_to: int = 1,
    kernels: bool = False,
    ignored_layers: Sequence[str | type[nn.Module]] = (),
    forward_fn: ForwardFn | None = None,
    measure_latency: bool = True,
) -> Inspection:
    """Says of every layer whether it can be removed or shrunk, or why not, and how far students can go down.

    The network is read and copied, never changed; its weights do not matter.

    Args:
        example_inputs: one batch as the network receives it: a tensor, a tuple or a dict. Latencies are for it.
        removal, shrinkage, granularity, factors, round_to, kernels, ignored_layers, forward_fn: see `search_spaces`.
        measure_latency: whether the teacher and the smallest students are timed.

    Raises:
        SpaceError: the network cannot be read, or an argument is out of its range.
    """
    reading = read(network, example_inputs, forward_fn=forward_fn)
    kept = ignored(reading, ignored_layers)
    opened: dict[str, SearchSpace] = {}
    narrowed = partial(
        _shrinkage, reading, factors=tuple(factors), round_to=round_to, kernels=kernels, kept=kept, may_be_empty=True
    )
    if removal:
        opened["removal"] = LayerRemoval(reading, granularity=granularity, kept=kept, may_be_empty=True)
    if shrinkage or not removal:
        opened["shrinkage"] = narrowed(None)
    ranges = {stage: cost_range(space) for stage, space in opened.items()}
    builders = dict(opened)
    if len(opened) == 2:
        ranges[BOTH], builders[BOTH] = chained_range(opened["removal"], narrowed), opened["shrinkage"]
    timings: dict[str, Latency] = {}
    if measure_latency:
        networks = {stage: builders[stage].build(one.smallest) for stage, one in ranges.items()}
        timed = {"teacher": reading.network, **networks}
        timings = {name: latency(one, example_inputs, forward_fn=forward_fn) for name, one in timed.items()}
    teacher = next(iter(opened.values())).teacher_cost
    within = {layer.name for layer in reading.layers}
    outside = tuple(name for name, _ in reading.network.named_parameters() if name.rpartition(".")[0] not in within)
    return Inspection(type(network).__name__, teacher, coverage(*opened.values()), outside, ranges, timings)


def _shrinkage(reading: Reading, start: Architecture | None, **options: Any) -> SearchSpace:
    return LayerShrinkage(reading, start=start, **options)


@dataclass(frozen=True)
class SpaceInspection:
    """What is known of a published space without a search: its decisions, how many students, between which costs.

    `form` says how the code of a student looks.
    """

    space: str
    decisions: tuple[Decision, ...]
    students: int
    form: str
    range: Range

    @property
    def ranges(self) -> Mapping[str, Range]:
        """The range under the name of the space."""
        return {self.space: self.range}

    def table(self) -> str:
        """Everything as plain text."""
        decisions = aligned(DECISION_HEADER, decision_rows(self.decisions))
        return "\n\n".join([decisions, aligned(SPACE_RANGE_HEADER, range_rows(self.ranges, {})), self.summary()])

    def summary(self) -> str:
        """How many students there are and how their codes look."""
        return f"{self.students:,} students; their code: {self.form}"

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values."""
        costs = {"min": self.range.low, "middle": self.range.middle, "max": self.range.high}
        return {
            "space": self.space,
            "students": self.students,
            "code": self.form,
            "decisions": [{"name": one.name, "choices": list(one.texts)} for one in self.decisions],
            "range": {name: asdict(cost) for name, cost in costs.items()},
        }


def inspect_space(name: str, *, seed: int = 0, **arguments: Any) -> SpaceInspection:
    """Says what there is to decide in a published space, and between which costs its students lie.

    The least is the least that was found, exact for spaces whose choices cost the more the later they stand.

    Args:
        name: of `search_spaces.PUBLISHED`.
        seed: of the random students whose median is the middle.
        arguments: of the space: classes, channels, image_size.

    Raises:
        SpaceError: an unknown name or argument (the valid ones are listed), or one that is out of its range.
    """
    if name not in PUBLISHED:
        raise SpaceError(f"unknown space {name!r}; the published spaces are: {', '.join(PUBLISHED)}")
    known = signatures.signature(PUBLISHED[name]).parameters
    unknown = sorted(set(arguments) - set(known))
    if unknown:
        raise SpaceError(f"the space {name!r} does not take {', '.join(unknown)}; it takes: {', '.join(known)}")
    space = PUBLISHED[name](**arguments)
    family = space.family
    return SpaceInspection(name, space.decisions, family.students, family.form, cost_range(space, seed=seed))
