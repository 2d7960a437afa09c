"""Distilling by features: the same maps kept or live, asked for once, on the view that the student sees."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from n2n.data import load, prepare
from n2n.distill.accuracy import accuracy
from n2n.distill.fit import check_objective, fit, prepare_views, train_teacher
from n2n.distill.recipe import Recipe, quick_recipe
from n2n.distill.teacher import Teacher
from n2n.networks.stages import StageError
from search_spaces.layer_shrinkage import layer_shrinkage

NST = Recipe(objective="nst", steps=9, batch_size=24, lr=0.02, views=3)
MAPS = 4 * 36 * 4  # bytes of one example's maps of the network below


class Counting(nn.Module):
    """Counts how many images went through."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network, self.images = network, 0

    def forward(self, inputs):
        self.images += len(inputs)
        return self.network(inputs)


def losses_of(network, training, recipe, teacher) -> list[float]:
    losses: list[float] = []
    fit(network, training, recipe, teacher=teacher, progress=lambda step, total, loss: losses.append(loss))
    return losses


def hooks(network: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in network.modules())


@pytest.mark.parametrize("views", [0, 1, 3])
def test_teacher_and_student_see_the_same_view(augmented, views):
    # Where the student is the teacher nothing is left but the cross-entropy, on any view that both of them see.
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    recipe = dataclasses.replace(NST, lr=1e-12, weight_decay=0, views=views)
    hard = dataclasses.replace(recipe, objective="nst,beta=0")
    teacher = Teacher(network, augmented)
    ours, wanted = (losses_of(copy.deepcopy(network), augmented, one, teacher) for one in (recipe, hard))
    assert ours == pytest.approx(wanted, abs=1e-4)
    other = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3))
    assert losses_of(other, augmented, recipe, teacher)[0] > 2


@pytest.mark.parametrize("width", [2, 6])
def test_kept_and_live_maps_give_the_same_losses(augmented, make_network, width):
    network = make_network()
    kept, live = Teacher(network, augmented), Teacher(network, augmented, feature_bytes=0)
    view = kept.view(augmented, None, 0, augmented=True, places=[kept.last_stage])
    assert [maps.shape for maps in view.features] == [(len(augmented.train), 4, 6, 6)]
    assert live.view(augmented, None, 0, augmented=True, places=[live.last_stage]).features is None
    ours, theirs = (losses_of(make_network(seed=1, width=width), augmented, NST, one) for one in (kept, live))
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert len(ours) == 9


def test_kept_maps_are_those_of_the_views_images(augmented, make_network):
    network = make_network().eval()
    teacher = Teacher(network, augmented, batch_size=32, precision="fp32")
    view = teacher.view(augmented, None, 1, augmented=True, places=[teacher.last_stage])
    inputs = prepare(view.images, mean=augmented.mean, std=augmented.std)
    with torch.no_grad():
        torch.testing.assert_close(view.features[0], network[:3](inputs))
        torch.testing.assert_close(view.logits, network(inputs))


def test_maps_of_all_views_together_keep_to_their_memory(augmented, make_network):
    images = len(augmented.train)
    teacher = Teacher(make_network(), augmented, feature_bytes=2 * images * MAPS)
    last = [teacher.last_stage]
    found = [teacher.view(augmented, None, index, augmented=True, places=last).features for index in (0, 1, 2, 0)]
    assert [maps is None for maps in found] == [False, False, True, False]
    assert sum(maps.nbytes for (maps,) in found[:2]) == 2 * images * MAPS


def test_the_teacher_looks_once_whatever_objectives_ask(augmented, make_network):
    teacher = Teacher(Counting(make_network()), augmented)
    images = len(augmented.train)
    _ = teacher.last_stage
    start = teacher.network.images

    def asked() -> int:
        return (teacher.network.images - start) // images

    prepare_views(augmented, NST, teacher)
    assert asked() == 3  # logits and maps in one pass each
    plain = [teacher.view(augmented, None, index, augmented=True) for index in range(3)]
    for objective in ("kd", "nst", "logit_mse", "ce"):
        fit(make_network(seed=1), augmented, dataclasses.replace(NST, objective=objective), teacher=teacher)
        assert asked() == 3
    assert all(teacher.view(augmented, None, index, augmented=True) is one for index, one in enumerate(plain))
    # Where another objective came first only the maps are missing.
    subset = torch.arange(images // 2)
    before = teacher.view(augmented, subset, 0, augmented=True)
    after = teacher.view(augmented, subset, 0, augmented=True, places=[teacher.last_stage])
    assert after.logits is before.logits
    assert after.images is before.images
    assert (teacher.network.images - start) == 3 * images + 2 * len(subset)


def test_a_teacher_travels_with_its_maps(augmented, make_network):
    teacher = Teacher(Counting(make_network()), augmented)
    prepare_views(augmented, NST, teacher)
    there = pickle.loads(pickle.dumps(teacher))
    asked = there.network.images
    ours, theirs = (losses_of(make_network(seed=1), augmented, NST, one) for one in (teacher, there))
    assert ours == theirs
    assert there.network.images == asked


def test_no_hook_stays_even_after_an_error(augmented, make_network):
    def fails(step: int, total: int, loss: float) -> None:
        raise ZeroDivisionError

    network, teacher = make_network(seed=1), Teacher(make_network(), augmented, feature_bytes=0)
    with pytest.raises(ZeroDivisionError):
        fit(network, augmented, NST, teacher=teacher, progress=fails)
    assert hooks(network) == hooks(teacher.network) == 0
    fit(network, augmented, NST, teacher=teacher)
    assert hooks(network) == hooks(teacher.network) == 0


def test_networks_without_maps_are_refused(training, make_network):
    flat = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    with pytest.raises(StageError, match="no feature maps"):
        fit(flat, training, NST, teacher=Teacher(make_network(), training))
    with pytest.raises(StageError, match="no feature maps"):
        fit(make_network(), training, NST, teacher=Teacher(flat, training))
    with pytest.raises(StageError, match="no feature maps"):
        check_objective("nst", Teacher(flat, training))
    check_objective("kd", Teacher(flat, training))


def test_bf16_losses_are_near_those_of_fp32(training, make_network):
    losses = []
    for precision in ("fp32", "bf16"):
        teacher = Teacher(make_network(), training, precision=precision)
        losses.append(
            fit(make_network(seed=1, width=16), training, NST, teacher=teacher, precision=precision).final_loss
        )
    assert losses[1] == pytest.approx(losses[0], rel=0.1)


def test_a_quick_distillation_by_nst_improves_a_student_on_digits():
    data = load("digits").training
    network = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    )
    train_teacher(network, data, epochs=6, batch_size=64)
    teacher = Teacher(network, data)
    space = layer_shrinkage(network, torch.randn(2, 1, 8, 8))
    student = space.build(space.random(np.random.default_rng(0)))

    def right() -> float:
        return accuracy(student, data.validation, mean=data.mean, std=data.std)[0]

    before = right()
    fit(student, data, quick_recipe(objective="nst", steps=100), teacher=teacher)
    assert right() > before + 0.2
