"""Which judgement to trust on a teacher and its data: `n2n.calibrate`. This module only composes the rooms."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from n2n.data import Data
from n2n.data import example_inputs as examples_of
from n2n.distill.fit import check_objective
from n2n.distill.probe import threads_put_back
from n2n.distill.recipe import full_epochs
from n2n.distill.teacher import Teacher
from n2n.evaluate.base import Evaluate
from n2n.evaluate.distillation import Distillation
from n2n.evaluate.fidelity import (
    FEWEST,
    Fidelity,
    PanelError,
    ceiling,
    expectations,
    fidelities,
    in_words,
    recommended,
    truth_of,
)
from n2n.evaluate.judgements import Judgement, append_judgement, keys, read_judgements
from n2n.evaluate.ranking import Ranking
from n2n.evaluate.rungs import parse_rung
from n2n.networks import Timings
from n2n.report.fidelity import CSV_COLUMNS, csv_rows, ladder_toml, markdown_table, plain_table, plot_fidelity
from n2n.search.checks import check_network, check_truth, warn_of_chance
from n2n.search.conclude import Finish
from n2n.search.environment import environment
from n2n.search.errors import ArtefactError, SearchError, WriteError
from n2n.search.files import claim_folder, read_json, write_csv, write_json, write_text
from n2n.search.judges import make_rung
from n2n.search.lock import hold
from n2n.search.options import Granularity, SearchOptions
from n2n.search.progress import Display, Logged, display
from n2n.search.spaces import gradients
from search_spaces.base import Architecture, SearchSpace
from search_spaces.layer_removal import LayerRemoval
from search_spaces.layer_shrinkage import FACTORS, LayerShrinkage
from search_spaces.panel import Member, in_turn, panel
from search_spaces.teacher.reading import read

RUNGS = ("score:naswot", "inherited:0", "refit:0", "refit:60", "inherited:60", "inherited:100")
"""What is compared where nothing else is asked for."""
SEEDS = 2
STUDENTS = 24
JUDGEMENTS, SETTINGS, RANKING = "judgements.csv", "calibration.json", "ranking.csv"
PLOT, LADDER, REPORT = "ranking.png", "ladder.toml", "calibration.md"


@dataclass(frozen=True)
class Calibration:
    """How faithful each rung is on a teacher and its data.

    Attributes:
        out: the folder; `ladder.toml` in it is a configuration that `n2n search --config` reads.
        students: how many of the panel have been judged by the long distillation `truth`.
        lines: one for each rung and measure.
        ceiling: tau between two seeds of the long distillation, where enough students have both.
        ladder: the rungs to judge by, cheapest first.
        notes: what a reader must know, in words.
    """

    out: Path
    students: int
    truth: str
    lines: tuple[Fidelity, ...]
    ceiling: Ranking | None
    ladder: tuple[str, ...]
    notes: tuple[str, ...]

    def table(self) -> str:
        """The lines as plain text."""
        return plain_table(self.lines)

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return {**asdict(self), "out": str(self.out)}


def calibrate(
    network: nn.Module,
    example_inputs: Tensor | None,
    data: Data,
    *,
    out: str | Path,
    seconds: float | None = None,
    students: int = STUDENTS,
    rungs: Sequence[str] = RUNGS,
    truth: str | None = None,
    seeds: int = SEEDS,
    seed: int = 0,
    granularity: Granularity = "block",
    objective: str = "kd",
    importance: str = "l1",
    device: str = "cpu",
    precision: str = "auto",
    threads: int | None = None,
    progress: bool = True,
) -> Calibration:
    """Judges a panel of students by every rung and by a long distillation, and says which rungs rank like the latter.

    Students are judged one after the other in an order that sees all sizes early, each by the long distillation and
    then by all rungs; the other seeds of the long distillation come last. Whatever is judged is kept at once: a call
    with the same folder and settings goes on where the last one ended.

    Args:
        network: the teacher; it is read and copied, never changed.
        example_inputs: prepared images [B, C, H, W] that it takes; None takes one from `data`.
        data: its train and validation splits are used.
        out: the folder.
        seconds: after which nothing more is begun; None for no limit. A student that would not be done in time, going
            by those before it, is not begun.
        students: size of the panel, from 3% to 80% of the teacher's parameters, deep and shallow.
        rungs: names as in `n2n.evaluate.rungs`.
        truth: the rung, a long distillation, that the others are measured with; by default as long as that of a search,
            three epochs from inherited weights, or as many as make 600 steps on small data.
        seeds: of the long distillation.
        threads: of torch meanwhile; None leaves them as they are. Compare seconds only of judgements with as many.
        seed, granularity, objective, importance, device, precision: as in `n2n.search`.

    Raises:
        SearchError: a rung that cannot be read, a panel below the fewest that an interval needs, or a value out of its
            range.
        StageError: the objective of a rung looks at feature maps, and the network has none.
        ArtefactError: the folder holds a calibration of another teacher, data or settings (both are named), something
            else, or damaged files.
        PanelError: the network has too few different students, or the time was too short for the fewest.
        WriteError: the file system refused.
    """
    begun = time.monotonic()
    truth = truth or f"inherited:{full_epochs(len(data.training.train)):g}e"
    check_truth(truth, rungs, objective)
    compared = tuple(sorted(dict.fromkeys(rungs), key=lambda one: parse_rung(one, objective=objective).length))
    options = SearchOptions(ladder=(*compared, truth), seconds=seconds, seed=seed, granularity=granularity,
                            objective=objective, importance=importance, device=device, precision=precision,
                            threads=threads)  # fmt: skip
    if students < FEWEST:
        raise SearchError(f"students={students}: a panel needs {FEWEST} students or more for an interval")
    if seeds < 1:
        raise SearchError(f"seeds={seeds} of the long distillation must be at least 1")
    example = examples_of(data) if example_inputs is None else example_inputs
    check_network(network, example, data.training)
    teacher = Teacher(network, data.training, name=type(network).__name__, device=device, precision=precision)
    warn_of_chance(teacher)
    for recipe in [rung.recipe for rung in options.rungs if rung.recipe is not None]:
        check_objective(recipe.objective, teacher)
    finish = Finish(teacher, data, example, options, Timings(example[:1]))
    folder = Path(out)
    settings = _settings(finish, {"students": students, "truth": truth, "seeds": seeds})
    _check_folder(folder, settings)
    reading = read(teacher.network, example.to(device))
    space = LayerRemoval(reading, granularity=granularity, kept=frozenset(), may_be_empty=True,
                         gradients=gradients(teacher, data.training, options))  # fmt: skip
    members = in_turn(panel(space, partial(_widths, space), size=students, seed=seed))
    if len(members) < FEWEST:
        raise PanelError(
            f"students={students}: {teacher.name} has students for {len(members)} of these places only, expected"
            f" {FEWEST} or more; ask for more students, so that places lie closer"
        )
    work = _Work(folder, finish, space, members, compared, truth, seeds)
    with threads_put_back():
        torch.set_num_threads(threads or torch.get_num_threads())
        if not (folder / SETTINGS).exists():
            claim_folder(folder, force=False)
            write_json(folder / SETTINGS, {"settings": settings, "environment": environment(seed, device)})
        with hold(folder), Logged(display(progress), folder / "run.log") as shown:
            work.run(shown, None if seconds is None else begun + seconds)
    return _conclude(work)


def _settings(finish: Finish, asked: Mapping[str, Any]) -> dict[str, Any]:
    """What all judgements of a folder have in common; the rungs may become more."""
    names = ("seed", "granularity", "objective", "importance", "precision")
    return {
        "teacher": finish.teacher.fingerprint,
        "data": finish.data.training.fingerprint,
        **asked,
        **{name: getattr(finish.options, name) for name in names},
    }


def _check_folder(folder: Path, settings: Mapping[str, Any]) -> None:
    """Refuses what is neither free nor the folder of the same calibration.

    Raises:
        ArtefactError: it holds one of another teacher, data or settings, or something else.
    """
    path = folder / SETTINGS
    if not path.exists():
        if folder.is_dir() and any(folder.iterdir()):
            raise ArtefactError(f"{folder} is not empty and holds no calibration; use another folder")
        return
    known = read_json(path, ("settings",))["settings"]
    for name, value in settings.items():
        if known.get(name) != value:
            raise ArtefactError(
                f"{folder} holds a calibration with another {name}: {known.get(name)}, now {value}; use another"
                " folder, or ask for the same"
            )


def _widths(space: LayerRemoval, start: Architecture) -> SearchSpace:
    return LayerShrinkage(space.reading, factors=FACTORS, round_to=1, kernels=False, kept=frozenset(), start=start,
                          may_be_empty=True)  # fmt: skip


Wanted = list[tuple[str, int]]
"""Rungs with seeds."""


@dataclass(frozen=True)
class _Work:
    """The judgements that are wanted, and those that are there."""

    folder: Path
    finish: Finish
    space: LayerRemoval
    members: tuple[Member, ...]
    rungs: tuple[str, ...]
    truth: str
    seeds: int

    @property
    def path(self) -> Path:
        """The file of judgements."""
        return self.folder / JUDGEMENTS

    def made(self) -> list[Judgement]:
        """The judgements of these rungs that are in the file.

        Raises:
            ArtefactError: the file is damaged.
        """
        try:
            found = read_judgements(self.path)
        except ValueError as error:
            raise ArtefactError(str(error)) from error
        return [one for one in found if one.rung in {*self.rungs, self.truth}]

    def missing(self, made: Sequence[Judgement]) -> list[tuple[Member, Wanted]]:
        """What is left to judge, in order; students of whom nothing is left are left out."""
        known = keys(made)
        first: Wanted = [(self.truth, 0), *((rung, 0) for rung in self.rungs)]
        plan = [first, *([(self.truth, seed)] for seed in range(1, self.seeds))]
        each = [
            (member, [one for one in wanted if (*one, member.architecture.fingerprint) not in known])
            for wanted in plan
            for member in self.members
        ]
        return [(member, wanted) for member, wanted in each if wanted]

    def run(self, shown: Display, deadline: float | None) -> None:
        """Makes the judgements that are missing, until the deadline or an interrupt.

        Raises:
            WriteError: the file system refused.
        """
        made = self.made()
        left = self.missing(made)
        judges = _Judges(self.finish, self.space)
        for one in made:
            judges.enter(one.rung, one.seconds)
        there = len(truth_of(made, self.truth))
        shown.begin("calibration", len(left))
        try:
            for done, (member, wanted) in enumerate(left):
                if deadline is not None and time.monotonic() + judges.expected(wanted) > deadline:
                    shown.note(f"stopped by the time limit after {done} of {len(left)} students")
                    return
                for rung, seed in wanted:
                    one = judges.judge(rung, seed, member)
                    self._keep(one)
                    if not one.ok:
                        shown.note(f"{rung}: student {one.fingerprint} {one.status}: {one.reason}")
                shown.update(done + 1, f"{member.cost.parameters:,} parameters")
                if done == 0 and deadline is not None:
                    words = shortfall(there + 1, judges.expected(wanted), deadline - time.monotonic(), self.truth)
                    if words:
                        shown.note(words)
        except KeyboardInterrupt:
            shown.note("interrupted; the same command goes on from here")

    def _keep(self, one: Judgement) -> None:
        try:
            append_judgement(self.path, one)
        except OSError as error:
            raise WriteError(f"cannot write {self.path}: {error.strerror or error}; earlier rows are safe") from error


def shortfall(there: int, each: float, left: float, truth: str) -> str:
    """What to say where the time will not reach for an interval; "" where it does.

    Args:
        there: students that the long distillation `truth` has judged.
        each: seconds that another one takes with all rungs.
        left: seconds until the time limit.
    """
    reached = there + max(0, int(left / each)) if each > 0 else FEWEST
    if reached >= FEWEST:
        return ""
    return (
        f"at {each:.0f} s a student the time reaches {reached} of the {FEWEST} that an interval needs: allow"
        f" {(FEWEST - there) * each - left:.0f} s more, now or in another call, or measure against fewer epochs than"
        f" {truth}"
    )


class _Judges:
    """The evaluators, each opened when it is needed first, and what a judgement takes by the rung's earlier ones."""

    def __init__(self, finish: Finish, space: LayerRemoval) -> None:
        self._finish, self._space = finish, space
        self._opened: dict[tuple[str, int], Evaluate] = {}
        self._rates: dict[str, list[float]] = {}

    def judge(self, rung: str, seed: int, member: Member) -> Judgement:
        """One judgement; what a rung does once for all students is done before its first is timed."""
        options = self._finish.options
        if (rung, seed) not in self._opened:
            own = replace(self._finish, options=replace(options, seed=options.seed + seed))
            judge = make_rung(parse_rung(rung, objective=options.objective), self._space, own)
            if isinstance(judge, Distillation):
                judge = replace(judge, timings=None)  # the seconds are those of judging, without a latency
                judge.prepare()
            self._opened[rung, seed] = judge
        (found,) = self._opened[rung, seed]([member.architecture])
        self.enter(rung, found.seconds)
        share = member.cost.parameters / self._finish.teacher.parameters
        return Judgement.of(rung, seed, found, share=share, removed=member.removed)

    def enter(self, rung: str, seconds: float) -> None:
        """Notes what a judgement took."""
        self._rates.setdefault(rung, []).append(seconds)

    def expected(self, wanted: Wanted) -> float:
        """Seconds that a student's judgements will take: the longest of each rung so far, 0 where there is none."""
        return sum(max(self._rates.get(rung, [0.0])) for rung, _ in wanted)


