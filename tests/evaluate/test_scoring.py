"""Training-free scores as a judge: what it builds, what it shows the scores, and how it fails."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from n2n.data import Data, example_inputs, load
from n2n.distill.teacher import Teacher
from n2n.evaluate import Status, evaluation_seed, scoring
from n2n.networks import build_teacher, parameters
from n2n.scores import NEEDS_TEACHER, SCORES, Probe
from search_spaces import layer_removal, layer_shrinkage
from search_spaces.base import SpaceError
from search_spaces.toy import toy


class Keeps(nn.Module):
    """Remembers the images that it is shown; gives a fixed value."""

    def __init__(self, value: float = 1.0):
        super().__init__()
        self.value = nn.Parameter(torch.tensor([[value]]))
        self.shown: list[torch.Tensor] = []

    def forward(self, images):
        self.shown.append(images)
        return torch.relu(images.flatten(1)) * self.value


def judge(world, building, network: nn.Module, **options):
    space = building(world.space, lambda student: network)
    return scoring(space, world.training, **options)(world.students(1))[0]


def test_it_is_the_score_of_the_fresh_network_of_the_students_seed(world):
    student = world.students(2)[1]
    evaluation = scoring(world.space, world.training, score="synflow", seed=3)([student])[0]
    seed = evaluation_seed(3, student.fingerprint)
    network = world.space.build(student, inherit=False, seed=seed)
    probe = Probe(example_inputs(world.training), torch.zeros(1, dtype=torch.int64), seed=seed)
    assert evaluation.score == SCORES["synflow"](network, probe)
    assert (evaluation.accuracy, evaluation.loss, evaluation.expected) == (None, None, None)
    assert evaluation.seed == seed
    assert evaluation.fidelity == "synflow on 64 images, fresh"
    assert evaluation.size_mb == world.space.cost(student).size_mb


def test_inherited_students_are_those_of_the_teachers_weights(world):
    student = world.students(2)[1]
    evaluate = scoring(world.space, world.training, score="synflow", inherit=True, importance="l2", seed=1)
    probe = Probe(example_inputs(world.training), torch.zeros(1, dtype=torch.int64))
    assert evaluate([student])[0].score == SCORES["synflow"](world.space.build(student), probe)
    assert evaluate.fidelity == "synflow on 64 images, inherited by l2"


def test_several_seeds_give_the_mean_of_several_networks_on_images_of_their_own(world):
    student = world.students(2)[1]
    evaluate = scoring(world.space, world.training, score="synflow", seeds=3, batch=9)
    seed = evaluation_seed(0, student.fingerprint)
    seeds = [seed, *(evaluation_seed(seed, text) for text in ("1", "2"))]
    scores = [
        SCORES["synflow"](world.space.build(student, inherit=False, seed=one), probe)
        for one, probe in zip(seeds, evaluate.probes, strict=True)
    ]
    assert len(set(scores)) == 3
    assert evaluate([student])[0].score == pytest.approx(sum(scores) / 3)
    assert evaluate.fidelity == "synflow on 9 images, fresh, mean of 3 seeds"
    assert not torch.equal(evaluate.probes[0].images, evaluate.probes[1].images)


def test_the_images_are_train_images_of_the_run_seed_with_their_labels(world, building):
    network = Keeps()
    evaluate = scoring(building(world.space, lambda student: network), world.training, score="naswot", batch=8, seed=2)
    evaluate(world.students(2))
    first, second = network.shown
    assert torch.equal(first, second)  # students compare on the same images
    assert torch.equal(first, evaluate.probes[0].images)
    train = world.training.train
    for image, label in zip(first, evaluate.probes[0].labels, strict=True):
        (index,) = (train.images == image).all(dim=1).nonzero().flatten().tolist()  # the toy data need no preparing
        assert train.labels[index] == label
    assert not torch.equal(first, scoring(world.space, world.training, batch=8).probes[0].images)
    assert len(scoring(world.space, world.training, batch=10**6).probes[0].images) == len(train)


def test_larger_students_have_more_parameters_as_their_score(world):
    students = world.students(4)
    judged = scoring(world.space, world.training, score="params")(students)
    assert [one.score for one in judged] == [one.parameters for one in judged]
    costs = scoring(world.space, world.training, score="macs")(students)
    assert [one.score for one in costs] == [one.macs for one in costs]


def test_a_student_not_smaller_than_the_teacher_is_invalid(world):
    evaluations = [
        scoring(world.space, world.training, teacher=teacher)([world.whole()])[0] for teacher in (None, world.teacher)
    ]
    for evaluation in evaluations:
        assert evaluation.status is Status.INVALID
        assert "not smaller than the teacher" in evaluation.reason
        assert evaluation.score is None


def test_a_refused_student_is_not_even_built(world, building):
    def build(student):
        raise AssertionError("built")

    space = building(world.space, build)
    evaluation = scoring(space, world.training, refuse=lambda cost: "too many")(world.students(1))[0]
    assert (evaluation.status, evaluation.reason) == (Status.INVALID, "too many")


def test_no_finite_score_is_recorded(world, building):
    evaluation = judge(world, building, Keeps(math.nan), batch=8)
    assert evaluation.status is Status.FAILED
    assert evaluation.reason.startswith("naswot: expected finite outputs")
    assert evaluation.score is None
    assert evaluation.seconds > 0
    assert evaluation.fidelity == "naswot on 8 images, fresh"


def test_a_student_that_does_not_run_is_recorded_and_leaves_the_others_alone(world, building, without_seconds):
    bad, good = world.students(2)

    def build(student, **options):
        return nn.Linear(5, 2) if student == bad else world.space.build(student, inherit=False, seed=seeds[student])

    seeds = {one: evaluation_seed(0, one.fingerprint) for one in (bad, good)}
    results = scoring(building(world.space, build), world.training, score="synflow")([bad, good])
    assert [one.status for one in results] == [Status.FAILED, Status.OK]
    assert results[0].reason.startswith("does not run: RuntimeError: mat1 and mat2 shapes")
    whole = scoring(world.space, world.training, score="synflow")([good])[0]
    assert results[1].score == whole.score
    assert without_seconds(results[1]) == without_seconds(whole)


@pytest.mark.parametrize(
    ("error", "reason"),
    [(MemoryError("too big"), "out of memory: too big"), (ValueError("odd"), "does not run: ValueError: odd")],
)
def test_errors_of_the_build_are_recorded(world, building, error, reason):
    def build(student):
        raise error

    evaluation = scoring(building(world.space, build), world.training)(world.students(1))[0]
    assert (evaluation.status, evaluation.reason) == (Status.FAILED, reason)


@pytest.mark.parametrize("error", [TypeError("ours"), NotImplementedError("ours"), KeyboardInterrupt()])
def test_our_own_bugs_and_interrupts_are_not_swallowed(world, building, error):
    def build(student):
        raise error

    with pytest.raises(type(error)):
        scoring(building(world.space, build), world.training)(world.students(1))


def test_a_student_of_another_space_is_the_callers_mistake(world):
    with pytest.raises(SpaceError):
        scoring(world.space, world.training)([next(iter(toy(width=24).all()))])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score": "luck"}, "score must be one of params, macs, naswot, synflow"),
        ({"batch": 0}, "batch must be 1 or more"),
        ({"seeds": 0}, "seeds must be 1 or more"),
        *(
            ({"score": name}, f"'{name}' compares students with a teacher, and there is none")
            for name in sorted(NEEDS_TEACHER)
        ),
    ],
)
def test_impossible_options_are_refused(world, options, message):
    with pytest.raises(ValueError, match=message):
        scoring(world.space, world.training, **options)


@pytest.fixture(scope="module")
def digits() -> Data:
    return load("digits")


@pytest.mark.parametrize("name", SCORES)
def test_students_of_a_teacher_have_every_score(digits, name):
    network = build_teacher("resnet20", classes=10, channels=1, width=4, seed=0)
    teacher = Teacher(network, digits.training)
    for opens in (layer_removal, layer_shrinkage):
        space = opens(network, example_inputs(digits))
        student = space.random(np.random.default_rng(0))
        evaluate = scoring(space, digits.training, score=name, batch=16, teacher=teacher)
        first, again = evaluate([student])[0], pickle.loads(pickle.dumps(evaluate))([student])[0]
        if opens is layer_shrinkage and name in ("diswot", "diswot_semantic"):
            assert (first.status, again.status) == (Status.FAILED, Status.FAILED)
            assert "take 'diswot_free', which compares any widths" in first.reason
            continue
        assert first.status is Status.OK, first.reason
        assert first.score == again.score
        assert first.parameters == parameters(space.build(student))
