"""The main job in one call: a trained teacher in; smaller distilled students, a learned policy and a report out.

This module only composes the rooms: it checks what it is given, runs the search loop of `n2n.search.two_stage`,
finishes the chosen students, and writes the run folder.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.utils.data import Dataset

from n2n.agents import AGENTS
from n2n.agents.base import Agent
from n2n.data import Data, from_dataset, load, prepare
from n2n.data import example_inputs as examples_of
from n2n.distill.recipe import full_epochs, full_recipe, total_steps
from n2n.distill.teacher import Teacher
from n2n.evaluate.base import Evaluate, Evaluation
from n2n.evaluate.cached import cached
from n2n.evaluate.distillation import distillation
from n2n.evaluate.ray_pool import ray_pool
from n2n.policies import Policy, PolicyMeta, load_policies, save_policy
from n2n.report import write_report
from n2n.reward import Budget, Reward, make_reward, parse_budget
from n2n.search.artefacts import ForwardFn, TeacherName
from n2n.search.checks import check_network, warn_of_chance
from n2n.search.conclude import Finish, StudentResult, conclude, write_front
from n2n.search.environment import environment
from n2n.search.errors import SearchError
from n2n.search.files import claim_folder, write_json
from n2n.search.finish import Figures, choose, measure
from n2n.search.options import DEFAULT_FACTORS, BudgetValue, Granularity, SearchOptions
from n2n.search.progress import Display, Logged, display
from n2n.search.spaces import TeacherSpaces, check_budget, smallest_cost
from n2n.search.stage import StageResult
from n2n.search.store import first_judgements
from n2n.search.summary import config_json, remarks, result_json
from n2n.search.two_stage import Found, Rewards, two_stage
from search_spaces import weight_gradients
from search_spaces.base import FEATURES, Cost, SearchSpace

KEEP_BIAS = 2.2
"""The removal policy starts by keeping nine layers of ten: without half of its layers no teacher is worth a try."""
QUICK_VALIDATION = 2000
"""Validation images that a student is judged on in the search; a finished student is measured on all of them."""

GRADIENT_IMAGES = 512
"""Training images whose gradient ranks channels where importance is "taylor"."""

MakeEvaluate = Callable[[SearchSpace], Evaluate]
OpenJudge = Callable[[SearchSpace], AbstractContextManager[Evaluate]]


@dataclass(frozen=True)
class SearchResult:
    """What a search leaves behind; all of it is also in the folder `out`.

    `front` is the Pareto front of quick accuracies over parameters, cheapest first; `students` are finished, best
    reward first; `stopped` names the limit that ended the loop, or "interrupted"; `overhead` is the share of the loop's
    wall time that was not evaluation.
    """

    out: Path
    front: tuple[Evaluation, ...]
    students: tuple[StudentResult, ...]
    teacher: Figures
    stopped: str
    evaluations: int
    hits: int
    seconds: float
    overhead: float
    notes: tuple[str, ...] = ()

    @property
    def meets_budget(self) -> bool:
        """Whether there is a finished student, and the best one misses no budget."""
        return bool(self.students) and self.students[0].meets_budget


def search(
    network: nn.Module,
    example_inputs: Tensor | None,
    data: Data | str | Dataset[Any] | tuple[Dataset[Any], Dataset[Any]],
    *,
    out: str | Path,
    max_params: BudgetValue | None = None,
    max_macs: BudgetValue | None = None,
    max_latency_ms: float | None = None,
    evaluations: int = 60,
    seconds: float | None = None,
    seed: int = 0,
    agent: str = "reinforce",
    removal: bool = True,
    shrinkage: bool = True,
    granularity: Granularity = "layer",
    factors: Sequence[float] | None = None,
    round_to: int = 1,
    rollouts: int = 5,
    steps: int = 100,
    objective: str = "kd",
    final_epochs: float | None = None,
    finalists: int = 2,
    importance: str = "l1",
    inherit: bool = True,
    policy: str | Path | None = None,
    teacher_name: str | Mapping[str, Any] | None = None,
    ignored_layers: Sequence[str] = (),
    forward_fn: ForwardFn | None = None,
    device: str = "cpu",
    precision: str = "auto",
    workers: int = 0,
    force: bool = False,
    progress: bool = True,
    make_evaluate: MakeEvaluate | None = None,
) -> SearchResult:
    """Finds smaller students of a trained network, distils the best, and writes everything into the folder `out`.

    Args:
        network: the teacher; it is read and copied, never changed.
        example_inputs: prepared images [B, C, H, W] that it takes; None takes one from `data`.
        data: a `Data`, what `n2n.data.load` takes, or torch Datasets: one, or a pair (train, test). The search sees its
            train and validation splits only.
        max_params, max_macs: budgets, numbers or shares of the teacher's such as "20%". max_latency_ms: in ms.
        evaluations: students to judge in all; half of them in the removal stage. seconds: bounds the whole call, as far
            as the long distillation can be foreseen. The first limit that is reached ends the loop.
        agent: a name of `n2n.agents.AGENTS`.
        removal, shrinkage, granularity, factors, round_to, ignored_layers, forward_fn: see `search_spaces`.
        rollouts: students per batch. steps: distillation steps of one judgement. objective: "kd", "logit_mse" or "ce".
        final_epochs, finalists: how long, and how many of the best students are distilled at the end; by default three
            epochs, or as many as make 600 steps on small data.
        importance, inherit: which channels survive, and whether students start with the teacher's weights.
        policy: a policy folder, or a run's, to start the agent from.
        teacher_name: the built-in teacher's name, or {"name": ..., "kwargs": {...}}, so that `load_student` needs no
            `network=`.
        workers: judge in that many Ray workers, 0 for this process.
        force: replace the run in `out`. progress: show it on standard error.
        make_evaluate: another judge of a space's students, instead of quick distillation.

    Raises:
        SearchError: something cannot work as asked (classes, shapes, an impossible budget, no decision, ...).
        ArtefactError: `out` holds something and `force` is off.
        PolicyError: `policy` does not fit.
        WriteError: the file system refused.
    """
    data = _data(data, seed)
    options = SearchOptions(
        max_params=max_params,
        max_macs=max_macs,
        max_latency_ms=max_latency_ms,
        evaluations=evaluations,
        seconds=seconds,
        seed=seed,
        agent=agent,
        removal=removal,
        shrinkage=shrinkage,
        granularity=granularity,
        factors=DEFAULT_FACTORS if factors is None else tuple(factors),
        round_to=round_to,
        rollouts=rollouts,
        steps=steps,
        objective=objective,
        final_epochs=full_epochs(len(data.train)) if final_epochs is None else final_epochs,
        finalists=finalists,
        importance=importance,
        inherit=inherit,
        ignored_layers=tuple(ignored_layers),
        device=device,
        precision=precision,
        workers=workers,
    )
    if agent not in AGENTS:
        raise SearchError(f"agent={agent!r} does not exist; choose one of {', '.join(AGENTS)}")
    job = _Job.prepare(
        network,
        examples_of(data) if example_inputs is None else example_inputs,
        data,
        options,
        TeacherName.read(teacher_name),
        policies={} if policy is None else load_policies(policy),
        forward_fn=forward_fn,
    )
    claim_folder(Path(out), force=force)
    with Logged(display(progress), Path(out) / "run.log") as shown:
        return job.run(Path(out), shown, job.distilling if make_evaluate is None else partial(_plain, make_evaluate))


@dataclass(frozen=True)
class _Job:
    """A search that passed its checks."""

    finish: Finish
    spaces: TeacherSpaces
    budget: Budget
    policies: Mapping[str, Policy]

    @classmethod
    def prepare(
        cls,
        network: nn.Module,
        example: Tensor,
        data: Data,
        options: SearchOptions,
        teacher_name: TeacherName | None,
        *,
        policies: Mapping[str, Policy],
        forward_fn: ForwardFn | None,
    ) -> _Job:
        """Everything that can be refused is refused here, before a file is written or a student judged."""
        check_network(network, example, data.training, forward_fn=forward_fn)
        name = teacher_name.name if teacher_name else type(network).__name__
        teacher = Teacher(network, data.training, name=name, device=options.device, precision=options.precision)
        warn_of_chance(teacher)
        budget = Budget(
            max_parameters=_amount(options.max_params, teacher.parameters),
            max_macs=_amount(options.max_macs, teacher.macs),
            max_latency_ms=options.max_latency_ms,
        )
        spaces = TeacherSpaces(network, example, options, forward_fn, _gradients(teacher, data, options))
        check_budget(budget, smallest_cost(spaces, options.stages), Cost(teacher.parameters, teacher.macs))
        for stage, policy in policies.items():
            actions = 2 if stage == "removal" else len(options.factors)
            policy.check(agent=options.agent, stage=stage, num_actions=actions)
        return cls(Finish(teacher, data, example, options, teacher_name), spaces, budget, policies)

    def run(self, out: Path, shown: Display, open_judge: OpenJudge) -> SearchResult:
        """Searches, concludes, and writes the run folder."""
        options = self.finish.options
        write_json(out / "config.json", config_json(self.finish, self.policies))
        write_json(out / "environment.json", environment(options.seed, options.device))
        found = two_stage(
            self.spaces,
            options,
            open_judge=open_judge,
            make_agent=self.agent,
            rewards=Rewards(free=self._reward(Budget()), bounded=self._reward(self.budget)),
            budget=self.budget,
            out=out,
            display=shown,
            finish_seconds=self._finish_seconds,
        )
        return self._conclude(found, out, shown)

    def agent(self, stage: str, space: SearchSpace) -> Agent:
        """The agent of a stage, with the weights of the policy that it starts from, where there is one."""
        options = self.finish.options
        own: dict[str, Any] = {}
        if options.agent == "reinforce":
            own = {"policy": stage, "keep_bias": KEEP_BIAS if stage == "removal" else 0.0}
        agent = AGENTS[options.agent](
            len(FEATURES), space.num_actions, space.num_decisions, seed=stage_seed(options.seed, stage), **own
        )
        if stage in self.policies:
            agent.load(self.policies[stage].state)
        return agent

    @contextmanager
    def distilling(self, space: SearchSpace) -> Iterator[Evaluate]:
        """Quick distillation of a space's students, here or in workers that end with the stage."""
        options = self.finish.options
        judge = distillation(
            space,
            self.finish.teacher,
            self.finish.data.training,
            steps=options.steps,
            objective=options.objective,
            validation_subset=QUICK_VALIDATION,
            seed=options.seed,
            device=options.device,
            precision=options.precision,
            inherit=options.inherit,
            importance=options.importance,
            measure_latency=options.max_latency_ms is not None,
        )
        if options.workers == 0:
            yield cached(judge)
            return
        with ray_pool(partial(_same, judge), workers=options.workers, space=space) as pool:
            yield cached(pool)

    def _reward(self, budget: Budget) -> Reward:
        teacher = self.finish.teacher
        return make_reward(teacher_accuracy=teacher.accuracy, teacher_parameters=teacher.parameters, budget=budget)

    def _finish_seconds(self, mean_seconds: float) -> float:
        """What the long distillation will take, from the mean seconds of one quick one."""
        options = self.finish.options
        steps = total_steps(full_recipe(epochs=options.final_epochs), len(self.finish.data.train))
        return options.finalists * mean_seconds * steps / options.steps

    def _conclude(self, found: Found, out: Path, shown: Display) -> SearchResult:
        """Everything after the loop; the front and the policies first, for they are there already."""
        begun = time.perf_counter()
        finish = self.finish
        judged = [one.evaluation for one in first_judgements(found.records)]
        front = write_front(out / "front.csv", judged)
        for stage in found.stages:
            _save_policy(out, stage, finish)
        choices = choose(judged, self.budget, self._reward(Budget()), finish.options.finalists)
        space_of = {one.evaluation.fingerprint: found.spaces[one.stage] for one in found.records}
        done = conclude(choices, space_of, finish, out, shown, interrupted=found.stopped == "interrupted")
        done.notes[:0] = remarks(choices, judged, finish)
        teacher = measure(
            finish.teacher.network,
            finish.example_inputs,
            finish.data,
            device=finish.options.device,
            precision=finish.options.precision,
        )
        result = SearchResult(
            out=out,
            front=front,
            students=tuple(done.students),
            teacher=teacher,
            stopped=found.stopped,
            evaluations=found.evaluations,
            hits=found.hits,
            seconds=found.seconds,
            overhead=found.overhead,
            notes=tuple(done.notes),
        )
        seconds = time.perf_counter() - begun
        summary = result_json(found, finish, self.budget, teacher, done.students, done.notes, finish_seconds=seconds)
        write_json(out / "result.json", summary)
        write_report(out)
        return result


