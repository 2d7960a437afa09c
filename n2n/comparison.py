"""Policies against searchers that have learned nothing, on as many judged students each, on one network."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from torch import Tensor, nn

from n2n.agents import AGENTS
from n2n.data import Data
from n2n.data import example_inputs as examples_of
from n2n.distill.probe import threads_put_back
from n2n.evaluate.base import Status
from n2n.job import Job
from n2n.job_agents import learned_space
from n2n.policies import chosen_agent
from n2n.policies.card import Comparison
from n2n.policies.files import STAGES
from n2n.policies.library import Entry, Library
from n2n.reward import Budget
from n2n.search.budgets import budget_text
from n2n.search.errors import SearchError
from n2n.search.options import BudgetValue, SearchOptions
from n2n.search.progress import Display, display
from n2n.search.two_stage import Found

BASELINES = ("random", "uniform")
RUNG = "refit:0"
"""How students are judged where nothing else is said: in closed form, at about a second each."""


@dataclass(frozen=True)
class Side:
    """One searcher: `curves` hold for each seed the best reward within the budget after each judged student.

    It is None as long as no student was within the budget.
    """

    name: str
    mode: str
    curves: tuple[tuple[float | None, ...], ...]

    @property
    def first(self) -> tuple[float | None, ...]:
        """By seed the reward of the first student within the budget."""
        return tuple(next((value for value in one if value is not None), None) for one in self.curves)

    @property
    def best(self) -> tuple[float | None, ...]:
        """By seed the reward of the best one."""
        return tuple(one[-1] if one else None for one in self.curves)

    @property
    def mean_first(self) -> float | None:
        """Over the seeds, None where one of them has no student within the budget."""
        return _mean(self.first)

    @property
    def mean_best(self) -> float | None:
        """The same of the best student."""
        return _mean(self.best)


@dataclass(frozen=True)
class Compared:
    """All sides on one network; `judged` students each, in `seeds` runs of the `stages`.

    `key` is a hash of the teacher, as in a card, and `parameters` its size; `notes` say what a reader must know.
    """

    teacher: str
    data: str
    key: str
    budget: str
    stages: tuple[str, ...]
    judged: int
    seeds: int
    sides: tuple[Side, ...]
    notes: tuple[str, ...] = ()
    parameters: int = 0

    def side(self, name: str, mode: str = "") -> Side:
        """The side of a name, and of a policy the mode."""
        return next(one for one in self.sides if (one.name, one.mode) == (name, mode))

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values, with the first and the best reward of each side."""
        sides = [{**asdict(one), "first": one.first, "best": one.best} for one in self.sides]
        return {**asdict(self), "sides": sides}


