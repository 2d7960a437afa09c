"""What a training-free score is, what it looks at, and how it borrows a network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from n2n.networks.untouched import untouched


class ScoreError(RuntimeError):
    """A network has no finite score of this kind; the message says which score, why, and what would help."""


@dataclass(frozen=True)
class Probe:
    """What scores may look at besides the network; a score takes what it needs and leaves the rest.

    Attributes:
        images: [B, C, H, W] (or whatever the network takes), prepared, float32, on the network's device.
        labels: [B] int64, on the same device.
        teacher: a network to compare with, for scores that do so; None where there is none.
        seed: of everything random that a score draws, in [0, 2^32).
        solve: fits, in place, the layers of a student that has inherited from the teacher to the teacher's values; None
            where nothing was inherited.
    """

    images: Tensor = field(repr=False)
    labels: Tensor = field(repr=False)
    teacher: nn.Module | None = field(default=None, repr=False)
    seed: int = 0
    solve: Callable[[nn.Module], object] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Refuses what no score can be taken on.

        Raises:
            ValueError: no images, not one label for each, or a seed out of range.
        """
        if not (isinstance(self.images, Tensor) and isinstance(self.labels, Tensor)):
            raise ValueError(
                "probe: expected images and labels as tensors, found"
                f" {type(self.images).__name__} and {type(self.labels).__name__}; for scores that look at no labels"
                " torch.zeros(len(images), dtype=torch.int64) will do"
            )
        if not self.images.is_floating_point() or self.labels.dtype != torch.int64:
            raise ValueError(
                f"probe: expected prepared images in floating point and labels in int64, found {self.images.dtype} and"
                f" {self.labels.dtype}"
            )
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"probe: expected a seed in [0, 2^32), found {self.seed}")
        if len(self.images) == 0 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(
                f"probe: expected at least one image and one label for each, found images of shape"
                f" {list(self.images.shape)} and labels of shape {list(self.labels.shape)}"
            )


Score = Callable[[nn.Module, Probe], float]
"""A training-free judgement of a network, higher is better.

Every score keeps to the contract that `tests/contracts/score_contract.py` checks:

- the network (and the probe's teacher) comes back untouched: parameters, buffers, gradients, hooks and modes;
- it is a function of the network's weights and the probe: the mode that the network comes in, the calls before it, and
  the caller's `no_grad` do not matter, and nothing is drawn from the caller's random generators;
- it is a finite float, or a ScoreError says why there is none. A network that does not run raises what torch raises.
"""


@contextmanager
def borrowed(network: nn.Module, seed: int, *, parameters: bool = True) -> Iterator[nn.Module]:
    """Lends `network` in evaluation mode; whatever it or its borrower draws comes from `seed` and leaves no trace.

    `parameters=False` saves the copy of the parameters where nobody edits their values; see `untouched`.
    """
    devices = sorted({p.device.index or 0 for p in network.parameters() if p.device.type == "cuda"})
    with untouched(network, parameters=parameters), torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        for device in devices:
            torch.cuda.default_generators[device].manual_seed(seed)
        yield network.eval()


def batch_statistics(network: nn.Module) -> None:
    """Has batch norm take the statistics of the batch, as a fresh network knows no others; all else stays as it is.

    For a borrowed network: the mode and the running statistics are changed. Dropout and stochastic depth stay out,
    because a score should tell networks apart, and not draws.
    """
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.train()


def finite(value: float, name: str, why: str) -> float:
    """The value of the score `name`.

    Raises:
        ScoreError: it is not a finite number; `why` says what that means and what to do.
    """
    if not math.isfinite(value):
        raise ScoreError(f"{name}: expected a finite score, found {value}; {why}")
    return value
