"""`n2n.calibrate` on real digits with tiny networks: what it leaves, how it goes on, and what it refuses."""

from __future__ import annotations

import json
import os
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import n2n
from n2n.calibration import Calibration, shortfall
from n2n.data import Data, load
from n2n.distill.accuracy import accuracy
from n2n.distill.fit import train_teacher
from n2n.distill.teacher import fingerprint
from n2n.evaluate.fidelity import SIZE, PanelError
from n2n.evaluate.judgements import Judgement, keys, read_judgements
from n2n.networks import build_teacher
from n2n.networks.stages import StageError
from n2n.search.errors import ArtefactError, SearchError, WriteError
from search_spaces.layer_removal import LayerRemoval
from search_spaces.layer_shrinkage import FACTORS, LayerShrinkage
from search_spaces.panel import panel
from search_spaces.teacher.reading import read

FILES = ("calibration.json", "calibration.md", "judgements.csv", "ladder.toml", "ranking.csv", "ranking.png", "run.log")
SMALL: dict[str, Any] = {
    "students": 10,
    "rungs": ("score:params", "refit:0"),
    "truth": "inherited:1e",
    "seeds": 2,
    "progress": False,
}


@pytest.fixture(scope="module")
def digits() -> Data:
    return load("digits")


@pytest.fixture(scope="module")
def teacher(digits: Data) -> nn.Module:
    """No batch norm, quick to distil."""
    network = build_teacher("mlp", inputs=64, hidden=(32, 32), classes=10, seed=0)
    train_teacher(network, digits.training, epochs=3, batch_size=32)
    return network


def calibrate(network: nn.Module, data: Data, out: Path, **changed: Any) -> Calibration:
    return n2n.calibrate(network, None, data, out=out, **{**SMALL, **changed})


@pytest.fixture(scope="module")
def whole(teacher: nn.Module, digits: Data, tmp_path_factory: pytest.TempPathFactory) -> Calibration:
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    found = calibrate(teacher, digits, tmp_path_factory.mktemp("calibrations") / "whole")
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    return found


def rows(out: Path) -> list[Judgement]:
    return read_judgements(out / "judgements.csv")


def without_seconds(judgements: list[Judgement]) -> list[Judgement]:
    return [replace(one, seconds=0.0) for one in judgements]


def said(found: Calibration) -> object:
    """All that does not depend on how long something took."""
    lines = [(one.rung, one.measure, one.ranking, one.gain) for one in found.lines]
    return found.students, found.truth, sorted(lines, key=lambda one: one[:2]), found.ceiling, found.notes


def test_every_student_is_judged_by_every_rung_once(whole: Calibration) -> None:
    assert sorted(path.name for path in whole.out.iterdir()) == sorted(FILES)
    judged = rows(whole.out)
    students = {one.fingerprint for one in judged}
    ways = {("inherited:1e", 0), ("inherited:1e", 1), ("score:params", 0), ("refit:0", 0)}
    assert len(judged) == len(keys(judged))
    assert keys(judged) == {(*way, student) for way in ways for student in students}
    assert 8 <= len(students) == whole.students <= 10
    assert all(one.score == one.parameters for one in judged if one.rung == "score:params")
    lines = {(one.rung, one.measure): one.ranking.tau for one in whole.lines}
    assert lines["score:params", "score"] == lines[SIZE, ""], "both count parameters"
    assert set(lines) == {
        (SIZE, ""), ("MACs", ""), ("score:params", "score"), ("refit:0", "agreement"), ("refit:0", "accuracy")
    }  # fmt: skip
    assert whole.ceiling is not None
    assert json.loads(json.dumps(whole.to_json()))["truth"] == "inherited:1e"


def test_what_is_written_says_the_same(whole: Calibration, teacher: nn.Module) -> None:
    page = (whole.out / "calibration.md").read_text()
    assert all(note in page for note in whole.notes)
    assert "| refit:0 | agreement |" in page
    known = tomllib.loads((whole.out / "ladder.toml").read_text())
    assert set(known.pop("expects")) == set(whole.ladder)
    made = {"objective": "kd", "importance": "l1", "granularity": "block", "calibrated_for": fingerprint(teacher)}
    assert known == {"ladder": [*whole.ladder], **made}
    assert whole.ladder[-1] == "refit:0", "the only rung that gives accuracies"
    assert any("score:params ranks no better than the parameter count" in note for note in whole.notes)
    assert not any("left to make" in note for note in whole.notes)


