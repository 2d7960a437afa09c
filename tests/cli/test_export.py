"""`n2n export`: a student of a run in every format, from the command line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from typer.testing import Result

from n2n.search.artefacts import load_student

Run = Callable[..., Result]
Said = Callable[[Result], dict[str, Any]]


@pytest.fixture
def student(run: Path, tmp_path: Path) -> Path:
    """A copy of the run's student, because an export goes into its folder."""
    return Path(shutil.copytree(run / "students" / "1", tmp_path / "student"))


def test_an_export_goes_into_the_students_folder_and_says_how_far_off_it_is(
    n2n: Run, said: Said, student: Path
) -> None:
    record = said(n2n("export", student, "--format", "pt2", "--json"))
    assert record["path"] == str(student / "exports" / "student.pt2")
    assert record["difference"] <= record["tolerance"] == 1e-6
    assert record["batches"] == [1, 2, 3, 5]
    images = torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        exported = torch.export.load(record["path"]).module()(images)
        torch.testing.assert_close(exported, load_student(student)(images))
    again = n2n("export", student, "--format", "pt2")
    assert again.exit_code == 2
    assert "student.pt2 exists: name another place with --out, or say --force to replace it" in again.stderr
    misplaced = n2n("export", student, "--format", "pt2", "--out", student)
    assert "is a folder, and this format writes a file: name another place with --out\n" in misplaced.stderr
    forced = n2n("export", student, "--format", "pt2", "--force")
    assert forced.exit_code == 0
    assert "largest difference from the student: 0 of the output's scale, 1e-06 allowed" in forced.stdout


def test_python_and_safetensors_go_where_they_are_sent(
    n2n: Run, said: Said, run: Path, student: Path, tmp_path: Path
) -> None:
    assert said(n2n("export", student, "--format", "python", "--out", tmp_path / "p", "--json"))["difference"] == 0
    assert "class Student(nn.Module):" in (tmp_path / "p" / "student.py").read_text()
    assert said(n2n("export", student, "--out", tmp_path / "w.safetensors", "--json"))["difference"] == 0
    with safe_open(tmp_path / "w.safetensors", framework="pt") as file:
        facts = file.metadata()
    assert facts["teacher"] == "mlp"
    run_of_it = json.loads((run / "config.json").read_text())
    assert facts["teacher_fingerprint"] == run_of_it["teacher_fingerprint"]
    assert not (student / "exports").exists()


@pytest.mark.parametrize("flags", [("--network", "own_export:build", "--network-arg", "width=32"), ("--teacher",)])
def test_a_student_of_ones_own_network_needs_its_code_only(
    n2n: Run, student: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...]
) -> None:
    text = "from n2n.networks import build_teacher\n\ndef build(width):\n"
    text += "    return build_teacher('mlp', inputs=64, hidden=(width, width), classes=10)\n"
    (tmp_path / "own_export.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    card = json.loads((student / "card.json").read_text())
    (student / "card.json").write_text(json.dumps({**card, "teacher": None}))
    refused = n2n("export", student)
    assert refused.exit_code == 2
    assert "network of your own (mlp): say --network module:function" in refused.stderr
    assert n2n("export", student, *flags, *((teacher,) if flags == ("--teacher",) else ())).exit_code == 0


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--format", "onxn"), "unknown format 'onxn' (did you mean 'onnx'?); valid: safetensors, pt2, onnx, python"),
        (("--network", "resnet-20"), "cannot build resnet-20: unknown teacher"),
        (("--teacher", "t", "--network", "mlp"), "leave out --network"),
        (("--network", "vgg11_bn"), "does not fit the network"),
    ],
)
def test_bad_usage_is_exit_code_2_and_leaves_nothing(
    n2n: Run, student: Path, flags: tuple[str, ...], expected: str
) -> None:
    result = n2n("export", student, *flags)
    assert result.exit_code == 2
    assert expected in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (student / "exports").exists()


def test_a_folder_that_is_no_student_is_refused(n2n: Run) -> None:
    result = n2n("export", "nowhere")
    assert result.exit_code == 2
    assert "nowhere is no student folder" in result.stderr
