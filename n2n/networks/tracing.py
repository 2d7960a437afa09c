"""One pass through a network, written down: which module gave which maps, in order, and what enters the classifier."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from n2n.networks.stages import Stage, first_tensor, works_on_last_axis
from n2n.networks.untouched import untouched

_ACTIVATION_WORDS = ("relu", "gelu", "swish", "silu", "mish", "activation")
_NO_ACTIVATIONS = (nn.MultiheadAttention, nn.Softmax, nn.LogSoftmax, nn.Softmin, nn.Softmax2d)


@dataclass(frozen=True)
class Given:
    """Maps that a module gave in a traced pass.

    Attributes:
        stage: where they can be read again.
        tokens: whether they are [B, N, D] in the network.
        activation: whether the module is an activation.
        container: whether it has modules inside.
        handed_on: the containers that gave the very same maps after it.
    """

    stage: Stage
    tokens: bool
    activation: bool
    container: bool
    handed_on: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, ...]:
        """The spatial size."""
        return self.stage.shape[1:]


@dataclass(frozen=True)
class Trace:
    """What a pass showed.

    Attributes:
        name: what errors call the network.
        given: all maps with more than one place, in the order in which modules gave them.
        named: of every module that ran, where its last output can be read.
        classifier: where what enters the last layer with weights can be read, [B, D]; None where there is none.
    """

    name: str
    given: tuple[Given, ...]
    named: dict[str, Given]
    classifier: Stage | None


def trace(network: nn.Module, inputs: Tensor, *, name: str = "the network") -> Trace:
    """Runs prepared inputs [B, C, *spatial], B of 2 or more, in eval mode; the network is handed back as it was."""
    record = _Record(inputs)
    with untouched(network, parameters=False), torch.no_grad():
        network.eval()
        for path, module in network.named_modules():
            module.register_forward_hook(record.hook(path))
        output = first_tensor(network(inputs))
    classes = output.shape[-1] if output is not None else 0
    given = _counted(record.resolved(unique=True))
    named = {one.stage.module: one for one in _counted(record.resolved(unique=False))}
    return Trace(f"{name} ({type(network).__name__})", given, named, record.classifier(classes))


def is_activation(module: nn.Module) -> bool:
    """Whether a module is an activation, one of torch's or another's with a name that says so."""
    if isinstance(module, _NO_ACTIVATIONS):
        return False
    said = any(word in type(module).__name__.lower() for word in _ACTIVATION_WORDS)
    return type(module).__module__ == "torch.nn.modules.activation" or (said and not list(module.children()))


@dataclass(frozen=True)
class _Raw:
    """An output as the module gave it."""

    module: str
    shape: tuple[int, ...]  # without B
    by_last_axis: bool
    by_channels: bool
    activation: bool
    container: bool
    handed_on: bool


class _Record:
    def __init__(self, inputs: Tensor) -> None:
        self._batch, self._axes = len(inputs), inputs.dim() - 1
        self._raw: list[_Raw] = []
        self._entering: list[tuple[str, tuple[int, ...], tuple[int, ...], bool]] = []
        self._last: Tensor | None = None
        self._version = 0

    def hook(self, name: str) -> Callable[[nn.Module, tuple[object, ...], object], None]:
        def look(module: nn.Module, args: tuple[object, ...], output: object) -> None:
            tensor = first_tensor(output)
            if tensor is None or len(tensor.shape) < 2 or len(tensor) != self._batch or isinstance(module, nn.Softmax):
                return
            last, weight = works_on_last_axis(module), getattr(module, "weight", None)
            entering = first_tensor(args)
            if isinstance(weight, Tensor) and weight.dim() > 1 and entering is not None:
                self._entering.append((name, tuple(entering.shape[1:]), tuple(tensor.shape[1:]), last))
            if tensor.dim() < 3:
                return
            # A container hands on the very tensor of its last child; an in-place activation gives a newer version.
            same = tensor is self._last and tensor._version == self._version
            self._last, self._version = tensor, tensor._version
            by_channels = isinstance(weight, Tensor) and not last
            inside = next(module.children(), None) is not None
            shape = tuple(tensor.shape[1:])
            self._raw.append(_Raw(name, shape, last, by_channels, is_activation(module), inside, same))

        return look

    def resolved(self, *, unique: bool) -> list[Given]:
        """The outputs of which it can be told which axis holds the channels, with several places, handed on or not."""
        last_axis = {one.shape for one in self._raw if one.by_last_axis}
        last_axis -= {one.shape for one in self._raw if one.by_channels}
        found: list[Given] = []
        kept = False  # whether the maps before are among those found
        for one in self._raw:
            if unique and one.handed_on:
                if kept:
                    found[-1] = replace(found[-1], handed_on=(*found[-1].handed_on, one.module))
                continue
            kept = False
            last = one.by_last_axis or one.shape in last_axis
            if not last and len(one.shape) != self._axes:
                continue
            shape = (one.shape[-1], *one.shape[:-1]) if last else one.shape
            if math.prod(shape[1:]) > 1:
                tokens = last and len(one.shape) == 2
                found.append(Given(Stage(one.module, shape, last), tokens, one.activation, one.container))
                kept = True
        return found

    def classifier(self, classes: int) -> Stage | None:
        """What enters the last layer with a weight that gives a number for each class, averaged over places."""
        for module, entering, leaving, last in reversed(self._entering):
            if leaving[-1 if last else 0] == classes:
                return Stage(module, (entering[-1 if last else 0],), last, entering=True, pooled=True)
        return None


def _counted(found: list[Given]) -> tuple[Given, ...]:
    """The same with the number of maps that the same module gives later in the pass."""
    later: Counter[tuple[str, tuple[int, ...]]] = Counter()
    counted = []
    for one in reversed(found):
        key = (one.stage.module, one.stage.shape)
        counted.append(replace(one, stage=replace(one.stage, later=later[key])))
        later[key] += 1
    return tuple(reversed(counted))
