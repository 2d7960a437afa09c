"""From an architecture to a network: edits on a copy of the teacher, with its weights where layers survive."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import nn

from search_spaces.teacher.analysis import Layer, Reading
from search_spaces.teacher.architecture import TeacherArchitecture
from search_spaces.teacher.edits import (
    Emptied,
    Removed,
    narrow_conv,
    narrow_conv_transpose,
    narrow_embedding,
    narrow_linear,
    narrow_scale,
    replace,
    shrink_kernel,
    start_afresh,
)
from search_spaces.teacher.inherit import entries, fold_map, kept_classes
from search_spaces.teacher.removal import Shape, outermost, shape_of


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
    keep = kept_classes(reading, shape, importance, gradients=gradients, seed=seed)  # [classes]
    for module in network.modules():
        if getattr(module, "inplace", False) is True:
            # A removed layer must not let an activation overwrite what a shortcut needs.
            setattr(module, "inplace", False)  # noqa: B010 - the attribute is not nn.Module's own
    for layer in reading.layers:
        if layer.name in shape.plan.ends and layer.name not in shape.removed:
            _narrow(network, reading, shape, layer, keep)
        if layer.name in shape.kernels and layer.name not in shape.removed:
            shrink_kernel(network.get_submodule(layer.name), layer, shape.kernels[layer.name])
    _remove(network, reading, shape)
    if not inherit:
        start_afresh(network, seed)
    return network.requires_grad_(True).train()


def _narrow(network: nn.Module, reading: Reading, shape: Shape, layer: Layer, keep: torch.Tensor) -> None:
    ends = shape.plan.ends[layer.name]
    keep_in, keep_out = entries(keep, ends.incoming), entries(keep, ends.outgoing)
    fold = fold_map(reading, ends.incoming)
    full = reading.full.ends.get(layer.name)
    whole = (len(full.incoming.classes) if full else reading.entries(layer), reading.entries(layer))
    if fold is None and (len(keep_in), len(keep_out)) == whole:
        return
    module, op = network.get_submodule(layer.name), reading.nodes[layer.nodes[0]].op
    if op == "conv_transpose":
        narrow_conv_transpose(module, layer, keep_in, keep_out, fold)
    elif layer.kind in {"conv", "depthwise_conv"}:
        narrow_conv(module, layer, keep_in, keep_out, fold)
    elif layer.kind == "linear":
        narrow_linear(module, keep_in, keep_out, fold)
    elif op == "embedding":
        narrow_embedding(module, keep_out)
    else:
        narrow_scale(module, keep_out, displaced=fold is not None)


def _remove(network: nn.Module, reading: Reading, shape: Shape) -> None:
    overwritten = _overwritten(reading, shape.removed)
    for name in shape.removed:
        replace(network, name, Removed(copies=name in overwritten))
    for branch in outermost(shape.emptied):
        for name, outline in branch.units.items():
            replace(network, name, Removed(outline=outline))
        if branch.passes:
            continue
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
    return (found.axis, found.entries(shape.kept)) if found else None


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
