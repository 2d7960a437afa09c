"""Everything that a search of a published space is told, checked once at the door; and how the space is opened."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from n2n.data.base import TrainingData
from n2n.reward import Budget, parse_budget
from n2n.search.errors import SearchError
from n2n.search.options import BudgetValue, SearchOptions
from search_spaces import PUBLISHED
from search_spaces.base import Cost
from search_spaces.published import PublishedSpace

SHARED = (
    "max_params", "max_macs", "max_size_mb", "evaluations", "seconds", "seed", "agent", "rollouts", "objective",
    "finalists", "evaluate", "population", "tournament", "cache", "device", "precision", "workers", "address",
    "gpus_per_worker", "threads",
)  # fmt: skip
"""Options that mean the same in a search over a teacher, and are checked as there."""


@dataclass(frozen=True)
class SpaceOptions:
    """The resolved configuration of a search of a published space; `config.json` is this record.

    `space_args` are the arguments that the space was opened with; `against` is the code of what teacher-aware scores
    compare with, None for the largest network; `final_epochs` is how long each of the `finalists` is trained by
    `objective`, 0 for not at all. The others are those of `SearchOptions`.

    Raises:
        SearchError: a value outside its range, or a name that does not exist; the valid ones are listed.
    """

    space: str
    space_args: Mapping[str, Any]
    evaluate: str
    against: str | None = None
    max_params: BudgetValue | None = None
    max_macs: BudgetValue | None = None
    max_size_mb: BudgetValue | None = None
    evaluations: int = 60
    seconds: float | None = None
    seed: int = 0
    agent: str = "ppo"
    rollouts: int = 5
    population: int | None = None
    tournament: int | None = None
    objective: str = "ce"
    final_epochs: float = 0.0
    finalists: int = 2
    cache: str | None = None
    device: str = "cpu"
    precision: str = "auto"
    workers: int | str = 0
    address: str | None = None
    gpus_per_worker: float = 0.0
    threads: int | None = None

    def __post_init__(self) -> None:
        SearchOptions(**{name: getattr(self, name) for name in SHARED})
        if not (self.final_epochs >= 0 and math.isfinite(self.final_epochs)):
            raise SearchError(f"final_epochs={self.final_epochs} must be 0 (train nobody) or a positive number")

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {**asdict(self), "space_args": dict(self.space_args)}


def opened_for(name: str, training: TrainingData, arguments: Mapping[str, Any]) -> PublishedSpace:
    """A published space for the classes and images of the data, unless `arguments` say otherwise.

    Raises:
        SearchError: no such space or argument, images that are not square, fewer classes than the data have, or images
            of another shape.
        SpaceError: an argument that is out of the space's range.
    """
    if name not in PUBLISHED:
        raise SearchError(f"space={name!r} does not exist; choose one of {', '.join(PUBLISHED)}")
    channels, *size = training.input_shape
    if len(size) != 2 or size[0] != size[1]:
        raise SearchError(f"{training.name}: expected square images, found {list(training.input_shape)}")
    own = {"classes": training.classes, "channels": channels, "image_size": size[0]}
    unknown = sorted(set(arguments) - set(own))
    if unknown:
        raise SearchError(f"{name} has no argument {', '.join(unknown)}; it takes {', '.join(own)}")
    given = {**own, **arguments}
    space = PUBLISHED[name](**given)
    if given["classes"] < own["classes"]:
        raise SearchError(f"classes={given['classes']}: {training.name} has {own['classes']}; give that many or more")
    for key in ("channels", "image_size"):
        if given[key] != own[key]:
            raise SearchError(f"{key}={given[key]}: the images of {training.name} have {own[key]}; leave {key} out")
    return space


def budget_within(options: SpaceOptions, largest: Cost) -> Budget:
    """The budgets as numbers; a share such as "20%" is one of the largest network's.

    Raises:
        SearchError: one that cannot be read, or is not above 0.
    """
    wholes = {"max_params": largest.parameters, "max_macs": largest.macs, "max_size_mb": largest.size_mb}
    limits: dict[str, float | None] = {}
    for option, whole in wholes.items():
        try:
            limits[option] = parse_budget(getattr(options, option), whole, counts=option != "max_size_mb")
        except ValueError as error:
            raise SearchError(f"{option}: {error}") from error
    return Budget(limits["max_params"], limits["max_macs"], max_size_mb=limits["max_size_mb"])
