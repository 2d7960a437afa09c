"""How training runs fastest on this machine: threads, memory layout and number format, tried for half a second.

The rules of `n2n.distill.precision` say what is legal and what is usual; the clock decides only where it is clear about
it, so that two runs on one machine choose alike.
"""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Final, final

import torch
from torch import Tensor, nn

from n2n.distill.precision import Precision, Wish, native_bf16, resolve

FASTER: Final = 1.2
"""How many times faster than the usual setting another one must be to be chosen."""
HOPELESS: Final = 2.0
"""How many times slower than the fastest step a setting's best one is where it is not timed again, time being up."""
ROUNDS: Final = (3, 100)
"""Fewest and most timed steps of a setting."""
FEWEST: Final = 8
"""Examples that a batch is not cut below."""
GRAIN: Final = 32768
"""Elements from which on torch gives a thread work of its own."""


def _ms(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _words(threads: int, precision: str, channels_last: bool) -> str:
    plural, layout = "" if threads == 1 else "s", "channels_last" if channels_last else "contiguous"
    return f"{threads} thread{plural}, {precision}, {layout}"


@dataclass(frozen=True)
class Setting:
    """How training runs: on so many CPU threads, in a number format and memory layout."""

    threads: int
    precision: Precision

    def __str__(self) -> str:
        return _words(self.threads, self.precision.name, self.precision.channels_last)

    def to_json(self) -> dict[str, Any]:
        """The decisions as JSON values."""
        return {
            "threads": self.threads,
            "precision": self.precision.name,
            "channels_last": self.precision.channels_last,
        }


@dataclass(frozen=True)
class Timing:
    """The median of so many training steps in ms; infinite where the setting does not run, with the reason."""

    setting: Setting
    ms: float
    steps: int
    failure: str = ""

    def __str__(self) -> str:
        return f"{self.setting}: {f'does not run ({self.failure})' if self.failure else f'{_ms(self.ms)} ms a step'}"

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values; `ms` is null where the setting does not run."""
        ms = round(self.ms, 3) if math.isfinite(self.ms) else None
        return {**self.setting.to_json(), "ms": ms, "steps": self.steps, "failure": self.failure}


@dataclass(frozen=True)
class Probed:
    """What `probe` chose.

    Attributes:
        precision: "fp32" or "bf16".
        channels_last: the layout of the network that was probed.
        threads: of torch on the CPU.
        wish: what to pass on as `precision=`; it names a layout only where that departs from the rule.
        batch: examples in a timed step.
        timings: of every setting, one comparison after the other, the incumbent first in each; empty where only one
            setting is legal.
    """

    precision: str
    channels_last: bool
    threads: int
    wish: Wish
    batch: int
    timings: tuple[Timing, ...]

    def __str__(self) -> str:
        chosen = _words(self.threads, self.precision, self.channels_last)
        last = {str(timing.setting): str(timing) for timing in self.timings}
        return "; ".join([last.pop(chosen, f"{chosen}: nothing else is possible"), *last.values()])

    def to_json(self) -> dict[str, Any]:
        """The choice and its grounds as JSON values."""
        return {
            "threads": self.threads,
            "precision": self.precision,
            "channels_last": self.channels_last,
            "departs": not isinstance(self.wish, str),
            "batch": self.batch,
            "timings": [timing.to_json() for timing in self.timings],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], device: torch.device | str) -> Probed:
        """The choice that `to_json` wrote, without its grounds."""
        name, channels_last = str(value["precision"]), bool(value["channels_last"])
        departing = Precision(torch.device(device).type, name == "bf16", channels_last)
        wish: Wish = departing if value["departs"] else name
        return cls(name, channels_last, int(value["threads"]), wish, int(value["batch"]), ())


Timer = Callable[[Setting], float]
"""Makes one training step at a setting and returns its seconds; raises RuntimeError or ValueError where it cannot."""


def probe(
    network: nn.Module,
    inputs: Tensor,
    *,
    device: torch.device | str,
    precision: str = "auto",
    seconds: float = 0.5,
    threads: Sequence[int] | None = None,
    native: bool | None = None,
    timer: Timer | None = None,
) -> Probed:
    """Times training steps and chooses the threads, then the layout, then the number format.

    The usual setting (torch's present threads, the rule of `resolve`) stays unless another is `FASTER` in the median.
    The network, torch's generators and its number of threads are as before afterwards.

    Args:
        network: copied, never changed.
        inputs: prepared images [B, C, H, W]; their shape counts, the values are drawn at random. Where a step is long
            the batch is cut, to 8 at the least.
        device: where training runs; threads are tried on the CPU only.
        precision: "auto" tries both number formats where bf16 is in the hardware; "fp32" and "bf16" are kept.
        seconds: wall time to spend, roughly: a setting has four steps at least, or two where it is hopeless.
        threads: numbers to try instead of 1, 2, 4, ... and all cores.
        native: whether the device multiplies bf16 itself; None finds out.
        timer: times the steps, instead of this machine's clock.

    Raises:
        ValueError: an unknown precision, or seconds or threads that are not positive.
    """
    kind = torch.device(device).type
    counts = () if kind != "cpu" else thread_counts(os.cpu_count() or 1) if threads is None else threads
    if seconds <= 0 or any(count < 1 for count in counts):
        raise ValueError(f"probe: seconds and threads must be positive; found {seconds} and {list(counts)}")
    able = native_bf16(device) if native is None else native

    def legal(wished: Precision) -> list[Setting]:
        """The best setting so far with another layout or format, where that is legal."""
        other = resolve(wished, network, device, native=able)
        return [replace(best, precision=other)] if other != best.precision else []

    best = Setting(torch.get_num_threads(), resolve(precision, network, device, native=able))
    with threads_put_back(), _generators_put_back(device), torch.enable_grad():
        batch, timed = len(inputs), timer
        if timed is None:
            timed = _Steps(network, inputs, device)
            batch = timed.cut(best, seconds / 12)
        found = _compare([best, *(replace(best, threads=count) for count in counts)], timed, seconds / 3)
        best = _winner(best, found)
        layouts = _compare(
            [best, *legal(replace(best.precision, channels_last=not best.precision.channels_last))], timed, seconds / 3
        )
        best = _winner(best, layouts)
        formats = _compare(
            [best, *(legal(replace(best.precision, bf16=False)) if precision == "auto" else [])], timed, seconds / 3
        )
        best = _winner(best, formats)
    name = best.precision.name
    usual = resolve(name, network, device, native=able)
    return Probed(
        precision=name,
        channels_last=best.precision.channels_last,
        threads=best.threads,
        wish=name if usual == best.precision else best.precision,
        batch=batch,
        timings=(*found, *layouts, *formats),
    )


def thread_counts(cores: int) -> tuple[int, ...]:
    """1, 2, 4, ... below the number of cores, and that number: (1, 2, 4, 6) of 6."""
    return (*(2**power for power in range((cores - 1).bit_length())), cores)


@contextmanager
def threads_put_back() -> Iterator[None]:
    """torch has as many threads afterwards as before, whatever was set inside."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _generators_put_back(device: torch.device | str) -> Iterator[None]:
    """Dropout draws from torch's global generators."""
    place = torch.device(device)
    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
        yield


def _compare(settings: Sequence[Setting], timer: Timer, seconds: float) -> tuple[Timing, ...]:
    """The settings' medians over rounds in which each takes a step, so that a busy moment of the machine hits all.

    Equal settings are timed once; a single one has nothing to be compared with, and is not timed at all. Threads that
    wait for one another on a busy machine make steps twenty times as long: two of these are enough.
    """
    samples: dict[Setting, list[float]] = {setting: [] for setting in settings}
    failures: dict[Setting, str] = {}
    racing, spent, (fewest, most) = list(samples), 0.0, ROUNDS
    for done in range(-1, most):  # the first round, in which kernels are chosen and memory is found, does not count
        if len(racing) < 2 or (done >= fewest and spent >= seconds):
            break
        for setting in racing:
            try:
                taken = timer(setting)
            except (RuntimeError, ValueError) as error:  # out of memory, or an operation that bf16 does not have
                failures[setting] = f"{type(error).__name__}: {error}".splitlines()[0]
                continue
            spent += taken
            if done >= 0:
                samples[setting].append(taken)
        racing = [one for one in racing if one not in failures]
        if done >= 0 and spent >= seconds:
            best = min((min(samples[one]) for one in racing), default=0.0)
            racing = [one for one in racing if min(samples[one]) <= HOPELESS * best]
    if len(samples) == 1:
        return ()
    return tuple(
        Timing(setting, 1e3 * median(taken) if taken else math.inf, len(taken), failures.get(setting, ""))
        for setting, taken in samples.items()
    )


def _winner(usual: Setting, timings: Sequence[Timing]) -> Setting:
    """The fastest of those that are `FASTER` times faster than the usual setting, else that one."""
    limit = min((timing.ms for timing in timings if timing.setting == usual), default=0.0) / FASTER
    better = [timing for timing in timings if timing.setting != usual and timing.ms <= limit and not timing.failure]
    return min(better, key=lambda timing: timing.ms).setting if better else usual


@final
class _Steps:
    """Makes forward and backward passes of throw-away copies in train mode, on random images."""

    def __init__(self, network: nn.Module, inputs: Tensor, device: torch.device | str) -> None:
        self._network, self._device = network, torch.device(device)
        self._copies: dict[bool, nn.Module] = {}
        generator = torch.Generator().manual_seed(0)
        self._images = torch.randn(inputs.shape, generator=generator).to(self._device)  # [B, C, H, W]
        self._work = torch.zeros(GRAIN * (os.cpu_count() or 1))

    def cut(self, setting: Setting, longest: float) -> int:
        """Leaves as many examples in the batch as a step of `longest` seconds allows; returns their number."""
        whole, self._images = self._images, self._images[:FEWEST]
        try:
            taken = [self(setting) for _ in range(2)][-1]
        except (RuntimeError, ValueError):  # the comparison will name it
            return len(self._images)
        self._images = whole[: max(FEWEST, int(FEWEST * longest / taken))]
        return len(self._images)

    def __call__(self, setting: Setting) -> float:
        if torch.get_num_threads() != setting.threads:
            torch.set_num_threads(setting.threads)
            self._work.add_(1)  # the threads start here, outside of the time that is taken
        network = self._copy(setting.precision.channels_last)
        network.zero_grad(set_to_none=True)
        self._wait()
        start = time.perf_counter()
        with setting.precision.autocast():
            outputs = network(setting.precision.place(self._images))  # [B, K]
        if not isinstance(outputs, Tensor):
            raise ValueError(f"in train mode the network gives {type(outputs).__name__} instead of logits")
        outputs.float().square().mean().backward()  # type: ignore[no-untyped-call]
        self._wait()
        return time.perf_counter() - start

    def _copy(self, channels_last: bool) -> nn.Module:
        if channels_last not in self._copies:
            network = copy.deepcopy(self._network).to(self._device).train()
            for parameter in network.parameters():
                parameter.requires_grad_(parameter.is_floating_point())
            if channels_last:
                network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            self._copies[channels_last] = network
        return self._copies[channels_last]

    def _wait(self) -> None:
        """Accelerators compute while Python goes on."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        elif self._device.type == "mps":
            torch.mps.synchronize()
