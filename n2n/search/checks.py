"""What must hold of a teacher, and of what is asked for it, before a search begins."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from n2n.data.base import TrainingData
from n2n.distill.teacher import Teacher
from n2n.evaluate.rungs import RungError, parse_rung
from n2n.networks import build_teacher
from n2n.scores import ScoreError
from n2n.scores.before_pooling import classifier_of
from n2n.search.artefacts import TeacherName
from n2n.search.errors import ChanceLevelWarning, SearchError
from n2n.search.options import SearchOptions
from n2n.search.spaces import Reach
from search_spaces.base import SpaceError


def check_network(
    network: nn.Module, example_inputs: Tensor, training: TrainingData, *, what: str = "the teacher"
) -> None:
    """Runs the example through the network in eval mode and compares both sides with the data; modes are put back.

    The example is moved to the device of the network's first parameter. `what` is what errors call the network.

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
            f"{what} {type(network).__name__} cannot take inputs of shape {list(example_inputs.shape)}: {error}"
        ) from error
    finally:
        for module, mode in modes:
            module.training = mode
    found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    wanted = (example_inputs.shape[0], training.classes)
    if not isinstance(logits, Tensor):
        raise SearchError(
            f"{what}'s output is {found}, expected a tensor of logits {wanted}; wrap it in a module whose forward "
            "returns the logits alone, and give Logits(network), whose weights are called network.NAME:\n\n"
            f"{_wrapper(logits, wanted)}"
        )
    if found != wanted:
        raise SearchError(
            f"{what}'s output is {found}, expected logits {wanted} for the {training.classes} classes of "
            f"{training.name}; use the data it was trained on, or a network with {training.classes} outputs"
        )


def _wrapper(output: object, wanted: tuple[int, int]) -> str:
    """Code to paste: a module that takes the logits, of shape `wanted` [B, K], out of an output; indented by four."""
    return "\n".join(
        (
            "    class Logits(torch.nn.Module):",
            "        def __init__(self, network): super().__init__(); self.network = network",
            f"        def forward(self, x): return self.network(x){_way_to(output, wanted)}",
        )
    )


def _way_to(output: object, wanted: tuple[int, int]) -> str:
    """What to write behind an output for its logits; an attribute by that name where no tensor has their shape."""
    if isinstance(output, Mapping):
        entries: list[tuple[str, object]] = [(f"[{key!r}]", value) for key, value in output.items()]
    elif isinstance(output, tuple | list):
        entries = [(f"[{index}]", value) for index, value in enumerate(output)]
    else:
        entries = [(f".{name}", value) for name, value in vars(output).items()] if hasattr(output, "__dict__") else []
    fitting = [way for way, value in entries if isinstance(value, Tensor) and tuple(value.shape) == wanted]
    named = [way for way in fitting if "logits" in way]
    return (named or fitting or [".logits"])[0]


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


def check_students(within: Reach, teacher: Teacher, options: SearchOptions) -> list[nn.Module]:
    """Builds the smallest students, on the device, as the search will build all.

    Raises:
        SearchError: a student cannot be built as asked.
    """
    try:
        return [
            space.build(one, inherit=options.start != "fresh", importance=options.importance, seed=options.seed).to(
                options.device
            )
            for space, one in within.students
        ]
    except SpaceError as error:
        raise SearchError(f"students of {teacher.name} cannot be built: {error}") from error


SAME_WIDTH = ("diswot", "diswot_semantic")
"""Scores that compare channel by channel, so that students need the teacher's width before the classifier."""


def check_scores(
    scores: Sequence[str], students: Sequence[nn.Module], teacher: Teacher, example_inputs: Tensor
) -> None:
    """Refuses a score that most students of the search would not have; the smallest ones are looked at.

    Args:
        scores: those that the search takes.
        students: the smallest that its stages reach, on the teacher's device.
        example_inputs: [B, C, H, W], on that device, too.

    Raises:
        SearchError: students are narrower before the classifier than the teacher, and a score compares channels there.
    """
    for score in scores:
        if score not in SAME_WIDTH:
            continue
        try:
            widths = [_width(network, example_inputs[:1], score) for network in (teacher.network, *students)]
        except ScoreError as error:
            raise SearchError(str(error)) from error
        if min(widths) < widths[0]:
            raise SearchError(
                f"{score!r} compares the {widths[0]} channels before the classifier of {teacher.name} with those of"
                f" students, which may have {min(widths)} here: take 'diswot_free', which compares any widths, or keep"
                " that width: shrinkage=False, or the layer among ignored_layers"
            )


def _width(network: nn.Module, example: Tensor, score: str) -> int:
    """What the classifier takes of an example: features, or channels of a convolution."""
    return int(classifier_of(network, example, score).weight.shape[1])


def check_truth(truth: str, rungs: Sequence[str], objective: str) -> None:
    """Refuses a yardstick that is none.

    Raises:
        SearchError: it is a score, or one of the rungs that are measured with it.
    """
    try:
        found = parse_rung(truth, objective=objective)
        for one in rungs:
            parse_rung(one, objective=objective)
    except RungError as error:
        raise SearchError(str(error)) from error
    if found.recipe is None or truth in rungs:
        raise SearchError(
            f"truth={truth!r} (--against): expected a long distillation such as 'inherited:3e', which is none of the"
            f" rungs {', '.join(rungs)}"
        )
