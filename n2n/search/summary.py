"""What a run writes about itself: `config.json` before it starts and `result.json` when it ended."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from n2n.data.base import Data
from n2n.evaluate.base import Evaluation
from n2n.reward import Budget
from n2n.search.budgets import TEACHER, unused_note
from n2n.search.conclude import Finish, StudentResult
from n2n.search.finish import Choice, Figures
from n2n.search.two_stage import Found

FORMAT = 1


def config_json(
    finish: Finish,
    policies: Collection[str],
    command: Mapping[str, Any] | None = None,
    *,
    keys: Mapping[str, str],
) -> dict[str, Any]:
    """The resolved configuration.

    `policies` are the stages that start from a learned policy; `command` is what was asked for on the command line,
    `keys` what judgements are kept under.
    """
    name, latency = finish.teacher_name, finish.timings.known.get(TEACHER)
    return {
        **finish.options.to_json(),
        "teacher": None if name is None else {"name": name.name, "kwargs": dict(name.kwargs)},
        "teacher_fingerprint": finish.teacher.fingerprint,
        "data": finish.data.name,
        "data_fingerprint": finish.data.fingerprint,
        **keys,
        "policies": sorted(policies),
        "teacher_latency": None if latency is None else asdict(latency),
        "command": None if command is None else dict(command),
    }


def result_json(
    found: Found,
    finish: Finish,
    budget: Budget,
    teacher: Figures,
    students: Sequence[StudentResult],
    notes: Sequence[str],
    *,
    stopped: str,
    finish_seconds: float,
) -> dict[str, Any]:
    """What the report is written from, besides the store."""
    return {
        "format": FORMAT,
        "data": data_json(finish.data),
        "teacher": {"name": finish.teacher.name, "figures": teacher.to_json()},
        "students": [student.to_json() for student in students],
        "meets_budget": bool(students) and students[0].meets_budget,
        "budget": asdict(budget),
        **loop_json(found),
        "stopped": stopped,
        "finish_seconds": finish_seconds,
        "notes": list(notes),
    }


def loop_json(found: Found) -> dict[str, Any]:
    """What the loop spent, in all and by stage."""
    stages = [
        {
            "name": stage.name,
            "num_decisions": stage.num_decisions,
            "num_actions": stage.num_actions,
            "evaluations": stage.evaluations,
            "hits": stage.hits,
            "filtered": stage.filtered,
            "seconds": stage.seconds,
            "judging": stage.judging,
            "stopped": stage.stopped,
        }
        for stage in found.stages
    ]
    names = ("evaluations", "hits", "filtered", "seconds", "overhead")
    return {"stages": stages, **{name: getattr(found, name) for name in names}}


def data_json(data: Data) -> dict[str, Any]:
    """The data with the sizes of their splits."""
    return {
        "name": data.name,
        "fingerprint": data.fingerprint,
        "classes": data.classes,
        "train": len(data.train),
        "validation": len(data.validation),
        "test": len(data.test),
        "notes": list(data.notes),
    }


def remarks(
    choices: Sequence[Choice],
    judged: Sequence[Evaluation],
    finish: Finish,
    students: Sequence[StudentResult],
    budget: Budget,
    teacher: Figures,
    *,
    removal: bool,
) -> list[str]:
    """What a reader of the report must know first; `students` are the choices that were finished; `removal`: there was
    a removal stage."""
    notes = list(finish.teacher.notes)
    if not choices:
        notes.append(f"None of the {len(judged)} students could be judged; the reasons are below.")
    fine = {student.fingerprint for student in students if student.meets_budget}
    notes += [
        "No judged student meets the budget; the closest was distilled all the same "
        f"({'; '.join(choice.violations)}). Allow more evaluations, or a larger budget."
        for choice in choices
        if choice.violations and choice.evaluation.fingerprint not in fine
    ]
    for student in students:
        guessing = chance_note(student.figures.validation_accuracy, finish.data.validation.labels)
        unused = unused_note(budget, student.figures.to_json(), teacher.to_json(), removal=removal)
        notes += [f"Student {student.rank} {note}." for note in (guessing, unused) if note]
    return notes


def chance_note(accuracy: float, labels: Tensor) -> str:
    """What to say of a network that is not above always naming the most common of the labels [n]; "" where it is.

    Above means by more than two standard errors, `2 sqrt(p (1 - p) / n)` for the share p of that class: whoever guesses
    comes as high by luck.
    """
    p = torch.bincount(labels).max().item() / len(labels)
    if accuracy > p + 2 * math.sqrt(p * (1 - p) / len(labels)):
        return ""
    return (
        f"is at chance level: accuracy {accuracy:.2%} on validation, while always naming the most common class gives "
        f"{p:.2%}; allow a larger budget, judge more students, or distil longer"
    )
