"""The closed form as the start of a judgement: better than inherited weights, the same in every process."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from n2n.data import Data, example_inputs, load
from n2n.data.prepare import prepare
from n2n.distill.accuracy import agreement
from n2n.distill.fit import train_teacher
from n2n.distill.recipe import Recipe
from n2n.distill.teacher import Teacher
from n2n.evaluate import Status, distillation
from n2n.evaluate.closed_form import closed_form
from n2n.networks import build_teacher
from search_spaces import layer_shrinkage
from search_spaces.layer_shrinkage import LayerShrinkage


@pytest.fixture(scope="module")
def digits() -> Data:
    return load("digits")


@pytest.fixture(scope="module")
def teacher(digits: Data) -> Teacher:
    network = build_teacher("resnet20", classes=10, channels=1, width=4, seed=0)
    train_teacher(network, digits.training, epochs=3, lr=0.1, batch_size=32)
    return Teacher(network, digits.training)


@pytest.fixture(scope="module")
def space(digits: Data, teacher: Teacher) -> LayerShrinkage:
    return layer_shrinkage(teacher.network, example_inputs(digits), factors=(0.5, 1.0))


def test_it_judges_better_than_inherited_weights_without_a_step(
    digits: Data, teacher: Teacher, space: LayerShrinkage
) -> None:
    students = [space.random(np.random.default_rng(seed)) for seed in range(3)]
    solved, inherited = (
        distillation(space, teacher, digits.training, steps=0, start=start)(students)
        for start in ("refit", "inherited")
    )
    assert teacher.accuracy > 0.6
    for one, other in zip(solved, inherited, strict=True):
        assert one.accuracy > other.accuracy
        assert one.agreement > other.agreement
        assert one.fidelity.startswith("solved on 256 images")
        assert "refit by l1" in one.fidelity


def test_the_agreement_is_that_of_the_logits_on_the_validation_images(
    digits: Data, teacher: Teacher, space: LayerShrinkage
) -> None:
    student, training = space.random(np.random.default_rng(0)), digits.training
    found = distillation(space, teacher, training, steps=0, start="refit", seed=3)([student])[0]
    network = space.build(student, seed=found.seed)
    closed_form(space, training, seed=3)(network, student, seed=found.seed)
    images = prepare(training.validation.images, mean=training.mean, std=training.std)
    with torch.no_grad():
        given, wanted = network.eval()(images), teacher(images)
    error = (given - wanted).square().sum(1).mean()
    spread = (wanted - wanted.mean(0)).square().sum(1).mean()
    assert found.agreement == pytest.approx(1 - (error / spread).item(), abs=1e-3)


def test_agreement_by_hand() -> None:
    teacher = torch.tensor([[0.0, 2.0], [2.0, 0.0]])  # spread about the mean logits (1, 1): 4
    assert agreement(teacher, teacher) == 1.0
    assert agreement(torch.ones(2, 2), teacher) == 0.0
    assert agreement(torch.tensor([[0.0, 1.0], [2.0, 0.0]]), teacher) == 0.75


def test_it_travels_to_other_processes_and_solves_the_same(
    digits: Data, teacher: Teacher, space: LayerShrinkage
) -> None:
    judge = distillation(space, teacher, digits.training, recipe=Recipe(steps=2, batch_size=32), start="refit")
    student = space.random(np.random.default_rng(5))
    first = judge([student])[0]
    second = pickle.loads(pickle.dumps(judge))([student])[0]
    assert first.status is Status.OK
    assert (second.accuracy, second.agreement, second.loss) == (first.accuracy, first.agreement, first.loss)


def test_labels_are_not_looked_at(digits: Data, teacher: Teacher, space: LayerShrinkage) -> None:
    student, training = space.random(np.random.default_rng(0)), digits.training
    states = []
    for _ in range(2):
        network = space.build(student)
        closed_form(space, training)(network, student, seed=0)
        states.append(network.state_dict())
        training.train.labels.copy_(training.train.labels.roll(1))
    training.train.labels.copy_(training.train.labels.roll(-2))
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def test_a_space_without_a_teacher_is_refused(world) -> None:
    with pytest.raises(ValueError, match="needs the values of a teacher, and the space 'toy' has none; start from"):
        distillation(world.space, world.teacher, world.training, start="refit")


@pytest.mark.parametrize("option", [{"images": 0}, {"positions": 0}, {"strength": -1.0}, {"toward": "one"}])
def test_what_no_student_could_be_solved_with_is_refused_before_the_first(
    option: dict[str, object], digits: Data, teacher: Teacher, space: LayerShrinkage
) -> None:
    with pytest.raises(ValueError, match=rf"closed form: {next(iter(option))} must be"):
        distillation(space, teacher, digits.training, start="refit", closed_form_options=option)


def test_an_unknown_start_is_refused(world) -> None:
    with pytest.raises(ValueError, match="start: expected one of inherited, refit, fresh, found 'warm'"):
        distillation(world.space, world.teacher, world.training, start="warm")


def test_large_networks_are_looked_at_with_fewer_images(digits: Data, teacher: Teacher, space: LayerShrinkage) -> None:
    # The largest value of an image is that of the first convolution: 4 channels of 8 x 8 numbers of 4 bytes.
    solver = closed_form(space, digits.training, images=512, most_bytes=4 * 8 * 8 * 4 * 130)
    assert len(solver.images) == 128
