"""Channels that do nothing: what is zero everywhere must be removable without a trace."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from search_spaces.teacher.channels import Plan


def silence(network: nn.Module, plan: Plan, widths: dict[str, int]) -> None:
    """Zeroes the last channels of every group that shrinks, in all layers that give them."""
    keep = torch.ones(plan.classes, dtype=torch.bool)
    for group in plan.groups:
        if group.name in widths:
            block, kept = len(group.classes) // group.blocks, widths[group.name] // group.unit
            keep[torch.from_numpy(group.classes)] = torch.arange(len(group.classes)) % block < kept
    with torch.no_grad():
        for name, ends in plan.ends.items():
            gone = ~keep[torch.from_numpy(ends.outgoing.classes)]
            module = network.get_submodule(name)
            if isinstance(module, nn.Embedding):
                module.weight[:, gone] = 0.0
            elif isinstance(module, nn.modules.conv._ConvTransposeNd):
                blocks = module.weight.unflatten(0, (module.groups, -1))  # [groups, in / groups, out / groups, ...]
                blocks.transpose(1, 2)[gone.reshape(module.groups, -1)] = 0.0
            elif isinstance(module.weight, Tensor):
                module.weight[gone] = 0.0
            for kind in ("bias", "running_mean"):
                values = getattr(module, kind, None)
                if isinstance(values, Tensor):
                    values[gone] = 0.0


def without_averages(network: nn.Module) -> nn.Module:
    """The network without the norms that look at all channels together, in which silent channels leave a trace."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.LayerNorm | nn.GroupNorm):
                setattr(parent, name, nn.Identity())
    return network
