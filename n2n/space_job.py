"""A search of a published space by a training-free score, without a teacher to start from.

This module only composes the rooms: the space is a `SearchSpace` like those over a teacher, so that agents, the stage,
the store, resumption and the report are those of every search. `n2n.space_main` is the function for users.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from n2n.agents import AGENTS, EVOLUTION
from n2n.agents.base import Agent
from n2n.data import Data, example_inputs
from n2n.distill.recipe import forward_passes, full_recipe
from n2n.distill.teacher import Teacher, fingerprint
from n2n.evaluate.base import Evaluate, Evaluation
from n2n.evaluate.cached import Cached, cached
from n2n.evaluate.memory import Memory, remembered
from n2n.evaluate.pool_plan import PoolOptions
from n2n.evaluate.ray_pool import ray_pools
from n2n.evaluate.scoring import Scoring, scoring
from n2n.networks import Timings, training_bytes
from n2n.policies import save_stage
from n2n.population import BATCH, largest
from n2n.report import write_report
from n2n.reward import Budget, ScoreReward, make_score_reward
from n2n.search.artefacts import TeacherName
from n2n.search.budgets import TEACHER
from n2n.search.conclude import Concluded, Persistence, StudentResult, concluding
from n2n.search.environment import environment
from n2n.search.files import write_json
from n2n.search.finish import Choice
from n2n.search.front import write_front
from n2n.search.judges import key, pool_threads
from n2n.search.limits import Limits
from n2n.search.one_stage import one_stage
from n2n.search.progress import Display
from n2n.search.reference import reference_scores
from n2n.search.resume import CONFIG, ENVIRONMENT, JOURNAL, Earlier
from n2n.search.space_finish import BEST, Scored, SpaceFinish, best_of, scored
from n2n.search.space_options import SpaceOptions, budget_within
from n2n.search.spaces import limits_of
from n2n.search.stage import nothing_stored
from n2n.search.store import first_judgements
from n2n.search.summary import FORMAT, data_json, loop_json
from n2n.search.two_stage import LONGEST_RESERVE, Found
from search_spaces.base import FEATURES, SearchSpace
from search_spaces.published import PublishedSpace


@dataclass(frozen=True)
class SpaceResult:
    """What a search of a published space leaves behind; all of it is also in the folder `out`.

    `best` are the codes of the highest scores, best first; `front` is the Pareto front of score over parameters,
    cheapest first; `students` are the trained finalists, in the order of `best`; `stopped`, `overhead` and `reused` are
    as in `n2n.SearchResult`.
    """

    out: Path
    best: tuple[Scored, ...]
    front: tuple[Evaluation, ...]
    students: tuple[StudentResult, ...]
    stopped: str
    evaluations: int
    hits: int
    seconds: float
    overhead: float
    notes: tuple[str, ...] = ()
    reused: int = 0


@dataclass(frozen=True)
class SpaceJob:
    """A search that passed its checks; `space` is the one within the budget, `scoring` judges its students."""

    space: PublishedSpace
    finish: SpaceFinish
    budget: Budget
    scoring: Scoring
    room: int
    memories: tuple[Memory, ...] = ()
    teacher_name: TeacherName | None = None
    deadline: float | None = None
    earlier: Earlier | None = None

    @classmethod
    def prepare(
        cls,
        whole: PublishedSpace,
        data: Data,
        options: SpaceOptions,
        *,
        teacher: Teacher | None,
        teacher_name: TeacherName | None,
        deadline: float | None,
        earlier: Earlier | None,
    ) -> SpaceJob:
        """Everything that can be refused is refused here, before a file is written or a student judged."""
        budget = budget_within(options, whole.teacher_cost)
        space = whole.within(limits_of(budget))
        compared = largest(whole) if options.against is None else whole.from_code(options.against)
        other = whole.build(compared, inherit=False, seed=options.seed)  # as `n2n score` does
        judge = scoring(
            space,
            data.training,
            score=options.evaluate,
            batch=BATCH,
            seed=options.seed,
            device=options.device,
            against=other.to(options.device),
        )
        inputs = example_inputs(data).to(options.device)
        finish = SpaceFinish(space, data, inputs, options, Timings(inputs[:1]), teacher)
        memories: tuple[Memory, ...] = ()
        if options.cache is not None:
            memories = (Memory(options.cache, teacher=_key(other, space), data=data.training.key),)
        room = training_bytes(other, inputs[:1], BATCH) if options.workers else 0
        job = cls(space, finish, budget, judge, room, memories, teacher_name, deadline, earlier)
        if earlier is not None:
            earlier.check(job.config(None))
        return job

    @property
    def options(self) -> SpaceOptions:
        """What was asked for."""
        return self.finish.options

    def config(self, command: Mapping[str, Any] | None) -> dict[str, Any]:
        """The resolved configuration; `command` is what was asked for on the command line."""
        data, teacher, name = self.finish.data, self.finish.teacher, self.teacher_name
        return {
            **self.options.to_json(),
            "teacher": None if name is None else {"name": name.name, "kwargs": dict(name.kwargs)},
            "teacher_fingerprint": None if teacher is None else teacher.fingerprint,
            "data": data.name,
            "data_fingerprint": data.fingerprint,
            "space_key": self._compared_key,
            "data_key": data.training.key,
            "command": None if command is None else dict(command),
        }

    @property
    def _compared_key(self) -> str:
        """A hash of the space and of the network that scores compare with."""
        compared = self.scoring.probes[0].teacher
        assert compared is not None  # `prepare` gives one
        return _key(compared, self.space)

    def run(self, out: Path, shown: Display, command: Mapping[str, Any] | None = None) -> SpaceResult:
        """Searches, concludes, and writes the run folder; `command` is kept in its configuration."""
        options, journal = self.options, self._begun(out, shown, command)
        memories = (*self.memories, journal)
        found_scores = reference_scores([self.space], partial(self._here, memories=memories), seed=options.seed)
        low, high = found_scores[0], found_scores[-1]
        shown.note(f"{len(found_scores)} random students have {options.evaluate} scores from {low:.4g} to {high:.4g}")
        reward = make_score_reward(found_scores, teacher_parameters=None, budget=self.budget)
        left = None if self.deadline is None else max(0.0, self.deadline - time.monotonic())
        with self._judging(memories) as evaluate:
            found = one_stage(
                self.space,
                evaluate,
                reward,
                self._agent(),
                rollouts=options.rollouts,
                limits=Limits(options.evaluations, left),
                out=out,
                display=shown,
                reserve=self._reserve,
                replay=nothing_stored if self.earlier is None else self.earlier.replay,
            )
        return self._conclude(found, reward, out, shown)

    def _begun(self, out: Path, shown: Display, command: Mapping[str, Any] | None) -> Memory:
        """Writes what the run is, or takes over what there is of it; the run's own file of judgements."""
        data = self.finish.data.training
        journal = Memory(out / JOURNAL, teacher=self._compared_key, data=data.key, own=True)
        if self.earlier is None:
            write_json(out / CONFIG, self.config(command))
            write_json(out / ENVIRONMENT, environment(self.options.seed, self.options.device))
        else:
            shown.note(f"goes on: {len(self.earlier.records)} judgements are played again from {out / JOURNAL}")
            self.earlier.take_curve()
        return journal

    def _here(self, space: SearchSpace, *, memories: tuple[Memory, ...]) -> Evaluate:
        """The judge in this process, behind the files of judgements."""
        return self._behind(self.scoring, memories)

    def _behind(self, evaluate: Evaluate, memories: tuple[Memory, ...]) -> Evaluate:
        for memory in memories:
            evaluate = remembered(evaluate, memory, recipe=key(self.scoring, memory), seed=self.options.seed)
        return evaluate

    @contextmanager
    def _judging(self, memories: tuple[Memory, ...]) -> Iterator[Cached]:
        """The judge of the space's students, here or in workers that end with the stage."""
        options, name = self.options, f"score:{self.options.evaluate}"
        if options.workers == 0:
            yield cached(self._behind(self.scoring, memories), one_by_one=True)
            return
        local = isinstance(options.workers, int) and options.address is None
        threads = pool_threads(options.threads, int(options.workers)) if local else options.threads
        pool = PoolOptions(options.workers, threads, gpus_per_worker=options.gpus_per_worker, room=self.room)
        images = {name: float(self.scoring.images_shown)}
        with ray_pools(partial(dict, {name: self.scoring}), images, pool, space=self.space) as pools:
            yield cached(self._behind(pools[name], memories))

    def _agent(self) -> Agent:
        """The agent, fresh."""
        options, space = self.options, self.space
        own: dict[str, Any] = {}
        if options.agent == "evolution":
            own = {name: value for name in EVOLUTION if (value := getattr(options, name)) is not None}
        return AGENTS[options.agent](len(FEATURES), space.num_actions, space.num_decisions, seed=options.seed, **own)

    def _reserve(self, mean_seconds: float) -> float:
        """Seconds to keep of the time limit: for training the finalists, and for the batch that would come next."""
        options = self.options
        if options.seconds is None:
            return 0.0
        training = 0.0
        if options.final_epochs:
            recipe = full_recipe(epochs=options.final_epochs)
            passes = forward_passes(recipe, len(self.finish.data.train), 0) / self.scoring.images_shown
            training = min(LONGEST_RESERVE * options.seconds, options.finalists * mean_seconds * passes)
        return training + options.rollouts * mean_seconds

    def _conclude(self, found: Found, reward: ScoreReward, out: Path, shown: Display) -> SpaceResult:
        """Everything after the loop: the front and the policy, the best codes, the trained finalists, the report."""
        begun, options = time.perf_counter(), self.options
        judged = [one.evaluation for one in first_judgements(found.records)]
        hold = Persistence(interrupted=found.stopped == "interrupted")
        front = hold.do(lambda: write_front(out / "front.csv", judged))
        for stage in found.stages:
            hold.do(partial(save_stage, out, stage, agent=options.agent, seed=options.seed, network=self.space.name))
        best = best_of(judged, max(BEST, options.finalists))
        finish, chosen = self.finish, best[: options.finalists] if options.final_epochs else ()
        if finish.teacher is not None and chosen:
            network = finish.teacher.network
            finish = replace(finish, teacher_figures=hold.do(lambda: finish.measured(TEACHER, network)))
        done = Concluded(interrupted=hold.interrupted)
        if chosen:
            done = concluding(
                [Choice(one, reward(one), ()) for one in chosen],
                partial(finish.finished, out=out, display=shown),
                out,
                epochs=options.final_epochs,
                deadline=self.deadline,
                interrupted=hold.interrupted,
                earlier=None if self.earlier is None else self.earlier.finished(),
            )
        if not best:
            done.notes.append(f"None of the {len(judged)} students could be scored; the reasons are below.")
        stopped = "interrupted" if done.interrupted else "full disk" if done.unwritten else found.stopped
        result = SpaceResult(
            out=out,
            best=tuple(scored(self.space, one) for one in best),
            front=front,
            students=tuple(done.students),
            stopped=stopped,
            evaluations=found.evaluations,
            hits=found.hits,
            seconds=found.seconds,
            overhead=found.overhead,
            notes=tuple(done.notes),
            reused=sum(memory.answered for memory in self.memories),
        )
        summary = self._summary(found, finish, result, time.perf_counter() - begun)
        hold.do(lambda: write_json(out / "result.json", summary))
        hold.do(lambda: write_report(out))
        return result

    def _summary(self, found: Found, finish: SpaceFinish, result: SpaceResult, seconds: float) -> dict[str, Any]:
        """What the report is written from, besides the store."""
        teacher, figures = finish.teacher, finish.teacher_figures
        space, options = self.space, self.options
        return {
            "format": FORMAT,
            "data": data_json(finish.data),
            "space": {
                "name": space.name,
                "kwargs": dict(options.space_args),
                "students": space.family.students,
                "score": options.evaluate,
                "largest": asdict(space.teacher_cost),
            },
            "teacher": None
            if teacher is None or figures is None
            else {"name": teacher.name, "figures": asdict(figures)},
            "best": [asdict(one) for one in result.best],
            "students": [one.to_json() for one in result.students],
            "budget": asdict(self.budget),
            **loop_json(found),
            "stopped": result.stopped,
            "finish_seconds": seconds,
            "notes": list(result.notes),
            "reused": result.reused,
        }


def _key(compared: nn.Module, space: PublishedSpace) -> str:
    """A hash of a space and of the network that its students are compared with."""
    parts = (repr(space.family), repr(compared), fingerprint(compared))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