def _conclude(work: _Work) -> Calibration:
    """Reads the judgements, and writes what follows from them.

    Raises:
        PanelError: too few students for an interval.
    """
    judgements = work.made()
    lines = fidelities(judgements, work.truth)
    noise = ceiling(judgements, work.truth)
    judged = len(truth_of(judgements, work.truth))
    notes = (*in_words(lines, noise), *_remarks(work, judgements))
    found = Calibration(work.folder, judged, work.truth, lines, noise, recommended(lines, work.truth), notes)
    write_csv(work.folder / RANKING, CSV_COLUMNS, csv_rows(lines))
    plot_fidelity(work.folder / PLOT, lines, noise)
    options, lines_to = work.finish.options, expectations(judgements, found.ladder, work.truth)
    made = {name: getattr(options, name) for name in ("objective", "importance", "granularity")}
    made["calibrated_for"] = work.finish.teacher.fingerprint
    write_text(work.folder / LADDER, ladder_toml(found.ladder, found.truth, judged, lines_to, made))
    write_text(work.folder / REPORT, "\n\n".join(["# Calibration", markdown_table(lines), *notes]) + "\n")
    return found


def _remarks(work: _Work, judgements: Sequence[Judgement]) -> list[str]:
    """What rungs do instead of what their names say on this network, which failed, and what is left to judge."""
    rungs, said = (*work.rungs, work.truth), []
    inherited = [rung for rung in rungs if parse_rung(rung).start == "inherited"]
    if inherited and not any(isinstance(one, _BatchNorm) for one in work.finish.teacher.network.modules()):
        said.append(
            f"{', '.join(inherited)}: the network has no batch norm to re-estimate, so inherited weights start as they"
            " are"
        )
    for rung in rungs:
        own = [one for one in judgements if one.rung == rung]
        failed = [one for one in own if not one.ok]
        if failed:
            said.append(f"{rung}: {len(failed)} of {len(own)} judgements failed, e.g. {failed[0].reason}")
    left = sum(len(wanted) for _, wanted in work.missing(judgements))
    if left:
        said.append(f"{left} judgements are left to make; the same command goes on from here")
    return said
