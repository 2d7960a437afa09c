"""How long a network takes for one call, measured."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.benchmark import Timer

from n2n.networks.untouched import untouched


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
    example_inputs: Tensor | tuple[Tensor, ...],
    *,
    threads: int = 1,
    min_run_time: float = 0.2,
) -> Latency:
    """Time calls of `network` on `example_inputs` in evaluation mode for `min_run_time` seconds, after a warm-up.

    Inputs are moved to the network's device. torch's number of threads is set for the measure and put back after it.

    Raises:
        ValueError: `threads` below 1.
    """
    if threads < 1:
        raise ValueError(f"latency: threads must be at least 1, found {threads}")
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    inputs = tuple(value.to(device) for value in inputs)
    with untouched(network, parameters=False), torch.inference_mode():
        network.eval()
        network(*inputs)
        timer = Timer("network(*inputs)", globals={"network": network, "inputs": inputs}, num_threads=threads)
        measurement = timer.blocked_autorange(min_run_time=min_run_time)
    return Latency(measurement.median * 1e3, measurement.iqr * 1e3, threads, str(device))
