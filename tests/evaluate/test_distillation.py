"""Quick distillation as a judge: what it reads, what it refuses, and how it fails."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

from n2n.data import example_inputs, load, prepare
from n2n.distill.recipe import Recipe
from n2n.distill.teacher import Teacher
from n2n.evaluate import Status, distillation
from n2n.networks import Timings
from n2n.networks.stages import StageError
from search_spaces.base import SpaceError
from search_spaces.layer_shrinkage import layer_shrinkage
from search_spaces.toy import toy


class Emits(nn.Module):
    """Gives the same logits whatever it sees."""

    def __init__(self, value: float):
        super().__init__()
        self.logits = nn.Parameter(torch.full((2,), value))

    def forward(self, inputs):
        return self.logits.expand(len(inputs), 2)


class Raises(nn.Module):
    """Fails in its forward pass."""

    def __init__(self, error: BaseException):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.error = error

    def forward(self, inputs):
        raise self.error


def judge(world, building, network: nn.Module, **options):
    space = building(world.space, lambda student: network)
    evaluate = distillation(space, world.teacher, world.training, **{"recipe": world.recipe, **options})
    return evaluate(world.students(1))[0]


def test_without_training_it_is_the_inherited_networks_own_accuracy(world):
    student = world.students(2)[1]
    evaluation = distillation(world.space, world.teacher, world.training, steps=0)([student])[0]
    network = world.space.build(student).eval()
    split = world.training.validation
    with torch.no_grad():
        logits = network(prepare(split.images, mean=world.training.mean, std=world.training.std))
    right = sum(int(row.argmax()) == int(label) for row, label in zip(logits, split.labels, strict=True))
    assert evaluation.accuracy == pytest.approx(right / len(split))
    by_hand = [-math.log(torch.softmax(row, 0)[label]) for row, label in zip(logits, split.labels, strict=True)]
    assert evaluation.loss == pytest.approx(sum(by_hand) / len(by_hand), rel=1e-4)


def test_training_helps(world):
    student = world.students(4)[-1]
    accuracies = []
    for steps in (0, 60):
        recipe = Recipe(objective="ce", steps=steps, batch_size=32, lr=0.05)
        evaluate = distillation(world.space, world.teacher, world.training, recipe=recipe)
        accuracies.append(evaluate([student])[0].accuracy)
    assert accuracies[1] > accuracies[0] + 0.1


def test_the_networks_inheritance_is_as_asked(world):
    student = world.students(4)[-1]
    options = {"recipe": dataclasses.replace(world.recipe, steps=0)}
    inherited, fresh = (
        distillation(world.space, world.teacher, world.training, start=start, **options)([student])[0]
        for start in ("inherited", "fresh")
    )
    assert inherited.loss != fresh.loss
    assert "inherited" in inherited.fidelity
    assert "fresh" in fresh.fidelity


def test_run_seeds_lead_to_other_seeds_and_results(world):
    student = world.students(2)[1]
    first, again, other = (
        distillation(world.space, world.teacher, world.training, recipe=world.recipe, seed=seed)([student])[0]
        for seed in (0, 0, 1)
    )
    assert (first.seed, first.loss) == (again.seed, again.loss)
    assert first.seed != other.seed
    assert first.loss != other.loss


def test_subsets_are_drawn_and_named(world):
    evaluate = distillation(
        world.space, world.teacher, world.training, recipe=world.recipe, subset=48, validation_subset=10
    )
    assert len(evaluate.subset) == len(set(evaluate.subset.tolist())) == 48
    assert len(evaluate.validation) == 10
    assert evaluate.fidelity == "kd, 6 steps of 16 on 48 images, inherited by l1, accuracy on 10"
    accuracy = evaluate(world.students(1))[0].accuracy
    assert (accuracy * 10) % 1 == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("option", ["subset", "validation_subset"])
def test_empty_subsets_are_refused(world, option):
    with pytest.raises(ValueError, match=f"{option} must be 1 or more images"):
        distillation(world.space, world.teacher, world.training, **{option: 0})


def test_a_student_not_smaller_than_the_teacher_is_invalid(world):
    evaluation = distillation(world.space, world.teacher, world.training)([world.whole()])[0]
    assert evaluation.status is Status.INVALID
    assert "not smaller than the teacher" in evaluation.reason
    assert evaluation.accuracy is None
    assert evaluation.parameters == world.teacher.parameters


def test_a_refused_student_is_not_even_built(world, building):
    def build(student):
        raise AssertionError("built")

    evaluate = distillation(
        building(world.space, build),
        world.teacher,
        world.training,
        refuse=lambda cost: f"{cost.macs} MACs are too many",
    )
    student = world.students(1)[0]
    evaluation = evaluate([student])[0]
    assert (evaluation.status, evaluation.reason) == (
        Status.INVALID,
        f"{world.space.cost(student).macs} MACs are too many",
    )


def test_divergence_is_recorded(world, building):
    evaluation = judge(world, building, Emits(float("nan")))
    assert evaluation.status is Status.FAILED
    assert evaluation.reason.startswith("diverged: the loss became nan at step 1 of 6")
    assert (evaluation.accuracy, evaluation.loss) == (None, None)


def test_divergence_that_only_the_validation_shows_is_recorded(world, building):
    recipe = Recipe(steps=0)
    evaluation = judge(world, building, Emits(float("inf")), recipe=recipe)
    assert evaluation.status is Status.FAILED
    assert evaluation.reason == "diverged: the validation loss is nan after 0 steps"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), "does not run: RuntimeError: mat1 and mat2"),
        (ValueError("Expected more than 1 value per channel"), "does not run: ValueError: Expected more"),
        (MemoryError("too big"), "out of memory: too big"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out of memory: CUDA"),
    ],
)
def test_a_student_that_does_not_run_is_recorded(world, building, error, reason):
    evaluation = judge(world, building, Raises(error))
    assert evaluation.status is Status.FAILED
    assert evaluation.reason.startswith(reason)
    assert evaluation.seconds > 0


@pytest.mark.parametrize(
    "error", [TypeError("ours"), KeyError("ours"), NotImplementedError("ours"), KeyboardInterrupt()]
)
def test_our_own_bugs_and_interrupts_are_not_swallowed(world, building, error):
    with pytest.raises(type(error)):
        judge(world, building, Raises(error))


def test_a_student_of_another_space_is_the_callers_mistake(world):
    stranger = next(iter(toy(width=24).all()))
    with pytest.raises(SpaceError):
        distillation(world.space, world.teacher, world.training)([stranger])


def test_a_failure_leaves_the_others_alone(world, building, without_seconds):
    bad, good = world.students(2)

    def build(student):
        return Emits(float("nan")) if student == bad else world.space.build(student)

    broken = distillation(building(world.space, build), world.teacher, world.training, recipe=world.recipe)
    whole = distillation(world.space, world.teacher, world.training, recipe=world.recipe)
    results = broken([bad, good])
    assert [one.status for one in results] == [Status.FAILED, Status.OK]
    assert without_seconds(results[1]) == without_seconds(whole([good])[0])


def test_latency_is_measured_where_asked(world):
    student, timings = world.students(1)[0], Timings(example_inputs(world.training))
    plain, timed = (
        distillation(world.space, world.teacher, world.training, recipe=world.recipe, timings=measured)([student])[0]
        for measured in (None, timings)
    )
    assert (plain.latency_ms, plain.latency_iqr_ms, plain.latency_device) == (None, None, None)
    assert 0 < timed.latency_ms < 1000
    assert timed.latency_ms == timings.known[student.fingerprint].median_ms
    assert timed.latency_device.startswith("cpu")
    assert plain.size_mb == timed.size_mb == world.space.cost(student).bytes / 1e6


def test_the_teacher_is_asked_once_for_all_students(world):
    teacher = Teacher(world.space.build(world.whole()), world.training)
    evaluate = distillation(world.space, teacher, world.training, recipe=world.recipe)
    calls = []
    handle = teacher.network.register_forward_hook(lambda module, inputs, outputs: calls.append(len(outputs)))
    evaluate(world.students(4))
    handle.remove()
    assert sum(calls) == min(6 * 16, len(world.training.train))


def test_the_teacher_keeps_its_weights(world):
    before = [parameter.clone() for parameter in world.teacher.network.parameters()]
    distillation(world.space, world.teacher, world.training, recipe=world.recipe)(world.students(2))
    after = world.teacher.network.parameters()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_an_objective_on_maps_is_refused_for_a_teacher_without_any(world):
    with pytest.raises(StageError, match=r"teacher 'teacher' \(.*\) has no feature maps.*use the objective 'kd'"):
        distillation(world.space, world.teacher, world.training, objective="nst")


def test_students_are_judged_by_maps_that_were_taken_before():
    data = load("digits").training
    network = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 10))
    teacher = Teacher(network, data)
    space = layer_shrinkage(network, example_inputs(data, 2))
    evaluate = distillation(space, teacher, data, objective="nst", steps=4, validation_subset=50)
    evaluate.prepare()
    evaluation = evaluate([space.random(np.random.default_rng(0))])[0]
    assert evaluation.status is Status.OK
    assert evaluation.fidelity.startswith("nst, 4 steps")


def test_a_student_that_has_no_maps_left_is_recorded_as_failed(world, building):
    data = load("digits").training
    network = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 10))
    space = layer_shrinkage(network, example_inputs(data, 2))
    flat = building(space, lambda student: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    evaluate = distillation(flat, Teacher(network, data), data, objective="nst", steps=4, validation_subset=50)
    evaluation = evaluate([space.random(np.random.default_rng(0))])[0]
    assert evaluation.status is Status.FAILED
    assert "does not run: StageError: the student (Sequential) has no feature maps" in evaluation.reason


def test_the_images_shown_are_those_of_the_steps_and_of_validation(world):
    judge = distillation(world.space, world.teacher, world.training, recipe=world.recipe, validation_subset=20)
    assert judge.images_shown == 3 * 6 * 16 + 20  # six steps of 16 images
