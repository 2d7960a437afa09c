"""Rungs by name."""

from __future__ import annotations

import pytest

from n2n.distill.recipe import full_recipe, gentle, quick_recipe
from n2n.evaluate.rungs import RungError, parse_ladder, parse_rung


def test_steps_mean_the_quick_recipe_and_epochs_the_full_one():
    assert parse_rung("inherited:100").recipe == quick_recipe(steps=100)
    assert parse_rung("fresh:2.5e:logit_mse").recipe == full_recipe(epochs=2.5, objective="logit_mse")
    assert parse_rung("inherited:100").short
    assert not parse_rung("inherited:1e").short


def test_a_solved_student_is_trained_in_smaller_steps():
    assert parse_rung("refit:60").recipe == gentle(quick_recipe(steps=60))
    assert parse_rung("refit:0").recipe.steps == 0


def test_the_objective_of_the_search_holds_where_a_rung_has_none():
    found = parse_ladder(("refit:0", "refit:60:kd"), objective="logit_mse")
    assert [one.recipe.objective for one in found] == ["logit_mse", "kd"]


def test_a_rung_takes_a_sum_of_objectives():
    assert parse_rung("inherited:100:kd:0.9,T=2 + similarity:2000").recipe == quick_recipe(
        objective="kd:0.9,T=2 + similarity:2000"
    )
    assert parse_rung("inherited:2e:vid").recipe.objective == "vid"


def test_few_steps_do_not_train_the_modules_of_an_objective():
    quick, long = parse_ladder(("inherited:60", "inherited:2e"), objective="vid + kd")
    assert [quick.recipe.objective, long.recipe.objective] == ["kd", "vid + kd"]
    with pytest.raises(RungError, match="a few steps do not train the modules that vid has"):
        parse_rung("inherited:60:vid + kd")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("refit", "START:STEPS"),
        ("refit:1.5", "START:STEPS"),
        ("solved:10", "unknown start 'solved'; choose one of inherited, refit, fresh"),
        ("refit:10:dkdd", "unknown objective 'dkdd'"),
        ("fresh:0", "judges nothing"),
        ("refit:0e", "judges nothing"),
        ("refit:0:nst", "without a step nothing follows the objective; write 'refit:0'"),
        ("refit:-3", "START:STEPS"),
        ("score:size", "unknown score 'size'; choose one of params"),
    ],
)
def test_what_cannot_be_read_is_refused_with_what_can(name, said):
    with pytest.raises(RungError, match=said):
        parse_rung(name)


def test_a_score_stands_below_accuracies_only():
    low, _ = parse_ladder(("score:naswot", "refit:0"))
    assert (low.score, low.recipe) == ("naswot", None)
    with pytest.raises(RungError, match="must give accuracies"):
        parse_ladder(("refit:0", "score:naswot"))


def test_a_rung_comes_once():
    with pytest.raises(RungError, match="once"):
        parse_ladder(("refit:0", "refit:0"))
