"""Objectives against numbers worked by hand, finite differences, and limits known from theory."""

from __future__ import annotations

import math

import pytest
import torch

from n2n.distill.objectives import OBJECTIVES, Batch, Seen
from n2n.distill.objectives.ce import CE
from n2n.distill.objectives.expression import parse
from n2n.distill.objectives.kd import KD
from n2n.distill.objectives.logit_mse import LOGIT_MSE
from n2n.distill.objectives.nst import NST


def logits(seed: int, rows: int = 3, classes: int = 4) -> torch.Tensor:
    return torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed))


def maps(seed: int, channels: int, rows: int = 3) -> torch.Tensor:
    return torch.randn(rows, channels, 2, 3, generator=torch.Generator().manual_seed(seed))


def batch_of(labels: torch.Tensor) -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch(labels, torch.arange(len(labels)), None, 0.0, 0.0, generator, classes=4, examples=100)


Maps = tuple[torch.Tensor, torch.Tensor]
GIVEN = (maps(2, 4), maps(3, 5))


def value_of(objective, given: Maps = GIVEN, **options: float):
    """The objective as a function of logits and labels, at given maps of student and teacher."""
    ours, theirs = given

    def value(student, teacher, labels):
        return objective.loss(Seen(student, (ours,)), Seen(teacher, (theirs,)), batch_of(labels), **options)

    return value


def objective_of(name: str, given: Maps = GIVEN):
    return value_of(OBJECTIVES[name], given)


ce, kd, logit_mse = value_of(CE), value_of(KD), value_of(LOGIT_MSE)
LABELS = torch.tensor([1, 0, 3])
NAMES = ("kd", "logit_mse", "ce", "nst")  # those without a file of tests of their own
FEATURE_OBJECTIVES = ("nst",)


def measured_gradient(function, at: torch.Tensor, step: float = 1e-2) -> torch.Tensor:
    """Central differences of a scalar function."""
    measured = torch.zeros_like(at)
    for index in range(at.numel()):
        shift = torch.zeros(at.numel())
        shift[index] = step
        shift = shift.view_as(at)
        measured.view(-1)[index] = (function(at + shift) - function(at - shift)) / (2 * step)
    return measured


def test_kd_of_one_row_worked_by_hand():
    # At T = 4 the teacher's logits 4 ln 3 and 0 are the probabilities 3/4 and 1/4; the student says 1/2 and 1/2.
    student, teacher = torch.zeros(1, 2), torch.tensor([[4 * math.log(3), 0.0]])
    divergence = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    expected = 0.1 * math.log(2) + 0.9 * 16 * divergence
    assert kd(student, teacher, torch.tensor([0])).item() == pytest.approx(expected, rel=1e-5)


def test_kd_averages_over_rows_and_not_over_classes():
    student, teacher = torch.zeros(1, 2), torch.tensor([[4 * math.log(3), 0.0]])
    one = kd(student, teacher, torch.tensor([0]))
    three = kd(student.expand(3, 2), teacher.expand(3, 2), torch.tensor([0, 0, 0]))
    assert three.item() == pytest.approx(one.item(), rel=1e-6)


def test_logit_mse_worked_by_hand():
    student, teacher = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 4.0], [3.0, 0.0]])
    assert logit_mse(student, teacher, torch.tensor([0, 1])).item() == pytest.approx((1 + 4 + 9) / 4)


def test_cross_entropy_worked_by_hand():
    student = torch.tensor([[math.log(3), 0.0]])
    assert ce(student, student, torch.tensor([1])).item() == pytest.approx(math.log(4), rel=1e-6)
    smoothed = 0.2 / 2 * (math.log(4) - math.log(3)) + (1 - 0.2 / 2) * math.log(4)
    assert value_of(CE, label_smoothing=0.2)(student, student, torch.tensor([1])).item() == pytest.approx(
        smoothed, rel=1e-5
    )


@pytest.mark.parametrize("name", NAMES)
def test_gradient_agrees_with_finite_differences(name):
    objective, teacher = objective_of(name), logits(1)
    student = logits(0).requires_grad_()
    (gradient,) = torch.autograd.grad(objective(student, teacher, LABELS), student)
    measured = measured_gradient(lambda at: objective(at, teacher, LABELS), student.detach())
    torch.testing.assert_close(gradient, measured, atol=2e-3, rtol=1e-2)


@pytest.mark.parametrize("name", FEATURE_OBJECTIVES)
def test_gradient_of_the_maps_agrees_with_finite_differences(name):
    teacher = maps(3, 5)
    student = maps(2, 4).requires_grad_()
    loss = objective_of(name, (student, teacher))(logits(0), logits(1), LABELS)
    (gradient,) = torch.autograd.grad(loss, student)
    measured = measured_gradient(
        lambda at: objective_of(name, (at, teacher))(logits(0), logits(1), LABELS), student.detach()
    )
    assert gradient.abs().max() > 0.1
    torch.testing.assert_close(gradient, measured, atol=5e-3, rtol=1e-2)


@pytest.mark.parametrize("name", FEATURE_OBJECTIVES)
def test_the_maps_of_the_student_get_a_gradient_and_the_teachers_none(name):
    ours, theirs = maps(2, 4).requires_grad_(), maps(3, 5).requires_grad_()
    objective_of(name, (ours, theirs))(logits(0), logits(1), LABELS).backward()
    assert ours.grad.abs().sum() > 0
    assert theirs.grad is None


@pytest.mark.parametrize("name", FEATURE_OBJECTIVES)
def test_identical_maps_leave_the_cross_entropy(name):
    same = maps(2, 4)
    loss = objective_of(name, (same, same.clone()))(logits(0), logits(1), LABELS)
    assert loss.item() == pytest.approx(ce(logits(0), logits(1), LABELS).item(), abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_reaches_the_student_and_never_the_teacher(name):
    student, teacher = logits(0).requires_grad_(), logits(1).requires_grad_()
    objective_of(name)(student, teacher, LABELS).backward()
    assert student.grad is not None
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None


def test_kd_gradient_at_high_temperature_is_the_centred_logit_difference():
    student, teacher = logits(0).requires_grad_(), logits(1)
    (gradient,) = torch.autograd.grad(value_of(KD, alpha=1.0, temperature=100.0)(student, teacher, LABELS), student)
    difference = student.detach() - teacher
    difference = difference - difference.mean(1, keepdim=True)
    mean_shift = (student.detach() - teacher).numel()
    torch.testing.assert_close(gradient, difference / mean_shift, atol=5e-3, rtol=0)


def test_a_shift_of_all_logits_matters_to_mse_alone():
    student, teacher = logits(0), logits(1)
    shifted = student + 5
    torch.testing.assert_close(kd(shifted, teacher, LABELS), kd(student, teacher, LABELS))
    assert logit_mse(shifted, teacher, LABELS) > logit_mse(student, teacher, LABELS) + 1


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_logits_give_a_float32_loss(name):
    given = (maps(2, 4).bfloat16(), maps(3, 5).bfloat16())
    loss = objective_of(name, given)(logits(0).bfloat16(), logits(1).bfloat16(), LABELS)
    assert loss.dtype == torch.float32


def test_an_objective_says_what_it_needs():
    assert (KD.needs.logits, KD.needs.labels, KD.needs.features, KD.labels_term) == (True, True, "none", True)
    assert not LOGIT_MSE.needs.labels
    assert (NST.needs.features, NST.needs.before_activation, NST.needs.side) == ("last", False, False)
    assert not parse("ce").needs_teacher
    assert parse("nst").needs_teacher
