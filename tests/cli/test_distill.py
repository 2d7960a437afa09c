"""`n2n distill`: any objective, any network, a folder that can go on, and figures of the last epoch beside the best."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from typer.testing import Result

from n2n.search.distilling import CHECKPOINT, Keeper

Run = Callable[..., Result]
Said = Callable[[Result], dict[str, Any]]
SMALL = ("--student", "resnet20", "--student-arg", "width=4")


@pytest.fixture(scope="module")
def maps(n2n: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher with feature maps, hardly trained."""
    out = tmp_path_factory.mktemp("teachers") / "resnet"
    result = n2n("train-teacher", "resnet20", "--network-arg", "width=4", "--epochs", "1", "--out", out)
    assert result.exit_code == 0, result.stderr
    return out


def test_any_network_is_distilled_into_a_folder_like_a_teacher_s(
    n2n: Run, said: Said, maps: Path, tmp_path: Path
) -> None:
    out = tmp_path / "own"
    objective = "kd:0.9,T=2 + similarity:2000,ramp=0.5"
    result = n2n("distill", *SMALL, "--teacher", maps, "--objective", objective, "--epochs", 2, "--out", out, "--json")
    assert result.exit_code == 0, result.stderr
    told = said(result)
    rows = list(csv.DictReader((out / "learning_curve.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[-1]["validation_accuracy"]) == pytest.approx(told["validation_accuracy"])
    best = max(rows, key=lambda row: float(row["validation_accuracy"]))
    assert (told["best_epoch"], told["best_epoch_validation_accuracy"]) == (
        int(best["epoch"]), pytest.approx(float(best["validation_accuracy"]))
    )  # fmt: skip
    assert (out / "learning_curve.png").stat().st_size > 1000
    assert not list(out.glob("checkpoint*"))
    assert json.loads((out / "distillation.json").read_text())["made_by"]["recipe"]["objective"] == (
        "kd:0.9,temperature=2 + similarity:2000,ramp=0.5"
    )
    measured = said(n2n("evaluate", out, "--json"))
    assert measured["test_accuracy"] == pytest.approx(told["test_accuracy"])


def test_a_killed_distillation_goes_on_to_the_same_end(
    n2n: Run, maps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    what = (*SMALL, "--teacher", maps, "--objective", "vid + kd", "--ema", 0.9, "--epochs", 3)
    assert n2n("distill", *what, "--out", tmp_path / "whole").exit_code == 0
    writes = Keeper._write

    def killed(keeper: Keeper, state: object) -> None:
        writes(keeper, state)  # type: ignore[arg-type]
        if len(keeper.rows) == 2:
            raise KeyboardInterrupt

    out = tmp_path / "broken"
    with monkeypatch.context() as patch:
        patch.setattr(Keeper, "_write", killed)
        interrupted = n2n("distill", *what, "--out", out)
        assert interrupted.exit_code == 130
        assert "epoch 2 is kept: the same command with --resume goes on" in interrupted.stderr
    assert (out / CHECKPOINT).is_file()
    refused = n2n("distill", *what[:-1], 4, "--out", out, "--resume")
    assert refused.exit_code == 2
    assert "is of another distillation: the recipe's epochs was 3.0, now 4.0" in refused.stderr
    assert n2n("distill", *what, "--out", out).exit_code == 2  # not empty, and not asked to go on
    result = n2n("distill", *what, "--out", out, "--resume")
    assert result.exit_code == 0, result.stderr
    assert "going on from step" in result.stderr
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (tmp_path / "whole", out))
    assert ours.keys() == theirs.keys()
    assert all(ours[name].equal(theirs[name]) for name in ours)
    curves = [(folder / "learning_curve.csv").read_text() for folder in (tmp_path / "whole", out)]
    assert curves[0] == curves[1]
    done = n2n("distill", *what, "--out", out, "--resume", "--force")
    assert done.exit_code == 2
    assert "holds a distillation that is done, so that nothing is left to resume" in done.stderr


def test_a_network_in_a_file_and_named_layers(n2n: Run, maps: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n\ndef make(width=3):\n"
        "    maps = nn.Conv2d(1, width, 3, padding=1), nn.ReLU()\n"
        "    return nn.Sequential(*maps, nn.Flatten(), nn.Linear(64 * width, 10))\n"
    )
    own = ("--student", f"{tmp_path / 'mine.py'}:make", "--student-arg", "width=2", "--teacher", maps, "--epochs", 1)
    found = n2n("distill", *own, "--objective", "attention", "--layer", "1=stages.0", "--out", tmp_path / "a")
    assert found.exit_code == 0, found.stderr
    wrong = n2n("distill", *own, "--objective", "attention", "--layer", "1=stages.9", "--out", tmp_path / "b")
    assert wrong.exit_code == 2
    assert "module 'stages.9' gives no maps" in wrong.stderr
    unread = n2n("distill", *own, "--objective", "kd", "--layer", "1=stages.0", "--out", tmp_path / "b")
    assert unread.exit_code == 2
    assert "'kd' compares no maps that can be named: leave out the layers 1=stages.0" in unread.stderr
    assert f"n2n evaluate {tmp_path / 'a'} --network {tmp_path / 'mine.py'}:make" in " ".join(found.stdout.split())
    half = n2n("distill", *own, "--layer", "1", "--out", tmp_path / "b")
    assert half.exit_code == 2
    assert "--layer 1: expected STUDENT=TEACHER" in half.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "needs a student: its folder, or --student NAME, and not both"),
        (("--student", "resnet20", "nowhere"), "and not both"),
        (("nowhere", "--student-arg", "width=4"), "go with --student, not with a student folder"),
        (("--student", "resnet20", "--resume"), "nothing was kept of a distillation there"),
        (("--student", "resnet20", "--objective", "kd + hintt"), "unknown objective 'hintt' (did you mean 'hint'?)"),
        (("--student", "resnet20", "--ema", 1), "--ema: "),
        (("--student", "none.py:make"), "--student none.py:make: there is no file none.py"),
    ],
)
def test_what_cannot_be_is_refused(
    n2n: Run, maps: Path, tmp_path: Path, flags: tuple[object, ...], message: str
) -> None:
    result = n2n("distill", *flags, "--teacher", maps, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())


