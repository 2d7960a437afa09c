"""Searching a published space in one call: a score in; the best codes, trained if wanted, and a run folder out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from n2n.agents import AGENTS
from n2n.data import Data, example_inputs
from n2n.distill.fit import check_objective
from n2n.distill.objectives.expression import parse
from n2n.distill.probe import threads_put_back
from n2n.distill.recipe import full_epochs
from n2n.distill.teacher import Teacher
from n2n.evaluate.base import Status
from n2n.evaluate.ray_cluster import ray_running
from n2n.main_job import read_data
from n2n.search.artefacts import TeacherName
from n2n.search.checks import SAME_WIDTH, check_network, warn_of_chance
from n2n.search.errors import SearchError
from n2n.search.lock import claimed, hold
from n2n.search.options import BudgetValue
from n2n.search.progress import Display, Logged, display
from n2n.search.resume import Earlier
from n2n.search.space_options import SpaceOptions, opened_for
from n2n.space_job import SpaceJob, SpaceResult
from search_spaces.smallest import smallest

TRIED = 4
"""Random students that are asked for a score which the smallest does not have."""


def search_space(
    space: str,
    data: Data | str | Dataset[Any] | tuple[Dataset[Any], Dataset[Any]],
    *,
    out: str | Path,
    evaluate: str,
    agent: str | None = None,
    max_params: BudgetValue | None = None,
    max_macs: BudgetValue | None = None,
    max_size_mb: BudgetValue | None = None,
    evaluations: int = 60,
    seconds: float | None = None,
    seed: int = 0,
    rollouts: int = 5,
    population: int | None = None,
    tournament: int | None = None,
    space_args: Mapping[str, Any] | None = None,
    against: str | None = None,
    teacher: nn.Module | None = None,
    teacher_name: str | Mapping[str, Any] | None = None,
    objective: str | None = None,
    final_epochs: float | None = None,
    finalists: int = 2,
    cache: str | Path | None = None,
    device: str = "cpu",
    precision: str = "auto",
    workers: int | str = 0,
    address: str | None = None,
    gpus_per_worker: float = 0.0,
    threads: int | None = None,
    force: bool = False,
    resume: bool = False,
    progress: bool | Display = True,
    command: Mapping[str, Any] | None = None,
) -> SpaceResult:
    """Finds the students of a published space that a training-free score likes best, and trains the best of them.

    Args:
        space: a name of `search_spaces.PUBLISHED`, opened for the data's classes and images.
        data: as of `n2n.search`; scores look at train images only.
        evaluate: a name of `n2n.scores.SCORES`. Students are rewarded by where the score lies among those of 16 random
            students of the space, whatever their size (`n2n.reward.make_score_reward` without a teacher).
        agent: a name of `n2n.agents.AGENTS`; by default "ppo", or "evolution" where one of its options is given.
        population, tournament: of the agent "evolution".
        max_params, max_macs, max_size_mb: budgets, numbers or shares of the largest network's such as "20%". Only what
            keeps to them can be decided.
        evaluations: students to score. seconds: bounds the whole call. rollouts: students per batch.
        space_args: arguments of the space that differ from what the data say, such as {"classes": 100}.
        against: the short form of what teacher-aware scores compare with, by default the largest network.
        teacher: a trained network on the same data, from which the finalists are distilled; it is read and copied,
            never changed. teacher_name: see `n2n.search`.
        objective: what finalists are trained by, from fresh weights: "kd" of the teacher, without one the labels alone,
            "ce".
        final_epochs, finalists: how long, and how many of the best are trained; 0 epochs trains nobody. By default
            three epochs, or as many as make 600 steps on small data.
        cache, device, precision, workers, address, gpus_per_worker, threads, force, resume, progress, command: see
            `n2n.search`.

    Raises:
        SearchError: something cannot work as asked, before anything is written; or nothing can be scored.
        SpaceError: no student keeps to the budgets (the least is told), an argument of the space is out of its range,
            or `against` is none of its codes.
        ArtefactError, PoolError, WriteError: see `n2n.search`.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    data = read_data(data, seed)
    agent = agent or ("ppo" if population is None and tournament is None else "evolution")
    if agent not in AGENTS:
        raise SearchError(f"agent={agent!r} does not exist; choose one of {', '.join(AGENTS)}")
    whole = opened_for(space, data.training, space_args or {})
    images = whole.family.images
    options = SpaceOptions(
        space=space,
        space_args={"classes": images.classes, "channels": images.channels, "image_size": images.image_size},
        evaluate=evaluate,
        against=against,
        max_params=max_params,
        max_macs=max_macs,
        max_size_mb=max_size_mb,
        evaluations=evaluations,
        seconds=seconds,
        seed=seed,
        agent=agent,
        rollouts=rollouts,
        population=population,
        tournament=tournament,
        objective=objective or ("ce" if teacher is None else "kd"),
        final_epochs=full_epochs(len(data.train)) if final_epochs is None else final_epochs,
        finalists=finalists,
        cache=None if cache is None else str(cache),
        device=device,
        precision=precision,
        workers=workers,
        address=address,
        gpus_per_worker=gpus_per_worker,
        threads=threads,
    )
    earlier = Earlier.read(Path(out)) if resume else None
    with threads_put_back():
        used = threads if earlier is None else earlier.threads
        if used is not None:
            torch.set_num_threads(used)
        name = TeacherName.read(teacher_name)
        guide = _teacher(teacher, name, data, options)
        job = SpaceJob.prepare(
            whole, data, options, teacher=guide, teacher_name=name, deadline=deadline, earlier=earlier
        )
        _check_score(job)
        with (
            hold(Path(out)) if resume else claimed(Path(out), force=force),
            ray_running(workers, address=address),
            Logged(display(progress), Path(out) / "run.log") as shown,
        ):
            return job.run(Path(out), shown, command)


