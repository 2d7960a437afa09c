"""The main job in one call: a trained teacher in; smaller distilled students, a learned policy and a report out.

This module only composes the rooms: `n2n.job` checks what it is given, runs the search loop of `n2n.search.two_stage`,
finishes the chosen students, and writes the run folder.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.utils.data import Dataset

from n2n.agents import AGENTS
from n2n.data import Data, from_dataset, load
from n2n.data import example_inputs as examples_of
from n2n.distill.probe import threads_put_back
from n2n.distill.recipe import full_epochs
from n2n.evaluate.ray_cluster import ray_running
from n2n.job import Job, MakeEvaluate, SearchResult
from n2n.job_agents import started_from
from n2n.policies import chosen_agent
from n2n.policies.files import DEFAULT_AGENT, LEARNING_AGENT
from n2n.policies.library import Library
from n2n.search.artefacts import TeacherName
from n2n.search.errors import SearchError
from n2n.search.lock import claimed, hold
from n2n.search.options import DEFAULT_FACTORS, BudgetValue, Granularity, SearchOptions, lines_of
from n2n.search.progress import Display, Logged, display
from n2n.search.resume import Earlier


def search(
    network: nn.Module,
    example_inputs: Tensor | None,
    data: Data | str | Dataset[Any] | tuple[Dataset[Any], Dataset[Any]],
    *,
    out: str | Path,
    max_params: BudgetValue | None = None,
    max_macs: BudgetValue | None = None,
    max_latency_ms: BudgetValue | None = None,
    max_size_mb: BudgetValue | None = None,
    evaluations: int = 60,
    seconds: float | None = None,
    seed: int = 0,
    agent: str | None = None,
    removal: bool = True,
    shrinkage: bool = True,
    granularity: Granularity = "layer",
    factors: Sequence[float] | None = None,
    round_to: int = 1,
    kernels: bool = False,
    rollouts: int = 5,
    steps: int = 60,
    objective: str = "kd",
    final_epochs: float | None = None,
    finalists: int = 2,
    importance: str = "l1",
    start: str = "refit",
    final_start: str | None = None,
    ladder: Sequence[str] = (),
    promote: float = 0.4,
    expects: Mapping[str, Sequence[float]] | None = None,
    shortfall: float | None = None,
    evaluate: str | None = None,
    prefilter: str | None = None,
    prefilter_ratio: int | None = None,
    population: int | None = None,
    tournament: int | None = None,
    cache: str | Path | None = None,
    policy: str | Path | None = None,
    policy_mode: str = "warm",
    teacher_name: str | Mapping[str, Any] | None = None,
    ignored_layers: Sequence[str] = (),
    device: str = "cpu",
    precision: str = "auto",
    workers: int | str = 0,
    address: str | None = None,
    asynchronous: bool = False,
    gpus_per_worker: float = 0.0,
    threads: int | str | None = None,
    force: bool = False,
    resume: bool = False,
    progress: bool | Display = True,
    make_evaluate: MakeEvaluate | None = None,
    command: Mapping[str, Any] | None = None,
) -> SearchResult:
    """Finds smaller students of a trained network, distils the best, and writes everything into the folder `out`.

    Args:
        network: the teacher; it is read and copied, never changed.
        example_inputs: prepared images [B, C, H, W] that it takes; None takes one from `data`.
        data: a `Data`, what `n2n.data.load` takes, or torch Datasets: one, or a pair (train, test). The search sees its
            train and validation splits only.
        max_params, max_macs, max_latency_ms, max_size_mb: budgets, numbers or shares of the teacher's such as "20%"; a
            student meets all that are given. Parameters, MACs and size hold by construction, latency is measured.
        evaluations: students to judge in all; half of them in the removal stage (a single one is for the last stage).
            seconds: bounds the whole call; a long distillation is cut short for it. The first limit that is reached
            ends the loop.
        agent: a name of `n2n.agents.AGENTS`; by default the agent of the policy, or "uniform", which
            scales all widths alike, removes nothing and learns nothing; "reinforce" with `shrinkage=False` or
            `asynchronous=True`.
        removal, shrinkage, granularity, factors, round_to, kernels, ignored_layers: see `search_spaces`.
        rollouts: students per batch. steps: distillation steps of one judgement. objective: a name of
            `n2n.distill.objectives.OBJECTIVES`, or a weighted sum, "kd:0.9,T=4 + similarity:3000"; one that looks
            at feature maps is refused for a network without any. One that brings modules of its own is for the long
            distillation and rungs in epochs; judgements by steps take "kd" then.
        final_epochs, finalists: how long, and how many of the best students are distilled at the end; by default three
            epochs, or as many as make 600 steps on small data.
        importance: by what the channels that survive are chosen.
        start: what students start from: the teacher's weights solved for its values in closed form ("refit"; `steps=0`
            then judges without any training), these weights as they are ("inherited"), or "fresh".
        final_start: what the finalists start from in the long distillation; by default "inherited", or "fresh" where
            students are judged so.
        ladder: rungs to judge by instead of `steps` and `start`, cheapest first: "START:STEPS" or "START:EPOCHSe",
            each with ":OBJECTIVE" where it is not `objective`, e.g. ("refit:0", "refit:60"). All students of
            a batch are judged on the first, the better share `promote` of them on the next, and so on.
        expects: by rung (intercept, slope, residual), the accuracy to expect after a long distillation from what the
            rung says of a student, as `n2n.calibrate` finds it and writes it into `ladder.toml`; rewards are then of
            that accuracy.
        shortfall: which share of what a quickly judged student lacks to the teacher's accuracy its reward counts
            (`n2n.reward.expected_accuracy`), 1 for all of it, as in the paper; by default `n2n.reward.SHORTFALL`, and 1
            for judgements in epochs, with `expects` and with `make_evaluate`.
        evaluate: a name of `n2n.scores.SCORES`: students are judged by that training-free score of their untrained
            networks (those of `n2n.scores.SOLVES` look at what is inherited) instead of a distillation, and rewarded by
            `n2n.reward.make_score_reward`, C (2 - C) times where the score lies among those of 16 random students. The
            finalists are distilled as always.
        prefilter: a name of `SCORES`: in each batch `prefilter_ratio` times `rollouts` students are scored, and as many
            as `rollouts` of them distilled: those of which most is expected, and, for the agents that follow a gradient
            (`n2n.agents.GRADIENT`), one in five by chance, so that what they learn is right on average
            (`n2n.search.filtered`). `evaluations` counts those that are distilled.
        prefilter_ratio: 8 by default. population, tournament: of the agent "evolution".
        cache: a file of judgements that runs on the same teacher and data share; a student that is in it is not judged
            again, and the search goes the same way as without it.
        policy: a name of the policy library, a policy folder, or a run's. Of its stages those are used that the search
            runs.
        policy_mode: "warm" goes on learning from it; "zero-shot" only acts with it, the likeliest student first;
            "proposal" lets evolution draw founders and mutations from it.
        teacher_name: the built-in teacher's name, or {"name": ..., "kwargs": {...}}, so that `load_student` needs no
            `network=`.
        workers: judge in that many Ray workers; 0 for this process, "auto" for as many as there is room for.
        address: of a running Ray cluster whose machines the workers are to use ("auto" finds one that was started
            here); None keeps to this machine.
        gpus_per_worker: with `device="cuda"`, the share of a GPU that each worker is given, e.g. 0.25; 0 leaves sharing
            to chance.
        threads: of torch while the search runs, a number up to the machine's cores; None leaves them as they are.
            "auto" times training steps of the teacher for half a second first, and chooses the threads, and within what
            `precision` allows the number format and the memory layout, by what it finds (`n2n.distill.probe`).
        force: replace the run in `out`.
        resume: go on with the run in `out`, which was cut off: the other arguments must be those that it was started
            with (`workers`, `seconds` and `cache` may differ). No judgement that is stored is made again, and the
            search goes on as it would have.
        progress: show it on standard error; or a display of your own (`n2n.search.progress.Display`).
        make_evaluate: another judge of a space's students, instead of quick distillation.
        command: JSON values to keep in the run's configuration.

    Raises:
        SearchError: something cannot work as asked (classes, shapes, an impossible budget, no decision, ...), before
            anything is written; or all the first students of a stage fail for the same reason.
        ArtefactError: `out` holds something and `force` is off, or another search is at work there.
        PolicyError: `policy` does not fit.
        PoolError: the workers do not fit into the memory, cores or GPUs (with the arithmetic), or no cluster is there.
        WriteError: the file system refused.
    """
    if not isinstance(network, nn.Module):
        raise SearchError(f"network: expected a torch.nn.Module, found {type(network).__name__}")
    deadline = None if seconds is None else time.monotonic() + seconds
    data = read_data(data, seed)
    began = started_from(policy, Path(out) if resume else None, Library.usual())
    policies = {} if began is None else began.policies
    if agent is not None and agent not in AGENTS:
        raise SearchError(f"agent={agent!r} does not exist; choose one of {', '.join(AGENTS)}")
    usual = DEFAULT_AGENT if shrinkage and not asynchronous else LEARNING_AGENT
    options = SearchOptions(
        max_params=max_params,
        max_macs=max_macs,
        max_latency_ms=max_latency_ms,
        max_size_mb=max_size_mb,
        evaluations=evaluations,
        seconds=seconds,
        seed=seed,
        agent=chosen_agent(agent, policies, policy_mode, usual=usual),
        removal=removal,
        shrinkage=shrinkage,
        granularity=granularity,
        factors=DEFAULT_FACTORS if factors is None else tuple(factors),
        round_to=round_to,
        kernels=kernels,
        rollouts=rollouts,
        steps=steps,
        objective=objective,
        final_epochs=full_epochs(len(data.train)) if final_epochs is None else final_epochs,
        finalists=finalists,
        importance=importance,
        start=start,
        final_start=final_start,
        ladder=tuple(ladder),
        promote=promote,
        expects=lines_of(expects or {}),
        shortfall=1.0 if shortfall is None and make_evaluate is not None else shortfall,
        evaluate=evaluate,
        prefilter=prefilter,
        prefilter_ratio=prefilter_ratio,
        population=population,
        tournament=tournament,
        cache=None if cache is None else str(cache),
        policy_mode=policy_mode,
        ignored_layers=tuple(ignored_layers),
        device=device,
        precision=precision,
        workers=workers,
        address=address,
        asynchronous=asynchronous,
        gpus_per_worker=gpus_per_worker,
        threads=threads,
    )
    unused = {
        "cache": cache,
        "ladder": tuple(ladder),
        "evaluate": evaluate,
        "prefilter": prefilter,
        "workers": workers,
        "asynchronous": asynchronous,
    }
    if make_evaluate is not None and any(unused.values()):
        names = ", ".join(name for name, value in unused.items() if value)
        raise SearchError(f"make_evaluate is the judge: {names} would have no effect beside it; leave out one of both")
    with threads_put_back():
        job = Job.prepare(
            network,
            examples_of(data) if example_inputs is None else example_inputs,
            data,
            options,
            TeacherName.read(teacher_name),
            began=began,
            deadline=deadline,
            earlier=Earlier.read(Path(out)) if resume else None,
        )
        with (
            hold(Path(out)) if resume else claimed(Path(out), force=force),
            ray_running(0 if make_evaluate else workers, address=address),
            Logged(display(progress), Path(out) / "run.log") as shown,
        ):
            if policy is not None:
                shown.note(f"policy {policy} ({options.policy_mode}), for {' and '.join(job.policies)}")
            return job.run(Path(out), shown, make_evaluate, command)


def read_data(data: Data | str | Dataset[Any] | tuple[Dataset[Any], Dataset[Any]], seed: int) -> Data:
    """What `search` takes as data, read; `seed` draws the validation split.

    Raises:
        SearchError: none of what can be read; what can is listed.
    """
    if isinstance(data, Data):
        return data
    if isinstance(data, str):
        return load(data, seed=seed)
    train, test = data if isinstance(data, tuple) and len(data) == 2 else (data, None)
    if not isinstance(train, Dataset) or not isinstance(test, Dataset | None):
        found = f"a pair ({type(train).__name__}, {type(test).__name__})" if test is not None else type(train).__name__
        raise SearchError(
            "data: expected a Data, a name, a path, 'module:function', a torch Dataset or a pair (train, test) of "
            f"Datasets, found {found}; of a DataLoader pass its .dataset"
        )
    return from_dataset(train, test, name=type(train).__name__, seed=seed)
