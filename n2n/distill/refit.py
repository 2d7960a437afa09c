"""Distillation in closed form: every surviving layer is solved for the teacher's values, in one pass over the network.

The least-squares reconstruction of He, Zhang and Sun (ICCV 2017, eq. 5), by which AMC judged its candidates, carried
through removed layers and residual branches. No gradient step and no label: a layer is solved by ridge regression as
its input arrives, from what the layers before it, already solved, give.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from n2n.distill.layer_inputs import LayerInputs, Weighted, grouped_weight
from n2n.distill.ridge import Solution, ridge
from n2n.distill.samples import TeacherSamples
from search_spaces.teacher.targets import Target, Targets

STRENGTH = 1e-3
TOWARD = ("zero", "inherited")
"""Which weights the ridge may draw to."""
CHUNK_NUMBERS = 2**22
"""Inputs of a layer that are gathered at a time."""
Scale = _BatchNorm | nn.LayerNorm | nn.GroupNorm


class Fitted(StrEnum):
    """What became of one layer."""

    SOLVED = "solved"
    RAISED = "solved with a stronger ridge"
    SINGULAR = "singular"
    KEPT = "kept"


@dataclass(frozen=True)
class LayerFit:
    """One layer: what became of it, and why where it was not simply solved; then it holds the inherited weights."""

    layer: str
    status: Fitted
    reason: str = ""


@dataclass(frozen=True)
class RefitResult:
    """What came of a refit: the layers in the order in which they were met, and the wall time."""

    layers: tuple[LayerFit, ...]
    seconds: float

    @property
    def solved(self) -> int:
        """How many layers were solved."""
        return sum(one.status in {Fitted.SOLVED, Fitted.RAISED} for one in self.layers)


def refit(
    network: nn.Module, targets: Targets, samples: TeacherSamples, *, strength: float = STRENGTH, toward: str = "zero"
) -> RefitResult:
    """Solves a student's layers for the teacher's values, in place; it is left in eval mode.

    Memory: the student's live activations for all images of `samples` at once, and for each layer one chunk of
    `CHUNK_NUMBERS` inputs and its system (see `ridge`).

    Args:
        network: a student with inherited weights, on the device of the samples.
        targets: of its layers, e.g. `space.targets(architecture)`.
        samples: of the teacher.
        strength: of the ridge, relative to the mean square of a layer's inputs.
        toward: "zero" or "inherited": which weights the ridge draws to.

    Raises:
        ValueError: an unknown `toward`.
    """
    if toward not in TOWARD:
        raise ValueError(f"toward: expected one of {', '.join(TOWARD)}, found {toward!r}")
    start = time.monotonic()
    samples.take(targets.axes)
    network.eval()
    work = _Work(network, targets, samples, strength, toward == "inherited")
    with torch.no_grad(), work.watching():
        network(samples.images)
    return RefitResult(tuple(work.done), time.monotonic() - start)


class _Work:
    """One pass over a student: hooks that note values, solve layers and set norms as their inputs arrive."""

    def __init__(
        self, network: nn.Module, targets: Targets, samples: TeacherSamples, strength: float, inherited: bool
    ) -> None:
        self._network, self._targets, self._samples = network, targets, samples
        self._strength, self._inherited = strength, inherited
        self._own: dict[int, Tensor] = {}
        self._pending: dict[str, tuple[Tensor, Tensor]] = {}
        self._met: dict[nn.Module, list[Tensor]] = {}
        self._wanted = {less.student: one.axis for one in targets.layers for less in one.less}
        self.done: list[LayerFit] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Hooks while it lasts."""
        handles: list[RemovableHandle] = []
        try:
            handles.extend(self._hooks())
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hooks(self) -> Iterator[RemovableHandle]:
        for layer, node in self._targets.enters.items():
            if node in self._wanted:
                yield self._module(layer).register_forward_pre_hook(self._noting(node))
        for one in self._targets.layers:
            yield self._module(one.layer).register_forward_pre_hook(self._solving(one))
            if one.norm:
                yield self._module(one.norm).register_forward_pre_hook(self._setting(one.norm))
        for layer, node in self._targets.leaves.items():
            if node in self._wanted:
                yield self._module(layer).register_forward_hook(self._noting(node, leaves=True))

    def _module(self, name: str) -> nn.Module:
        return self._network.get_submodule(name)

    def _noting(self, node: int, *, leaves: bool = False) -> Callable[..., None]:
        def note(_: nn.Module, inputs: tuple[Any, ...], output: Any = None) -> None:
            value = output if leaves else inputs[0]
            self._own[node] = self._samples.sample(value, self._wanted[node])

        return note

    def _solving(self, one: Target) -> Callable[..., None]:
        def solve(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            found = self._solve(one, module, inputs[0])
            if found not in self.done:  # what is called more than once is kept in every call
                self.done.append(found)

        return solve

    def _setting(self, name: str) -> Callable[..., None]:
        def set_norm(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            assert isinstance(module, _BatchNorm)
            self._measure(module, inputs[0])
            if name in self._pending:
                slope, shift = self._pending.pop(name)  # the norm should give slope * input + shift
                assert module.running_mean is not None
                assert module.running_var is not None
                module.weight.copy_(slope * (module.running_var + module.eps).sqrt())
                module.bias.copy_(shift + slope * module.running_mean)

        return set_norm

    def _solve(self, one: Target, module: nn.Module, value: Tensor) -> LayerFit:
        reason = one.reason or self._misfit(one, module)
        if reason:
            if isinstance(module, _BatchNorm):
                self._measure(module, value)
            return LayerFit(one.layer, Fitted.KEPT, reason)
        goal = self._goal(one)  # [s, m]
        if isinstance(module, Scale):
            found = self._scale(one, module, value, goal)
        else:
            assert isinstance(module, Weighted)
            found = self._weights(one, module, value, goal)
        if not found.solved:
            return LayerFit(one.layer, Fitted.SINGULAR, "its system is singular at every ridge that was tried")
        status = Fitted.RAISED if found.raised else Fitted.SOLVED
        return LayerFit(one.layer, status, f"the ridge was raised {found.raised} times" if found.raised else "")

    def _misfit(self, one: Target, module: nn.Module) -> str:
        """Why a layer cannot be solved for its target; empty where it can."""
        if isinstance(module, Scale):
            if module.weight is None or module.weight.ndim != 1:
                return "has no scale for each channel"
            wide = len(module.weight)
        elif isinstance(module, Weighted):
            wide = module.weight.shape[0]
        else:
            return f"is of a kind that is not solved for ({type(module).__name__})"
        found = self._samples.of(one.node).shape[1]
        if wide != len(one.keep) or (len(one.keep) and int(one.keep.max()) >= found):
            return f"gives {wide} channels, which do not lie in the {found} of its target"
        others = [self._own[less.student] for less in one.less if less.student in self._own]
        if any(other.shape[1] != wide for other in others):
            return "meets a value of another width"
        return ""

    def _goal(self, one: Target) -> Tensor:
        """What a layer should give at the sampled positions, [s, m]."""
        keep = one.keep.to(self._samples.images.device)
        goal = self._samples.of(one.node)[:, keep]
        for less in one.less:
            own = self._own.get(less.student)
            # What has not been computed yet counts as the teacher's; whoever computes it makes up for the difference.
            goal = goal - (self._samples.of(less.teacher)[:, keep] if own is None else own)
        return goal

    def _weights(self, one: Target, layer: Weighted, value: Tensor, goal: Tensor) -> Solution:
        inputs = LayerInputs(layer, value, len(self._samples.images))
        places = self._samples.places(inputs.positions)
        weight = grouped_weight(layer)  # [G, m, d]
        groups, many, width = weight.shape
        each = places.shape[1]
        step = max(1, CHUNK_NUMBERS // (groups * width * each))  # images

        def chunks() -> Iterator[tuple[Tensor, Tensor]]:
            for start in range(0, len(places), step):
                rows = inputs.rows(places, start, min(start + step, len(places)))
                given = goal[start * each : start * each + rows.shape[1]]
                yield rows, given.reshape(-1, groups, many).transpose(0, 1)

        known = list(chunks()) if step >= len(places) else None  # small enough to be gathered once
        norm = self._module(one.norm) if one.norm else None
        assert norm is None or isinstance(norm, _BatchNorm)
        prior = weight * _slope(norm).reshape(groups, many, 1) if norm is not None else weight
        prior = prior if self._inherited else torch.zeros_like(prior)
        affine = norm is not None or layer.bias is not None
        found = ridge(
            chunks if known is None else lambda: iter(known), prior, strength=self._strength, intercept=affine
        )
        if found.solved:
            self._write(one, layer, found)
        return found

    def _write(self, one: Target, layer: Weighted, found: Solution) -> None:
        """Puts a solution into a layer: with a norm behind it, the rows keep their length and the norm has the rest."""
        weight, shift = found.weight, found.bias.flatten()
        if one.norm:
            before = grouped_weight(layer).norm(dim=2, keepdim=True)
            after = weight.norm(dim=2, keepdim=True)
            factor = torch.where((before > 0) & (after > 0), before / after, torch.ones_like(after))  # [G, m, 1]
            weight = weight * factor
            if layer.bias is not None:
                layer.bias.zero_()
            self._pending[one.norm] = (1 / factor.flatten(), shift)
        elif layer.bias is not None:
            layer.bias.copy_(shift)
        layer.weight.copy_(weight.reshape(layer.weight.shape))

    def _scale(self, one: Target, norm: Scale, value: Tensor, goal: Tensor) -> Solution:
        """A norm that stands alone: the slope and shift of each channel."""
        if isinstance(norm, _BatchNorm):
            self._measure(norm, value)
        old_weight, old_bias = norm.weight.clone(), None if norm.bias is None else norm.bias.clone()
        norm.weight.fill_(1.0)
        if norm.bias is not None:
            norm.bias.zero_()
        plain = self._samples.sample(_apply(norm, value), one.axis)  # [s, m]
        norm.weight.copy_(old_weight)
        if old_bias is not None:
            norm.bias.copy_(old_bias)
        found = ridge(
            lambda: iter([(plain.t().unsqueeze(2), goal.t().unsqueeze(2))]),
            old_weight.reshape(-1, 1, 1) if self._inherited else torch.zeros_like(old_weight).reshape(-1, 1, 1),
            strength=self._strength,
            intercept=old_bias is not None,
        )
        if found.solved:
            norm.weight.copy_(found.weight.flatten())
            if norm.bias is not None:
                norm.bias.copy_(found.bias.flatten())
        return found

    def _measure(self, norm: _BatchNorm, value: Tensor) -> None:
        """Gives a batch norm the statistics of the values [n, C, ...] that it has met, at the sampled positions."""
        if norm.running_mean is None or norm.running_var is None:
            return
        met = self._met.setdefault(norm, [])
        met.append(self._samples.sample(value, 1))
        variance, mean = torch.var_mean(torch.cat(met), dim=0, correction=0)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)


def _apply(norm: Scale, value: Tensor) -> Tensor:
    """A norm's output without its hooks."""
    output: Tensor = norm.forward(value)
    return output


def _slope(norm: _BatchNorm) -> Tensor:
    """By what a batch norm multiplies each channel, [C]."""
    assert norm.running_var is not None
    return norm.weight * (norm.running_var + norm.eps).rsqrt()
