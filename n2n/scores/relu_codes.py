"""Which ReLU units each image switches on, seen below the modules, so that every spelling of a ReLU counts alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from n2n.scores.base import Probe, ScoreError, batch_statistics, borrowed

_PLAIN = ("relu", "relu_")
_FLOORED = ("clamp", "clamp_", "clamp_min", "clamp_min_", "hardtanh", "hardtanh_")
_THRESHOLD = ("threshold", "threshold_")


def relu_threshold(operation: str, arguments: tuple[Any, ...]) -> float | None:
    """Above which value a unit of this operation is on; None where the operation is no ReLU.

    A ReLU is an operation that gives a constant for all inputs up to a threshold and grows above it: `relu`, `relu6`
    (which is `hardtanh` from 0), `clamp` and `clamp_min` at the number 0, and `threshold`, in place or not. Others are
    none: a smooth function has no switch (GELU, SiLU, ELU, hard-swish), a leaky one is never off, and bounds that are
    tensors or another number than 0 are arithmetic rather than an activation.
    """
    if operation in _PLAIN:
        return 0.0
    if operation in _FLOORED:
        floored = len(arguments) > 1 and isinstance(arguments[1], int | float) and arguments[1] == 0
        return 0.0 if floored else None
    return float(arguments[1]) if operation in _THRESHOLD else None


@final
class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own __init_subclass__ is untyped
    """Hands `see` the code of every ReLU that runs; the operations themselves run as they are."""

    def __init__(self, see: Callable[[Tensor], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._see = see

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        threshold = relu_threshold(func.overloadpacket.__name__, args)
        if threshold is not None and isinstance(args[0], Tensor) and args[0].is_floating_point():
            self._see(args[0] > threshold)  # before it runs: it may write in place
        return func(*args, **(kwargs or {}))


@contextmanager
def watching_relus(see: Callable[[Tensor], None]) -> Iterator[None]:
    """Calls `see` with the binary code of every ReLU that runs inside, shaped as its input: True where a unit is on.

    Hooks on `nn.ReLU` would miss `F.relu`, `torch.relu` and `x.clamp(min=0)`, so the operations are watched where they
    are dispatched, in whatever way they were called. The fused transformer layers are told to run as their parts.
    """
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with _Watch(see):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def read_codes(network: nn.Module, probe: Probe, name: str, see: Callable[[Tensor], None]) -> int:
    """Runs the network once and hands `see` the code [B, units] of each ReLU; gives the number of units of all.

    Batch norm takes the statistics of the batch. Images lie along the first axis of what a ReLU is given.

    Args:
        network: handed back as it was.
        probe: its images are shown.
        name: of the score, for errors.
        see: called for one ReLU after another, as they run.

    Raises:
        ScoreError: no ReLU runs; one is given something else than one entry per image; or the outputs are not finite.
        RuntimeError, ValueError: the network does not run on the probe's images.
    """
    count, units = len(probe.images), 0

    def flat(code: Tensor) -> None:
        nonlocal units
        if code.ndim == 0 or len(code) != count:
            raise ScoreError(
                f"{name}: expected the {count} images along the first axis of what every ReLU is given, found a ReLU of"
                f" shape {list(code.shape)}; its codes cannot be told apart by image: take another score"
            )
        code = code.reshape(count, -1)
        units += code.shape[1]
        see(code)

    with borrowed(network, probe.seed, parameters=False), torch.no_grad():
        batch_statistics(network)
        with watching_relus(flat):
            outputs = network(probe.images)
    if units == 0:
        raise ScoreError(
            f"{name}: expected ReLU units, found none in the forward pass; a code says on which side of a ReLU a value"
            f" is, and a smooth activation (GELU, SiLU) has no sides: take 'az_expressivity' or another score"
        )
    if isinstance(outputs, Tensor) and not bool(torch.isfinite(outputs).all()):
        raise ScoreError(f"{name}: expected finite outputs, found NaN or infinite ones; look at the network's weights")
    return units
