"""The size and the work of a network, counted without running it on data."""

from __future__ import annotations

from torch import Tensor, nn

from search_spaces.teacher.macs import count_macs


def parameters(network: nn.Module) -> int:
    """The number of parameters, trained or frozen; a shared one counts once, buffers do not count."""
    return sum(parameter.numel() for parameter in network.parameters())


def size_mb(network: nn.Module) -> float:
    """Size of parameters and buffers in MB (10^6 bytes), at the precision that they are stored in."""
    tensors = [*network.parameters(), *network.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors) / 1e6


def macs(network: nn.Module, example_inputs: Tensor | tuple[Tensor, ...]) -> int:
    """Multiply-accumulates of convolutions and matrix products for one example, as in evaluation mode.

    The batch of `example_inputs` [B, ...] is divided out; see `count_macs`, the one that the spaces count with.

    Raises:
        RuntimeError: the network does not run on these inputs.
    """
    first = example_inputs[0] if isinstance(example_inputs, tuple) else example_inputs
    return count_macs(network, example_inputs) // max(1, len(first))
