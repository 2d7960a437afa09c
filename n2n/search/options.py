"""Everything that a search is told, checked once at the door."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any, Literal

import torch

from n2n.agents import EVOLUTION, PATIENT
from n2n.distill.objectives.expression import ObjectiveError, parse
from n2n.distill.precision import PRECISIONS
from n2n.evaluate.distillation import STARTS
from n2n.evaluate.pool_plan import PoolError, PoolOptions
from n2n.evaluate.rungs import Rung, RungError, parse_ladder, parse_rung
from n2n.reward import SHORTFALL, parse_budget
from n2n.scores import AGGREGATES, SCORES
from n2n.search.errors import SearchError

BudgetValue = float | int | str
BUDGETS = ("max_params", "max_macs", "max_latency_ms", "max_size_mb")
Granularity = Literal["layer", "block"]
IMPORTANCES = ("l1", "l2", "bn_scale", "taylor", "random")
GRANULARITIES = ("layer", "block")
DEFAULT_FACTORS = tuple(round(0.1 * step, 1) for step in range(1, 11))
POLICY_MODES = ("warm", "zero-shot", "proposal")
"""What a search does with a policy: goes on learning, only acts with it, or lets evolution draw from it."""
PREFILTER_RATIO = 8
"""Rollouts that are scored for each one that is distilled, where a prefilter is asked for and nothing else is said."""


@dataclass(frozen=True)
class SearchOptions:
    """The resolved configuration of a search; `config.json` is this record.

    `evaluations` students are judged in all, the removal stage gets half; `seconds` bounds the whole call as far as it
    can be foreseen, None for no bound; `final_epochs` is how long each of the `finalists` is distilled; `threads`
    are torch's, None leaves them as they are, "auto" measures which are fastest. `evaluate` names a training-free score
    that takes the place of the quick distillation, `prefilter` one that chooses, among `prefilter_ratio` times as many
    students, who is distilled; `policy_mode` says what is done with a policy; `population` and `tournament` are those
    of evolution. `workers` are Ray processes, 0 for this one and "auto" for as many as fit, on the cluster at `address`
    or here, with `gpus_per_worker` (a fraction) each.

    Raises:
        SearchError: a value outside its range, or a name that does not exist; the valid ones are listed.
    """

    max_params: BudgetValue | None = None
    max_macs: BudgetValue | None = None
    max_latency_ms: BudgetValue | None = None
    max_size_mb: BudgetValue | None = None
    evaluations: int = 60
    seconds: float | None = None
    seed: int = 0
    agent: str = "reinforce"
    removal: bool = True
    shrinkage: bool = True
    granularity: Granularity = "layer"
    factors: tuple[float, ...] = DEFAULT_FACTORS
    round_to: int = 1
    kernels: bool = False
    rollouts: int = 5
    steps: int = 60
    objective: str = "kd"
    final_epochs: float = 3.0
    finalists: int = 2
    importance: str = "l1"
    start: str = "refit"
    final_start: str | None = None
    ladder: tuple[str, ...] = ()
    promote: float = 0.4
    expects: tuple[tuple[str, float, float, float], ...] = ()
    shortfall: float | None = None
    evaluate: str | None = None
    prefilter: str | None = None
    prefilter_ratio: int | None = None
    population: int | None = None
    tournament: int | None = None
    cache: str | None = None
    policy_mode: str = "warm"
    ignored_layers: tuple[str, ...] = ()
    device: str = "cpu"
    precision: str = "auto"
    workers: int | str = 0
    address: str | None = None
    asynchronous: bool = False
    gpus_per_worker: float = 0.0
    threads: int | str | None = None

    def __post_init__(self) -> None:
        for name in ("evaluations", "rollouts", "finalists", "round_to"):
            if getattr(self, name) < 1:
                raise SearchError(f"{name}={getattr(self, name)} must be at least 1")
        if self.seed < 0:
            raise SearchError(f"seed={self.seed} must be 0 or more")
        if self.steps < 0 or (self.steps == 0 and self.start != "refit"):
            raise SearchError(
                f"steps={self.steps} must be at least 1, or 0 with start='refit': students that start from"
                f" {self.start!r} cannot be judged without training"
            )
        if not (self.final_epochs > 0 and math.isfinite(self.final_epochs)):
            raise SearchError(f"final_epochs={self.final_epochs} must be a positive number")
        if self.seconds is not None and not self.seconds > 0:
            raise SearchError(f"seconds={self.seconds} must be positive, or None for no limit")
        if not (self.removal or self.shrinkage):
            raise SearchError("removal and shrinkage are both off: there is nothing to search; turn one on")
        if self.shortfall is not None and not 0 < self.shortfall <= 1:
            raise SearchError(
                f"shortfall={self.shortfall} must be a share above 0 and at most 1, which is the accuracy"
            )
        if not 0 < self.promote <= 1:
            raise SearchError(f"promote={self.promote} must be a share above 0 and at most 1")
        _check_budgets({name: getattr(self, name) for name in BUDGETS})
        _one_of("importance", self.importance, IMPORTANCES)
        _one_of("start", self.start, STARTS)
        if self.final_start is not None:
            _one_of("final_start", self.final_start, STARTS)
        _one_of("policy_mode", self.policy_mode, POLICY_MODES)
        _one_of("granularity", self.granularity, GRANULARITIES)
        _check_objective(self.objective)
        _check_ladder(self)
        _check_scores(self)
        _check_evolution(self)
        _one_of("precision", self.precision, PRECISIONS)
        _check_device(self.device)
        _check_threads(self.threads)
        _check_asynchronous(self)
        _check_workers(self)
        _check_factors(self.factors)

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages in order.

        Removal is left out for uniform width scaling, and where the evaluations do not reach for two stages (unless it
        is all that was asked for).
        """
        removal = self.removal and not (self.shrinkage and (self.agent == "uniform" or self.evaluations < 2))
        return ("removal",) * removal + ("shrinkage",) * self.shrinkage

    @property
    def rungs(self) -> tuple[Rung, ...]:
        """How students are judged, cheapest first; a single rung where no ladder was asked for."""
        if self.evaluate is not None:
            return (parse_rung(f"score:{self.evaluate}"),)
        return parse_ladder(self.ladder or (f"{self.start}:{self.steps}",), objective=self.objective)

    @property
    def counted_shortfall(self) -> float:
        """Which share of what a judged student lacks to the teacher's accuracy its reward counts.

        All of it where what is judged is the end: after distillations in epochs, or by the lines of a calibration.
        """
        if self.shortfall is not None:
            return self.shortfall
        return SHORTFALL if self.rungs[-1].short and not self.expects else 1.0

    @property
    def scores(self) -> tuple[str, ...]:
        """The training-free scores that students are judged or chosen by."""
        return (*(rung.score for rung in self.rungs if rung.score), *((self.prefilter,) if self.prefilter else ()))

    @property
    def begins(self) -> str:
        """What students start from in the long distillation: inherited weights, or fresh ones where these were judged.

        Not the closed form, which orders students best by few steps: from it a long distillation sometimes ends higher,
        and sometimes far lower (`scripts/benchmarks/evaluation.py`, `refit:3e`).
        """
        judged = self.start if self.evaluate is not None else self.rungs[-1].start
        return self.final_start or ("fresh" if judged == "fresh" else "inherited")

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def _check_budgets(budgets: Mapping[str, BudgetValue | None]) -> None:
    """Refuses budgets that cannot be read, before a teacher is looked at; any teacher will do to try."""
    faults = []
    for name, value in budgets.items():
        try:
            parse_budget(value, 1e12, counts=name in ("max_params", "max_macs"))
        except ValueError as error:
            faults.append(f"{name}: {error}")
    if faults:
        raise SearchError("; ".join(faults))


