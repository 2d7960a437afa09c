"""Carrying weights over: which channels are kept, and how a consumer makes up for a removed layer before it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from search_spaces.base import SpaceError
from search_spaces.teacher.analysis import Reading
from search_spaces.teacher.channels import Channels, Group
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


def entries(keep: torch.Tensor, repeat: int) -> torch.Tensor:
    """Positions along an axis where each channel has `repeat` neighbouring entries."""
    return (keep.unsqueeze(1) * repeat + torch.arange(repeat, device=keep.device)).flatten()


def group_scores(
    reading: Reading,
    group: Group,
    importance: str,
    *,
    gradients: Mapping[str, torch.Tensor] | None = None,
    seed: int = 0,
) -> torch.Tensor:
    """Importance [C] of a group's channels: the mean over its layers, each scaled to mean 1.

    "l1" and "l2" are norms of the output rows (Li et al., ICLR 2017), "bn_scale" the magnitude of the batch-norm scale
    (Liu et al., ICCV 2017; rows' l1 where there is none), "taylor" the magnitude of weight times gradient summed over a
    row (Molchanov et al., CVPR 2019, eq. 8).

    Raises:
        SpaceError: an unknown name, or "taylor" without gradients.
    """
    if importance not in IMPORTANCE:
        raise SpaceError(f"importance: expected one of {', '.join(IMPORTANCE)}, found {importance!r}")
    if importance == "random":
        return torch.rand(group.width, generator=torch.Generator().manual_seed(seed))
    scores = []
    if importance == "bn_scale":
        modules = [reading.network.get_submodule(name) for name in group.scales]
        norms = [m for m in modules if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.affine]
        scores = [norm.weight.detach().abs() for norm in norms]
        scores = [score for score in scores if len(score) == group.width]
    if not scores:
        scores = [_rows(reading, name, importance, gradients) for name in group.producers]
    scaled = [score / score.mean().clamp_min(torch.finfo(score.dtype).tiny) for score in scores]
    return torch.stack(scaled).mean(dim=0)


def _rows(reading: Reading, layer: str, importance: str, gradients: Mapping[str, torch.Tensor] | None) -> torch.Tensor:
    weight = _weight(reading.network.get_submodule(layer))
    if importance == "taylor":
        name = f"{layer}.weight"
        if gradients is None or name not in gradients:
            raise SpaceError(
                f"importance 'taylor' needs the gradient of {name}; open the space with "
                "gradients=weight_gradients(network, inputs, targets)"
            )
        return (weight * gradients[name].to(weight.device)).flatten(1).sum(1).abs()
    rows = weight.flatten(1)
    return rows.square().sum(1).sqrt() if importance == "l2" else rows.abs().sum(1)


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


def fold_map(reading: Reading, shape: Shape, incoming: Channels) -> torch.Tensor | None:
    """What removed layers did to a consumer's input, as one matrix [entries of the teacher, entries before slicing].

    A removed conv is represented by its response to a constant image (the sum over its taps), scaled by the batch norm
    that followed it; None where nothing was removed.
    """
    if not incoming.folds:
        return None
    repeat = incoming.repeat
    for name, many in incoming.folds:
        repeat //= 1 if name else many
    size = shape.plan.groups[incoming.group].width * repeat
    reference = next(reading.network.parameters())
    matrix = torch.eye(size, device=reference.device, dtype=reference.dtype)
    for name, many in incoming.folds:
        if name:
            matrix = _constant_response(reading, name) @ matrix
        else:
            matrix = torch.kron(matrix, torch.eye(many, device=matrix.device, dtype=matrix.dtype))
    return matrix


def _constant_response(reading: Reading, layer: str) -> torch.Tensor:
    """A conv or linear layer as a matrix [out, in] for inputs that are constant over positions."""
    module = reading.network.get_submodule(layer)
    weight = _weight(module)
    rows = weight.flatten(2).sum(2) if weight.ndim > 2 else weight  # [out, in / groups]
    groups = next(found.groups for found in reading.layers if found.name == layer)
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
