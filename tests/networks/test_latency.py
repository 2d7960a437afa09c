"""Latency against a network whose time is known."""

from __future__ import annotations

import re
import time

import pytest
import torch
from torch import Tensor, nn

from n2n.networks import Latency, Timings, latency
from n2n.networks.latency import WARM_UP


class Sleeps(nn.Module):
    """Takes 10 ms and remembers how it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.modes: list[bool] = []
        self.threads: set[int] = set()

    def forward(self, x: Tensor) -> Tensor:
        self.modes.append(self.training)
        self.threads.add(torch.get_num_threads())
        time.sleep(0.01)
        return x


def test_the_median_is_the_time_of_one_call_in_milliseconds() -> None:
    measured = latency(Sleeps(), torch.zeros(1, 2), min_run_time=0.05)
    assert 10 <= measured.median_ms < 100
    assert 0 <= measured.iqr_ms < 100
    assert measured.threads == 1
    assert re.fullmatch(r"cpu( \(.+\))?", measured.device), "the device with the processor's name, where it is known"


def test_it_warms_up_before_it_measures() -> None:
    network = Sleeps()
    measured = latency(network, torch.zeros(1, 2), min_run_time=0.05)
    assert len(network.modes) >= WARM_UP + 0.05 / (measured.median_ms / 1e3)


def test_named_inputs_and_another_way_of_calling() -> None:
    network = Sleeps()
    latency(network, {"x": torch.zeros(1, 2)}, min_run_time=0.01)
    calls = len(network.modes)
    assert calls > WARM_UP
    latency(
        network,
        torch.zeros(1, 2),
        forward_fn=lambda network, inputs: network(network(inputs)),
        min_run_time=0.01,
    )
    assert len(network.modes) >= calls + 2 * WARM_UP
    assert len(network.modes) % 2 == calls % 2


def test_nobody_is_timed_twice() -> None:
    network = Sleeps()
    timings = Timings(torch.zeros(1, 2))
    first = timings.of("one", network)
    calls = len(network.modes)
    assert timings.of("one", network) is first
    assert len(network.modes) == calls
    assert timings.of("other", network) is not first
    assert len(network.modes) > calls


def test_threads_are_set_for_the_measure_and_put_back() -> None:
    before = torch.get_num_threads()
    network = Sleeps().train()
    latency(network, (torch.zeros(1, 2),), threads=before + 1, min_run_time=0.02)
    assert before + 1 in network.threads
    assert torch.get_num_threads() == before
    assert not any(network.modes)
    assert network.training


def test_no_threads_is_an_error() -> None:
    with pytest.raises(ValueError, match="threads must be at least 1, found 0"):
        latency(Sleeps(), torch.zeros(1, 2), threads=0)


def test_printed_with_its_unit() -> None:
    assert str(Latency(1.234, 0.05, 2, "cpu")) == "1.23 ms (IQR 0.05, 2 threads, cpu)"
