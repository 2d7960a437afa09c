"""Which number format and layout is chosen."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from n2n.distill.precision import Precision, cpu_has_bf16, resolve


def conv(*widths: int) -> nn.Sequential:
    return nn.Sequential(*(nn.Conv2d(3, width, 3) for width in widths))


def test_unknown_precision_lists_the_valid_ones():
    with pytest.raises(ValueError, match=r"'fp16'; choose one of auto, fp32, bf16"):
        resolve("fp16", conv(16), "cpu")


def test_what_is_asked_for_is_used():
    assert resolve("fp32", conv(16), "cpu").name == "fp32"
    assert resolve("bf16", conv(16), "cpu").name == "bf16"
    assert resolve("auto", conv(16), "cpu").bf16 == cpu_has_bf16()


@pytest.mark.parametrize(("widths", "expected"), [((16, 32), True), ((16, 22), False), ((6,), False), ((), False)])
def test_channels_last_needs_full_widths_on_the_cpu(widths, expected):
    for wish in ("fp32", "bf16", "auto"):
        for native in (False, True):
            assert resolve(wish, conv(*widths), "cpu", native=native).channels_last is expected


@pytest.mark.parametrize(
    ("device", "native", "wished", "widths", "expected"),
    [
        ("cpu", False, Precision("cpu", False, True), (16,), True),
        ("cpu", False, Precision("cpu", False, True), (22,), False),  # whatever was decided for another network
        ("cpu", True, Precision("cpu", False, True), (22,), False),
        ("cpu", True, Precision("cpu", True, True), (22,), False),
        ("cpu", False, Precision("cpu", True, True), (22,), False),
        ("cpu", False, Precision("cpu", False, False), (16,), False),
        ("cuda", False, Precision("cuda", False, True), (22,), True),
    ],
)
def test_a_decision_holds_but_for_odd_widths_on_the_cpu(device, native, wished, widths, expected):
    found = resolve(wished, conv(*widths), device, native=native)
    assert found == Precision(device, wished.bf16, expected)


def test_autocast_is_on_only_in_bf16():
    layer, inputs = nn.Linear(4, 4), torch.ones(2, 4)
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        with resolve(precision, layer, "cpu").autocast():
            assert layer(inputs).dtype == dtype


def test_vectors_keep_their_layout():
    settings = resolve("fp32", conv(16), "cpu")
    assert settings.place(torch.ones(2, 5)).is_contiguous()
    assert settings.place(torch.ones(2, 4, 3, 3)).is_contiguous(memory_format=torch.channels_last)
