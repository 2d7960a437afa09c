"""What is refused before a search, in words that help, and without leaving a trace in the network."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from n2n.data import Data
from n2n.distill.teacher import Teacher
from n2n.networks import Timings, build_teacher
from n2n.reward import Budget
from n2n.search.artefacts import TeacherName
from n2n.search.budgets import (
    TEACHER,
    budget_of,
    check_budget,
    idle_notes,
    least_costs,
    teacher_costs,
    unused_note,
)
from n2n.search.checks import check_network, check_students, check_teacher_name, warn_of_chance
from n2n.search.errors import ChanceLevelWarning, SearchError
from n2n.search.options import SearchOptions
from n2n.search.spaces import TeacherSpaces, reach
from n2n.search.summary import chance_note
from search_spaces.base import Cost, Draft


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
    within = reach(spaces, ("removal", "shrinkage"))
    fewest = within.cost.parameters
    assert 0 < fewest < 200
    teacher = {"parameters": 1000, "macs": 50_000, "size_mb": 0.004}
    for fine in (Budget(max_parameters=fewest), Budget(max_size_mb=within.cost.size_mb)):
        check_budget(fine, least_costs(within, [], fine, Timings(example)), teacher)
    least = least_costs(within, [], Budget(), Timings(example))
    with pytest.raises(SearchError, match=rf"max_params=3 is impossible.*ask for {fewest:,} to 1,000 parameters; or"):
        check_budget(Budget(max_parameters=3), least, teacher)
    size = within.cost.size_mb
    with pytest.raises(SearchError, match=rf"max_size_mb=1e-05 is impossible.*ask for {size:.6g} to 0.004 MB; or"):
        check_budget(Budget(max_size_mb=1e-5), least, teacher)


def test_all_impossible_budgets_are_told_each_with_its_range() -> None:
    least = {"parameters": 100, "macs": 2_000, "size_mb": 0.0004, "latency_ms": 0.2}
    teacher = {"parameters": 1000, "macs": 50_000, "size_mb": 0.004, "latency_ms": 1.0}
    with pytest.raises(SearchError) as caught:
        check_budget(Budget(3, 10, 0.05, 0.0001), least, teacher)
    message = str(caught.value)
    assert "max_params=3 is impossible" in message
    for asked in ("100 to 1,000 parameters", "2,000 to 50,000 MACs", "0.0004 to 0.004 MB", "0.200 to 1.00 ms"):
        assert f"ask for {asked}" in message
    with pytest.raises(SearchError) as caught:
        check_budget(Budget(3, 2_000, 0.05, 1.0), least, teacher)
    assert "max_latency_ms=0.0500 is impossible" in str(caught.value)
    assert "max_macs" not in str(caught.value)


def test_limits_that_the_teacher_keeps_to_are_noted() -> None:
    teacher = {"parameters": 1000, "macs": 50_000, "size_mb": 0.004, "latency_ms": 1.0}
    assert idle_notes(Budget(999, 49_999, 0.99, 0.0039), teacher) == ()
    assert idle_notes(Budget(), teacher) == ()
    notes = idle_notes(Budget(1000, 60_000, 2.0, 5), teacher)
    assert [note.split(":")[0] for note in notes] == [
        "max_params=1,000 excludes nothing",
        "max_macs=60,000 excludes nothing",
        "max_size_mb=5 excludes nothing",
        "max_latency_ms=2.00 excludes nothing",
    ]
    assert "the teacher itself has 1,000 parameters" in notes[0]


def test_a_student_far_below_the_budget_is_noted_by_the_limit_it_comes_closest_to() -> None:
    teacher = {"parameters": 1000, "macs": 50_000, "size_mb": 0.004, "latency_ms": 1.0}
    student = {"parameters": 199, "macs": 9_000, "size_mb": 0.001, "latency_ms": 0.1}
    note = unused_note(Budget(500, 40_000), student, teacher, removal=True)
    assert "uses 40% of the budget (199 of 500 parameters)" in note
    assert note.endswith("judge more students, or leave the removal stage out")
    assert unused_note(Budget(500), student, teacher, removal=False).endswith("judge more students")
    assert unused_note(Budget(398, 40_000), student, teacher, removal=True) == ""
    assert unused_note(Budget(), student, teacher, removal=True) == ""
    assert unused_note(Budget(max_macs=60_000), student, teacher, removal=True) == "", "a limit that excludes nothing"


def test_a_student_at_chance_level_is_noted() -> None:
    labels = torch.tensor([0] * 50 + [1] * 25 + [2] * 25)  # 50%, with a standard error of 5%
    assert "chance level: accuracy 60.00% on validation" in chance_note(0.6, labels)
    assert "most common class gives 50.00%" in chance_note(0.1, labels)
    assert chance_note(0.61, labels) == ""


def test_a_network_without_a_decision_is_refused(example: Tensor) -> None:
    spaces = TeacherSpaces(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), example, SearchOptions())
    with pytest.raises(SearchError, match="no decision to take"):
        reach(spaces, ("removal", "shrinkage"))


def test_the_example_follows_the_network_to_its_device(network: nn.Module, example: Tensor, digits: Data) -> None:
    check_network(network.to("meta"), example, digits.training)
    assert example.device.type == "cpu"


def bottleneck() -> nn.Module:
    """Whoever removes the narrow layer makes the one behind it wide."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, 64),
        nn.ReLU(),
        nn.Linear(64, 4),
        nn.ReLU(),
        nn.Linear(4, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def test_the_smallest_removal_student_keeps_a_bottleneck(example: Tensor) -> None:
    spaces = TeacherSpaces(bottleneck(), example, SearchOptions(shrinkage=False))
    space = spaces.removal(Budget())
    costs = []
    for actions in itertools.product((0, 1), repeat=space.num_decisions):
        if all(space.legal(Draft(actions[:at]))[action] for at, action in enumerate(actions)):
            costs.append(space.cost(space.student(Draft(actions))))
    fewest = min(cost.parameters for cost in costs)
    assert fewest == 64 * 64 + 64 + 64 * 4 + 4 + 4 * 10 + 10, "the bottleneck stays, the layer behind it goes"
    budget = Budget(max_parameters=fewest)
    within = reach(spaces, ("removal",), budget)
    assert within.cost == Cost(fewest, min(cost.macs for cost in costs), 4 * fewest)


def test_kernels_are_decided_where_asked(network: nn.Module, example: Tensor) -> None:
    def decisions(**options: bool) -> int:
        return TeacherSpaces(network, example, SearchOptions(**options)).shrinkage(None, Budget()).num_decisions

    assert decisions(kernels=True) == decisions() + 2, "two convolutions"


def test_a_teacher_name_of_another_network_is_refused() -> None:
    narrow = TeacherName("resnet20", {"channels": 1, "width": 4})
    check_teacher_name(None, bottleneck())
    check_teacher_name(narrow, build_teacher("resnet20", channels=1, width=4))
    with pytest.raises(SearchError, match=r"conv1.weight has shape \[8, 1, 3, 3\] here, and has shape \[4, 1, 3, 3\]"):
        check_teacher_name(narrow, build_teacher("resnet20", channels=1, width=8))
    with pytest.raises(SearchError, match=r"conv1.weight is missing here"):
        check_teacher_name(narrow, bottleneck())
    with pytest.raises(SearchError, match=r"cannot be built: unknown teacher 'resnet21'"):
        check_teacher_name(TeacherName("resnet21"), bottleneck())
    with pytest.raises(SearchError, match=r"does not take depth"):
        check_teacher_name(TeacherName("resnet20", {"depth": 3}), bottleneck())


class Scaled(nn.Module):
    """Holds a parameter, and does not know how to start it afresh."""

    def __init__(self) -> None:
        super().__init__()
        self.body = bottleneck()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, inputs: Tensor) -> Tensor:
        out: Tensor = self.body(inputs) * self.scale
        return out


