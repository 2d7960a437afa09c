"""What of a network lies on the way from its images to its outputs, read from the graph of one pass.

An operation is live if a path of operations leads through it from the images to the outputs. In a cell with an empty
edge, say, a convolution may take nothing but zeros, or hand on to nobody: it has parameters, but no path. A layer is a
live convolution or matrix product that takes weights (parameters of two axes and more, or what is made of parameters
alone). Of the values that run nothing matters, so that these scores need no batch, no labels and no good weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.nn.attention import SDPBackend, sdpa_kernel

from n2n.scores.base import Probe, ScoreError
from n2n.scores.graph import inputs_first, leaf_of, paths_after, paths_before, sources
from n2n.scores.loss import differentiable

_PRODUCTS = ("Convolution", "Addmm", "Mm", "Bmm", "Baddbmm", "Linear", "MkldnnConvolution")
_POOLINGS = ("AvgPool", "MaxPool")


@dataclass(frozen=True)
class Layer:
    """A live layer.

    Attributes:
        weights: elements of its weights.
        new: those of them that no layer before it takes.
        places: at how many places of an image (or tokens) it works.
        share: of all paths from the images to the outputs, those that lead through it.
    """

    weights: int
    new: int
    places: int
    share: float


@dataclass(frozen=True)
class Paths:
    """The live layers of a network.

    Attributes:
        layers: inputs first.
        longest: through how many of them the longest path leads.
        blurs: of all paths, through how many poolings one leads that keep the number of places: they mix neighbours,
            and learn nothing.
    """

    layers: tuple[Layer, ...]
    longest: int
    blurs: float

    @property
    def parameters(self) -> int:
        """Elements of the live weights; a weight that several layers take counts once."""
        return sum(layer.new for layer in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the live layers for one image."""
        return sum(layer.weights * layer.places for layer in self.layers)

    @property
    def mean_length(self) -> float:
        """Of all paths, through how many layers one leads."""
        return math.fsum(layer.share for layer in self.layers)


def live_params(network: nn.Module, probe: Probe) -> float:
    """The weights of live layers: the parameters that the images have a path through.

    Biases and norms are not counted. X. Ning et al., *Evaluating Efficient Performance Estimators of Neural
    Architectures*, NeurIPS 2021, show how much unreachable operations mislead counts on NAS-Bench-201.

    Raises:
        ScoreError: no layer is live, or the outputs are no tensor.
        RuntimeError, ValueError: the network does not run on the probe's images.
    """
    return float(paths_of(network, probe, "live_params").parameters)


def path_length(network: nn.Module, probe: Probe) -> float:
    """Through how many layers a path from the images to the outputs leads, the mean over all paths.

        s = sum_l n_l / n,   n_l = the number of paths through layer l, n = that of all

    A. Veit, M. Wilber, S. Belongie, *Residual Networks Behave Like Ensembles of Relatively Shallow Networks*, NeurIPS
    2016, count paths so; n residual blocks of two layers between a stem and a classifier have n + 2.

    Raises:
        ScoreError: no layer is live, or the outputs are no tensor.
        RuntimeError, ValueError: the network does not run on the probe's images.
    """
    return paths_of(network, probe, "path_length").mean_length


def paths_of(network: nn.Module, probe: Probe, name: str) -> Paths:
    """Runs two images forth and reads the graph.

    Raises:
        ScoreError: no layer is live, or the outputs are no tensor.
        RuntimeError, ValueError: the network does not run on the probe's images.
    """
    few = probe.images[:2]
    # The fused attention has one node for two products.
    with differentiable(network, probe, name), sdpa_kernel(SDPBackend.MATH):
        leaf = few.detach().clone().requires_grad_()
        outputs = network(leaf.clone())  # the network may work in place on what it is given
        if not isinstance(outputs, Tensor) or outputs.grad_fn is None:
            raise ScoreError(f"{name}: expected outputs that depend on the images, found others; take another score")
        found = _read(outputs.grad_fn, leaf)
    if not found.layers:
        raise ScoreError(
            f"{name}: expected a convolution or matrix product between images and outputs, found none in"
            f" {type(network).__name__}; take another score"
        )
    return found


def _read(output: Node, leaf: Tensor) -> Paths:
    order = inputs_first(output)
    before, after = paths_before(order, leaf), paths_after(order, output)
    weights: dict[Node, frozenset[Tensor]] = {}  # of operations that no path from the images leads to
    longest: dict[Node, int] = {}
    seen: frozenset[Tensor] = frozenset()
    layers, blurs = [], []
    for node in order:
        taken = frozenset[Tensor]().union(*(weights.get(source, ()) for source in sources(node)))
        if not before[node]:
            own = leaf_of(node)
            weights[node] = taken | {own} if own is not None and own.ndim >= 2 else taken
            continue
        is_layer = bool(taken) and _is_product(node)
        longest[node] = int(is_layer) + max((longest.get(source, 0) for source in sources(node)), default=0)
        share = before[node] * after[node] / before[output] if before[output] else 0.0
        if _is_blur(node):
            blurs.append(share)
        if is_layer and share:
            layers.append(Layer(_elements(taken), _elements(taken - seen), _places(node, len(leaf)), share))
            seen |= taken
    return Paths(tuple(layers), longest.get(output, 0), math.fsum(blurs))


def _is_product(node: Node) -> bool:
    return node.name().removesuffix("0").removesuffix("Backward") in _PRODUCTS


def _is_blur(node: Node) -> bool:
    """Whether it is a pooling of as many places as it gives, more than one."""
    if not node.name().startswith(_POOLINGS):
        return False
    (source, index), *_ = node.next_functions
    if source is None:
        return False
    given, made = (tuple(one.shape[2:]) for one in (source._input_metadata[index], node._input_metadata[0]))
    return given == made and math.prod(made) > 1


def _elements(weights: frozenset[Tensor]) -> int:
    return sum(weight.numel() for weight in weights)


def _places(node: Node, images: int) -> int:
    """Of what a convolution gives [B, C, *spatial], or a matrix product of flat tokens [B N, C]."""
    rows, _, *spatial = node._input_metadata[0].shape
    return int(max(1, rows // images) * math.prod(spatial))