def test_an_agreement_is_that_of_a_student_built_here(whole: Calibration, digits: Data, teacher: nn.Module) -> None:
    """The long way round: the panel drawn again, one member built, trained for no step, measured."""
    found = calibrate(teacher, digits, whole.out, rungs=("inherited:0",))
    assert any(note.startswith("inherited:0, inherited:1e: the network has no batch norm") for note in found.notes)
    one = next(one for one in rows(found.out) if one.rung == "inherited:0")
    reading = read(teacher, digits.training.train.images[:1].float())
    space = LayerRemoval(reading, granularity="block", kept=frozenset(), may_be_empty=True)
    members = panel(
        space,
        lambda start: LayerShrinkage(reading, factors=FACTORS, round_to=1, kernels=False, kept=frozenset(),
                                     start=start, may_be_empty=True),
        size=10,
    )  # fmt: skip
    (member,) = (member for member in members if member.architecture.fingerprint == one.fingerprint)
    student = space.build(member.architecture, inherit=True, importance="l1", seed=0)
    mean, std = digits.training.mean, digits.training.std
    assert accuracy(student, digits.validation, mean=mean, std=std)[0] == one.accuracy
    assert sum(weight.numel() for weight in student.parameters()) == one.parameters
    assert one.share == pytest.approx(one.parameters / sum(w.numel() for w in teacher.parameters()), abs=1e-4)


def test_the_same_call_judges_nobody_twice(whole: Calibration, teacher: nn.Module, digits: Data) -> None:
    before = (whole.out / "judgements.csv").read_bytes()
    again = calibrate(teacher, digits, whole.out)
    assert (whole.out / "judgements.csv").read_bytes().startswith(before)
    assert again == whole


