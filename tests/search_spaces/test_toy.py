from __future__ import annotations

import numpy as np
import pytest
import torch
from space_contract import check_space

from search_spaces.base import Draft, SpaceError, replay
from search_spaces.toy import ToyArchitecture, ToySpace, toy


@pytest.mark.parametrize(
    "space",
    [toy(), toy(decisions=1, actions=2, width=2), toy(decisions=6, actions=2), toy(actions=5, first_needs_half=False)],
    ids=["default", "smallest", "removal", "free"],
)
def test_meets_the_contract(space: ToySpace) -> None:
    check_space(space, np.random.default_rng(0))


def test_cost_worked_by_hand() -> None:
    space = toy(decisions=2, actions=3, width=12)
    student = ToyArchitecture(widths=(8, 4), teacher_width=12)
    # 12 -> 8 -> 4 -> 2: weights 96 + 32 + 8, biases 8 + 4 + 2.
    assert space.cost(student).macs == 136
    assert space.cost(student).parameters == 150


def test_all_lists_what_the_rules_allow() -> None:
    space = toy(decisions=3, actions=2, width=4, first_needs_half=False)
    # Of the eight sequences those with two zeros in a row are out: 000, 001, 100.
    found = {space.actions_of(student) for student in space.all()}
    assert found == {(0, 1, 0), (0, 1, 1), (1, 0, 1), (1, 1, 0), (1, 1, 1)}


def test_first_layer_keeps_half() -> None:
    mask = toy(actions=4, width=12).legal(Draft())
    assert mask.tolist() == [False, True, True, True]


def test_inherited_weights_are_the_teachers_first_rows() -> None:
    space = toy(decisions=2, actions=3, width=12)
    teacher = space.build(space.student(replay(space, (2, 2))))
    student = space.build(ToyArchitecture((8, 4), 12))
    assert torch.equal(student[2].weight, teacher[2].weight[:4, :8])
    assert student(torch.ones(5, 12)).shape == (5, 2)


def test_a_student_of_another_teacher_is_refused() -> None:
    stranger = ToyArchitecture((8, 4), 16)
    for call in (toy(decisions=2).cost, toy(decisions=2).build):
        with pytest.raises(SpaceError, match="open the space with the arguments"):
            call(stranger)


def test_an_unknown_importance_is_refused() -> None:
    space = toy()
    with pytest.raises(SpaceError, match="bn_scale"):
        space.build(next(space.all()), importance="guess")


@pytest.mark.parametrize("arguments", [{"decisions": 0}, {"actions": 1}, {"width": 2}])
def test_arguments_out_of_range(arguments: dict[str, int]) -> None:
    with pytest.raises(SpaceError, match="expected decisions"):
        toy(**arguments)
