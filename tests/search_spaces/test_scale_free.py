"""What an agent sees of a network does not depend on how large it is, only on shares and relations.

Where everything doubles (inputs, widths, classes) in a network of convolutions without bias, each share is a ratio of
numbers that are all four times as large: the observations are the same up to float32 rounding. Where norms, biases,
colours or classes do not grow with the rest, shares of parameters and MACs move by what these have in them: in
ResNet-20 at widths 16 and 32 by less than 0.01. Else only the widths move, of the colours and classes against the
widest layer, and where a share of channels is rounded to whole ones.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from n2n.networks import build_teacher
from search_spaces import layer_removal, layer_shrinkage
from search_spaces.base import FEATURES, Draft, SearchSpace, random_actions
from search_spaces.toy import toy

COLUMN = {name: index for index, name in enumerate(FEATURES)}
SHARES = [COLUMN["parameter_share"], COLUMN["mac_share"]]
WIDTHS = [COLUMN["width_in"], COLUMN["width_out"]]
OPEN: list[Callable[[nn.Module, Tensor], SearchSpace]] = [layer_removal, layer_shrinkage]


class Residual(nn.Module):
    """Convolutions without bias around one skip connection; `scale` multiplies colours, widths and classes."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2 * scale, 20 * scale, 3, padding=1, bias=False)
        self.a = nn.Conv2d(20 * scale, 10 * scale, 3, padding=1, bias=False)
        self.b = nn.Conv2d(10 * scale, 20 * scale, 3, padding=1, bias=False)
        self.down = nn.Conv2d(20 * scale, 40 * scale, 3, stride=2, padding=1, bias=False)
        self.head = nn.Linear(40 * scale, 5 * scale, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(x + self.b(torch.relu(self.a(x))))
        return self.head(torch.relu(self.down(x)).mean(dim=(2, 3)))


def drafts(space: SearchSpace) -> list[Draft]:
    """The first draft, and each that a random student goes through."""
    actions = random_actions(space, np.random.default_rng(0)).actions
    return [Draft(actions[:count]) for count in range(len(actions) + 1)]


def both(one: SearchSpace, other: SearchSpace) -> tuple[np.ndarray, np.ndarray]:
    """The observations of the same drafts in two spaces, [T + 1, N, F] each."""
    assert (one.num_decisions, one.num_actions) == (other.num_decisions, other.num_actions)
    found = [np.stack([space.observe(draft) for draft in drafts(one)]) for space in (one, other)]
    return found[0], found[1]


@pytest.mark.parametrize("open_space", OPEN)
@pytest.mark.parametrize("size", [16, 32])
def test_a_network_twice_as_large_looks_the_same(open_space: Callable[..., SearchSpace], size: int) -> None:
    small = open_space(Residual(1), torch.zeros(1, 2, 16, 16))
    large = open_space(Residual(2), torch.zeros(1, 4, size, size))
    one, other = both(small, large)
    if size != 16:  # the linear layer does not grow with the images, so MAC shares move by what it has in them
        assert np.abs(one - other)[..., COLUMN["mac_share"]].max() < 1e-3
        one[..., COLUMN["mac_share"]] = other[..., COLUMN["mac_share"]]
    np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("open_space", OPEN)
def test_a_resnet_twice_as_wide_looks_the_same_up_to_what_does_not_grow(open_space: Callable[..., SearchSpace]) -> None:
    narrow, wide = (
        open_space(build_teacher("resnet20", width=width, channels=3, classes=10, seed=0), torch.zeros(1, 3, 32, 32))
        for width in (16, 32)
    )
    one, other = both(narrow, wide)
    apart = np.abs(one - other).max(axis=0)  # [N, F]
    assert apart[:, SHARES].max() < 0.01
    assert np.delete(apart, [*SHARES, *WIDTHS], axis=1).max() == 0
    assert apart[1:-1][:, WIDTHS].max() < 0.02  # a tenth of a group's channels is rounded to whole ones


def test_a_toy_twice_as_wide_looks_the_same() -> None:
    one, other = both(toy(decisions=4, actions=3, width=60), toy(decisions=4, actions=3, width=120))
    np.testing.assert_allclose(
        np.delete(one, [*SHARES, *WIDTHS], axis=-1), np.delete(other, [*SHARES, *WIDTHS], axis=-1)
    )
    assert np.abs(one - other).max() < 0.02  # two classes and the biases


def test_layers_of_one_decision_share_their_group() -> None:
    space = layer_shrinkage(Residual(1), torch.zeros(1, 2, 16, 16))
    for decision in range(space.num_decisions):
        seen = space.observe(Draft(drafts(space)[-1].actions[:decision]))
        group = seen[seen[:, COLUMN["cursor"]] == 1, COLUMN["group"]]
        assert group.max() <= np.float32((decision + 1) / space.num_decisions)
    first = space.observe(space.initial())[:, COLUMN["group"]]
    assert set(first[first > 0]) <= {np.float32((1 + i) / space.num_decisions) for i in range(space.num_decisions)}
    assert (
        first[space.observe(space.initial())[:, COLUMN["cursor"]] == 1] == np.float32(1 / space.num_decisions)
    ).all()