def stage_seed(seed: int, stage: str) -> int:
    """The seed of a stage's agent, so that the two stages do not draw the same numbers."""
    return 2 * seed + (stage == "shrinkage")


@contextmanager
def _plain(make_evaluate: MakeEvaluate, space: SearchSpace) -> Iterator[Evaluate]:
    yield cached(make_evaluate(space))


def _same(judge: Evaluate) -> Evaluate:
    return judge


def _data(data: Data | str | Dataset[Any] | tuple[Dataset[Any], Dataset[Any]], seed: int) -> Data:
    if isinstance(data, Data):
        return data
    if isinstance(data, str):
        return load(data, seed=seed)
    train, test = data if isinstance(data, tuple) else (data, None)
    return from_dataset(train, test, name=type(train).__name__, seed=seed)


def _gradients(teacher: Teacher, data: Data, options: SearchOptions) -> dict[str, Tensor] | None:
    """What the importance "taylor" needs: gradients on some training images; None for the others."""
    if options.importance != "taylor":
        return None
    some = slice(GRADIENT_IMAGES)
    images = prepare(data.train.images[some], mean=data.training.mean, std=data.training.std).to(teacher.device)
    return weight_gradients(teacher.network, images, data.train.labels[some].to(teacher.device))


def _amount(value: BudgetValue | None, teacher_value: float) -> float | None:
    try:
        return parse_budget(value, teacher_value)
    except ValueError as error:
        raise SearchError(str(error)) from error


def _save_policy(out: Path, stage: StageResult, finish: Finish) -> None:
    """Writes the agent's weights; agents without leave nothing."""
    if not stage.state:
        return
    meta = PolicyMeta(
        agent=finish.options.agent,
        stage=stage.name,
        num_actions=stage.num_actions,
        num_decisions=stage.num_decisions,
        seed=finish.options.seed,
        updates=stage.updates,
        network=finish.teacher.name,
    )
    save_policy(out / "policies" / stage.name, stage.state, meta)
