"""What a call of each composite module gives and costs: enough to put something simpler in its place."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from search_spaces.teacher.capture import ExampleInputs, ForwardFn
from search_spaces.teacher.macs import call


@dataclass(frozen=True)
class Outline:
    """One composite module: the structure of its output, which leaf of it is the first tensor, the shape [B, ...] of
    that tensor, the module's parameters, and its MACs for the whole example batch over all calls."""

    structure: pytree.TreeSpec
    leaf: int
    shape: tuple[int, ...]
    parameters: int
    macs: int

    def around(self, value: torch.Tensor) -> Any:
        """An output of this structure with one tensor in it; what else there was is None."""
        leaves: list[torch.Tensor | None] = [None] * self.structure.num_leaves
        leaves[self.leaf] = value
        return pytree.tree_unflatten(leaves, self.structure)

    def __deepcopy__(self, _: dict[int, Any]) -> Outline:
        """Itself, as it never changes: a copied student shares it."""
        return self


def outlines(
    network: nn.Module, example_inputs: ExampleInputs, forward_fn: ForwardFn | None = None
) -> dict[str, Outline]:
    """The composite modules that one forward of a copy calls, by path."""
    twin = copy.deepcopy(network).eval()
    found: dict[str, Outline] = {}
    # Attention as the matrix products that it is: the counter does not know the fused kernel of the CPU.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        for name, module in twin.named_modules():
            if name and any(True for _ in module.children()):
                _watch(name, module, counter, found)
        call(twin, example_inputs, forward_fn)
    return found


def _watch(name: str, module: nn.Module, counter: FlopCounterMode, found: dict[str, Outline]) -> None:
    parameters = sum(parameter.numel() for parameter in module.parameters())
    started: list[int] = []

    def enter(*_: object) -> None:
        started.append(counter.get_total_flops())

    def leave(_: nn.Module, __: object, output: Any) -> None:
        macs = (counter.get_total_flops() - started.pop()) // 2
        leaves, structure = pytree.tree_flatten(output)
        first = next((i for i, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)), None)
        if first is not None:
            before = found[name].macs if name in found else 0
            found[name] = Outline(structure, first, tuple(leaves[first].shape), parameters, before + macs)

    module.register_forward_pre_hook(enter)
    module.register_forward_hook(leave)