def test_an_impossible_pair_is_refused_in_words(n2n: Run, maps: Path, tmp_path: Path) -> None:
    narrow = ("--student", "resnet20", "--student-arg", "width=2")
    result = n2n("distill", *narrow, "--teacher", maps, "--objective", "fsp", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "use 'fsp,adapter=true'" in result.stderr


def test_a_network_of_one_s_own_is_drawn_from_the_seed(n2n: Run, said: Said, maps: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n\n\ndef make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    what = ("--student", f"{tmp_path / 'mine.py'}:make", "--teacher", maps, "--epochs", 0.2)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert n2n("distill", *what, "--seed", seed, "--out", tmp_path / name).exit_code == 0
    first, same, other = (load_file(tmp_path / name / "model.safetensors") for name in "abc")
    assert all(first[name].equal(same[name]) for name in first)
    assert not all(first[name].equal(other[name]) for name in first)


def test_a_student_that_learns_nothing_is_told(n2n: Run, said: Said, maps: Path, tmp_path: Path) -> None:
    what = (*SMALL, "--student-weights", maps / "model.safetensors", "--teacher", maps, "--epochs", 0.5)
    slow = n2n("distill", *what, "--lr", 1e-9, "--clip", 1, "--optimizer", "adam", "--out", tmp_path / "slow")
    assert slow.exit_code == 0, slow.stderr
    kept = json.loads((tmp_path / "slow" / "distillation.json").read_text())["made_by"]["recipe"]
    assert (kept["lr"], kept["clip_norm"], kept["optimizer"], kept["batch_size"]) == (1e-9, 1, "adam", 64)
    broken = n2n("distill", *what, "--objective", "attention:1000000", "--out", tmp_path / "broken")
    assert broken.exit_code == 0, broken.stderr
    assert "note: the student ended " in broken.stdout
    assert "or a smaller weight of the objective" in " ".join(broken.stdout.split())


def test_a_student_that_gives_no_logits_is_named(n2n: Run, maps: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n\n\nclass Told(nn.Flatten):\n"
        "    def forward(self, x):\n        return {'logits': super().forward(x)[:, :10]}\n"
    )
    what = ("--student", f"{tmp_path / 'mine.py'}:Told", "--teacher", maps)
    result = n2n("distill", *what, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "the student's output is dict, expected a tensor of logits" in result.stderr
