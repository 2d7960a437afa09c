"""The feature maps of a network: the last stage found in one pass, any read by hooks that are gone afterwards."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from n2n.networks.untouched import untouched


class StageError(ValueError):
    """A network has no feature maps that could be looked at; the message says what to do instead."""


@dataclass(frozen=True)
class Stage:
    """Where a network gives feature maps.

    Attributes:
        module: the module's name in `network.named_modules()`; "" is the network itself.
        shape: (C, *spatial) of one example's maps; (D,) where they are pooled.
        channels_last: whether the module puts its channels behind the places, as layers on tokens do.
        later: how many maps of the same shape the module still gives after these in one pass.
        entering: whether these are the maps that enter the module, not those that leave it.
        pooled: whether the maps are averaged over their places, to [B, D].
    """

    module: str
    shape: tuple[int, ...]
    channels_last: bool
    later: int = 0
    entering: bool = False
    pooled: bool = False

    @property
    def bytes(self) -> int:
        """Of one example's maps in float32."""
        return 4 * math.prod(self.shape)


def last_stage(
    network: nn.Module,
    inputs: Tensor,
    *,
    name: str = "the network",
    instead: str = "take a network with convolutions, or something that looks at no feature maps",
) -> Stage:
    """The last module to run that gives maps with more than one place, found by one pass in eval mode.

    Maps are [B, C, *spatial] with as many axes as the inputs. Of the layers that work on the last axis (linear layers
    and norms) it is the channels', so that their tokens [B, N, D] count as D channels with N places.

    Args:
        network: handed back as it was.
        inputs: prepared images [B, C, *spatial] on the network's device.
        name: what errors call it.
        instead: what to do where there is none, for the error.

    Raises:
        StageError: there is no such module, or it cannot be told which axis of its maps is the channels'.
    """
    watch = _Watch(len(inputs))
    with untouched(network, parameters=False), torch.no_grad():
        network.eval()
        for path, module in network.named_modules():
            module.register_forward_hook(watch.hook(path))
        network(inputs)
    which = f"{name} ({type(network).__name__})"
    if watch.output is None:
        raise StageError(
            f"{which} has no feature maps: expected a module that gives [B, C, *spatial] with several places, found"
            f" none among {len(list(network.modules()))} for inputs {list(inputs.shape)}; {instead}"
        )
    if not watch.channels_last and watch.output.dim() != inputs.dim():
        raise StageError(
            f"{which}: the last maps are {list(watch.output.shape)}, from module {watch.name!r}, for inputs"
            f" {list(inputs.shape)}; expected maps with as many axes, or tokens from a linear layer or a norm, for"
            f" otherwise it cannot be told which axis holds the channels; {instead}"
        )
    return Stage(watch.name, tuple(channels_first(watch.output, watch.channels_last).shape[1:]), watch.channels_last)


@final
class StageReader:
    """The maps of the last forward pass; see `reading`."""

    def __init__(self, network: nn.Module, stage: Stage) -> None:
        self._network, self._stage = network, stage
        self._maps: deque[Tensor] = deque(maxlen=stage.later + 1)

    def attach(self) -> Callable[[], None]:
        """Hooks the module, and gives what removes the hook."""
        module = self._network.get_submodule(self._stage.module)
        if self._stage.entering:
            return module.register_forward_pre_hook(self._before).remove
        return module.register_forward_hook(self._after).remove

    def _before(self, module: nn.Module, args: tuple[object, ...]) -> None:
        del module
        self._keep(args[0] if args else None)

    def _after(self, module: nn.Module, args: object, output: object) -> None:
        del module, args
        self._keep(output)

    def _keep(self, found: object) -> None:
        """Keeps what has the stage's shape: a module may run in several places."""
        tensor = first_tensor(found)
        if tensor is None or (not self._stage.pooled and tensor.dim() != len(self._stage.shape) + 1):
            return
        maps = channels_first(tensor, self._stage.channels_last)
        if self._stage.pooled:
            maps = maps.flatten(2).mean(dim=2) if maps.dim() > 2 else maps
        if tuple(maps.shape[1:]) == self._stage.shape:
            self._maps.append(maps.clone())  # what follows may work in place

    def take(self) -> Tensor:
        """The maps [B, C, *spatial] (or [B, D]) of the last pass, which are handed out once.

        Raises:
            RuntimeError: the pass came by no maps of the stage's shape.
        """
        maps = self._maps[0] if len(self._maps) == self._stage.later + 1 else None
        self._maps.clear()
        if maps is None:
            raise RuntimeError(
                f"{type(self._network).__name__}: module {self._stage.module!r} gave no maps"
                f" [B, {', '.join(map(str, self._stage.shape))}] in this pass, as it did when the last stage was looked"
                f" for; give the network a forward whose shapes are the same in every pass"
            )
        return maps


@contextmanager
def reading(network: nn.Module, stage: Stage) -> Iterator[StageReader]:
    """Reads the maps of a stage while the network runs inside; whatever happens, no hook stays."""
    reader = StageReader(network, stage)
    remove = reader.attach()
    try:
        yield reader
    finally:
        remove()


@contextmanager
def reading_all(network: nn.Module, stages: Sequence[Stage]) -> Iterator[Callable[[], tuple[Tensor, ...]]]:
    """Reads the maps of several stages; the function that it gives takes those of the last pass, in the same order."""
    with ExitStack() as opened:
        readers = [opened.enter_context(reading(network, stage)) for stage in stages]
        yield lambda: tuple(reader.take() for reader in readers)


class _Watch:
    """Remembers the last output with more than one place, and the innermost module that gave it."""

    def __init__(self, batch: int) -> None:
        self._batch = batch
        self._version = 0
        self.output: Tensor | None = None
        self.name = ""
        self.channels_last = False

    def hook(self, name: str) -> Callable[[nn.Module, object, object], None]:
        def look(module: nn.Module, args: object, output: object) -> None:
            del args
            last = works_on_last_axis(module)
            if not isinstance(output, Tensor) or output.dim() < 3 or len(output) != self._batch:
                return
            # A container hands on the very tensor of its last child; an in-place activation gives a newer version.
            same = output is self.output and output._version == self._version
            if not same and math.prod(channels_first(output, last).shape[2:]) > 1:
                self.output, self.name, self.channels_last = output, name, last
                self._version = output._version

        return look


def works_on_last_axis(module: nn.Module) -> bool:
    """Whether a layer takes the last axis for the channels."""
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
        return len(module.normalized_shape) == 1
    return isinstance(module, nn.Linear)


def channels_first(maps: Tensor, channels_last: bool) -> Tensor:
    """Maps [B, *spatial, C] (`channels_last`) as [B, C, *spatial]; others as they are."""
    return maps.movedim(-1, 1) if channels_last else maps


def first_tensor(output: object) -> Tensor | None:
    """What a module gives, or the first of several; None where that is no tensor."""
    if isinstance(output, tuple | list) and output:
        output = output[0]
    return output if isinstance(output, Tensor) else None
