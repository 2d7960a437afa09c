"""What cannot be captured is refused in time, in few words, and with the line."""

from __future__ import annotations

import sys
import time

import pytest
import torch
from torch import Tensor, nn
from torch.compiler import is_exporting

from search_spaces import layer_removal
from search_spaces.base import SpaceError
from search_spaces.teacher.reading import read


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 3)


class Branching(Head):
    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if x.sum() > 0:
            x = x * 2
        return self.second(x)


class Selecting(Head):
    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x[x.sum(1) > 0]))


class Own(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return torch.from_numpy(x.numpy() * 2)

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        return 2 * grad


class Foreign(Head):
    def forward(self, x: Tensor) -> Tensor:
        return self.second(Own.apply(self.first(x)))


class Looping(Head):
    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for _ in range(100_000_000):
            x = torch.relu(x)
        return self.second(x)


class Stubborn(Head):
    """Goes on whatever errors come up, with autograd and autocast switched on the way."""

    def __init__(self, *, always: bool) -> None:
        super().__init__()
        self.always = always

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for _ in range(100_000_000 if self.always or is_exporting() else 1):
            try:
                with torch.enable_grad(), torch.autocast("cpu"):
                    x = torch.relu(x)
            except Exception:
                pass
        return self.second(x.float())


class Talking(Head):
    def forward(self, x: Tensor) -> Tensor:
        print("a word of the user's", file=sys.stderr)
        return self.second(self.first(x))


def test_paths_that_depend_on_values_are_named_with_their_line(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SpaceError, match=r"depending on values \(test_capture\.py:\d+: if x\.sum\(\) > 0:\).*Wrap"):
        layer_removal(Branching(), torch.randn(2, 4))
    shown = capfd.readouterr()
    assert not shown.out
    assert not shown.err


def test_sizes_that_depend_on_values_are_refused_with_their_line() -> None:
    with pytest.raises(SpaceError, match=r"index\.Tensor at test_capture\.py:\d+ gives a tensor whose size depends"):
        layer_removal(Selecting(), torch.ones(2, 4))


def test_operations_that_torch_cannot_look_into_are_not_taken_for_control_flow() -> None:
    with pytest.raises(SpaceError, match=r"could not capture its graph \(.+\)\. Operations of your own") as caught:
        layer_removal(Foreign(), torch.randn(2, 4))
    assert "depending on values" not in str(caught.value)


def test_a_network_that_runs_for_too_long_is_cut_short() -> None:
    begun = time.monotonic()
    with pytest.raises(SpaceError, match=r"Looping: its graph was not captured within 0\.5 s\. Give smaller"):
        read(Looping(), torch.randn(4, 4), seconds=0.5)
    assert time.monotonic() - begun < 60  # without the limit it would be hours


@pytest.mark.parametrize("always", [True, False])
def test_no_handler_of_the_network_keeps_it_running(*, always: bool) -> None:
    """In each run, or only while it is captured; afterwards all is as it was."""
    with pytest.raises(SpaceError, match=r"Stubborn: its graph was not captured within 0\.5 s\. Give smaller"):
        read(Stubborn(always=always), torch.randn(4, 4), seconds=0.5)
    assert torch.is_grad_enabled()
    assert not torch.is_autocast_enabled("cpu")
    assert [layer.name for layer in read(Talking(), torch.randn(2, 4)).layers] == ["first", "second"]


def test_what_the_user_prints_is_still_there(capfd: pytest.CaptureFixture[str]) -> None:
    read(Talking(), torch.randn(2, 4))
    assert "a word of the user's" in capfd.readouterr().err
