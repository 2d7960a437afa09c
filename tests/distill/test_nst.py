"""Neuron selectivity transfer against a number worked by hand, plain loops, and the Gram matrices of the places."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from n2n.distill.objectives.base import Batch, Seen
from n2n.distill.objectives.nst import nst, selectivity_mmd


def maps(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_loops(student: Tensor, teacher: Tensor) -> float:
    """The definition over pairs of channels, one example and one pair at a time, in Python's floats."""

    def unit(channel: Tensor) -> list[float]:
        values = [float(value) for value in channel.flatten()]
        length = math.sqrt(sum(value**2 for value in values))
        return [value / length for value in values]

    def mean_kernel(one: list[list[float]], other: list[list[float]]) -> float:
        kernels = [sum(x * y for x, y in zip(a, b, strict=True)) ** 2 for a in one for b in other]
        return sum(kernels) / len(kernels)

    total = 0.0
    for ours, theirs in zip(student, teacher, strict=True):
        s, t = [unit(one) for one in ours], [unit(one) for one in theirs]
        total += mean_kernel(s, s) + mean_kernel(t, t) - 2 * mean_kernel(s, t)
    return total / len(student)


def test_worked_by_hand():
    # One channel (3, 4), of length 5, against the channels (2, 0) and (0, 7): the kernels are k(s, s) = 1,
    # k(t, t) = 1, 0, 0, 1 and k(s, t) = 0.36, 0.64, so MMD^2 = 1 + 1/2 - 2 * 1/2.
    student, teacher = torch.tensor([[[[3.0, 4.0]]]]), torch.tensor([[[[2.0, 0.0]], [[0.0, 7.0]]]])
    assert selectivity_mmd(student, teacher).item() == pytest.approx(0.5, rel=1e-6)
    ours, theirs = Seen(torch.zeros(1, 2), (student,)), Seen(torch.zeros(1, 2), (teacher,))
    batch = Batch(torch.tensor([0]), None, None, 0.0, 0.0, torch.Generator(), classes=2, examples=1)
    loss = nst(ours, theirs, batch)
    assert loss.item() == pytest.approx(math.log(2) + 50 / 2 * 0.5, rel=1e-6)
    gentle = nst(ours, theirs, batch, beta=2.0)
    assert gentle.item() == pytest.approx(math.log(2) + 0.5, rel=1e-6)


# Few places and many channels, and the other way round: the Gram matrices are those of the places or of the channels.
SHAPES = [((6, 2, 2), (9, 2, 2)), ((2, 3, 4), (3, 3, 4)), ((5, 7), (4, 7)), ((2, 2, 3, 2), (3, 2, 3, 2))]


@pytest.mark.parametrize(("ours", "theirs"), SHAPES)
def test_as_plain_loops_give_it(ours, theirs):
    student, teacher = maps(0, 3, *ours), maps(1, 3, *theirs)
    assert selectivity_mmd(student, teacher).item() == pytest.approx(by_loops(student, teacher), rel=1e-4)


@pytest.mark.parametrize(("ours", "theirs"), SHAPES)
def test_as_the_distance_of_gram_matrices(ours, theirs):
    # Section "choice of kernels" of the paper: the polynomial kernel compares Gram matrices of the places.
    student, teacher = maps(0, 3, *ours), maps(1, 3, *theirs)
    grams = []
    for one in (student, teacher):
        unit = F.normalize(one.flatten(2), dim=2)
        grams.append(torch.einsum("bcp,bcq->bpq", unit, unit) / one.shape[1])
    expected = (grams[0] - grams[1]).square().sum(dim=(1, 2)).mean()
    torch.testing.assert_close(selectivity_mmd(student, teacher), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shape", [(6, 2, 2), (2, 3, 4)])
def test_zero_for_identical_maps_and_for_what_the_kernel_does_not_see(shape):
    same = maps(0, 3, *shape)
    assert selectivity_mmd(same, same.clone()).item() == pytest.approx(0, abs=1e-6)
    # The order of channels, their lengths, their signs, and each of them twice.
    altered = -2.5 * same.flip(1).repeat_interleave(2, dim=1)
    assert selectivity_mmd(altered, same).item() == pytest.approx(0, abs=1e-6)
    assert selectivity_mmd(maps(1, 3, *shape), same).item() > 0.01


def test_the_larger_map_is_averaged_to_the_smaller():
    large, small = maps(0, 2, 3, 4, 4), maps(1, 2, 5, 2, 2)
    blocks = torch.stack(
        [large[:, :, row : row + 2, column : column + 2].mean(dim=(2, 3)) for row in (0, 2) for column in (0, 2)], dim=2
    ).view(2, 3, 2, 2)
    expected = by_loops(blocks, small)
    assert selectivity_mmd(large, small).item() == pytest.approx(expected, rel=1e-4)
    assert selectivity_mmd(small, large).item() == pytest.approx(expected, rel=1e-4)


def test_axes_are_pooled_one_by_one():
    wide, tall = maps(0, 2, 3, 2, 4), maps(1, 2, 3, 4, 2)
    expected = by_loops(wide.view(2, 3, 2, 2, 2).mean(4), tall.view(2, 3, 2, 2, 2).mean(3))
    assert selectivity_mmd(wide, tall).item() == pytest.approx(expected, rel=1e-4)


def test_dead_channels_have_a_gradient_that_is_a_number():
    student = maps(0, 2, 4, 3, 3)
    student[:, 1] = 0
    student.requires_grad_()
    selectivity_mmd(student, maps(1, 2, 5, 3, 3)).backward()
    assert student.grad.isfinite().all()
    assert not student.grad[:, 1].any()
    assert student.grad[:, 0].any()


@pytest.mark.parametrize("theirs", [(3, 5, 7), (2, 5, 4, 4)])
def test_maps_that_cannot_be_compared_are_refused(theirs):
    with pytest.raises(ValueError, match=r"nst: expected maps .* found \[3, 5, 4, 4\] from the student.*'kd'"):
        selectivity_mmd(maps(0, 3, 5, 4, 4), maps(1, *theirs))
