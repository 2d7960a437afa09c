"""What is fastest is found, only by a clear margin, only among what is legal, and nothing is changed by looking."""

from __future__ import annotations

import copy
import itertools
import json

import pytest
import torch
from torch import nn

from n2n.distill.precision import Precision, resolve
from n2n.distill.probe import probe, thread_counts

IMAGES = torch.zeros(8, 1, 6, 6)


def clock(prices):
    """A timer that charges by setting, with the settings that it was asked for."""
    asked = []

    def timer(setting):
        asked.append(setting)
        return prices(setting)

    return timer, asked


def by_threads(**seconds):
    return lambda setting: seconds[f"of{setting.threads}"]


@pytest.mark.parametrize(
    ("two", "four", "expected"),
    [
        (0.0100, 0.0100, 1),
        (0.0084, 0.0090, 1),  # 1.19 times faster
        (0.0083, 0.0090, 2),  # 1.205 times
        (0.0050, 0.0060, 2),
        (0.0080, 0.0060, 4),
    ],
)
def test_threads_change_only_where_they_are_clearly_faster(make_network, two, four, expected):
    timer, _ = clock(by_threads(of1=0.01, of2=two, of4=four))
    found = probe(make_network(), IMAGES, device="cpu", precision="fp32", threads=(1, 2, 4), timer=timer)
    assert found.threads == expected
    assert {timing.setting.threads: timing.ms for timing in found.timings} == pytest.approx(
        {1: 10.0, 2: 1e3 * two, 4: 1e3 * four}
    )


def test_a_busy_moment_decides_nothing(make_network):
    """Of each setting's steps a third takes ten times as long, the warm-up a hundred times."""
    calls = {1: itertools.count(), 2: itertools.count()}

    def prices(setting):
        number = next(calls[setting.threads])
        busy = 100 if number == 0 else 10 if setting.threads == 2 and number % 3 == 0 else 1
        return busy * {1: 0.010, 2: 0.005}[setting.threads]

    timer, asked = clock(prices)
    found = probe(make_network(), IMAGES, device="cpu", precision="fp32", threads=(1, 2), timer=timer)
    assert (found.threads, found.timings[1].ms) == (2, pytest.approx(5))
    assert [setting.threads for setting in asked[:6]] == [1, 2, 1, 2, 1, 2], "in turns"


@pytest.mark.parametrize(("one", "two", "expected"), [(0.05, 1.3, 1), (1.3, 0.05, 2)])
def test_hopeless_settings_are_not_waited_for(make_network, one, two, expected):
    """26 times slower, whichever is the usual: one step to warm up and one that is timed, instead of four."""
    timer, asked = clock(by_threads(of1=one, of2=two))
    found = probe(make_network(), IMAGES, device="cpu", precision="fp32", threads=(1, 2), timer=timer)
    assert found.threads == expected
    assert [setting.threads for setting in asked] == [1, 2, 1, 2]
    assert [timing.steps for timing in found.timings] == [1, 1]


def test_short_steps_are_timed_until_the_time_is_up(make_network):
    """A third of half a second is 55.6 rounds of three milliseconds; the first of the 56 warms up."""
    timer, asked = clock(by_threads(of1=0.001, of2=0.002))
    found = probe(make_network(), IMAGES, device="cpu", precision="fp32", threads=(1, 2), timer=timer)
    assert {timing.steps for timing in found.timings} == {55}
    assert len(asked) == 112


def test_layout_and_format_are_tried_at_the_best_threads():
    """With bf16 in the hardware the usual is bf16 in channels_last; here the opposite of everything is faster."""
    price = {2: 0.5, 1: 1.0}
    timer, asked = clock(
        lambda one: 0.01 * price[one.threads] * (2 if one.precision.channels_last else 1) * (1 + one.precision.bf16)
    )
    network = nn.Sequential(nn.Conv2d(1, 16, 3), nn.Flatten(), nn.Linear(256, 3))
    found = probe(network, IMAGES, device="cpu", threads=(1, 2), native=True, timer=timer)
    assert (found.threads, found.precision, found.channels_last) == (2, "fp32", False)
    assert found.wish == Precision("cpu", False, False), "against the rule for 16 channels"
    settings = list(dict.fromkeys((one.threads, one.precision.bf16, one.precision.channels_last) for one in asked))
    assert settings == [(1, True, True), (2, True, True), (2, True, False), (2, False, False)], "not the full product"


def test_the_usual_stays_where_nothing_is_faster():
    timer, _ = clock(lambda setting: 0.01)
    network = nn.Sequential(nn.Conv2d(1, 16, 3), nn.Flatten(), nn.Linear(256, 3))
    for native, precision in ((True, "auto"), (False, "auto"), (True, "fp32"), (True, "bf16")):
        found = probe(network, IMAGES, device="cpu", precision=precision, threads=(1, 2), native=native, timer=timer)
        usual = resolve(precision, network, "cpu", native=native)
        assert (found.threads, found.wish, found.channels_last) == (1, usual.name, usual.channels_last)


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("precision", ["auto", "fp32", "bf16"])
def test_odd_widths_are_never_tried_in_channels_last(precision, native):
    timer, asked = clock(lambda setting: 0.001 if setting.precision.channels_last else 0.01)
    network = nn.Sequential(nn.Conv2d(1, 22, 3), nn.Flatten(), nn.Linear(352, 3))
    found = probe(network, IMAGES, device="cpu", precision=precision, threads=(1, 2), native=native, timer=timer)
    assert not found.channels_last
    assert not any(one.precision.channels_last for one in asked)