def test_students_that_cannot_start_afresh_are_refused(example: Tensor, digits: Data) -> None:
    network = Scaled()
    with torch.no_grad():
        network.scale.zero_()
    teacher = Teacher(network, digits.training)
    for start in ("inherited", "fresh"):
        options = SearchOptions(start=start)
        within = reach(TeacherSpaces(network, example, options), options.stages)
        if start == "inherited":
            assert len(check_students(within, teacher, options)) == len(within.students)
        else:
            with pytest.raises(SearchError, match="cannot be built: inherit=False"):
                check_students(within, teacher, options)


def test_an_impossible_latency_names_the_feasible_range(network: nn.Module, example: Tensor, digits: Data) -> None:
    teacher = Teacher(network, digits.training)
    options = SearchOptions()
    within, timings = reach(TeacherSpaces(network, example, options), options.stages), Timings(example)
    students, timed = check_students(within, teacher, options), Budget(max_latency_ms=1e-6)
    assert "latency_ms" not in least_costs(within, students, Budget(max_parameters=1), timings)
    assert timings.known == {}
    whole, least = teacher_costs(teacher, timed, timings), least_costs(within, students, timed, timings)
    assert set(timings.known) == {TEACHER, *(one.fingerprint for _, one in within.students)}
    assert least["latency_ms"] == min(timings.known[one.fingerprint].median_ms for _, one in within.students)
    check_budget(Budget(max_latency_ms=1e6), least, whole)
    with pytest.raises(SearchError, match=r"max_latency_ms=0.00.* is impossible: .* ms .*; ask for .* to .* ms"):
        check_budget(timed, least, whole)