def compare_policies(
    policies: str | Path | Sequence[str | Path],
    network: nn.Module,
    example_inputs: Tensor | None,
    data: Data,
    *,
    max_params: BudgetValue | None = None,
    max_macs: BudgetValue | None = None,
    judged: int = 10,
    seeds: int = 3,
    first_seed: int = 0,
    against: Sequence[str] = BASELINES,
    policy_modes: Sequence[str] = ("zero-shot",),
    rung: str = RUNG,
    rollouts: int = 5,
    teacher_name: str = "",
    device: str = "cpu",
    progress: bool | Display = True,
    library: Library | None = None,
) -> Compared:
    """Lets each policy, and each agent that has learned nothing, search one network; nobody is distilled at length.

    Every side has `judged` students in each run, half of them in the removal stage, and plays the stages that all the
    policies have; without policies agents are compared, in both stages. A student that several sides find is judged
    once, which takes nothing from their counts.

    Args:
        policies: names of the library, or folders; one or several.
        network: the teacher; it is read and copied, never changed.
        example_inputs: prepared images [B, C, H, W] that it takes; None takes one from `data`.
        data: its train and validation splits are used.
        max_params, max_macs: what students may cost; without any, rewards weigh size against accuracy alone.
        judged: students for each side and run; half of them are of the removal stage where there are two stages (not
            for `uniform`, which shrinks alone).
        seeds: runs, with the seeds `first_seed`, `first_seed + 1`, ...
        against: names of `n2n.agents.AGENTS`.
        policy_modes: what is done with the policies, as in `n2n.search`; each makes a side of its own.
        rung: how students are judged, as in `n2n.evaluate.rungs`.
        rollouts: students in a batch; the first of a policy's first batch is its likeliest.
        teacher_name: what to call the network.

    Raises:
        PolicyError: a policy is missing or does not fit.
        SearchError: neither a policy nor an agent, an unknown one, or a budget that cannot be met.
    """
    wanted = [policies] if isinstance(policies, str | Path) else list(dict.fromkeys(policies))
    if not (wanted or against) or seeds < 1:
        raise SearchError(f"expected a policy or an agent and seeds >= 1, found {len(wanted)} and seeds={seeds}")
    unknown = [name for name in against if name not in AGENTS]
    if unknown:
        raise SearchError(f"against={unknown[0]!r} does not exist; choose from {', '.join(AGENTS)}")
    entries = [(library or Library.usual()).find(one) for one in wanted]
    stages = tuple(stage for stage in STAGES if all(stage in one.policies for one in entries))
    if not stages:
        raise SearchError("the policies have no stage in common: compare those of removal, or those of shrinkage")
    if judged < len(stages):
        raise SearchError(
            f"judged={judged}: expected {len(stages)} students or more, for the stages {', '.join(stages)}"
        )
    options = SearchOptions(
        max_params=max_params, max_macs=max_macs, evaluations=judged, rollouts=rollouts, ladder=(rung,), device=device,
        removal="removal" in stages, shrinkage="shrinkage" in stages, **learned_space(entries),
    )  # fmt: skip
    example = examples_of(data) if example_inputs is None else example_inputs
    sides: list[Side] = []
    notes = {f"{one.name} has more stages than are played: {', '.join(stages)}" for one in entries
             if len(one.policies) > len(stages)}  # fmt: skip
    key, parameters = "", 0
    with closing(display(progress)) as shown, tempfile.TemporaryDirectory() as folder, threads_put_back():
        shared = replace(options, cache=str(Path(folder) / "judged.sqlite"))
        for name, agent, mode, began in _sides(entries, against, list(dict.fromkeys(policy_modes))):
            shown.note(f"{name}{f', {mode}' if mode else ''}: {seeds} runs of {judged} students")
            found = []
            for seed in range(first_seed, first_seed + seeds):
                asked = replace(shared, agent=agent, seed=seed, policy_mode=mode or "warm")
                job = Job.prepare(network, example, data, asked, None, began=began, deadline=None)
                job = replace(job, finish=replace(job.finish, times_students=False))  # nothing here bounds a latency
                out, key = Path(folder) / f"{len(sides)}-{seed}", job.spaces.key
                parameters = job.finish.teacher.parameters
                out.mkdir()
                found.append(_curve(job, job.loop(out, shown)))
                notes |= {*job.notes}
            sides.append(Side(name, mode, tuple(found)))
    return Compared(
        teacher=teacher_name or type(network).__name__,
        data=data.training.name,
        key=key,
        budget=budget_text(options),
        stages=stages,
        judged=judged,
        seeds=seeds,
        sides=tuple(sides),
        notes=tuple(sorted(notes)),
        parameters=parameters,
    )


def comparison(compared: Compared, name: str, mode: str, *, held_back: bool) -> Comparison | None:
    """What a policy's card keeps of it; None where one side found no student within the budget."""
    policy, random = compared.side(name, mode).mean_best, compared.side("random").mean_best
    if policy is None or random is None:
        return None
    return Comparison(
        mode=mode,
        stages=" and ".join(compared.stages),
        teacher=compared.teacher,
        data=compared.data,
        budget=compared.budget,
        judged=compared.judged,
        policy=round(policy, 5),
        random=round(random, 5),
        seeds=compared.seeds,
        held_back=held_back,
    )


def _sides(
    entries: Sequence[Entry], against: Sequence[str], modes: Sequence[str]
) -> list[tuple[str, str, str, Entry | None]]:
    """Name, agent, mode and policy of each side."""
    learned = [(one.name, chosen_agent(None, one.policies, mode), mode, one) for one in entries for mode in modes]
    return [*learned, *((name, name, "", None) for name in against)]


def _curve(job: Job, found: Found) -> tuple[float | None, ...]:
    """The best reward of a student that keeps to the budget, after each one that was judged for the first time."""
    reward = job.reward(Budget())
    judged = [one.evaluation for one in found.records if not one.cached]
    best: float | None = None
    curve: list[float | None] = []
    for one in judged:
        if one.status is Status.INVALID:
            continue  # a refusal costs nothing
        if one.status is Status.OK and not job.budget.violations(one):
            best = reward(one) if best is None else max(best, reward(one))
        curve.append(best)
    return tuple(curve)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if values and len(known) == len(values) else None