def _teacher(network: nn.Module | None, name: TeacherName | None, data: Data, options: SpaceOptions) -> Teacher | None:
    """What finalists are distilled from, where there is anything.

    Raises:
        SearchError: the network is none for these data, would have no effect, or the objective needs one.
    """
    if network is None:
        if options.final_epochs and parse(options.objective).needs_teacher:
            raise SearchError(
                f"objective={options.objective!r} needs a teacher: give teacher= (--teacher FOLDER), or take 'ce'"
            )
        return None
    if not options.final_epochs:
        raise SearchError("a teacher with final_epochs=0 has no effect: nobody is trained; leave out one of both")
    check_network(network, example_inputs(data), data.training)
    teacher = Teacher(
        network,
        data.training,
        name=name.name if name else type(network).__name__,
        device=options.device,
        precision="fp32" if options.precision == "fp32" else "auto" if options.precision == "auto" else "bf16",
    )
    warn_of_chance(teacher)
    check_objective(options.objective, teacher)
    return teacher


def _check_score(job: SpaceJob) -> None:
    """Refuses a score that the smallest student and some random ones do not have, before there is a run folder.

    One that compares channel by channel is refused where the smallest has fewer channels than what it compares with.

    Raises:
        SearchError: the first reason is told.
    """
    score = job.options.evaluate
    found = job.scoring([smallest(job.space)])[0]
    if found.status is Status.OK:
        return
    if score in SAME_WIDTH:
        raise SearchError(
            f"evaluate={score!r}: the smallest student of {job.space.name} cannot be scored ({found.reason}); take"
            " 'diswot_free', which compares any widths, or compare with a narrower network (against, --against)"
        )
    rng = np.random.default_rng(job.options.seed)
    others = job.scoring([job.space.random(rng) for _ in range(TRIED)])
    if all(one.status is not Status.OK for one in others):
        raise SearchError(f"evaluate={score!r}: no student of {job.space.name} has this score ({others[0].reason})")
