"""What must hold of a teacher before a search begins."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from n2n.data.base import TrainingData
from n2n.distill.teacher import Teacher
from n2n.search.artefacts import ForwardFn
from n2n.search.errors import ChanceLevelWarning, SearchError


def check_network(
    network: nn.Module, example_inputs: Tensor, training: TrainingData, *, forward_fn: ForwardFn | None = None
) -> None:
    """Runs the example through the teacher in eval mode and compares both sides with the data; modes are put back.

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
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.no_grad():
            logits = forward_fn(network, example_inputs) if forward_fn else network(example_inputs)
    except RuntimeError as error:
        raise SearchError(
            f"the teacher {type(network).__name__} cannot take inputs of shape {list(example_inputs.shape)}: {error}"
        ) from error
    finally:
        for module, mode in modes:
            module.training = mode
    found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    wanted = (example_inputs.shape[0], training.classes)
    if found != wanted:
        raise SearchError(
            f"the teacher's output is {found}, expected logits {wanted} for the {training.classes} classes of "
            f"{training.name}; use the data it was trained on, or a teacher with {training.classes} outputs"
        )


def warn_of_chance(teacher: Teacher) -> None:
    """Warns (`ChanceLevelWarning`) where the teacher found itself to be no better than guessing."""
    for note in teacher.notes:
        warnings.warn(note, ChanceLevelWarning, stacklevel=3)
