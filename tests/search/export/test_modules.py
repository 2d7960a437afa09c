"""The line of code that makes a module makes one like it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from n2n.search.export.modules import MODULES, constructor

LINES = [
    "nn.Conv2d(3, 8, 3, padding=1, bias=False)",
    "nn.Conv2d(4, 8, (1, 3), stride=(2, 1), padding=(0, 1), groups=2, padding_mode='reflect')",
    "nn.Conv1d(2, 3, 3, padding='same')",
    "nn.Conv3d(2, 3, 3, dilation=2)",
    "nn.ConvTranspose2d(3, 4, 2, stride=2, output_padding=1)",
    "nn.Linear(3, 4, bias=False)",
    "nn.Linear(3, 4, dtype=torch.float64)",
    "nn.Embedding(10, 3, padding_idx=0)",
    "nn.BatchNorm2d(3, eps=0.001, momentum=None)",
    "nn.BatchNorm1d(3, affine=False, track_running_stats=False)",
    "nn.InstanceNorm2d(3)",
    "nn.InstanceNorm1d(3, affine=True, track_running_stats=True)",
    "nn.GroupNorm(2, 4)",
    "nn.LayerNorm(8)",
    "nn.LayerNorm((4, 4), bias=False)",
    "nn.LayerNorm((4, 3), elementwise_affine=False)",
    "nn.RMSNorm(8, eps=1e-06)",
    "nn.MaxPool2d(2)",
    "nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True)",
    "nn.AvgPool2d(3, stride=1, count_include_pad=False)",
    "nn.AdaptiveAvgPool2d((None, 2))",
    "nn.AdaptiveAvgPool2d(1)",
    "nn.Unflatten(1, (2, 2))",
    "nn.Dropout(0.5)",
    "nn.Dropout2d(0.2, inplace=True)",
    "nn.Upsample(scale_factor=2.0)",
    "nn.Upsample(size=(4, 6), mode='bilinear', align_corners=True)",
    "nn.ZeroPad2d((1, 2, 0, 1))",
    "nn.ReLU(inplace=True)",
    "nn.Hardtanh(min_val=-2, max_val=2)",
    "nn.LeakyReLU(negative_slope=0.1)",
    "nn.GELU(approximate='tanh')",
    "nn.PReLU(num_parameters=4)",
    "nn.Softmax(dim=1)",
    "nn.Threshold(0.1, 0.2)",
]


@pytest.mark.parametrize("line", LINES)
def test_a_module_made_by_a_line_gives_that_line(line: str) -> None:
    assert constructor(eval(line, {"nn": nn, "torch": torch})) == line


def test_every_module_of_the_table_that_needs_no_argument_has_a_line() -> None:
    made = 0
    for kind in MODULES:
        try:
            module = kind()
        except TypeError:
            continue  # needs arguments
        assert constructor(module) in (f"nn.{kind.__name__}()", f"nn.{kind.__name__}(0.5)")
        made += 1
    assert made >= 25


def narrowed() -> nn.Module:
    conv = nn.Conv2d(4, 8, 3, groups=4)
    conv.in_channels = conv.out_channels = conv.groups = 2
    conv.weight, conv.bias = nn.Parameter(conv.weight.detach()[:2]), nn.Parameter(torch.ones(2))
    return conv


def test_an_edited_module_gives_the_line_of_what_it_is_now() -> None:
    assert constructor(narrowed()) == "nn.Conv2d(2, 2, 3, groups=2)"


class Own(nn.Linear):
    """A user's own class."""


def stale() -> nn.Module:
    linear = nn.Linear(4, 3)
    linear.weight = nn.Parameter(torch.ones(2, 4))  # and out_features still says 3
    return linear


def hooked() -> nn.Module:
    linear = nn.Linear(4, 3)
    linear.register_forward_hook(lambda *_: None)
    return linear


@pytest.mark.parametrize(
    "make",
    [
        lambda: Own(4, 3),
        stale,
        hooked,
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)),
        lambda: nn.MaxPool2d(2, return_indices=True),
        lambda: nn.LSTM(4, 3),
    ],
)
def test_what_no_line_can_make_has_none(make: Callable[[], nn.Module]) -> None:
    assert constructor(make()) is None
