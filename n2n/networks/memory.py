"""How much memory the training of a network takes, measured on one example."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


def training_bytes(network: nn.Module, example: Tensor, batch: int) -> int:
    """Bytes that a training step on `batch` examples takes: what the backward pass needs, and four times the weights.

    The former is what autograd keeps of one forward pass on `example` [1, ...], every storage once and without the
    weights, times `batch`; the latter are weights, gradients, the optimiser's momentum and a copy. What operations take
    for themselves on the way is not in it. The network is copied, not run.
    """
    borrowed = copy.deepcopy(network).eval().requires_grad_(True)
    weights = {one.untyped_storage().data_ptr(): one.nbytes for one in [*borrowed.parameters(), *borrowed.buffers()]}
    kept: dict[int, Tensor] = {}  # holds the tensors, so that no storage is freed and counted again under its address

    def keep(tensor: Tensor) -> Tensor:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        borrowed(example)
    activations = sum(one.untyped_storage().nbytes() for pointer, one in kept.items() if pointer not in weights)
    return batch * activations // max(1, len(example)) + 4 * sum(weights.values())
