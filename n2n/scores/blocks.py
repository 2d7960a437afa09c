"""The blocks of a network: those that it names, or, of any network, tensors that all of the signal goes through."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.overrides import TorchFunctionMode

from n2n.networks.stages import channels_first
from n2n.scores.base import ScoreError
from n2n.scores.graph import inputs_first, leaf_of, paths_after, paths_before, sources


@dataclass(frozen=True)
class Block:
    """What a block gives.

    Attributes:
        output: as the network has it, with gradient.
        channels_last: whether its channels are the last axis, as those of tokens [B, N, C].
    """

    output: Tensor
    channels_last: bool

    def first(self, values: Tensor) -> Tensor:
        """Values of the output's shape as [B, C, *spatial]."""
        return channels_first(values, self.channels_last)


def blocks_of(network: nn.Module, images: Tensor, name: str) -> list[Block]:
    """The feature maps of a network block by block, from input to output.

    A tensor is a boundary if every path from the images to the outputs goes through it, as what follows each addition
    of a residual network, or each layer of a plain one. Between two blocks lie weights; of several boundaries without
    weights in between (norm, activation, pooling) the last one with more than one place counts. So a residual network
    has its stem and its residual blocks, and VGG its convolutions, however they are written. A network with an
    attribute `primary_blocks`, a sequence of its modules, has the outputs of these instead, with weights or without.

    Args:
        network: borrowed, with gradients enabled; its weights take part in gradients.
        images: [B, C, H, W].
        name: of the score, for errors.

    Raises:
        ScoreError: there is no block of feature maps.
    """
    leaf = images.detach().clone().requires_grad_()
    told = getattr(network, "primary_blocks", None)
    if told is not None:
        return _told(network, told, leaf, images, name)
    with _Record() as record:
        outputs = network(leaf.clone())  # the network may work in place on what it is given
    boundaries = [] if outputs.grad_fn is None else _boundaries(outputs.grad_fn, leaf)
    # Asked for after the pass: what was written in place has the node of what it was written by.
    tensors = {tensor.grad_fn: tensor for tensor in record.tensors}
    found: dict[int, Block] = {}  # by the weights above a boundary: a later one with the same replaces an earlier one
    for node, weights in boundaries:
        block = _block(tensors.get(node), images)
        if weights and block is not None:
            found[weights] = block
    if not found:
        raise _none(network, images, name)
    return list(found.values())


def _told(network: nn.Module, modules: Sequence[nn.Module], leaf: Tensor, images: Tensor, name: str) -> list[Block]:
    """The outputs of the modules, which hooks read; `network` is borrowed, so that they go with it."""
    outputs: dict[nn.Module, Tensor] = {}
    for module in modules:
        module.register_forward_hook(lambda module, _, output: outputs.__setitem__(module, output))
    network(leaf.clone())
    found = [block for module in modules if (block := _block(outputs.get(module), images)) is not None]
    if not found:
        raise _none(network, images, name)
    return found


def _none(network: nn.Module, images: Tensor, name: str) -> ScoreError:
    return ScoreError(
        f"{name}: expected feature maps [B, C, *spatial] that all of the signal goes through, found none in"
        f" {type(network).__name__} for images {list(images.shape)}; take another score"
    )


@final
class _Record(TorchFunctionMode):
    """Keeps every tensor with a gradient that a function gives, in whatever way the function is called."""

    def __init__(self) -> None:
        super().__init__()
        self.tensors: list[Tensor] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if isinstance(output, Tensor) and output.grad_fn is not None:
            self.tensors.append(output)
        return output


def _block(output: Tensor | None, images: Tensor) -> Block | None:
    if output is None or len(output) != len(images) or output.ndim < 3:
        return None
    tokens = output.ndim == 3 and images.ndim == 4
    if output.ndim != images.ndim and not tokens:
        return None
    block = Block(output, tokens)
    return block if math.prod(block.first(output).shape[2:]) > 1 else None


def _boundaries(output: Node, leaf: Tensor) -> list[tuple[Node, int]]:
    """The operations on all paths from the leaf to the output, from the leaf on, and the weights before each as bits.

    An operation is on all paths where the number of paths through it, those before times those after, is that of all.
    """
    order = inputs_first(output)
    before, after = paths_before(order, leaf), paths_after(order, output)
    weights, bits = dict.fromkeys(order, 0), 0
    for node in order:
        variable = leaf_of(node)
        if variable is not None and variable is not leaf and variable.ndim >= 2:
            weights[node], bits = 1 << bits, bits + 1
        for source in sources(node):
            weights[node] |= weights[source]
    paths = before[output]
    return [(node, weights[node]) for node in order if before[node] and before[node] * after[node] == paths]