def test_bf16_needs_the_hardware_or_the_users_word(make_network):
    for native, precision, expected in (
        (False, "auto", {"fp32"}),
        (True, "auto", {"fp32", "bf16"}),
        (True, "fp32", {"fp32"}),
        (True, "bf16", {"bf16"}),
        (False, "bf16", {"bf16"}),
    ):
        timer, asked = clock(lambda setting: 0.01)
        probe(make_network(), IMAGES, device="cpu", precision=precision, threads=(1, 2), native=native, timer=timer)
        assert {one.precision.name for one in asked} == expected


def test_what_does_not_run_is_not_chosen_and_said(make_network):
    def timer(setting):
        if setting.precision.bf16:
            raise RuntimeError("not implemented for 'BFloat16'\nat line 1")
        return 0.01

    found = probe(make_network(), IMAGES, device="cpu", threads=(1,), native=True, timer=timer)
    assert found.precision == "fp32"
    read = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert read["timings"][0]["ms"] is None
    assert "does not run (RuntimeError: not implemented for 'BFloat16')" in str(found)


def test_one_legal_setting_costs_no_step(make_network):
    def timer(setting):
        raise AssertionError(setting)

    found = probe(make_network(), IMAGES, device="cpu", precision="fp32", threads=(1,), timer=timer)
    assert (found.threads, found.timings) == (1, ())
    assert str(found) == "1 thread, fp32, contiguous: nothing else is possible"


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.Dropout(), nn.Flatten(), nn.Linear(256, 3)),
        nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(96, 3)).requires_grad_(False),
    ],
    ids=["even", "odd and frozen"],
)
def test_everything_is_as_before(network):
    """By this machine's clock."""
    network.eval()
    network[0].bias.grad = torch.ones_like(network[0].bias) if network[0].bias.requires_grad else None
    before, gradients = copy.deepcopy(network), [parameter.grad for parameter in network.parameters()]
    cudnn = torch.backends.cudnn
    outside = (torch.get_rng_state().clone(), torch.get_num_threads(), cudnn.benchmark, cudnn.deterministic)
    with torch.no_grad():
        found = probe(network, torch.zeros(16, 1, 6, 6), device="cpu", precision="fp32", seconds=0.05, threads=(1, 2))
        assert not torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), outside[0])
    assert (torch.get_num_threads(), cudnn.benchmark, cudnn.deterministic) == outside[1:]
    for name, value in before.state_dict().items():
        assert torch.equal(network.state_dict()[name], value), name
    for one, other in zip(network.modules(), before.modules(), strict=True):
        assert one.training is other.training
    for one, other in zip(network.parameters(), before.parameters(), strict=True):
        assert one.requires_grad is other.requires_grad
        assert one.stride() == other.stride()
    assert all(one.grad is kept for one, kept in zip(network.parameters(), gradients, strict=True))
    assert all((kept == 1).all() for kept in gradients if kept is not None)
    assert all(timing.ms > 0 and not timing.failure for timing in found.timings)
    assert 8 <= found.batch <= 16
    layouts = {timing.setting.precision.channels_last for timing in found.timings}
    assert layouts == ({True, False} if network[0].out_channels == 16 else {False})


def test_threads_come_back_after_a_failure(make_network):
    def timer(setting):
        torch.set_num_threads(2)
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        probe(make_network(), IMAGES, device="cpu", threads=(1, 2), timer=timer)
    assert torch.get_num_threads() == 1


def test_a_network_that_cannot_train_keeps_the_usual():
    """One number in a batch norm in train mode: torch refuses, and so is everything recorded as not running."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.BatchNorm1d(4))
    found = probe(network, IMAGES[:1], device="cpu", precision="fp32", threads=(1, 2))
    assert (found.threads, found.wish) == (1, "fp32")
    assert all("more than 1 value per channel" in timing.failure for timing in found.timings)


def test_numbers_that_cannot_be_are_refused(make_network):
    with pytest.raises(ValueError, match=r"must be positive; found 0\.5 and \[0\]"):
        probe(make_network(), IMAGES, device="cpu", threads=(0,))
    with pytest.raises(ValueError, match="seconds and threads must be positive; found 0"):
        probe(make_network(), IMAGES, device="cpu", seconds=0, threads=(1,))
    with pytest.raises(ValueError, match="choose one of auto, fp32, bf16"):
        probe(make_network(), IMAGES, device="cpu", precision="fp8")


def test_thread_counts_by_hand():
    expected = {1: (1,), 2: (1, 2), 3: (1, 2, 3), 4: (1, 2, 4), 6: (1, 2, 4, 6), 8: (1, 2, 4, 8), 9: (1, 2, 4, 8, 9)}
    assert {cores: thread_counts(cores) for cores in expected} == expected
