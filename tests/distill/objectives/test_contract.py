"""Every objective under the contract suite, and the suite under objectives that break it."""

from __future__ import annotations

import math

import pytest
import torch
from objective_contract import check_objective, gradient_agrees, scene

from n2n.distill.objectives import OBJECTIVES, Needs, Objective


@pytest.mark.parametrize("name", OBJECTIVES)
def test_it_keeps_its_promises(name):
    check_objective(OBJECTIVES[name])


@pytest.mark.gpu
@pytest.mark.parametrize("name", OBJECTIVES)
def test_it_keeps_its_promises_on_a_gpu(name):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    check_objective(OBJECTIVES[name], "cuda")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_its_gradient_agrees_with_finite_differences(name):
    options = {"adapter": True} if name == "fsp" else {}
    widths = (3, 3) if name == "diswot_semantic" else (3, 4)
    gradient_agrees(
        OBJECTIVES[name],
        scene(OBJECTIVES[name], rows=4, widths=widths, sizes=(2, 3), dtype=torch.float64, options=options),
    )


def sound(student, teacher, batch):
    """Squared error of logits and maps, by operations that autocast leaves alone."""
    difference = (student.maps[0].float() - teacher.maps[0].detach().float()).square().mean()
    return difference + (student.logits.float() - teacher.logits.detach().float()).square().mean() / 1e8


def reaches_the_teacher(student, teacher, batch):
    """As `sound`."""
    return (student.maps[0].float() - teacher.maps[0].float()).square().mean()


def loses_a_map(student, teacher, batch):
    """As `sound`."""
    return (student.logits - teacher.logits.detach()).float().square().mean() / 1e8


def is_no_scalar(student, teacher, batch):
    """As `sound`."""
    return (student.maps[0].float() - teacher.maps[0].detach().float()).square().mean(dim=1)


def multiplies_under_autocast(student, teacher, batch):
    """As `sound`."""
    ours, theirs = student.maps[0].flatten(1), teacher.maps[0].detach().flatten(1)
    return (ours @ ours.T - theirs @ theirs.T).square().mean().float()


def keeps_half_precision(student, teacher, batch):
    """As `sound`."""
    return (student.maps[0] - teacher.maps[0].detach()).square().mean()


def draws_from_elsewhere(student, teacher, batch):
    """As `sound`."""
    return torch.rand(()) * sound(student, teacher, batch)


def edits_what_it_is_given(student, teacher, batch):
    """As `sound`."""
    teacher.maps[0].data.mul_(2)
    return sound(student, teacher, batch)


def has_no_gradient_at_zero(student, teacher, batch):
    """As `sound`."""
    return (student.maps[0].float() - teacher.maps[0].detach().float()).square().sum().sqrt()


def overflows(student, teacher, batch):
    """As `sound`."""
    return sound(student, teacher, batch) + student.logits.float().exp().mean()


def fails_alone(student, teacher, batch):
    """As `sound`."""
    return sound(student, teacher, batch) + student.logits.float().std(dim=0).mean()


def said_nowhere(student, teacher, batch):
    return sound(student, teacher, batch)


def demands_an_option(student, teacher, batch, *, weight):
    """As `sound`."""
    return weight * sound(student, teacher, batch)


def refuses_without_help(student, teacher, batch):
    """As `sound`."""
    if student.maps[0].shape != teacher.maps[0].shape:
        raise ValueError("shapes differ")
    return sound(student, teacher, batch)


def refuses(student, teacher, batch):
    """As `sound`, with a word on what to do."""
    if student.maps[0].shape != teacher.maps[0].shape:
        raise ValueError("planted: shapes differ; use 'kd'")
    return sound(student, teacher, batch)


def planted(loss):
    return Objective("planted", Needs(logits=True, features="last"), loss)


@pytest.mark.parametrize(
    "loss",
    [
        *(reaches_the_teacher, loses_a_map, is_no_scalar, multiplies_under_autocast, keeps_half_precision),
        *(draws_from_elsewhere, edits_what_it_is_given, has_no_gradient_at_zero, overflows, fails_alone),
        *(said_nowhere, demands_an_option, refuses_without_help),
    ],
)
@pytest.mark.filterwarnings("ignore:std")  # of one row
def test_the_suite_notices(loss):
    with pytest.raises(AssertionError):
        check_objective(planted(loss))


def test_the_suite_passes_what_is_sound():
    check_objective(planted(refuses))
    assert math.isfinite(scene(planted(sound)).loss(planted(sound)).item())
