"""The teacher: untouched, asked once, and honest about data that do not fit it."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from n2n.data import prepare
from n2n.distill.fit import train_teacher
from n2n.distill.teacher import Teacher, fingerprint
from n2n.networks import macs, parameters


class Counting(nn.Module):
    """Counts how many images went through."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        self.images = 0

    def forward(self, inputs):
        self.images += len(inputs)
        return self.network(inputs)


def test_the_network_given_is_not_touched(training, make_network):
    network = make_network()
    network[1].eval()
    state = {key: value.clone() for key, value in network.state_dict().items()}
    teacher = Teacher(network, training)
    teacher.logits(training.train)
    assert all(torch.equal(state[key], value) for key, value in network.state_dict().items())
    assert network.training
    assert not network[1].training
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert not any(module.training for module in teacher.network.modules())


def test_baseline_is_the_networks_own(training, make_network):
    network = make_network().eval()
    teacher = Teacher(network, training, name="small")
    inputs = prepare(training.validation.images, mean=training.mean, std=training.std)
    with torch.no_grad():
        logits = network(inputs)
    right = sum(int(row.argmax()) == int(label) for row, label in zip(logits, training.validation.labels, strict=True))
    assert teacher.accuracy == pytest.approx(right / len(training.validation))
    assert (teacher.parameters, teacher.name) == (parameters(network), "small")
    assert teacher.macs == macs(network, inputs[:1])


def test_outputs_are_computed_once_per_split_and_view(augmented, make_network):
    teacher = Teacher(Counting(make_network()), augmented)
    asked = teacher.network.images
    for _ in range(3):
        teacher.logits(augmented.train)
        teacher.view(augmented, torch.arange(10), 0, augmented=True)
        teacher.view(augmented, torch.arange(10), 1, augmented=True)
        teacher.view(augmented, torch.arange(10), 1, augmented=False)
        teacher.logits(augmented.validation)
    assert teacher.network.images - asked == len(augmented.train) + 10 + 10 + 10


def test_a_views_outputs_belong_to_its_images(augmented, make_network):
    teacher = Teacher(make_network(), augmented)
    subset = torch.tensor([3, 1, 40])
    view = teacher.view(augmented, subset, 1, augmented=True)
    assert view.images.dtype == torch.uint8
    assert not torch.equal(view.images, augmented.train.images[subset])
    assert torch.equal(view.labels, augmented.train.labels[subset])
    expected = teacher(prepare(view.images, mean=augmented.mean, std=augmented.std))
    torch.testing.assert_close(view.logits, expected)


def test_without_augmentation_every_view_is_the_images(training, make_network):
    teacher = Teacher(make_network(), training)
    assert teacher.view(training, None, 0, augmented=True) is teacher.view(training, None, 5, augmented=True)
    torch.testing.assert_close(
        teacher.view(training, None, 0, augmented=True).logits,
        teacher(prepare(training.train.images, mean=training.mean, std=training.std)),
    )


def test_outputs_carry_no_gradient(training, make_network):
    teacher = Teacher(make_network(), training)
    inputs = prepare(training.train.images[:4], mean=training.mean, std=training.std).requires_grad_()
    assert not teacher(inputs).requires_grad


def test_a_classifier_of_another_size_is_refused(training):
    network = nn.Sequential(nn.Flatten(), nn.Linear(36, 7))
    with pytest.raises(ValueError, match=r"expected logits \[1, 3\] .* found \[1, 7\]; .* 3 classes"):
        Teacher(network, training)


def test_images_of_another_shape_are_refused(training):
    network = nn.Sequential(nn.Flatten(), nn.Linear(49, 3))
    with pytest.raises(ValueError, match=r"of shape \[1, 1, 6, 6\], found that it does not run"):
        Teacher(network, training)


def test_chance_level_is_noted_and_a_trained_teacher_is_not(training, make_network):
    constant = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    nn.init.zeros_(constant[1].weight)
    assert "chance level" in Teacher(constant, training).notes[0]
    network = make_network()
    train_teacher(network, training, epochs=5, batch_size=16, lr=0.05)
    assert Teacher(network, training).notes == ()


def test_fingerprint_is_of_the_weights(make_network):
    network, same, other = make_network(), make_network(), make_network(seed=1)
    assert fingerprint(network) == fingerprint(same)
    assert fingerprint(network) != fingerprint(other)
    same[1].running_mean += 1
    assert fingerprint(network) != fingerprint(same)


def test_views_of_other_data_are_kept_apart(training, augmented, make_network):
    teacher = Teacher(make_network(), training)
    other = dataclasses.replace(
        training, train=dataclasses.replace(training.train, images=255 - training.train.images), fingerprint="other"
    )
    mine, theirs = (teacher.view(data, None, 0, augmented=False) for data in (training, other))
    assert not torch.equal(mine.logits, theirs.logits)
