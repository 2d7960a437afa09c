"""Searches of published spaces: budgets, the best codes against brute force, resumption, and what loads again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import n2n
from n2n.data import Data, example_inputs, load
from n2n.data.base import TrainingData
from n2n.data.prepare import prepare
from n2n.distill.fit import train_teacher
from n2n.evaluate.base import Status, evaluation_seed
from n2n.networks import build_teacher
from n2n.policies import load_policies
from n2n.population import largest
from n2n.scores import SCORES, Probe
from n2n.search.errors import ArtefactError, SearchError
from n2n.search.files import read_json, write_json
from n2n.search.space_options import opened_for
from n2n.search.store import Record, read_records
from n2n.space_job import SpaceResult
from search_spaces import PUBLISHED
from search_spaces.base import SpaceError

SMALL: dict[str, Any] = {"evaluate": "params", "final_epochs": 0, "rollouts": 4, "threads": 1, "progress": False}


def search(data: Data, out: Path, space: str = "cifar_resnet", **changed: Any) -> SpaceResult:
    return n2n.search_space(space, data, out=out, **{**SMALL, **changed})


def rows(out: Path) -> list[Record]:
    """The records without what another run measures anew."""
    return [replace(one, evaluation=replace(one.evaluation, seconds=0.0)) for one in read_records(out)]


def cropped(data: Data, height: int, width: int) -> TrainingData:
    """The same images without their last rows and columns."""
    both = (data.training.train, data.training.validation)
    train, validation = (replace(one, images=one.images[..., :height, :width]) for one in both)
    return replace(data.training, train=train, validation=validation)


class Impatient:
    """A display whose user interrupts at the given update."""

    def __init__(self, at: int) -> None:
        self.left = at

    def begin(self, name: str, total: int) -> None:
        pass

    def update(self, done: int, remark: str = "", best: float | None = None) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt

    def note(self, text: str) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.mark.parametrize("budget", [{}, {"max_params": 300_000}, {"max_params": "40%", "max_macs": 2.6e6}])
def test_the_best_code_is_that_of_brute_force(digits: Data, tmp_path: Path, budget: dict[str, Any]) -> None:
    """All 64 networks by their formulas against what a search by the parameter count finds."""
    result = search(digits, tmp_path, agent="random", evaluations=64, **budget)
    space = PUBLISHED["cifar_resnet"](classes=10, channels=1, image_size=8)
    share = 0.4 * space.teacher_cost.parameters
    limits = [(share if top == "40%" else top, name) for name, top in budget.items()]
    known = {"max_params": "parameters", "max_macs": "macs"}
    costs = {one.code: space.cost(one) for one in space.all()}
    fitting = {
        code: cost for code, cost in costs.items() if all(getattr(cost, known[name]) <= top for top, name in limits)
    }
    expected = sorted(fitting, key=lambda code: -fitting[code].parameters)
    assert result.best[0].code == expected[0]
    assert result.best[0].score == result.best[0].parameters == fitting[expected[0]].parameters
    assert read_json(tmp_path / "result.json")["best"][0]["macs"] == fitting[expected[0]].macs
    assert {one.evaluation.status for one in read_records(tmp_path)} == {Status.OK}


@pytest.mark.parametrize("agent", ["evolution", "reinforce", "ppo", "uniform"])
@pytest.mark.parametrize("name", list(PUBLISHED))
def test_every_agent_keeps_to_the_budget_in_every_space(digits: Data, tmp_path: Path, name: str, agent: str) -> None:
    result = search(digits, tmp_path, name, agent=agent, evaluations=8, max_params="35%", max_macs="50%")
    whole = PUBLISHED[name](classes=10, channels=1, image_size=8).teacher_cost
    judged = [one.evaluation for one in read_records(tmp_path)]
    assert judged
    for one in judged:
        assert one.parameters <= 0.35 * whole.parameters
        assert one.macs <= 0.5 * whole.macs
    assert result.stopped in ("evaluations", "repeats")
    if agent in ("reinforce", "ppo"):
        assert list(load_policies(tmp_path)) == [name]
    assert (tmp_path / "front.csv").is_file()
    report = (tmp_path / "report.md").read_text()
    assert f"`{result.best[0].code}`" in report
    assert "no network was trained" in report


def test_a_resumed_search_is_the_uninterrupted_one(digits: Data, tmp_path: Path) -> None:
    how: dict[str, Any] = {"agent": "evolution", "population": 4, "tournament": 2, "evaluations": 16}
    how |= {"evaluate": "naswot", "final_epochs": 0.05, "finalists": 2, "max_params": "50%"}
    whole = search(digits, tmp_path / "whole", **how)
    cut = search(digits, tmp_path / "cut", progress=Impatient(3), **how)
    assert cut.stopped == "interrupted"
    assert len(rows(tmp_path / "cut")) < len(rows(tmp_path / "whole"))
    again = search(digits, tmp_path / "cut", resume=True, **how)
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
    assert again.best == whole.best
    weights = [load_file(tmp_path / where / "students" / "2" / "model.safetensors") for where in ("cut", "whole")]
    assert all(torch.equal(weights[0][key], value) for key, value in weights[1].items())
    with pytest.raises(ArtefactError, match="nothing to resume"):
        search(digits, tmp_path / "cut", resume=True, **how)


def test_another_search_does_not_go_on_with_it(digits: Data, tmp_path: Path) -> None:
    search(digits, tmp_path, progress=Impatient(2), evaluations=20)
    with pytest.raises(ArtefactError, match="was made with max_params=None, not 300000"):
        search(digits, tmp_path, resume=True, evaluations=20, max_params=300_000)


@pytest.mark.ray
@pytest.mark.slow
def test_workers_give_the_same_rows(digits: Data, tmp_path: Path) -> None:
    search(digits, tmp_path / "one", evaluate="naswot", evaluations=12)
    search(digits, tmp_path / "two", evaluate="naswot", evaluations=12, workers=2)
    assert rows(tmp_path / "two") == rows(tmp_path / "one")


def test_a_cache_answers_for_another_budget(digits: Data, tmp_path: Path) -> None:
    search(digits, tmp_path / "a", evaluate="naswot", evaluations=12, cache=tmp_path / "judged.sqlite")
    again = search(
        digits, tmp_path / "b", evaluate="naswot", evaluations=12, cache=tmp_path / "judged.sqlite", max_params="60%"
    )
    assert again.reused > 0


def test_a_trained_student_loads_again_with_equal_outputs(digits: Data, tmp_path: Path) -> None:
    result = search(digits, tmp_path, "vit", evaluations=4, final_epochs=0.1, finalists=2, max_params="20%")
    assert [one.fingerprint for one in result.students] == [one.fingerprint for one in result.best[:2]]
    folder = tmp_path / result.students[0].folder
    space = PUBLISHED["vit"](classes=10, channels=1, image_size=8)
    network = space.build(space.from_code(result.best[0].code), inherit=False)
    network.load_state_dict(load_file(folder / "model.safetensors"))
    inputs = example_inputs(digits, 5)
    with torch.no_grad():
        assert torch.equal(n2n.load_student(folder)(inputs), network.eval()(inputs))
    card = read_json(folder / "card.json")
    assert card["space"] == {
        "name": "vit",
        "code": result.best[0].code,
        "kwargs": {"classes": 10, "channels": 1, "image_size": 8},
    }
    assert card["made_by"]["recipe"]["objective"] == "ce"
    assert result.best[0].code in (folder / "card.md").read_text()


def test_training_the_finalists_is_fitting_the_labels(digits: Data, tmp_path: Path) -> None:
    """Six epochs on the digits: far above the chance of one in ten, by the test images too."""
    result = search(digits, tmp_path, evaluations=2, agent="random", final_epochs=6, finalists=1, max_params="15%")
    assert result.students[0].figures.test_accuracy > 0.6


def test_files_of_two_students_are_told_apart(digits: Data, tmp_path: Path) -> None:
    search(digits, tmp_path, evaluations=4, final_epochs=0.1, finalists=2, max_params="20%")
    one, two = (tmp_path / "students" / name for name in "12")
    (one / "architecture.json").write_text((two / "architecture.json").read_text())
    with pytest.raises(ArtefactError, match="the files are of different students"):
        n2n.load_student(one)
    card = read_json(two / "card.json")
    write_json(two / "card.json", {**card, "space": {**card["space"], "name": "nowhere"}})
    with pytest.raises(ArtefactError, match="'nowhere', which this version does not have; it has cifar_resnet"):
        n2n.load_student(two)
    write_json(two / "card.json", {**card, "space": {"name": "cifar_resnet"}})
    with pytest.raises(ArtefactError, match="expected name, code, kwargs"):
        n2n.load_student(two)


def test_finalists_are_distilled_from_a_teacher(digits: Data, tmp_path: Path) -> None:
    teacher = build_teacher("mlp", inputs=64, hidden=(32,), classes=10, seed=0)
    train_teacher(teacher, digits.training, epochs=3, batch_size=32)
    how: dict[str, Any] = {"evaluations": 3, "finalists": 1, "max_params": "20%", "teacher": teacher}
    search(digits, tmp_path, final_epochs=0.2, teacher_name=None, **how)
    result = read_json(tmp_path / "result.json")
    assert result["teacher"]["figures"]["parameters"] == 64 * 32 + 32 + 32 * 10 + 10
    assert read_json(tmp_path / "students/1/card.json")["made_by"]["recipe"]["objective"] == "kd"
    with pytest.raises(SearchError, match="nobody is trained"):
        search(digits, tmp_path / "none", **how)


def test_scores_compare_with_the_largest_or_the_named_network(digits: Data, tmp_path: Path) -> None:
    """The relation score by hand: the same train images, the student's own weights, the compared network's weights."""
    for against in (None, "1-1-1"):
        out = tmp_path / str(against)
        result = search(digits, out, evaluate="diswot_relation", evaluations=3, against=against)
        space = opened_for("cifar_resnet", digits.training, {})
        teacher = largest(space) if against is None else space.from_code(against)
        drawn = evaluation_seed(0, "images 0")
        draw = torch.Generator().manual_seed(drawn)
        split = digits.training.train.subset(torch.randperm(len(digits.train), generator=draw)[:64])
        images = prepare(split.images, mean=digits.training.mean, std=digits.training.std)
        other = space.build(teacher, inherit=False, seed=0)
        for one in result.best:
            own = evaluation_seed(0, one.fingerprint)
            student = space.build(space.from_code(one.code), inherit=False, seed=own)
            assert one.score == pytest.approx(
                SCORES["diswot_relation"](student, Probe(images, split.labels, other, drawn)), rel=1e-5
            )


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"space": "nasbench"}, SearchError, "space='nasbench' does not exist; choose one of cifar_resnet"),
        ({"evaluate": "best"}, SearchError, "evaluate='best' does not exist"),
        ({"agent": "best"}, SearchError, "agent='best' does not exist"),
        ({"max_params": 1000}, SpaceError, "cifar_resnet: no student has at most 1,000 parameters; the smallest has 7"),
        ({"max_params": "no"}, SearchError, "max_params: budget 'no' is not a number"),
        ({"max_macs": 0.5}, SearchError, "max_macs: budget 0.5 is below 1; for a share"),
        ({"against": "1-2-3"}, SpaceError, "has 2 for stage2.depth"),
        ({"space_args": {"classes": 5}}, SearchError, "classes=5: digits has 10"),
        ({"space_args": {"image_size": 32}}, SearchError, "image_size=32: the images of digits have 8"),
        ({"space_args": {"depth": 3}}, SearchError, "has no argument depth; it takes classes"),
        ({"objective": "kd", "final_epochs": 1}, SearchError, "objective='kd' needs a teacher"),
        ({"final_epochs": -1}, SearchError, "must be 0"),
        ({"population": 5, "agent": "random"}, SearchError, "population=5 with agent='random' has no effect"),
        ({"space": "vit", "evaluate": "diswot"}, SearchError, "cannot be scored .* take 'diswot_free'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    digits: Data, tmp_path: Path, changed: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        search(digits, tmp_path / "run", **changed)
    assert not (tmp_path / "run").exists()


def test_images_that_are_not_square_are_refused(digits: Data) -> None:
    with pytest.raises(SearchError, match=r"expected square images, found \[1, 8, 4\]"):
        opened_for("vit", cropped(digits, 8, 4), {})
    with pytest.raises(SpaceError, match="image_size that is a multiple of 4"):
        opened_for("vit", cropped(digits, 6, 6), {})


def test_a_time_limit_ends_it(tmp_path: Path) -> None:
    result = search(load("digits"), tmp_path, "super_residual", evaluate="synflow", evaluations=10_000, seconds=4)
    assert result.stopped == "seconds"
    assert result.seconds < 8
