"""From an architecture to a network: edits on a copy of the teacher, with its weights where layers survive."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import nn

from search_spaces.teacher.analysis import Reading, read
from search_spaces.teacher.architecture import TeacherArchitecture, architecture_from_json
from search_spaces.teacher.edits import (
    Emptied,
    Removed,
    narrow_conv,
    narrow_linear,
    narrow_scale,
    replace,
    shrink_kernel,
    start_afresh,
)
from search_spaces.teacher.inherit import entries, fold_map, group_scores, keep_indices
from search_spaces.teacher.removal import Shape, outermost, shape_of
from search_spaces.teacher.trace import ExampleInputs, ForwardFn


def build(
    reading: Reading,
    architecture: TeacherArchitecture,
    *,
    inherit: bool = True,
    importance: str = "l1",
    gradients: Mapping[str, torch.Tensor] | None = None,
    seed: int = 0,
) -> nn.Module:
    """The network of an architecture: a new module in train mode, all its parameters trainable.

    Raises:
        SpaceError: the architecture does not belong to the teacher, or an argument is not understood.
    """
    shape = shape_of(reading, architecture)
    network = copy.deepcopy(reading.network)
    kept = [
        _kept(reading, shape, i, importance, gradients, seed) for i in range(len(shape.plan.groups))
    ]  # channels of each group, ascending
    for module in network.modules():
        if getattr(module, "inplace", False) is True:
            # A removed layer must not let an activation overwrite what a shortcut needs.
            setattr(module, "inplace", False)  # noqa: B010 - the attribute is not nn.Module's own
    for layer in reading.layers:
        if layer.name in shape.plan.ends and layer.name not in shape.removed:
            _narrow(network, reading, shape, layer.name, kept)
        if layer.name in shape.kernels and layer.name not in shape.removed:
            shrink_kernel(network.get_submodule(layer.name), layer, shape.kernels[layer.name])
    _remove(network, reading, shape)
    if not inherit:
        start_afresh(network, seed)
    return network.requires_grad_(True).train()


def rebuild(
    network: nn.Module, example_inputs: ExampleInputs, architecture_json: str, *, forward_fn: ForwardFn | None = None
) -> nn.Module:
    """The student of a stored architecture, built on the network that it came from.

    Raises:
        SpaceError: the text is damaged, or belongs to a teacher of another structure.
    """
    return build(read(network, example_inputs, forward_fn=forward_fn), architecture_from_json(architecture_json))


def _kept(
    reading: Reading,
    shape: Shape,
    index: int,
    importance: str,
    gradients: Mapping[str, torch.Tensor] | None,
    seed: int,
) -> torch.Tensor:
    group, width = shape.plan.groups[index], shape.widths[index]
    if width == group.width:
        return torch.arange(width)
    scores = group_scores(reading, group, importance, gradients=gradients, seed=seed + index)
    return keep_indices(scores.cpu(), width, group.blocks)


def _narrow(network: nn.Module, reading: Reading, shape: Shape, name: str, kept: list[torch.Tensor]) -> None:
    ends, full = shape.plan.ends[name], reading.full.ends[name]
    layer = next(found for found in reading.layers if found.name == name)
    untouched = (
        not ends.incoming.folds
        and shape.width_in(name) == reading.full.groups[full.incoming.group].width * full.incoming.repeat
        and shape.width_out(name) == reading.full.groups[full.outgoing.group].width * full.outgoing.repeat
    )
    if untouched:
        return
    module = network.get_submodule(name)
    keep_in = entries(kept[ends.incoming.group], ends.incoming.repeat)
    keep_out = entries(kept[ends.outgoing.group], ends.outgoing.repeat)
    fold = fold_map(reading, shape, ends.incoming)
    if layer.kind in {"conv", "depthwise_conv"}:
        narrow_conv(module, layer, keep_in, keep_out, fold)
    elif layer.kind == "linear":
        narrow_linear(module, keep_in, keep_out, fold)
    else:
        narrow_scale(module, keep_out, displaced=fold is not None)


def _remove(network: nn.Module, reading: Reading, shape: Shape) -> None:
    overwritten = _overwritten(reading, shape.removed)
    for name in shape.removed:
        replace(network, name, Removed(copies=name in overwritten))
    for branch in outermost(shape.emptied):
        for name, outline in branch.units.items():
            replace(network, name, Removed(outline=outline))
        add = reading.nodes[branch.add]
        end = reading.nodes[next(i for i in add.inputs if i != branch.shortcut)]
        outgoing = _channels_at(reading, shape, branch.shortcut)
        axis = outgoing[0] if outgoing else 1 if len(end.shape) > 3 else len(end.shape) - 1
        channels = outgoing[1] if outgoing else end.shape[axis]
        zeros = Emptied(channels=channels, axis=axis, stride=branch.stride, outline=branch.units.get(branch.host))
        replace(network, branch.host, zeros)


def _channels_at(reading: Reading, shape: Shape, index: int) -> tuple[int, int] | None:
    """Axis and number of entries of the channels at a node, found at the nearest layer before it that carries them."""
    found = shape.plan.values.get(index)
    return (found.axis, shape.widths[found.group] * found.repeat) if found else None


def _overwritten(reading: Reading, removed: frozenset[str]) -> frozenset[str]:
    """The removed layers whose output the user's own code overwrites in place."""
    found = set()
    for node in reading.nodes:
        if node.in_place:
            index = node.inputs[0]
            while reading.nodes[index].layer in removed:
                found.add(reading.nodes[index].layer)
                index = reading.nodes[index].inputs[0]
    return frozenset(found)