def lines_of(expects: Mapping[str, Sequence[float]]) -> tuple[tuple[str, float, float, float], ...]:
    """The lines of a ladder's rungs, (intercept, slope, residual) each, as the options hold them.

    Raises:
        SearchError: not three numbers.
    """
    for name, line in expects.items():
        if len(line) != 3:
            raise SearchError(f"expects[{name!r}]: expected (intercept, slope, residual), found {list(line)}")
    return tuple((name, float(line[0]), float(line[1]), float(line[2])) for name, line in expects.items())


def _check_ladder(options: SearchOptions) -> None:
    """Refuses rungs that cannot be read, and a ladder beside what it stands in for."""
    try:
        parse_ladder(options.ladder, objective=options.objective)
    except RungError as error:
        raise SearchError(str(error)) from error
    usual = {field.name: field.default for field in fields(options)}
    said = [name for name in ("steps", "start") if getattr(options, name) != usual[name]]
    if options.ladder and said:
        words = " and ".join(f"{name}={getattr(options, name)!r}" for name in said)
        raise SearchError(f"{words} beside a ladder: say it in the ladder, e.g. {options.ladder[-1]!r}")
    names = [name for name, *_ in options.expects]
    if options.expects and sorted(names) != sorted(options.ladder):
        raise SearchError(
            f"expects has lines for {', '.join(names)}, the ladder is {', '.join(options.ladder) or 'empty'}: expected"
            " one line (intercept, slope, residual) for each rung, as `n2n calibrate` writes them"
        )
    if not all(math.isfinite(number) for _, *numbers in options.expects for number in numbers):
        raise SearchError(f"expects={options.expects}: intercept, slope and residual must be finite numbers")
    if not options.ladder and options.promote != usual["promote"]:
        raise SearchError(
            f"promote={options.promote} without a ladder: name the rungs that students climb, e.g."
            " ladder=('refit:0', 'refit:60')"
        )


