"""Recipes: what is refused, and the learning rate at every step."""

from __future__ import annotations

import pytest

from n2n.distill.recipe import (
    Recipe,
    forward_passes,
    full_recipe,
    learning_rate,
    quick_recipe,
    teacher_recipe,
    total_steps,
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": None}, "exactly one of epochs and steps"),
        ({"epochs": 1.0}, "exactly one of epochs and steps"),
        ({"steps": -1}, "steps must be 0 or more; got -1"),
        ({"steps": None, "epochs": 0.0}, "epochs must be above 0"),
        ({"lr": 0.0}, "lr must be above 0"),
        ({"lr": float("nan")}, "lr must be above 0"),
        ({"batch_size": 0}, "batch_size"),
        ({"optimizer": "lion"}, "one of sgd, adam; got 'lion'"),
        ({"schedule": "steps"}, "one of cosine, one_cycle, constant"),
        ({"momentum": 1.0}, "momentum"),
        ({"momentum": 0.0}, "nesterov needs a momentum"),
        ({"warmup": 1.0}, "warmup"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"clip_norm": 0.0}, "clip_norm"),
        ({"views": -1}, "views"),
        ({"objective": "hinton"}, "unknown objective 'hinton'"),
        ({"objective": "kd,tau=1"}, "no option 'tau'"),
        ({"ema": 1.0}, "ema must be between 0 and 1"),
    ],
)
def test_what_cannot_be_trained_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**{"steps": 10, **change})


def test_one_cycle_by_hand():
    recipe = Recipe(steps=8, lr=1.0, warmup=0.25, schedule="one_cycle")
    # Two steps of rise towards the peak of step 2, then a line that would meet 0 at step 8.
    expected = [1 / 3, 2 / 3, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]
    assert [learning_rate(recipe, step, 8) for step in range(8)] == pytest.approx(expected)


def test_cosine_by_hand():
    recipe = Recipe(steps=4, lr=0.2, warmup=0.0, schedule="cosine")
    assert [learning_rate(recipe, step, 4) for step in range(4)] == pytest.approx(
        [0.2, 0.170711, 0.1, 0.029289], abs=1e-6
    )


@pytest.mark.parametrize("recipe", [quick_recipe(steps=60), full_recipe(epochs=3), teacher_recipe(epochs=5)])
def test_the_shipped_recipes_peak_once_and_anneal(recipe):
    rates = [learning_rate(recipe, step, 200) for step in range(200)]
    peak = rates.index(max(rates))
    assert max(rates) == pytest.approx(recipe.lr)
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] < 0.02 * recipe.lr


def test_a_constant_rate_stays():
    recipe = Recipe(steps=10, warmup=0.0, schedule="constant", lr=0.3)
    assert {learning_rate(recipe, step, 10) for step in range(10)} == {0.3}


@pytest.mark.parametrize(("epochs", "examples", "steps"), [(2.0, 100, 20), (0.5, 100, 5), (1.0, 105, 10), (3.0, 4, 3)])
def test_steps_of_epochs_leave_incomplete_batches_out(epochs, examples, steps):
    assert total_steps(Recipe(epochs=epochs, batch_size=10), examples) == steps


def test_quick_distillation_is_as_documented():
    recipe = quick_recipe()
    assert (recipe.objective, recipe.steps, recipe.batch_size, recipe.lr) == ("kd", 100, 32, 0.03)
    assert recipe.views > 0
    assert recipe.reestimate > 0


def test_forward_passes_are_three_for_a_trained_image_and_one_for_another() -> None:
    assert forward_passes(Recipe(steps=100, batch_size=32), examples=5000, looked_at=2000) == 3 * 3200 + 2000
    assert forward_passes(Recipe(epochs=2, batch_size=32), examples=70, looked_at=0) == 3 * 2 * 64  # whole batches
    assert forward_passes(Recipe(steps=10, batch_size=32), examples=8, looked_at=0) == 3 * 80
