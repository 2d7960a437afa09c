"""Carrying weights over: which channels are kept, and how a consumer makes up for a removed layer before it."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np
import torch
from torch import nn

from search_spaces.base import SpaceError
from search_spaces.teacher.analysis import Reading
from search_spaces.teacher.channels import Channels, Group, Plan
from search_spaces.teacher.flows import Flow, Ints, Joined, Mapped
from search_spaces.teacher.removal import Shape

IMPORTANCE = ("l1", "l2", "bn_scale", "taylor", "random")
"""How channels are ranked; "taylor" needs gradients."""


def keep_indices(scores: torch.Tensor, width: int, blocks: int = 1) -> torch.Tensor:
    """The channels to keep, ascending: the `width // blocks` best of each of `blocks` equal blocks.

    Args:
        scores: importance [C], higher is kept.
        width: how many to keep, a multiple of `blocks`.
        blocks: number of equal blocks.
    """
    per_block = scores.reshape(blocks, -1)  # [blocks, C / blocks]
    best = per_block.argsort(dim=1, descending=True, stable=True)[:, : width // blocks]
    offsets = torch.arange(blocks, device=scores.device).unsqueeze(1) * per_block.shape[1]
    return (best + offsets).flatten().sort().values


def kept_classes(
    reading: Reading,
    shape: Shape,
    importance: str,
    *,
    gradients: Mapping[str, torch.Tensor] | None = None,
    seed: int = 0,
) -> torch.Tensor:
    """Which classes of channels a student keeps, [classes] of bool: the most important ones of each group."""
    keep = torch.ones(shape.plan.classes, dtype=torch.bool)
    for index, group in enumerate(shape.plan.groups):
        if shape.widths[index] < group.width:
            scores = group_scores(reading, shape.plan, group, importance, gradients=gradients, seed=seed + index)
            classes = torch.from_numpy(group.classes)
            keep[classes] = False
            keep[classes[keep_indices(scores.cpu(), shape.kept[index], group.blocks)]] = True
    return keep


def entries(keep: torch.Tensor, channels: Channels) -> torch.Tensor:
    """The positions along an axis that remain, ascending."""
    return keep[torch.from_numpy(channels.classes)].nonzero().flatten()


def group_scores(
    reading: Reading,
    plan: Plan,
    group: Group,
    importance: str,
    *,
    gradients: Mapping[str, torch.Tensor] | None = None,
    seed: int = 0,
) -> torch.Tensor:
    """Importance [classes] of a group's channels: the mean over its layers, each scaled to mean 1.

    "l1" and "l2" are norms of the output rows (Li et al., ICLR 2017), "bn_scale" the magnitude of the batch-norm scale
    (Liu et al., ICCV 2017; rows' l1 where there is none), "taylor" the magnitude of weight times gradient summed over a
    row (Molchanov et al., CVPR 2019, eq. 8).

    Raises:
        SpaceError: an unknown name, or "taylor" without gradients.
    """
    if importance not in IMPORTANCE:
        raise SpaceError(f"importance: expected one of {', '.join(IMPORTANCE)}, found {importance!r}")
    if importance == "random":
        return torch.rand(len(group.classes), generator=torch.Generator().manual_seed(seed))
    scores = []
    if importance == "bn_scale":
        for name in group.scales:
            norm = reading.network.get_submodule(name)
            if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.affine:
                scores.append(_by_class(norm.weight.detach().abs(), plan.ends[name].outgoing.classes, group))
    if not scores:
        for name in group.producers:
            rows = _rows(reading, name, importance, gradients)
            scores.append(_by_class(rows, plan.ends[name].outgoing.classes, group))
    scaled = [score / score.mean().clamp_min(torch.finfo(score.dtype).tiny) for score in scores]
    return torch.stack(scaled).mean(dim=0)


def _by_class(scores: torch.Tensor, classes: Ints, group: Group) -> torch.Tensor:
    """The mean score [classes of the group] of the entries [entries of a layer] that belong to each class."""
    place = np.searchsorted(group.classes, classes).clip(max=len(group.classes) - 1)
    own = torch.from_numpy(np.flatnonzero(group.classes[place] == classes)).to(scores.device)
    at = torch.from_numpy(place).to(scores.device)[own]
    total = scores.new_zeros(len(group.classes)).index_add_(0, at, scores[own])
    return total / scores.new_zeros(len(group.classes)).index_add_(0, at, torch.ones_like(scores[own])).clamp_min(1)


def _rows(reading: Reading, layer: str, importance: str, gradients: Mapping[str, torch.Tensor] | None) -> torch.Tensor:
    weight = _weight(reading.network.get_submodule(layer))
    op, groups = _operation(reading, layer)
    if importance == "taylor":
        name = f"{layer}.weight"
        if gradients is None or name not in gradients:
            raise SpaceError(
                f"importance 'taylor' needs the gradient of {name}; open the space with "
                "gradients=weight_gradients(network, inputs, targets)"
            )
        return output_rows(weight * gradients[name].to(weight.device), op, groups).sum(1).abs()
    rows = output_rows(weight, op, groups)
    return rows.square().sum(1).sqrt() if importance == "l2" else rows.abs().sum(1)


def output_rows(weight: torch.Tensor, op: str, groups: int) -> torch.Tensor:
    """A layer's weights with one row [out, ...] for each output channel."""
    if op == "embedding":
        return weight.t()
    if op == "conv_transpose":  # [in, out / groups, ...]
        blocks = weight.flatten(2).reshape(groups, -1, weight.shape[1], weight[0, 0].numel())
        return blocks.transpose(1, 2).reshape(groups * weight.shape[1], -1)
    return weight.flatten(1)


def _operation(reading: Reading, layer: str) -> tuple[str, int]:
    """The rule and the number of groups of a layer with weights."""
    node = next(node for node in reading.nodes if node.layer == layer)
    return node.op, node.detail[0]


def weight_gradients(network: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
    """Gradients of the cross-entropy on one batch, by parameter name; the network stays as it was.

    Args:
        network: maps `inputs` to logits [B, K]; in eval mode, as a rule.
        inputs: a batch as the network receives it.
        targets: classes [B].
    """
    named = {name: value.detach().clone().requires_grad_() for name, value in network.named_parameters()}
    buffers = {name: value.detach().clone() for name, value in network.named_buffers()}
    with torch.enable_grad():
        logits = torch.func.functional_call(network, {**named, **buffers}, (inputs,))
        loss = nn.functional.cross_entropy(logits, targets)
        found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {
        name: torch.zeros_like(parameter) if gradient is None else gradient
        for (name, parameter), gradient in zip(named.items(), found, strict=True)
    }


def fold_map(reading: Reading, incoming: Channels) -> torch.Tensor | None:
    """What removed layers did to a consumer's input, as one matrix [entries of the teacher, entries before slicing].

    A removed conv is represented by its response to a constant image (the sum over its taps), scaled by the batch norm
    that followed it; None where nothing was removed.
    """
    return None if incoming.flow.made is None else _matrix(reading, incoming.flow)


def _matrix(reading: Reading, flow: Flow) -> torch.Tensor:
    made = flow.made
    if made is None:
        reference = next(reading.network.parameters())
        return torch.eye(len(flow), device=reference.device, dtype=reference.dtype)
    if isinstance(made, Mapped):
        return _constant_response(reading, made.layer) @ _matrix(reading, made.before)
    if isinstance(made, Joined):
        return _block_diagonal([_matrix(reading, part) for part in made.parts])
    before = _matrix(reading, made.before)
    return torch.kron(before, torch.eye(made.many, device=before.device, dtype=before.dtype))


def _block_diagonal(blocks: list[torch.Tensor]) -> torch.Tensor:
    joined: torch.Tensor = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
    return joined


def _constant_response(reading: Reading, layer: str) -> torch.Tensor:
    """A conv or linear layer as a matrix [out, in] for inputs that are constant over positions."""
    module = reading.network.get_submodule(layer)
    weight = _weight(module)
    op, groups = _operation(reading, layer)
    taps = weight.flatten(2).sum(2) if weight.ndim > 2 else weight
    if op == "conv_transpose":
        # Each position is reached by one tap in `stride` along every axis.
        steps = module.stride
        stride = prod(steps) if isinstance(steps, tuple) else 1
        taps = output_rows(taps.unsqueeze(2), op, groups) / stride
    rows = taps  # [out, in / groups]
    if groups > 1:
        blocks = rows.reshape(groups, -1, rows.shape[1])  # [groups, out / groups, in / groups]
        eye = torch.eye(groups, device=rows.device, dtype=rows.dtype)
        rows = torch.einsum("gh,goi->gohi", eye, blocks).reshape(rows.shape[0], -1)
    node = next(node for node in reading.nodes if node.layer == layer)
    consumers = [other for other in reading.nodes if node.index in other.inputs]
    if len(consumers) == 1 and consumers[0].op == "batch_norm" and consumers[0].layer:
        norm = reading.network.get_submodule(consumers[0].layer)
        if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.running_var is not None:
            scale = (norm.running_var + norm.eps).rsqrt()
            scale = scale * norm.weight.detach() if norm.affine else scale
            rows = rows * scale.unsqueeze(1)
    return rows


def _weight(module: nn.Module) -> torch.Tensor:
    weight = module.weight
    if not isinstance(weight, torch.Tensor):
        raise SpaceError(f"{type(module).__name__}: expected a weight tensor, found {type(weight).__name__}")
    return weight.detach()
