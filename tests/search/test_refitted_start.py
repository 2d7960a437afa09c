"""Students that start solved in closed form: training never leaves them worse than it found them."""

from __future__ import annotations

import copy
import dataclasses

import torch

from n2n.data import Data
from n2n.distill.accuracy import accuracy
from n2n.distill.fit import train_teacher
from n2n.distill.teacher import Teacher
from n2n.networks import build_teacher
from n2n.search.finish import UNDONE, distill_student


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
