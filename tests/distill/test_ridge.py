"""Ridge regression against NumPy's least squares and numbers worked by hand."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from n2n.distill.ridge import Chunks, ridge


def in_chunks(x: Tensor, y: Tensor, size: int) -> Chunks:
    def chunks() -> Iterator[tuple[Tensor, Tensor]]:
        for at in range(0, x.shape[1], size):
            yield x[:, at : at + size], y[:, at : at + size]

    return chunks


def test_a_line_through_three_points_by_hand() -> None:
    # y = 2x + 1 at x = 0, 1, 2
    x, y = torch.tensor([[[0.0], [1.0], [2.0]]]), torch.tensor([[[1.0], [3.0], [5.0]]])
    found = ridge(in_chunks(x, y, 2), torch.zeros(1, 1, 1), strength=0.0)
    assert (found.weight.item(), found.bias.item()) == pytest.approx((2.0, 1.0))
    # The centred square of x is 2, the cross moment 4: a ridge of half the square gives 4 / 3 and goes through (1, 3).
    found = ridge(in_chunks(x, y, 3), torch.zeros(1, 1, 1), strength=0.5)
    assert (found.weight.item(), found.bias.item()) == pytest.approx((4 / 3, 3 - 4 / 3))
    # Towards a prior of 5 the same ridge leaves (4 - 2 * 5) / 3 of the way.
    found = ridge(in_chunks(x, y, 3), torch.full((1, 1, 1), 5.0), strength=0.5)
    assert found.weight.item() == pytest.approx(5 - 6 / 3)


@pytest.mark.parametrize("size", [7, 50])
def test_many_inputs_as_numpy_solves_them(size: int) -> None:
    x, y = torch.randn(3, 50, 6, dtype=torch.float64), torch.randn(3, 50, 4, dtype=torch.float64)
    found = ridge(in_chunks(x, y, size), torch.zeros(3, 4, 6, dtype=torch.float64), strength=0.0)
    for group in range(3):
        ones = np.concatenate([x[group].numpy(), np.ones((50, 1))], axis=1)
        expected = np.linalg.lstsq(ones, y[group].numpy(), rcond=None)[0]  # [7, 4]
        np.testing.assert_allclose(found.weight[group].numpy(), expected[:6].T, atol=1e-10)
        np.testing.assert_allclose(found.bias[group].numpy(), expected[6], atol=1e-10)


def test_without_an_intercept_nothing_is_centred() -> None:
    x, y = torch.randn(1, 40, 3, dtype=torch.float64) + 2, torch.randn(1, 40, 2, dtype=torch.float64) + 1
    prior = torch.zeros(1, 2, 3, dtype=torch.float64)
    found = ridge(in_chunks(x, y, 40), prior, strength=0.0, intercept=False)
    expected = np.linalg.lstsq(x[0].numpy(), y[0].numpy(), rcond=None)[0]
    np.testing.assert_allclose(found.weight[0].numpy(), expected.T, atol=1e-10)
    assert not found.bias.any()


def test_fewer_samples_than_inputs_give_what_the_normal_equations_give() -> None:
    x, y = torch.randn(2, 5, 9, dtype=torch.float64), torch.randn(2, 5, 3, dtype=torch.float64)
    prior = torch.randn(2, 3, 9, dtype=torch.float64)
    found = ridge(in_chunks(x, y, 2), prior, strength=0.1)
    for group in range(2):
        a, b = (values[group] - values[group].mean(0) for values in (x, y))
        gram = a.T @ a
        size = 0.1 * gram.diagonal().mean()
        step = torch.linalg.solve(gram + size * torch.eye(9, dtype=gram.dtype), a.T @ (b - a @ prior[group].T))
        torch.testing.assert_close(found.weight[group], prior[group] + step.T)


def test_a_singular_system_is_solved_with_a_stronger_ridge_and_says_so() -> None:
    x = torch.arange(-4.0, 5.0).reshape(1, 9, 1).expand(1, 9, 2)  # the same input twice
    y = 3 * x[:, :, :1]
    found = ridge(in_chunks(x, y, 9), torch.zeros(1, 1, 2), strength=0.0)
    assert found.solved
    assert found.raised > 0
    torch.testing.assert_close(found.weight, torch.full((1, 1, 2), 1.5), atol=1e-3, rtol=0)


def test_what_is_no_number_leaves_the_given_map() -> None:
    x, prior = torch.full((1, 30, 2), torch.nan), torch.randn(1, 1, 2)
    found = ridge(in_chunks(x, torch.randn(1, 30, 1), 30), prior, strength=1e-3)
    assert not found.solved
    assert torch.equal(found.weight, prior)