def _check_scores(options: SearchOptions) -> None:
    """Refuses scores that there are not, and what is said beside one without an effect."""
    for name in ("evaluate", "prefilter"):
        score = getattr(options, name)
        if score is not None:
            if score in AGGREGATES:
                raise SearchError(
                    f"{name}={score!r} is an aggregate, which ranks the students of a whole file (`n2n score`); take"
                    f" one of its parts ({', '.join(AGGREGATES[score])}) or another score"
                )
            _one_of(name, score, tuple(SCORES))
    usual = {field.name: field.default for field in fields(options)}
    idle = [name for name in ("ladder", "steps", "prefilter") if getattr(options, name) != usual[name]]
    idle += ["shortfall"] if options.shortfall is not None else []
    if options.evaluate is not None and idle:
        words = " and ".join(f"{name}={getattr(options, name)!r}" for name in idle)
        raise SearchError(
            f"evaluate={options.evaluate!r} judges students without distilling any, so that {words} would have no"
            " effect; leave out one of both"
        )
    ratio = options.prefilter_ratio
    if options.prefilter is None and ratio is not None:
        raise SearchError(f"prefilter_ratio={ratio} without a prefilter has no effect; say prefilter='naswot', too")
    if ratio is not None and ratio < 2:
        raise SearchError(f"prefilter_ratio={ratio}: expected 2 or more rollouts for each one that is distilled")
    if options.prefilter is None:
        return
    if any(rung.score for rung in options.rungs):
        raise SearchError(
            f"prefilter={options.prefilter!r} beside the rungs {', '.join(options.ladder)}: both choose by a score whom"
            " to distil; leave out the prefilter, or the rung"
        )
    if options.asynchronous:
        raise SearchError("prefilter compares the rollouts of a batch, which asynchronous=True does not have; leave out"
                          " one of both")  # fmt: skip


def _check_evolution(options: SearchOptions) -> None:
    """Refuses a population that evolution cannot have, or one without evolution."""
    given = {name: getattr(options, name) for name in ("population", "tournament")}
    said = {name: value for name, value in given.items() if value is not None}
    if said and options.agent != "evolution":
        words = " and ".join(f"{name}={value}" for name, value in said.items())
        raise SearchError(f"{words} with agent={options.agent!r} has no effect; say agent='evolution', too")
    population, tournament = (said.get(name, usual) for name, usual in EVOLUTION.items())
    if population < 2 or not 1 <= tournament <= population:
        raise SearchError(
            f"population={population} and tournament={tournament}: expected a population of 2 or more, and a tournament"
            " of 1 to the population"
        )


