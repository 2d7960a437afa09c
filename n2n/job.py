"""One search as an object: checked at the door, run, concluded.

This module and `n2n.main_job` only compose the rooms.
"""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from n2n.data import Data
from n2n.distill.fit import check_objective
from n2n.distill.probe import Probed, probe
from n2n.distill.recipe import quick_recipe
from n2n.distill.teacher import Teacher
from n2n.evaluate.base import Evaluate, Evaluation
from n2n.evaluate.cached import cached
from n2n.evaluate.flight import Flight
from n2n.evaluate.judging import digest
from n2n.evaluate.ladder import Climbs
from n2n.evaluate.memory import Memory, remembered
from n2n.job_agents import checked_policies, keep_start, make_agent, save_policies, strange
from n2n.networks import Timings
from n2n.policies import Policy
from n2n.policies.library import Entry
from n2n.report import write_report
from n2n.reward import Budget, Reward, ScoreReward, make_reward, make_score_reward
from n2n.search.artefacts import TeacherName
from n2n.search.budgets import TEACHER, budget_of, check_budget, idle_notes, least_costs, teacher_costs
from n2n.search.checks import check_network, check_scores, check_students, check_teacher_name, warn_of_chance
from n2n.search.conclude import Finish, Persistence, StudentResult, conclude
from n2n.search.environment import environment
from n2n.search.files import write_json
from n2n.search.finish import Figures, choose
from n2n.search.front import write_front
from n2n.search.judges import finish_seconds, judging, remembering
from n2n.search.options import SearchOptions
from n2n.search.progress import Display
from n2n.search.reference import reference_scores
from n2n.search.resume import CONFIG, ENVIRONMENT, JOURNAL, Earlier
from n2n.search.spaces import TeacherSpaces, gradients, opened, reach
from n2n.search.stage import nothing_stored
from n2n.search.store import first_judgements
from n2n.search.summary import config_json, remarks, result_json
from n2n.search.two_stage import Found, Rewards, two_stage
from search_spaces.base import SearchSpace

MakeEvaluate = Callable[[SearchSpace], Evaluate]
OpenJudge = Callable[[SearchSpace], AbstractContextManager[Evaluate | Flight]]
IDLE = "it does not choose in batches that begin before six students are known; judge more (evaluations)"
"""Why a prefilter may have had nothing to do."""


