"""The long distillation from Python: what it takes, and that it leaves no solved student worse than it found it."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from n2n.data import Data
from n2n.distill.accuracy import accuracy
from n2n.distill.fit import fit, train_teacher
from n2n.distill.objectives.expression import ObjectiveError
from n2n.distill.teacher import Teacher
from n2n.networks import build_teacher
from n2n.search.finish import UNDONE, distill_student, long_recipe


def test_a_distillation_that_makes_a_refitted_student_worse_is_undone(digits: Data) -> None:
    network = build_teacher("mlp", inputs=64, hidden=(32,), classes=10, seed=0)
    train_teacher(network, digits.training, epochs=10, lr=0.1)
    teacher = Teacher(network, digits.training)
    mean, std = digits.training.mean, digits.training.std
    student = copy.deepcopy(network)
    before = {key: value.clone() for key, value in student.state_dict().items()}
    # An objective of labels alone, on labels that are all wrong.
    wrong = dataclasses.replace(digits.training.train, labels=(digits.training.train.labels + 1) % 10)
    training = dataclasses.replace(digits.training, train=wrong)
    found = distill_student(student, teacher, training, epochs=3, objective="ce", start="refit")
    assert found.steps > 0
    assert UNDONE in found.reason
    assert all(torch.equal(value, before[key]) for key, value in student.state_dict().items())
    found = distill_student(student, teacher, digits.training, epochs=1, start="refit")
    assert accuracy(student, digits.validation, mean=mean, std=std)[0] >= teacher.accuracy
    found = distill_student(student, teacher, training, epochs=3, objective="ce")
    assert not found.reason
    assert accuracy(student, digits.validation, mean=mean, std=std)[0] < 0.5


def test_named_layers_and_averaged_weights_are_those_of_the_recipe(digits: Data) -> None:
    network = build_teacher("resnet20", width=4, classes=10, channels=1, seed=0)
    teacher = Teacher(network, digits.training)
    layers = (("stages.0", "stages.0"),)
    asked = {"objective": "attention:10 + kd", "layers": layers, "ema": 0.9}
    students = [copy.deepcopy(network) for _ in range(3)]
    distill_student(students[0], teacher, digits.training, epochs=0.2, **asked)
    recipe = dataclasses.replace(long_recipe(0.2, asked["objective"], "inherited"), layers=layers, ema=0.9)
    fit(students[1], digits.training, recipe, teacher=teacher)
    distill_student(students[2], teacher, digits.training, epochs=0.2, objective=asked["objective"])
    first, second, plain = (one.state_dict()["fc.weight"] for one in students)
    assert torch.equal(first, second)
    assert not torch.equal(first, plain)
    with pytest.raises(ObjectiveError, match=r"compares no maps that can be named: leave out the layers stages\.0"):
        distill_student(students[0], teacher, digits.training, objective="kd", layers=layers)