def _check_asynchronous(options: SearchOptions) -> None:
    """Refuses an asynchronous search that has nobody to wait for, or a ladder, which compares whole batches."""
    if options.asynchronous and options.workers == 0:
        raise SearchError(
            "asynchronous=True (--async) needs workers that judge side by side; say workers=2 (--workers 2) or more, or"
            " 'auto'"
        )
    if options.asynchronous and options.ladder:
        raise SearchError(
            "asynchronous=True (--async) does not go with a ladder, whose rungs compare the students of a batch"
        )
    if options.asynchronous and options.agent not in PATIENT:
        raise SearchError(
            f"asynchronous=True (--async): the agent {options.agent!r} learns from its latest rollouts only; choose one"
            f" of {', '.join(PATIENT)}"
        )


def _check_objective(text: str) -> None:
    try:
        parse(text)
    except ObjectiveError as error:
        raise SearchError(f"objective={text!r} does not exist or cannot be read: {error}") from error


def _one_of(what: str, value: str, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise SearchError(f"{what}={value!r} does not exist; choose one of {', '.join(valid)}")


def _check_device(device: str) -> None:
    """Refuses a device that PyTorch does not know or does not find on this machine."""
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise SearchError(f"device={device!r} does not exist; choose cpu, cuda, cuda:N or mps") from error
    if place.type == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (place.index or 0) >= found:
            raise SearchError(
                f"device={device!r} is not there: PyTorch finds {found} CUDA devices; use another, or cpu"
            )
    elif place.type == "mps":
        if not torch.backends.mps.is_available():
            raise SearchError(f"device={device!r} is not there: PyTorch finds no Metal device; use cpu")
    elif place.type != "cpu":
        raise SearchError(f"device={device!r} cannot train students; choose cpu, cuda, cuda:N or mps")


def _check_workers(options: SearchOptions) -> None:
    """Refuses workers that cannot be, and what is asked of them where there are none."""
    workers, gpus = options.workers, options.gpus_per_worker
    number = isinstance(workers, int) and not isinstance(workers, bool) and workers >= 0
    if not (number or workers == "auto"):
        raise SearchError(
            f"workers={workers!r} must be 0 (judge in this process), the number of Ray workers, or 'auto' for as many"
            " as there is room for"
        )
    if not workers and (options.address is not None or gpus):
        said = f"gpus_per_worker={gpus}" if options.address is None else f"address={options.address!r}"
        raise SearchError(f"{said} without workers has no effect; say workers='auto' or a number, too")
    if not gpus:
        return
    try:
        PoolOptions("auto", gpus_per_worker=gpus)
    except PoolError as error:
        raise SearchError(str(error)) from error
    if options.device not in ("cuda", "cuda:0"):
        raise SearchError(
            f"gpus_per_worker={gpus} with device={options.device!r}: a worker sees the GPU that Ray gives it alone, as"
            " 'cuda'; say device='cuda', or leave gpus_per_worker out"
        )


def _check_threads(threads: int | str | None) -> None:
    """Refuses what is neither a number of threads that this machine's cores can run nor "auto"."""
    cores = os.cpu_count() or 1
    number = isinstance(threads, int) and not isinstance(threads, bool) and 1 <= threads <= cores
    if not (threads is None or threads == "auto" or number):
        raise SearchError(
            f"threads={threads!r} must be a number from 1 to {cores}, this machine's cores, 'auto' to measure what is"
            " fastest, or None to leave torch as it is"
        )


def _check_factors(factors: tuple[float, ...]) -> None:
    ascending = all(a < b for a, b in pairwise(factors))
    if not factors or not ascending or factors[0] <= 0 or factors[-1] != 1.0:
        raise SearchError(f"factors={factors} must ascend within (0, 1] and end at 1.0, which keeps")
