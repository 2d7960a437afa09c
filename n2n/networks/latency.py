"""How long a network takes for one call, measured."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, final

import torch
from torch import nn
from torch.utils.benchmark import Timer

from n2n.networks.untouched import untouched
from search_spaces.teacher.capture import ExampleInputs, ForwardFn

THREADS: Final = 1
"""CPU threads of every latency that is compared with another."""
WARM_UP: Final = 3
"""Calls before the measure begins."""


@dataclass(frozen=True)
class Latency:
    """Median and interquartile range of one call in milliseconds, and the CPU threads and device of the measure."""

    median_ms: float
    iqr_ms: float
    threads: int
    device: str

    def __str__(self) -> str:
        plural = "" if self.threads == 1 else "s"
        return f"{self.median_ms:.2f} ms (IQR {self.iqr_ms:.2f}, {self.threads} thread{plural}, {self.device})"


def latency(
    network: nn.Module,
    example_inputs: ExampleInputs,
    *,
    forward_fn: ForwardFn | None = None,
    threads: int = THREADS,
    min_run_time: float = 0.2,
) -> Latency:
    """Time calls of `network` on `example_inputs` in evaluation mode for `min_run_time` seconds, after a warm-up.

    Inputs are moved to the network's device. torch's number of threads is set for the measure and put back after it.

    Args:
        example_inputs: a tensor, a tuple of positional or a mapping of keyword arguments.
        forward_fn: `(network, example_inputs) -> output`, where the network is not simply called.

    Raises:
        ValueError: `threads` below 1.
    """
    if threads < 1:
        raise ValueError(f"latency: threads must be at least 1, found {threads}")
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    call, inputs = _call(example_inputs, device, forward_fn)
    with untouched(network, parameters=False), torch.inference_mode():
        network.eval()
        timer = Timer(call, globals={"network": network, "inputs": inputs, "forward": forward_fn}, num_threads=threads)
        timer.timeit(WARM_UP)
        measurement = timer.blocked_autorange(min_run_time=min_run_time)
    return Latency(measurement.median * 1e3, measurement.iqr * 1e3, threads, device_name(device))


def _call(
    example_inputs: ExampleInputs, device: torch.device, forward_fn: ForwardFn | None
) -> tuple[str, ExampleInputs]:
    """The statement to time, and the inputs on the device."""
    if isinstance(example_inputs, torch.Tensor):
        return ("forward(network, inputs)" if forward_fn else "network(inputs)"), example_inputs.to(device)
    if isinstance(example_inputs, Mapping):
        named = {name: value.to(device) for name, value in example_inputs.items()}
        return ("forward(network, inputs)" if forward_fn else "network(**inputs)"), named
    moved = tuple(value.to(device) for value in example_inputs)
    return ("forward(network, inputs)" if forward_fn else "network(*inputs)"), moved


def device_name(device: torch.device) -> str:
    """A device with the name of its hardware, such as "cpu (Intel Xeon)", so that a latency can be read later."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor() if device.type == "cpu" else ""
    return f"{device} ({name})" if name else str(device)


def processor() -> str:
    """The name of this machine's processor; "" where it is not known."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


@final
@dataclass
class Timings:
    """Latencies by fingerprint on the same inputs, so that within a run no network is timed twice."""

    example_inputs: ExampleInputs
    known: dict[str, Latency] = field(default_factory=dict)

    def of(self, fingerprint: str, network: nn.Module) -> Latency:
        """The latency of the network with that fingerprint, measured where it is not known yet."""
        if fingerprint not in self.known:
            self.known[fingerprint] = latency(network, self.example_inputs)
        return self.known[fingerprint]
