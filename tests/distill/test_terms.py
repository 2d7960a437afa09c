"""Sums of objectives in training: side modules, initial stages, schedules, averages, and going on where it ended."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import Tensor, nn

from n2n.data import prepare
from n2n.distill.fit import check_objective, fit
from n2n.distill.objectives.expression import ObjectiveError
from n2n.distill.optimizer import Average
from n2n.distill.recipe import Recipe, identity, quick_recipe
from n2n.distill.state import Epoch, State
from n2n.distill.teacher import Teacher
from n2n.networks.depth import places
from n2n.networks.stages import StageError

SHORT = Recipe(objective="kd", steps=9, batch_size=24, lr=0.02, views=3)


def losses_of(network, training, recipe, teacher, **options) -> list[float]:
    losses: list[float] = []
    fit(network, training, recipe, teacher=teacher, progress=lambda step, total, loss: losses.append(loss), **options)
    return losses


def of(objective: str, **changes) -> Recipe:
    return dataclasses.replace(SHORT, objective=objective, **changes)


def weights(network: nn.Module) -> Tensor:
    return torch.cat([value.detach().double().flatten() for value in network.state_dict().values()])


def test_a_sum_is_the_weighted_sum_of_its_terms_at_every_step(augmented, make_network):
    teacher, still = Teacher(make_network(), augmented), {"lr": 1e-12, "weight_decay": 0.0}
    alone = [losses_of(make_network(seed=1), augmented, of(one, **still), teacher) for one in ("kd", "logit_mse")]
    both = losses_of(make_network(seed=1), augmented, of("kd:0.5 + logit_mse:3", **still), teacher)
    assert both == pytest.approx([0.5 * a + 3 * b for a, b in zip(*alone, strict=True)], rel=1e-5)
    beside = losses_of(make_network(seed=1), augmented, of("similarity:1e-30", **still), teacher)
    assert beside == pytest.approx(losses_of(make_network(seed=1), augmented, of("ce", **still), teacher), rel=1e-6)


def test_schedules_of_terms_by_hand(augmented, make_network):
    teacher, still = Teacher(make_network(), augmented), {"lr": 1e-12, "weight_decay": 0.0}
    plain = losses_of(make_network(seed=1), augmented, of("logit_mse", **still), teacher)
    hard = losses_of(make_network(seed=1), augmented, of("ce", **still), teacher)
    ramp = losses_of(make_network(seed=1), augmented, of("logit_mse,ramp=0.5", **still), teacher)
    assert ramp == pytest.approx([loss * min(1, step / 4.5) for step, loss in enumerate(plain)], rel=1e-5)
    warm = losses_of(make_network(seed=1), augmented, of("logit_mse,warmup=2", **still), teacher)
    assert warm == pytest.approx([loss * min(1, step / 6) for step, loss in enumerate(plain)], rel=1e-5)
    early = losses_of(make_network(seed=1), augmented, of("logit_mse,until=0.5", **still), teacher)
    assert early == pytest.approx([*plain[:5], *hard[5:]], rel=1e-6)


def test_an_initial_stage_leaves_the_classifier_alone_and_then_kd_follows(augmented, make_network):
    teacher, student = Teacher(make_network(), augmented), make_network(seed=1, width=2)
    before, seen = student[4].weight.detach().clone(), []

    def look(step: int, total: int, loss: float) -> None:
        seen.append(torch.equal(student[4].weight, before))

    recipe = of("hint,initial=0.4", weight_decay=0.0)
    fit(student, augmented, recipe, teacher=teacher, progress=look)
    assert seen == [True] * 4 + [False] * 5  # 0.4 of nine steps: those that begin before 3.6


@pytest.mark.parametrize("objective", ["hint", "vid", "factor", "nd", "crd,negatives=8", "activation_boundary"])
def test_side_modules_are_trained_and_never_part_of_the_student(augmented, make_network, objective):
    teacher, student = Teacher(make_network(), augmented), make_network(seed=1, width=2)
    names, states = list(student.state_dict()), []
    kept = fit(student, augmented, of(objective), teacher=teacher, epoch_end=lambda one: states.append(one.state()))
    assert list(student.state_dict()) == names
    first, last = states[0].part("side"), states[-1].part("side")
    assert first
    assert kept.steps == 9
    if objective not in ("hint", "factor", "activation_boundary"):  # these are done before the first epoch ends
        assert any(not torch.equal(first[key], last[key]) for key in first)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in student.modules())


def test_class_means_are_those_of_the_training_images(augmented, make_network):
    network = make_network().eval()
    teacher = Teacher(network, augmented, precision="fp32")
    (place,) = places(teacher.trace, "penultimate", instead="")
    found = teacher.class_means(augmented, place)
    with torch.no_grad():
        features = network[:4](prepare(augmented.train.images, mean=augmented.mean, std=augmented.std))
    for label in range(3):
        mean = features[augmented.train.labels == label].mean(dim=0)
        torch.testing.assert_close(found[label], mean / mean.norm(), rtol=1e-4, atol=1e-6)


def test_kept_and_live_maps_of_many_places_give_the_same_losses(augmented, make_network):
    network, recipe = make_network(), of("attention + similarity + pkt")
    ours, theirs = (
        losses_of(make_network(seed=1, width=3), augmented, recipe, one)
        for one in (Teacher(network, augmented), Teacher(network, augmented, feature_bytes=0))
    )
    assert ours == pytest.approx(theirs, rel=1e-3)


def test_named_layers_are_looked_at(augmented, make_network):
    teacher = Teacher(make_network(), augmented)
    last = losses_of(make_network(seed=1), augmented, of("similarity"), teacher)
    named = losses_of(make_network(seed=1), augmented, of("similarity", layers=(("2", "2"),)), teacher)
    other = losses_of(make_network(seed=1), augmented, of("similarity", layers=(("0", "0"),)), teacher)
    assert named == last
    assert other != last
    with pytest.raises(StageError, match="module '9' gives no maps"):
        losses_of(make_network(seed=1), augmented, of("similarity", layers=(("9", "2"),)), teacher)
    with pytest.raises(StageError, match="module '9' gives no maps"):
        check_objective("similarity", teacher, (("2", "9"),))


def test_an_impossible_pair_is_refused_with_what_to_do(augmented, make_network):
    stage = [nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()]
    wide, narrow = make_network(), make_network(seed=1, width=2)
    wide = nn.Sequential(*wide[:2], *copy.deepcopy(stage), *wide[3:])
    narrow = nn.Sequential(*narrow[:2], nn.ReLU(), nn.Conv2d(2, 2, 3, padding=1), nn.ReLU(), *narrow[3:])
    with pytest.raises(ObjectiveError, match=r"objective 'fsp': .*found 2 channels .* 4 in the teacher; use .*adapter"):
        fit(narrow, augmented, of("fsp"), teacher=Teacher(wide, augmented))
    fit(narrow, augmented, of("fsp,adapter=true"), teacher=Teacher(wide, augmented))


class KilledError(Exception):
    """As if the process were killed."""


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize(
    ("objective", "ema"), [("kd", None), ("vid + kd:0.5", 0.9), ("noisy_teacher + crd,negatives=8", None)]
)
def test_going_on_gives_what_an_unbroken_training_gives(augmented, make_network, optimizer, objective, ema):
    teacher = Teacher(make_network(), augmented)
    recipe = of(objective, ema=ema, optimizer=optimizer, views=0, lr=0.01, steps=8)  # three steps an epoch

    def student() -> nn.Module:
        return nn.Sequential(nn.Dropout(0.2), make_network(seed=1, width=2))

    whole, states = student(), []
    ours = losses_of(whole, augmented, recipe, teacher, epoch_end=lambda one: states.append(one.state()))
    assert [one.step for one in states] == [3, 6, 8]

    def stop(epoch: Epoch) -> None:
        if epoch.step == 6:
            raise KilledError

    broken = student()
    with pytest.raises(KilledError):
        fit(broken, augmented, recipe, teacher=teacher, epoch_end=stop)
    again = student()
    theirs = losses_of(again, augmented, recipe, teacher, resume=states[1])
    assert theirs == ours[6:]
    assert torch.equal(weights(again), weights(whole))


def test_an_average_by_hand(make_network):
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 0.0)
    average = Average(network, 0.3)
    for step, value in enumerate((1.0, 2.0), start=1):
        nn.init.constant_(network.weight, value)
        average.update(step)
    # d = min(0.3, 2/11), then min(0.3, 3/12): 1 - 2/11 = 9/11, then 0.25 * 9/11 + 0.75 * 2.
    assert average.values["weight"].item() == pytest.approx(0.25 * 9 / 11 + 1.5)
    with average.lent():
        assert network.weight.item() == pytest.approx(0.25 * 9 / 11 + 1.5)
    assert network.weight.item() == 2.0


def test_the_average_is_given_back_and_measured_at_the_ends_of_epochs(augmented, make_network):
    teacher, seen = Teacher(make_network(), augmented), []
    student = make_network(seed=1)
    fit(student, augmented, of("kd", ema=0.9), teacher=teacher, epoch_end=lambda one: seen.append(weights(student)))
    assert torch.equal(seen[-1], weights(student))
    plain = make_network(seed=1)
    fit(plain, augmented, of("kd"), teacher=teacher)
    assert not torch.equal(weights(plain), weights(student))


def test_a_state_has_parts():
    state = State(1, 0.5, {"network.a": torch.ones(1), "side.b": torch.zeros(1)})
    assert list(state.part("network")) == ["a"]


def test_what_was_judged_before_expressions_is_found_again():
    # The text that `repr` gave a recipe when objectives had their options in a field of their own.
    assert identity(quick_recipe()) == (
        "Recipe(objective='kd', objective_options=(), epochs=None, steps=100, batch_size=32, lr=0.03, optimizer='sgd',"
        " momentum=0.9, nesterov=True, weight_decay=0.0005, warmup=0.1, schedule='cosine', augment=True, views=4,"
        " clip_norm=None, reestimate=4)"
    )
    assert "layers=(('a', 'b'),)" in identity(of("kd", layers=(("a", "b"),)))
