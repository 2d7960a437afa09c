"""What must hold of a teacher, and of what is asked for it, before a search begins."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor, nn

from n2n.data.base import TrainingData
from n2n.distill.teacher import Teacher
from n2n.networks import Timings, build_teacher, size_mb
from n2n.reward import Budget, parse_budget
from n2n.search.artefacts import TeacherName
from n2n.search.errors import ChanceLevelWarning, SearchError
from n2n.search.options import BudgetValue, SearchOptions
from n2n.search.spaces import Reach
from search_spaces.base import SpaceError

TEACHER = "teacher"
"""What the teacher is known by among latencies."""


def check_network(network: nn.Module, example_inputs: Tensor, training: TrainingData) -> None:
    """Runs the example through the teacher in eval mode and compares both sides with the data; modes are put back.

    The example is moved to the device of the network's first parameter.

    Raises:
        SearchError: the example has another shape than the data, the network cannot take it, or it does not give one
            logit per class.
    """
    shape, expected = tuple(example_inputs.shape[1:]), tuple(training.input_shape)
    if shape != expected:
        raise SearchError(
            f"example_inputs hold examples of shape {list(shape)}, the images of {training.name} are {list(expected)}; "
            "make them with n2n.data.example_inputs(data)"
        )
    device = next((parameter.device for parameter in network.parameters()), example_inputs.device)
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.no_grad():
            logits = network(example_inputs.to(device))
    except RuntimeError as error:
        raise SearchError(
            f"the teacher {type(network).__name__} cannot take inputs of shape {list(example_inputs.shape)}: {error}"
        ) from error
    finally:
        for module, mode in modes:
            module.training = mode
    found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    wanted = (example_inputs.shape[0], training.classes)
    if not isinstance(logits, Tensor):
        raise SearchError(
            f"the teacher's output is {found}, expected a tensor of logits {wanted}; wrap it in a module whose forward "
            "returns the logits alone, e.g. network(x).logits or network(x)['logits']"
        )
    if found != wanted:
        raise SearchError(
            f"the teacher's output is {found}, expected logits {wanted} for the {training.classes} classes of "
            f"{training.name}; use the data it was trained on, or a teacher with {training.classes} outputs"
        )


def warn_of_chance(teacher: Teacher) -> None:
    """Warns (`ChanceLevelWarning`) where the teacher found itself to be no better than guessing."""
    for note in teacher.notes:
        warnings.warn(note, ChanceLevelWarning, stacklevel=3)


def check_teacher_name(name: TeacherName | None, network: nn.Module) -> None:
    """Builds the built-in teacher that a student's card will name, and compares it with the network.

    Raises:
        SearchError: there is no such teacher, or it has other tensors; the first difference is named.
    """
    if name is None:
        return
    try:
        built = build_teacher(name.name, **{"seed": 0, **name.kwargs})
    except (TypeError, ValueError) as error:
        raise SearchError(f"teacher_name={name.name!r} with {dict(name.kwargs)} cannot be built: {error}") from error
    expected = {key: tuple(value.shape) for key, value in built.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    for key in [*expected, *found]:
        if expected.get(key) != found.get(key):
            theirs, own = (
                "is missing" if shape is None else f"has shape {list(shape)}"
                for shape in (expected.get(key), found.get(key))
            )
            raise SearchError(
                f"teacher_name={name.name!r} is not this network: {key} {own} here, and {theirs} in {name.name} with "
                f"{dict(name.kwargs)}; give its name and kwargs, or no teacher_name"
            )


def budget_of(options: SearchOptions, teacher: Teacher, timings: Timings) -> Budget:
    """The budgets as numbers; the teacher is timed where a share of its latency is asked for.

    Raises:
        SearchError: one that cannot be read, or is not above 0.
    """
    share_of_latency = isinstance(options.max_latency_ms, str) and options.max_latency_ms.strip().endswith("%")
    teacher_ms = timings.of(TEACHER, teacher.network).median_ms if share_of_latency else math.inf
    return Budget(
        max_parameters=_amount("max_params", options.max_params, teacher.parameters),
        max_macs=_amount("max_macs", options.max_macs, teacher.macs),
        max_latency_ms=_amount("max_latency_ms", options.max_latency_ms, teacher_ms, counts=False),
        max_size_mb=_amount("max_size_mb", options.max_size_mb, size_mb(teacher.network), counts=False),
    )


def _amount(name: str, value: BudgetValue | None, teacher_value: float, *, counts: bool = True) -> float | None:
    try:
        return parse_budget(value, teacher_value, counts=counts)
    except ValueError as error:
        raise SearchError(f"{name}: {error}") from error


def check_students(
    within: Reach, teacher: Teacher, options: SearchOptions, allowed_ms: float | None, timings: Timings
) -> None:
    """Builds the smallest students as the search will build all; where latency is bounded, they are timed.

    Raises:
        SearchError: a student cannot be built as asked, or the quickest is too slow: the feasible range is named.
    """
    try:
        students = [
            space.build(one, inherit=options.start != "fresh", importance=options.importance, seed=options.seed)
            for space, one in within.students
        ]
    except SpaceError as error:
        raise SearchError(f"students of {teacher.name} cannot be built: {error}") from error
    if allowed_ms is None:
        return
    pairs = zip(within.students, students, strict=True)
    quickest = min(timings.of(one.fingerprint, built.to(options.device)).median_ms for (_, one), built in pairs)
    if allowed_ms < quickest:
        raise SearchError(
            f"max_latency_ms={allowed_ms:.3g} is impossible: the smallest student of these stages takes "
            f"{quickest:.3g} ms; ask for {quickest:.3g} to {timings.of(TEACHER, teacher.network).median_ms:.3g} ms "
            "(the teacher's), or allow more to change"
        )
