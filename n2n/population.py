"""Training-free scores of a population of a published space: `n2n score`. This module only composes the rooms."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import nn

from n2n.data.base import TrainingData
from n2n.evaluate.base import evaluation_seed
from n2n.evaluate.probing import draw_probe
from n2n.scores import AGGREGATES, NEEDS_TEACHER, SCORES, Probe, ScoreError, aggregate
from n2n.search.errors import ArtefactError, SearchError
from n2n.search.score_file import CODE, FAILURE, MACS, PARAMETERS, SECONDS, ScoreFile
from search_spaces.base import Draft
from search_spaces.published import PublishedArchitecture, PublishedSpace

BATCH = 64
"""Images that a score looks at."""


def read_codes(path: Path) -> list[str]:
    """The short forms in the column `code` of a CSV file, as text: leading zeros stay.

    Raises:
        ArtefactError: no such file or column, or no row.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            if CODE not in (table.fieldnames or ()):
                raise ArtefactError(
                    f"{path} has no column 'code'; it has {', '.join(table.fieldnames or ()) or 'none'}"
                )
            codes = [(row[CODE] or "").strip() for row in table]
    except OSError as error:
        raise ArtefactError(f"cannot read {path}: {error.strerror or error}") from error
    if not codes:
        raise ArtefactError(f"{path} has no row below its header")
    return codes


def sampled(space: PublishedSpace, many: int, seed: int) -> list[str]:
    """The short forms of so many different random students.

    Raises:
        SearchError: the space does not have so many.
    """
    rng, found = np.random.default_rng(seed), dict[str, None]()
    if many > space.family.students:
        raise SearchError(f"sample={many}: {space.name} has {space.family.students:,} students; ask for fewer")
    while len(found) < many:
        found.setdefault(space.random(rng).code)
    return list(found)


def score_population(
    space: PublishedSpace,
    codes: Sequence[str],
    training: TrainingData,
    *,
    scores: Sequence[str],
    out: Path,
    seeds: int = 1,
    seed: int = 0,
    batch: int = BATCH,
    device: str = "cpu",
    teacher: str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Writes one row for each student into a CSV file, and returns how many of their scores are empty.

    Columns: `code`, `parameters`, `macs`, one for each score (the mean over seeds; empty where there is none),
    `seconds` of the row, `failure`, why a score is empty, and `made_with`, the space, images and seeds. A row is on
    disk as soon as it is complete; a file of the same columns and settings is gone on with, and its students are not
    scored again. An aggregate has the columns of its parts before its own, which is filled in at the end: it ranks all
    students of the file against each other.

    Args:
        codes: short forms of the students.
        training: images and labels to look at.
        scores: names of `n2n.scores.SCORES` and `n2n.scores.AGGREGATES`.
        seeds: how often a student is scored, each time from its own first weights and on its own images.
        seed: of images and weights.
        batch: images of a probe.
        teacher: the short form of what teacher-aware scores compare with; by default the largest of the space. It has
            the weights of the seed, the same for all students.

    Raises:
        SearchError: an unknown score, no seed, or labels that the space's networks cannot tell.
        SpaceError: a short form that is none of the space.
        ArtefactError: the file is another one, made with other settings, or damaged.
        WriteError: the file system refused.
    """
    if out.is_dir():
        raise ArtefactError(f"{out} is a folder; name a CSV file for the scores")
    if not scores or not all(name in SCORES or name in AGGREGATES for name in scores):
        raise SearchError(f"scores={', '.join(scores)}: expected some of {', '.join([*SCORES, *AGGREGATES])}")
    if seeds < 1 or batch < 1:
        raise SearchError(f"seeds={seeds}, batch={batch}: expected 1 or more of both")
    students = {code: space.from_code(code) for code in codes}
    names = with_parts(scores)
    single = [name for name in names if name in SCORES]
    compared = space.from_code(teacher) if teacher is not None else largest(space)
    teachers = any(name in NEEDS_TEACHER for name in single)
    probes = [
        draw_probe(training, batch=batch, seed=seed + index, device=device,
                   teacher=_built(space, compared, seed + index, device) if teachers else None)
        for index in range(seeds)
    ]  # fmt: skip
    file = ScoreFile(out, names, made_with(space, training, batch, seed, seeds, compared.code if teachers else None))
    known = {row[CODE] for row in file.rows()}
    left = [code for code in students if code not in known]
    for done, code in enumerate(left, start=1):
        file.append(_row(space, students[code], probes, single, seed, device))
        progress(done, len(left))
    rows = file.rows()
    if set(names) & set(AGGREGATES):
        for name in (name for name in names if name in AGGREGATES):
            parts = {part: [float(row[part] or math.nan) for row in rows] for part in AGGREGATES[name]}
            for row, value in zip(rows, aggregate(parts), strict=True):
                row[name] = str(value)
        file.write(rows)
    return sum(row[name] == "" for row in rows if row[CODE] in students for name in single)


def made_with(
    space: PublishedSpace, training: TrainingData, batch: int, seed: int, seeds: int, against: str | None
) -> str:
    """What a file of scores was made with, in words."""
    images = largest(space).images
    seen = f"{min(batch, len(training.train))} images of {training.name} ({training.key[:8]})"
    drawn = f"seed {seed}" if seeds == 1 else f"seeds {seed} to {seed + seeds - 1}"
    shape = f"{images.channels} x {images.image_size} x {images.image_size}, {images.classes} classes"
    return f"{space.name} for {shape}; {seen}; {drawn}" + ("" if against is None else f"; against {against}")


def with_parts(scores: Sequence[str]) -> tuple[str, ...]:
    """The names of scores, before each aggregate those of its parts; each once."""
    every = [one for name in scores for one in (*AGGREGATES.get(name, ()), name)]
    return tuple(dict.fromkeys(every))


def largest(space: PublishedSpace) -> PublishedArchitecture:
    """The network that keeps everything."""
    draft = Draft()
    while draft.cursor < space.num_decisions:
        draft = space.apply(draft, space.num_actions - 1)
    return space.student(draft)


def _row(
    space: PublishedSpace,
    student: PublishedArchitecture,
    probes: Sequence[Probe],
    scores: Sequence[str],
    seed: int,
    device: str,
) -> dict[str, object]:
    """The row of a student."""
    begun, cost = time.monotonic(), space.cost(student)
    row: dict[str, object] = {CODE: student.code, PARAMETERS: cost.parameters, MACS: cost.macs}
    failures = []
    for name in scores:
        values = []
        for index, probe in enumerate(probes):
            own = evaluation_seed(seed + index, student.fingerprint)
            network = _built(space, student, own, device)
            # A teacher is drawn by the probe's seed, the same for all students; else a student has its own.
            drawn = probe.seed if name in NEEDS_TEACHER else own
            try:
                values.append(SCORES[name](network, replace(probe, seed=drawn)))
            except ScoreError as error:
                failures.append(str(error) if str(error).startswith(name) else f"{name}: {error}")
                break
        row[name] = sum(value / len(values) for value in values) if len(values) == len(probes) else ""
    return row | {SECONDS: round(time.monotonic() - begun, 3), FAILURE: "; ".join(failures)}


def _built(space: PublishedSpace, student: PublishedArchitecture, seed: int, device: str) -> nn.Module:
    return space.build(student, inherit=False, seed=seed).to(device)