@dataclass(frozen=True)
class SearchResult:
    """What a search leaves behind; all of it is also in the folder `out`.

    `front` is the Pareto front of quick accuracies over parameters, cheapest first; `students` are finished, best
    reward first; `stopped` names the limit that ended the loop, or "interrupted"; `overhead` is the share of the loop's
    wall time that was not evaluation; `reused` counts the judgements that the file of `cache` answered, `filtered` the
    students that a prefilter scored and held back, which are none of the `evaluations`.
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
    reused: int = 0
    filtered: int = 0

    @property
    def meets_budget(self) -> bool:
        """Whether there is a finished student, and the best one misses no budget."""
        return bool(self.students) and self.students[0].meets_budget


@dataclass(frozen=True)
class Job:
    """A search that passed its checks; `notes` say what of its budget has no effect."""

    finish: Finish
    spaces: TeacherSpaces
    budget: Budget
    policies: Mapping[str, Policy]
    memories: tuple[Memory, ...] = ()
    earlier: Earlier | None = None
    climbs: Climbs = field(default_factory=Climbs)
    filtered: Climbs = field(default_factory=Climbs)
    reference: list[float] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    began: Entry | None = None

    @classmethod
    def prepare(
        cls,
        network: nn.Module,
        example: Tensor,
        data: Data,
        options: SearchOptions,
        teacher_name: TeacherName | None,
        *,
        began: Entry | None,
        deadline: float | None,
        earlier: Earlier | None = None,
    ) -> Job:
        """Everything that can be refused is refused here, before a file is written or a student judged.

        torch is left with the threads that the search is to run on. `began` is the policy that agents start from,
        `earlier` the run that is gone on with.
        """
        policies = checked_policies({} if began is None else began.policies, options)
        check_network(network, example, data.training)
        check_teacher_name(teacher_name, network)
        network, example = copy.deepcopy(network).to(options.device), example.to(options.device)
        probed = _probed(network, example, data, options) if earlier is None else earlier.probed(options.device)
        threads = options.threads if probed is None else probed.threads
        threads = threads if earlier is None else earlier.threads
        if isinstance(threads, int):
            torch.set_num_threads(threads)
        name = teacher_name.name if teacher_name else type(network).__name__
        precision = options.precision if probed is None else probed.wish
        teacher = Teacher(network, data.training, name=name, device=options.device, precision=precision)
        warn_of_chance(teacher)
        for objective in {options.objective, *(rung.recipe.objective for rung in options.rungs if rung.recipe)}:
            check_objective(objective, teacher)
        timings = Timings(example[:1])
        if earlier is not None:
            timings.known.update(earlier.latencies)
        budget = budget_of(options, teacher, timings)
        spaces = TeacherSpaces(network, example, options, gradients(teacher, data.training, options))
        within = reach(spaces, options.stages, budget)
        students, whole = check_students(within, teacher, options), teacher_costs(teacher, budget, timings)
        check_scores(options.scores, students, teacher, example)
        if earlier is None:  # it passed then; what is timed differs from time to time
            check_budget(budget, least_costs(within, students, budget, timings), whole)
        finish = Finish(teacher, data, example, options, timings, teacher_name, deadline, probed)
        memories: tuple[Memory, ...] = ()
        if options.cache is not None:
            memories = (Memory(options.cache, teacher=spaces.key, data=data.training.key),)
        notes = (*idle_notes(budget, whole), *strange(policies, options))
        job = cls(finish, spaces, budget, policies, memories, earlier, notes=notes, began=began)
        if earlier is not None:
            earlier.check(config_json(finish, policies, keys=job.keys))
        return job

    @property
    def keys(self) -> dict[str, str]:
        """What judgements are kept under, and of the policies that agents start from."""
        weights = [f"{stage} {digest(value)}" for stage, policy in sorted(self.policies.items())
                   for _, value in sorted(policy.state.items())]  # fmt: skip
        return {
            "teacher_key": self.spaces.key,
            "data_key": self.finish.data.training.key,
            "policy_key": hashlib.sha256("\n".join(weights).encode()).hexdigest()[:16] if weights else "",
        }

    def run(
        self,
        out: Path,
        shown: Display,
        make_evaluate: MakeEvaluate | None = None,
        command: Mapping[str, Any] | None = None,
    ) -> SearchResult:
        """Searches, concludes, and writes the run folder; `command` is kept in its configuration."""
        return self._conclude(self.loop(out, shown, make_evaluate, command), out, shown)

    def loop(
        self,
        out: Path,
        shown: Display,
        make_evaluate: MakeEvaluate | None = None,
        command: Mapping[str, Any] | None = None,
    ) -> Found:
        """The search without its end: the store and the learning curve are in `out`, no student is finished."""
        options, training = self.finish.options, self.finish.data.training
        journal = Memory(out / JOURNAL, teacher=self.spaces.key, data=training.key, own=True)
        if self.earlier is None:
            write_json(out / CONFIG, config_json(self.finish, self.policies, command, keys=self.keys))
            write_json(out / ENVIRONMENT, environment(options.seed, options.device, self.finish.probed))
            keep_start(out, self.began)
        else:
            shown.note(f"goes on: {len(self.earlier.records)} judgements are played again from {out / JOURNAL}")
            self.earlier.take_curve()
        open_judge: OpenJudge = partial(self.judging, journal=journal)
        if make_evaluate is not None:
            open_judge = partial(plain, make_evaluate, journal=journal, seed=options.seed)
        if self.finish.probed is not None:
            shown.note(f"probe: {self.finish.probed}")
        self._refer(shown, journal)
        for note in self.notes:
            shown.note(note)
        return two_stage(
            self.spaces,
            options,
            open_judge=open_judge,
            make_agent=partial(make_agent, self.finish.options, self.policies),
            rewards=Rewards(free=self.reward(Budget()), bounded=self.reward(self.budget)),
            budget=self.budget,
            out=out,
            display=shown,
            finish_seconds=partial(finish_seconds, self.finish),
            spent=self.finish.spent,
            replay=nothing_stored if self.earlier is None else self.earlier.replay,
        )

    def judging(self, space: SearchSpace, journal: Memory) -> AbstractContextManager[Evaluate | Flight]:
        """Quick distillation of a space's students, here or in workers that end with the stage."""
        memories = (*self.memories, journal)
        return judging(space, self.finish, self.reward(Budget()), memories, self.climbs, self.filtered)

    def _refer(self, shown: Display, journal: Memory) -> None:
        """Scores random students where scores are the judgement: from them rewards tell what is high and what low."""
        score, memories = self.finish.options.evaluate, (*self.memories, journal)
        if score is None:
            return
        found = reference_scores(
            opened(self.spaces, self.finish.options.stages, self.budget),
            partial(remembering, finish=self.finish, memories=memories),
            seed=self.finish.options.seed,
        )
        self.reference.extend(found)
        shown.note(f"{len(found)} random students have {score} scores from {found[0]:.4g} to {found[-1]:.4g}")

    def reward(self, budget: Budget) -> Reward | ScoreReward:
        """What students are rewarded by, where this is the budget."""
        teacher = self.finish.teacher
        if self.finish.options.evaluate is not None:
            return make_score_reward(self.reference, teacher_parameters=teacher.parameters, budget=budget)
        return make_reward(
            teacher_accuracy=teacher.accuracy,
            teacher_parameters=teacher.parameters,
            budget=budget,
            shortfall=self.finish.options.counted_shortfall,
            chance=1 / self.finish.data.classes,
        )

    def _conclude(self, found: Found, out: Path, shown: Display) -> SearchResult:
        """Everything after the loop, whatever is interrupted in it; first what is there already: front and policies."""
        begun, finish = time.perf_counter(), self.finish
        judged = [one.evaluation for one in first_judgements(found.records)]
        hold = Persistence(interrupted=found.stopped == "interrupted")
        front = hold.do(lambda: write_front(out / "front.csv", judged))
        hold.do(lambda: save_policies(out, found.stages, finish, self.policies, self.began, self.spaces.key))
        choices = choose(judged, self.budget, self.reward(Budget()), finish.options.finalists)
        space_of = {one.evaluation.fingerprint: found.spaces[one.stage] for one in found.records}
        teacher = hold.do(lambda: finish.measured(TEACHER, finish.teacher.network))
        measuring, late = time.perf_counter() - begun, hold.interrupted
        done = conclude(
            choices,
            space_of,
            finish,
            out,
            shown,
            budget=self.budget,
            teacher=teacher,
            measuring=measuring,
            interrupted=late,
            earlier=None if self.earlier is None else self.earlier.finished(),
        )
        removal = "removal" in found.spaces
        said = remarks(choices, judged, finish, done.students, self.budget, teacher, removal=removal)
        if finish.options.prefilter is not None and not found.filtered:
            said.append(f"The prefilter {finish.options.prefilter} held nobody back: {IDLE}.")
        done.notes[:0] = [*self.notes, *said]
        stopped = "interrupted" if done.interrupted else "full disk" if done.unwritten else found.stopped
        result = SearchResult(
            out=out,
            front=front,
            students=tuple(done.students),
            teacher=teacher,
            stopped=stopped,
            evaluations=found.evaluations,
            hits=found.hits,
            filtered=found.filtered,
            seconds=found.seconds,
            overhead=found.overhead,
            notes=tuple(done.notes),
            reused=sum(memory.answered for memory in self.memories),
        )
        seconds = time.perf_counter() - begun
        summary = {
            **result_json(
                found, finish, self.budget, teacher, done.students, done.notes, stopped=stopped, finish_seconds=seconds
            ),
            "reused": result.reused,
        }
        hold.do(lambda: write_json(out / "result.json", summary))
        hold.do(lambda: write_report(out))
        if result.students and not result.meets_budget:
            shown.note(f"student 1 misses the budget: {'; '.join(result.students[0].violations)}")
        return result


def _probed(network: nn.Module, example: Tensor, data: Data, options: SearchOptions) -> Probed | None:
    """What is fastest for the teacher on a batch as students are judged on; None where that was not asked for."""
    if options.threads != "auto":
        return None
    batch = min(quick_recipe().batch_size, len(data.train))
    inputs = example[:1].expand(batch, *example.shape[1:])  # [B, C, H, W]
    return probe(network, inputs, device=options.device, precision=options.precision)


@contextmanager
def plain(make_evaluate: MakeEvaluate, space: SearchSpace, journal: Memory, seed: int) -> Iterator[Evaluate]:
    """A judge of the caller's; what it says is kept in the run's own file."""
    yield cached(remembered(make_evaluate(space), journal, recipe=f"of the caller, {space.name}", seed=seed))
