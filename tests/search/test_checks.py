"""What is refused before a search, in words that help, and without leaving a trace in the network."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from n2n.data import Data
from n2n.distill.teacher import Teacher
from n2n.reward import Budget
from n2n.search.checks import check_network, warn_of_chance
from n2n.search.errors import ChanceLevelWarning, SearchError
from n2n.search.options import SearchOptions
from n2n.search.spaces import TeacherSpaces, check_budget, smallest_cost
from search_spaces.base import Cost


def test_a_fitting_teacher_passes_and_keeps_its_modes(network: nn.Module, example: Tensor, digits: Data) -> None:
    network.train()
    network[1].eval()  # type: ignore[index]  # a Sequential
    before = [module.training for module in network.modules()]
    statistics = {name: value.clone() for name, value in network.named_buffers()}
    check_network(network, example, digits.training)
    assert [module.training for module in network.modules()] == before
    assert all(torch.equal(value, statistics[name]) for name, value in network.named_buffers())


def test_other_classes_are_refused(network: nn.Module, example: Tensor, digits: Data) -> None:
    network[-1] = nn.Linear(32, 7)  # type: ignore[operator]  # a Sequential
    with pytest.raises(SearchError, match=r"\(1, 7\), expected logits \(1, 10\)"):
        check_network(network, example, digits.training)


def test_examples_of_another_shape_are_refused(network: nn.Module, digits: Data) -> None:
    with pytest.raises(SearchError, match=r"\[3, 8, 8\], the images of digits are \[1, 8, 8\]"):
        check_network(network, torch.zeros(1, 3, 8, 8), digits.training)


def test_a_network_that_cannot_take_the_images_is_named(example: Tensor, digits: Data) -> None:
    with pytest.raises(SearchError, match="Sequential cannot take inputs"):
        check_network(nn.Sequential(nn.Flatten(), nn.Linear(65, 10)), example, digits.training)


def test_a_teacher_that_guesses_is_warned_of(network: nn.Module, digits: Data) -> None:
    nn.init.zeros_(network[-1].weight)  # type: ignore[index]  # a Sequential
    with pytest.warns(ChanceLevelWarning, match="chance level"):
        warn_of_chance(Teacher(network, digits.training))


def test_an_impossible_budget_names_the_feasible_range(network: nn.Module, example: Tensor) -> None:
    spaces = TeacherSpaces(network, example, SearchOptions())
    least = smallest_cost(spaces, ("removal", "shrinkage"))
    assert 0 < least.parameters < 200
    teacher = Cost(1000, 50_000)
    check_budget(Budget(max_parameters=least.parameters), least, teacher)
    with pytest.raises(SearchError, match=rf"max_params=3 is impossible.*ask for {least.parameters:,} to 1,000"):
        check_budget(Budget(max_parameters=3), least, teacher)
    with pytest.raises(SearchError, match="max_macs=10 is impossible"):
        check_budget(Budget(max_macs=10), least, teacher)


def test_a_network_without_a_decision_is_refused(example: Tensor) -> None:
    spaces = TeacherSpaces(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), example, SearchOptions())
    with pytest.raises(SearchError, match="no decision to take"):
        smallest_cost(spaces, ("removal", "shrinkage"))