def test_budgets_are_numbers_or_shares_of_the_teacher(network: nn.Module, example: Tensor, digits: Data) -> None:
    teacher, timings = Teacher(network, digits.training), Timings(example)
    numbers = SearchOptions(max_params="1k", max_macs=2e4, max_latency_ms=0.5, max_size_mb="0.25")
    assert budget_of(numbers, teacher, timings) == Budget(1000, 2e4, 0.5, 0.25)
    assert timings.known == {}, "only a share of the latency asks for the teacher's"
    shares = SearchOptions(max_params="50%", max_macs="25%", max_latency_ms="80%", max_size_mb="10%")
    found = budget_of(shares, teacher, timings)
    stored = sum(value.numel() * value.element_size() for value in network.state_dict().values())
    assert found.max_parameters == sum(value.numel() for value in network.parameters()) / 2
    assert found.max_latency_ms == pytest.approx(0.8 * timings.known[TEACHER].median_ms)
    assert found.max_bytes == stored // 10


class Thin(nn.Module):
    """Without its block there is nothing left to shrink: the parts around it have one channel."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.fc = nn.Conv2d(1, 1, 1), nn.Linear(1, 10)
        self.block = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.fc((x + self.block(x)).mean((2, 3)))


def test_what_cannot_shrink_any_further_is_in_reach_too() -> None:
    spaces = TeacherSpaces(Thin(), torch.zeros(2, 1, 8, 8), SearchOptions(granularity="block"))
    assert reach(spaces, ("removal", "shrinkage"), Budget(max_parameters=30)).cost.parameters == 2 + 20


@dataclass
class Output:
    """As models of other libraries return it."""

    hidden: Tensor
    logits: Tensor


OUTPUTS: dict[str, Callable[[Tensor], Any]] = {
    ".logits": lambda logits: Output(logits.relu(), logits),
    "['logits']": lambda logits: {"aux": logits.relu(), "logits": logits},
    "['scores']": lambda logits: {"loss": logits.sum(), "scores": logits},
    "[1]": lambda logits: (logits.sum(), logits),
}


@pytest.mark.parametrize("way", OUTPUTS)
def test_an_output_that_is_no_tensor_is_refused_with_code_that_mends_it(
    way: str, example: Tensor, digits: Data
) -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(64, 10)

        def forward(self, x: Tensor) -> Any:
            return OUTPUTS[way](self.fc(x.flatten(1)))

    network = Wrapped()
    with pytest.raises(SearchError, match=r"wrap it in a module whose forward returns the logits") as caught:
        check_network(network, example, digits.training)
    code = textwrap.dedent(str(caught.value).partition("\n\n")[2])
    assert len(code.splitlines()) == 3
    assert f"self.network(x){way}" in code
    found: dict[str, Any] = {"torch": torch}
    exec(code, found)
    mended = found["Logits"](network)
    check_network(mended, example, digits.training)
    assert torch.equal(mended(example), network.fc(example.flatten(1)))


def test_an_output_of_unknown_kind_is_refused_with_a_guess(example: Tensor, digits: Data) -> None:
    class Silent(nn.Module):
        def forward(self, x: Tensor) -> None:
            return None

    with pytest.raises(SearchError, match=r"(?s)output is NoneType.*self.network\(x\).logits"):
        check_network(Silent(), example, digits.training)