def test_the_threads_are_those_asked_for_and_then_the_earlier_ones(
    teacher: nn.Module, digits: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used, append = set(), n2n.calibration.append_judgement
    before = torch.get_num_threads()
    asked = 2 if before == 1 and (os.cpu_count() or 1) > 1 else 1

    def watched(*arguments: Any) -> None:
        used.add(torch.get_num_threads())
        append(*arguments)

    monkeypatch.setattr(n2n.calibration, "append_judgement", watched)
    calibrate(teacher, digits, tmp_path / "out", rungs=("inherited:0",), threads=asked)
    assert used == {asked}
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_calibration_that_was_killed_ends_like_an_uninterrupted_one(
    whole: Calibration, teacher: nn.Module, digits: Data, tmp_path: Path, share: float
) -> None:
    content = "".join(
        line
        for line in (whole.out / "judgements.csv").read_text().splitlines(keepends=True)
        if not line.startswith("inherited:0")
    )
    kept = content[: int(share * len(content))]
    (tmp_path / "calibration.json").write_bytes((whole.out / "calibration.json").read_bytes())
    (tmp_path / "judgements.csv").write_text(kept)
    found = calibrate(teacher, digits, tmp_path)
    after = (tmp_path / "judgements.csv").read_text()
    assert after.startswith(kept[: kept.rindex("\n") + 1]), "what was whole is kept as it was"
    assert len(keys(rows(tmp_path))) == len(rows(tmp_path))
    asked = [one for one in rows(whole.out) if one.rung != "inherited:0"]
    assert without_seconds(rows(tmp_path)) == without_seconds(asked)
    assert said(found) == said(whole)


class Fuse(nn.Module):
    """Interrupts at the training step at which it burns through; a copy shares it."""

    left = 0

    def forward(self, x: Tensor) -> Tensor:
        if self.training and torch.is_grad_enabled():
            Fuse.left -= 1
            if Fuse.left == 0:
                raise KeyboardInterrupt
        return x * 1.0


def test_an_interrupt_keeps_what_was_judged(teacher: nn.Module, digits: Data, tmp_path: Path) -> None:
    network = nn.Sequential(teacher, Fuse())
    once: dict[str, Any] = {"rungs": ("refit:0", "refit:0"), "students": 12, "seeds": 1}
    Fuse.left = 8 * (len(digits.train) // 64) + 3  # after eight epochs of one student each
    found = calibrate(network, digits, tmp_path, **once)
    assert found.students == 8
    kept = (tmp_path / "judgements.csv").read_text()
    (left,) = (note for note in found.notes if note.endswith("the same command goes on from here"))
    assert "interrupted; the same command goes on" in (tmp_path / "run.log").read_text()
    found = calibrate(network, digits, tmp_path, **once)
    assert (tmp_path / "judgements.csv").read_text().startswith(kept)
    judged = rows(tmp_path)
    assert len(keys(judged)) == len(judged) == 2 * found.students, "a rung that is asked for twice is judged once"
    assert left.startswith(f"{2 * (found.students - 8)} judgements are left to make")
    assert found.students > 8


def test_another_teacher_data_or_setting_is_refused_with_both_named(
    whole: Calibration, teacher: nn.Module, digits: Data
) -> None:
    before = {path.name: path.read_bytes() for path in whole.out.iterdir()}
    known = json.loads(before["calibration.json"])["settings"]
    other = build_teacher("mlp", inputs=64, hidden=(32, 32), classes=10, seed=1)
    train_teacher(other, digits.training, epochs=1, batch_size=32)
    with pytest.raises(ArtefactError, match=rf"another teacher: {known['teacher']}, now [0-9a-f]+; use another folder"):
        calibrate(other, digits, whole.out)
    with pytest.raises(ArtefactError, match=rf"another data: {known['data']}, now .*; use another folder"):
        calibrate(teacher, load("digits", seed=5), whole.out)
    for name, value in (("seeds", 1), ("truth", "inherited:2e"), ("students", 9), ("seed", 1), ("objective", "ce")):
        with pytest.raises(ArtefactError, match=rf"another {name}: {known[name]}, now {value}; use another folder"):
            calibrate(teacher, digits, whole.out, **{name: value})
    assert {path.name: path.read_bytes() for path in whole.out.iterdir()} == before


def test_almost_no_time_ends_in_words(teacher: nn.Module, digits: Data, tmp_path: Path) -> None:
    with pytest.raises(
        PanelError, match=r"0 students were judged by inherited:1e, expected 8 or more; allow more time"
    ):
        calibrate(teacher, digits, tmp_path, seconds=1e-6)
    assert "stopped by the time limit after 0 of 16 students" in (tmp_path / "run.log").read_text()


def test_too_little_time_is_foreseen_with_the_arithmetic() -> None:
    words = shortfall(there=1, each=100.0, left=450.0, truth="inherited:3e")
    assert words.startswith("at 100 s a student the time reaches 5 of the 8 that an interval needs: allow 250 s more")
    assert "fewer epochs than inherited:3e" in words
    assert shortfall(there=1, each=100.0, left=700.0, truth="inherited:3e") == ""
    assert shortfall(there=8, each=100.0, left=0.0, truth="inherited:3e") == ""


def test_a_network_without_batch_norm_is_told_what_inherited_means(whole: Calibration) -> None:
    words = "inherited:1e: the network has no batch norm to re-estimate, so inherited weights start as they are"
    assert words in whole.notes


@pytest.mark.slow
def test_a_network_with_batch_norm_is_told_nothing(digits: Data, tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        conv = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 16, 3, stride=2, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 10),
        )  # fmt: skip
    train_teacher(conv, digits.training, epochs=2)
    found = calibrate(conv, digits, tmp_path / "conv", rungs=("inherited:0",), students=14, seeds=1)
    assert not any("batch norm" in note for note in found.notes)


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"students": 7}, SearchError, "students=7: a panel needs 8 students or more"),
        ({"seeds": 0}, SearchError, "seeds=0 of the long distillation must be at least 1"),
        ({"seconds": 0.0}, SearchError, "seconds=0.0 must be positive"),
        ({"rungs": ("refit:0", "refit:x")}, SearchError, "rung 'refit:x': expected START:STEPS"),
        ({"rungs": ("score:luck",)}, SearchError, "unknown score 'luck'"),
        ({"truth": "score:params"}, SearchError, r"truth='score:params' \(--against\): expected a long distillation"),
        ({"rungs": ("refit:0", "inherited:1e")}, SearchError, "which is none of the rungs refit:0, inherited:1e"),
        ({"rungs": ("inherited:5:nst",)}, StageError, "no feature maps"),
        ({"importance": "size"}, SearchError, "choose one of l1, l2"),
        ({"threads": 0}, SearchError, "threads=0 must be a number from 1"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    teacher: nn.Module, digits: Data, tmp_path: Path, changed: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        calibrate(teacher, digits, tmp_path / "out", **changed)
    assert not (tmp_path / "out").exists()


def test_a_network_with_too_few_different_students_is_refused(digits: Data, tmp_path: Path) -> None:
    network = build_teacher("mlp", inputs=64, hidden=(2,), classes=10, seed=0)
    train_teacher(network, digits.training, epochs=2, batch_size=32)
    with pytest.raises(PanelError, match=r"Sequential has students for \d of these places only, .* ask for more"):
        calibrate(network, digits, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_refused(teacher: nn.Module, digits: Data, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "note.txt").write_text("keep")
    with pytest.raises(ArtefactError, match="not empty and holds no calibration; use another folder"):
        calibrate(teacher, digits, tmp_path / "mine")
    with pytest.raises(ArtefactError, match=r"note\.txt is a file; give a folder"):
        calibrate(teacher, digits, tmp_path / "mine" / "note.txt")
    with pytest.raises(WriteError, match="cannot make or clear the run folder"):
        calibrate(teacher, digits, tmp_path / "mine" / "note.txt" / "below")


def test_damaged_judgements_are_named(whole: Calibration, teacher: nn.Module, digits: Data, tmp_path: Path) -> None:
    (tmp_path / "calibration.json").write_bytes((whole.out / "calibration.json").read_bytes())
    header, first, second, *_ = (whole.out / "judgements.csv").read_text().splitlines()
    (tmp_path / "judgements.csv").write_text("\n".join((header, first.replace(",ok,", ",k,"), second, "")))
    with pytest.raises(ArtefactError, match=r"judgements\.csv, line 2 is damaged"):
        calibrate(teacher, digits, tmp_path)


def test_judgements_that_cannot_be_written_are_told(
    whole: Calibration, teacher: nn.Module, digits: Data, tmp_path: Path
) -> None:
    (tmp_path / "calibration.json").write_bytes((whole.out / "calibration.json").read_bytes())
    (tmp_path / "judgements.csv").symlink_to(tmp_path / "nowhere" / "judgements.csv")
    with pytest.raises(WriteError, match=r"cannot write .*judgements\.csv: No such file"):
        calibrate(teacher, digits, tmp_path)
