"""What scores found out about a teacher, so that it runs once for a whole population of students."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar, final
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from n2n.scores.base import Probe

T = TypeVar("T")
MOST = 8
"""Probes that are remembered for one teacher; the oldest is forgotten first."""


@final
class TeacherMemory(Generic[T]):
    """Remembers a value for each teacher and probe, until the teacher goes.

    Nothing but time depends on it: the key holds the values of images and labels, and all of the teacher that matters.
    """

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[nn.Module, dict[Hashable, T]] = WeakKeyDictionary()

    def take(self, teacher: nn.Module, probe: Probe, make: Callable[[], T], *, redrawn: bool) -> T:
        """The value for a teacher and the images, labels and seed of a probe; `make` is called where it is not known.

        Args:
            teacher: the value is of.
            probe: it was found on.
            make: finds it.
            redrawn: the weights (two axes and more) are drawn anew, so that their values do not matter.
        """
        parameters = [(name, tuple(one.shape), "" if redrawn and one.ndim >= 2 else _digest(one))
                      for name, one in teacher.named_parameters()]  # fmt: skip
        buffers = [(name, _digest(one)) for name, one in teacher.named_buffers()]
        key = (probe.seed, _digest(probe.images), _digest(probe.labels), *parameters, *buffers)
        known = self._known.setdefault(teacher, {})
        if key not in known:
            while len(known) >= MOST:
                del known[next(iter(known))]
            known[key] = make()
        return known[key]


def _digest(tensor: Tensor) -> str:
    """A hash of a tensor's shape, kind and values."""
    found = hashlib.sha256(str((tuple(tensor.shape), tensor.dtype)).encode())
    found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
