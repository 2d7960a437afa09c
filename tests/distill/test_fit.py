"""The training loop: it learns, by seed alone, in the right mode, on the right images, and stops with a reason."""

from __future__ import annotations

import dataclasses
import time

import pytest
import torch
from torch import nn

from n2n.data import augment, prepare
from n2n.distill.accuracy import accuracy
from n2n.distill.fit import fit, train_teacher
from n2n.distill.optimizer import make_optimizer
from n2n.distill.recipe import Recipe
from n2n.distill.teacher import Teacher

QUICK = Recipe(objective="ce", steps=12, batch_size=20, lr=0.05)


class Probe(nn.Module):
    """Passes its input on, and notes it and the mode."""

    def __init__(self):
        super().__init__()
        self.modes: list[bool] = []
        self.seen: list[torch.Tensor] = []

    def forward(self, inputs):
        self.modes.append(self.training)
        self.seen.append(inputs.detach().clone())
        return inputs


def weights(network: nn.Module) -> torch.Tensor:
    return torch.cat([value.detach().double().flatten() for value in network.state_dict().values()])


def test_a_teacher_is_trained_from_scratch(training, make_network):
    network = make_network()
    before, _ = accuracy(network, training.validation, mean=training.mean, std=training.std)
    result = train_teacher(network, training, epochs=10, batch_size=16, lr=0.05)
    after, _ = accuracy(network, training.validation, mean=training.mean, std=training.std)
    assert before < 0.7
    assert after > 0.95
    assert (result.steps, result.diverged, result.reason) == (10 * (72 // 16), False, "")


def test_distillation_without_labels_brings_the_student_to_the_teacher(training, make_network):
    network = make_network()
    train_teacher(network, training, epochs=8, batch_size=16, lr=0.05)
    teacher = Teacher(network, training)
    student = make_network(seed=1, width=2)
    recipe = Recipe(objective="kd,alpha=1", epochs=20, batch_size=16, lr=0.02)
    fit(student, training, recipe, teacher=teacher)
    inputs = prepare(training.validation.images, mean=training.mean, std=training.std)
    with torch.no_grad():
        agreement = (student(inputs).argmax(1) == teacher(inputs).argmax(1)).double().mean()
    assert agreement > 0.9


def test_equal_seeds_give_equal_weights_and_another_seed_others(augmented, make_network):
    trained = []
    for seed in (3, 3, 4):
        network = nn.Sequential(nn.Dropout(0.2), make_network())
        fit(network, augmented, QUICK, seed=seed)
        trained.append(weights(network))
    assert torch.equal(trained[0], trained[1])
    assert not torch.equal(trained[0], trained[2])


def test_the_global_generator_is_left_as_it_was(training, make_network):
    before = torch.get_rng_state()
    fit(make_network(), training, QUICK, seed=9)
    assert torch.equal(before, torch.get_rng_state())


def test_every_epoch_trains_with_batch_norm_in_train_mode(training, make_network):
    probe = Probe()
    network = nn.Sequential(probe, make_network())

    def measured_in_between(step: int, total: int, loss: float) -> None:
        if step % 3 == 0:
            network.eval()

    # 72 images in batches of 24: three steps an epoch, so that every epoch begins after somebody called eval().
    fit(network, training, dataclasses.replace(QUICK, batch_size=24), progress=measured_in_between)
    assert probe.modes == [True] * 12
    assert not network.training


def test_only_the_subset_is_looked_at(training, make_network):
    probe = Probe()
    subset = torch.tensor([5, 17, 30])
    fit(nn.Sequential(probe, make_network()), training, QUICK, subset=subset)
    allowed = prepare(training.train.images[subset], mean=training.mean, std=training.std).flatten(1)
    seen = torch.cat(probe.seen).flatten(1)
    assert seen.shape[0] == 12 * 3
    assert (torch.cdist(seen, allowed).min(dim=1).values < 0.1).all()  # other images are 7 away


@pytest.mark.parametrize("views", [0, 1, 3])
def test_teacher_and_student_see_the_same_view(augmented, views):
    # A student equal to the teacher has no loss at all, on any view that both of them see.
    losses: list[float] = []
    student = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    teacher = Teacher(student, augmented)
    recipe = Recipe(objective="logit_mse", steps=9, batch_size=24, lr=1e-12, weight_decay=0, views=views)
    fit(student, augmented, recipe, teacher=teacher, progress=lambda step, total, loss: losses.append(loss))
    assert len(losses) == 9
    assert max(losses) < 1e-8


def test_augmented_views_differ_from_epoch_to_epoch(augmented, make_network):
    probe = Probe()
    network = nn.Sequential(probe, make_network())
    teacher = Teacher(make_network(), augmented)
    subset = torch.arange(20)
    recipe = Recipe(steps=4, batch_size=20, views=2, lr=0.01)
    fit(network, augmented, recipe, teacher=teacher, subset=subset)
    epochs = [torch.stack(sorted(images.flatten(1), key=lambda row: row.tolist())) for images in probe.seen]
    assert not torch.equal(epochs[0], epochs[1])
    assert torch.equal(epochs[0], epochs[2])


def test_fresh_views_are_drawn_from_the_seed_whatever_the_device(augmented, make_network):
    probe = Probe()
    fit(nn.Sequential(probe, make_network()), augmented, dataclasses.replace(QUICK, steps=5), seed=3)
    order_by, augment_by = torch.Generator().manual_seed(3), torch.Generator().manual_seed(4)
    chosen = [part for _ in range(2) for part in torch.randperm(72, generator=order_by)[:60].split(20)]
    assert len(probe.seen) == 5
    for seen, part in zip(probe.seen, chosen, strict=False):
        images = augment(augmented.train.images[part], pad=1, flip=True, generator=augment_by)
        assert torch.equal(seen, prepare(images, mean=augmented.mean, std=augmented.std))


def test_a_diverging_network_is_stopped_with_a_reason(training, make_network):
    result = fit(make_network(), training, dataclasses.replace(QUICK, lr=1e18, warmup=0.0, steps=50))
    assert result.diverged
    assert result.steps < 50
    assert "loss became" in result.reason
    assert "lr" in result.reason


def test_a_deadline_ends_training_between_steps(training, make_network):
    result = fit(make_network(), training, QUICK, deadline=time.monotonic() - 1)
    assert (result.steps, result.diverged) == (0, False)
    assert result.reason == "stopped at the deadline after 0 of 12 steps"


def test_an_objective_without_its_teacher_is_refused(training, make_network):
    with pytest.raises(ValueError, match=r"'kd' needs a teacher; pass teacher="):
        fit(make_network(), training, Recipe(steps=1))


def test_no_steps_still_reestimate_batch_norm(training, make_network):
    network = make_network()
    before = [parameter.detach().clone() for parameter in network.parameters()]
    fit(network, training, Recipe(objective="ce", steps=0, batch_size=18, reestimate=4))
    inputs = prepare(training.train.images, mean=training.mean, std=training.std)  # all 72 images are in the 4 batches
    with torch.no_grad():
        maps = network[0](inputs)
    torch.testing.assert_close(network[1].running_mean, maps.mean(dim=(0, 2, 3)), atol=1e-5, rtol=1e-4)
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_weight_decay_spares_norms_and_biases(make_network):
    network = make_network()
    decayed, spared = make_optimizer(network, QUICK).param_groups
    assert {id(p) for p in decayed["params"]} == {id(network[0].weight), id(network[4].weight)}
    assert decayed["weight_decay"] == QUICK.weight_decay
    assert len(spared["params"]) == 3
    assert spared["weight_decay"] == 0


def test_clipping_bounds_the_step(training, make_network):
    moved = []
    for clip in (None, 1e-6):
        network = make_network()
        before = torch.cat([p.detach().clone().flatten() for p in network.parameters()])
        recipe = Recipe(objective="ce", steps=1, lr=0.1, warmup=0.0, weight_decay=0, clip_norm=clip)
        fit(network, training, recipe)
        moved.append((torch.cat([p.detach().flatten() for p in network.parameters()]) - before).norm().item())
    assert moved[0] > 1e-3
    assert moved[1] <= 0.1 * 1e-6 * 1.9 * 1.01 + 1e-8  # Nesterov's first step is 1.9 gradients


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_training_leaves_contiguous_weights_without_gradients(training, make_network, optimizer):
    network = make_network(width=16)  # full width: channels_last while training
    fit(network, training, Recipe(objective="ce", steps=3, batch_size=16, optimizer=optimizer, lr=1e-3))
    assert all(parameter.is_contiguous() for parameter in network.parameters())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_bf16_trains_as_far_as_fp32(training, make_network):
    losses = []
    for precision in ("fp32", "bf16"):
        network = make_network(width=16)
        result = fit(network, training, QUICK, precision=precision)
        assert all(parameter.dtype == torch.float32 for parameter in network.parameters())
        losses.append(result.final_loss)
    assert losses[1] == pytest.approx(losses[0], abs=0.1)
