"""What students know and can learn: by hand, and as a judge of a teacher's students gives it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from n2n.data import Data, example_inputs, load
from n2n.distill.fit import train_teacher
from n2n.distill.teacher import Teacher
from n2n.evaluate import scoring
from n2n.evaluate.base import evaluation_seed
from n2n.evaluate.closed_form import closed_form
from n2n.evaluate.probing import draw_probe
from n2n.networks import build_teacher
from n2n.scores import Probe, ScoreError
from n2n.scores.live_capacity import live_capacity
from n2n.scores.taught_capacity import taught_capacity
from search_spaces import layer_shrinkage
from tests.contracts.score_contract import check_score


def linear(*weights: float) -> nn.Module:
    """Two logits, each one weight times its own pixel."""
    made = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        made[1].weight.copy_(torch.diag(torch.tensor(weights)))
    return made


IMAGES = torch.tensor([[[[1.0, 0.0]]], [[[0.0, 1.0]]]])  # [2, 1, 1, 2]


def seen(**changed: object) -> Probe:
    return replace(Probe(IMAGES, torch.tensor([0, 1]), linear(1.0, 1.0)), **changed)  # type: ignore[arg-type]


def test_by_hand() -> None:
    student = linear(0.5, 1.0)
    capacity = live_capacity(student, seen())
    assert capacity == 2  # the root of four weights, all on one path of one layer
    # The teacher says (1, 0) and (0, 1), whose squared distances from their mean are 1/2 each, the student (1/2, 0) and
    # (0, 1): off by 1/4 in all.
    assert taught_capacity(student, seen(solve=lambda _: None)) == pytest.approx((1 - 0.25 / 1) * 2**0.25)

    def solved(network: nn.Module) -> None:
        network.load_state_dict(linear(1.0, 1.0).state_dict())

    assert taught_capacity(student, seen(solve=solved)) == pytest.approx(2**0.25)
    assert torch.equal(student[1].weight, linear(0.5, 1.0)[1].weight), "the student comes back as it was"  # type: ignore[index]


def test_what_says_the_opposite_is_worth_less_than_nothing_whatever_its_size() -> None:
    assert taught_capacity(linear(-1.0, -1.0), seen(solve=lambda _: None)) == 1 - 8 / 1


def test_without_inherited_weights_the_capacity_orders() -> None:
    assert taught_capacity(linear(0.5, 1.0), seen()) == pytest.approx(2**0.25)
    assert taught_capacity(linear(0.5, 1.0), seen(teacher=None)) == pytest.approx(2**0.25)


def test_solving_for_no_teacher_is_refused() -> None:
    with pytest.raises(ScoreError, match="expected a teacher whose values"):
        taught_capacity(linear(1.0, 1.0), seen(teacher=None, solve=lambda _: None))


def test_it_keeps_the_contract_where_students_are_solved() -> None:
    def halve(network: nn.Module) -> None:
        with torch.no_grad():
            for value in network.state_dict().values():
                value.div_(2, rounding_mode=None if value.is_floating_point() else "floor")

    check_score(lambda network, probe: taught_capacity(network, replace(probe, solve=halve)))


@pytest.fixture(scope="module")
def digits() -> Data:
    return load("digits")


def test_students_of_a_teacher_are_solved_and_those_that_know_more_score_higher(digits: Data) -> None:
    network = build_teacher("resnet20", classes=10, channels=1, width=4, seed=0)
    train_teacher(network, digits.training, epochs=2)
    teacher, space = Teacher(network, digits.training), layer_shrinkage(network, example_inputs(digits))
    student = space.random(np.random.default_rng(1))
    evaluate = scoring(space, digits.training, score="taught_capacity", teacher=teacher, seed=3)
    found = evaluate([student])[0]
    assert evaluate.fidelity == "taught_capacity on 64 images, solved, inherited by l1"
    assert found.score is not None

    built = space.build(student, seed=evaluation_seed(3, student.fingerprint))
    closed_form(space, digits.training, seed=3)(built, student, seed=evaluation_seed(3, student.fingerprint))
    probe = draw_probe(digits.training, batch=64, seed=evaluation_seed(3, "images 0"), teacher=teacher.network)
    assert found.score == pytest.approx(taught_capacity(built, replace(probe, solve=lambda _: None)))
    fresh = space.build(student, inherit=False, seed=0)
    assert found.score > taught_capacity(fresh, replace(probe, solve=lambda _: None))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"labels": None}, "images and labels as tensors, found Tensor and NoneType"),
        ({"labels": torch.tensor([0.0, 1.0])}, "labels in int64, found torch.float32 and torch.float32"),
        ({"images": IMAGES.byte()}, "images in floating point"),
        ({"seed": -1}, r"a seed in \[0, 2\^32\), found -1"),
    ],
)
def test_a_probe_that_no_score_can_look_at_is_refused(changed: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        seen(**changed)
