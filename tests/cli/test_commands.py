"""The commands end to end, on a tiny teacher: what they write, what they print, and their exit codes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from typer.testing import Result

from n2n.cli.main import app
from n2n.data import load
from n2n.distill.accuracy import accuracy
from n2n.search.artefacts import load_student

Run = Callable[..., Result]
Said = Callable[[Result], dict[str, Any]]


def test_a_trained_teacher_is_a_folder_that_says_how_good_it_is(teacher: Path) -> None:
    card = json.loads((teacher / "teacher.json").read_text())
    assert card["arguments"] == {"classes": 10, "inputs": 64, "hidden": [32, 32]}
    assert card["parameters"] == (64 * 32 + 32) + (32 * 32 + 32) + (32 * 10 + 10)
    assert card["parameters"] == sum(one.numel() for one in load_file(teacher / "model.safetensors").values())
    assert card["validation_accuracy"] > 0.3  # chance is 0.1


def test_a_search_ends_with_a_table_and_the_run_folder(run: Path) -> None:
    for name in ("config.json", "evaluations.sqlite", "report.md", "students/1/model.safetensors"):
        assert (run / name).is_file(), name
    assert json.loads((run / "config.json").read_text())["evaluations"] == 6


def test_json_is_all_that_a_search_prints(n2n: Run, said: Said, teacher: Path, tmp_path: Path) -> None:
    file = tmp_path / "n2n.toml"
    file.write_text(f"teacher = '{teacher}'\nevaluations = 99\nsteps = 1\nfinal_epochs = 0.1\nfinalists = 1\n")
    flags = ("--config", file, "--evaluations", 2, "--rollouts", 2, "--no-removal", "--out", tmp_path / "r", "--json")
    record = said(n2n("search", *flags))
    assert record["out"] == str(tmp_path / "r")
    assert 1 <= record["evaluations"] <= 2  # the flag, not the file
    assert record["meets_budget"] is True
    assert record["teacher"]["parameters"] == 3466
    assert record["students"][0]["figures"]["parameters"] <= 3466


def test_a_budget_that_no_judged_student_meets_is_exit_code_3(n2n: Run, teacher: Path, tmp_path: Path) -> None:
    limits = ("--evaluations", 1, "--rollouts", 1, "--steps", 1, "--final-epochs", 0.1)
    flags = ("--max-latency-ms", 1e-9, "--no-removal", "--out", tmp_path / "r")
    result = n2n("search", "--teacher", teacher, *flags, *limits)
    assert result.exit_code == 3
    assert "budget missed" in result.stdout


def test_an_impossible_budget_is_refused_with_the_feasible_range(n2n: Run, teacher: Path, tmp_path: Path) -> None:
    result = n2n("search", "--teacher", teacher, "--max-params", 3, "--out", tmp_path / "r")
    assert result.exit_code == 2
    assert "3,466" in result.stderr
    assert not (tmp_path / "r").exists()


def test_evaluate_measures_a_student_as_the_library_does(n2n: Run, said: Said, run: Path) -> None:
    record = said(n2n("evaluate", run / "students" / "1", "--json"))
    data = load("digits")
    student = load_student(run / "students" / "1")
    expected, _ = accuracy(student, data.test, mean=data.training.mean, std=data.training.std)
    assert record["test_accuracy"] == pytest.approx(expected)
    assert record["parameters"] == sum(one.numel() for one in student.parameters())


def test_evaluate_measures_a_teacher_folder_too(n2n: Run, said: Said, teacher: Path) -> None:
    record = said(n2n("evaluate", teacher, "--json"))
    assert record["test_accuracy"] == pytest.approx(json.loads((teacher / "teacher.json").read_text())["test_accuracy"])
    assert "test accuracy" in n2n("evaluate", teacher).stdout


def test_distill_writes_a_new_student(n2n: Run, teacher: Path, run: Path, tmp_path: Path) -> None:
    old = run / "students" / "1"
    before = (old / "model.safetensors").read_bytes()
    result = n2n("distill", old, "--teacher", teacher, "--epochs", 2, "--out", tmp_path / "longer")
    assert result.exit_code == 0, result.stderr
    assert (old / "model.safetensors").read_bytes() == before
    new = tmp_path / "longer"
    assert (new / "architecture.json").read_text() == (old / "architecture.json").read_text()
    assert (new / "model.safetensors").read_bytes() != before
    load_student(new)


def test_report_is_written_again_from_the_folder(n2n: Run, said: Said, run: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copy"
    shutil.copytree(run, copied)
    (copied / "report.md").unlink()
    assert said(n2n("report", copied, "--json"))["report"] == str(copied / "report.md")
    assert "| network |" in (copied / "report.md").read_text()


def test_policy_show_names_what_the_policy_was_trained_on(n2n: Run, said: Said, run: Path) -> None:
    policies = said(n2n("policy", "show", run, "--json"))["policies"]
    assert policies["shrinkage"]["agent"] == "reinforce"
    tensors = load_file(run / "policies" / "shrinkage" / "policy.safetensors")
    assert policies["shrinkage"]["parameters"] == sum(tensor.numel() for tensor in tensors.values())
    assert "shrinkage: agent reinforce" in n2n("policy", "show", run).stdout


def test_the_users_own_network_comes_with_a_weights_file(
    n2n: Run, said: Said, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "from n2n.networks import build_teacher\n\ndef build(width):\n"
    code += "    return build_teacher('mlp', inputs=64, hidden=(width, width), classes=10)\n"
    (tmp_path / "own_cli_network.py").write_text(code)
    shutil.copy(teacher / "model.safetensors", tmp_path / "weights.safetensors")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    flags = ("--network", "own_cli_network:build", "--network-arg", "width=32", "--weights", "weights.safetensors")
    limits = ("--evaluations", 1, "--rollouts", 1, "--steps", 1, "--final-epochs", 0.1, "--no-removal")
    record = said(n2n("search", *flags, *limits, "--out", "r", "--json"))
    assert record["teacher"]["test_accuracy"] == json.loads((teacher / "teacher.json").read_text())["test_accuracy"]
    refused = n2n("evaluate", "r/students/1")
    assert refused.exit_code == 2
    assert "network" in refused.stderr
    assert n2n("evaluate", "r/students/1", *flags).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("serach",), "unknown command 'serach'; the commands are: train-teacher, search"),
        (("search", "--evalutions", "3"), "unknown flag --evalutions; n2n search has: --agent"),
        (("search",), "--out FOLDER is required"),
        (("search", "--out", "r", "--data", "digitz"), "--data digitz needs a trained network"),
        (("search", "--out", "r", "--network", "resnet-20"), "unknown network 'resnet-20' (did you mean 'resnet20'?)"),
        (("search", "--out", "r", "--network", "resnet20"), "has no weights yet"),
        (("search", "--out", "r", "--network", "nowhere_at_all:build"), "No module named 'nowhere_at_all'"),
        (("search", "--out", "r", "--network", "json:lods"), "json has no function 'lods'"),
        (("search", "--out", "r", "--network", "json:dumps", "--network-arg", "obj=1"), "returned a str"),
        (("search", "--out", "r", "--weights", "w.safetensors"), "needs --network"),
        (("search", "--out", "r", "--agent", "sarsa"), "unknown agent 'sarsa'; valid: reinforce"),
        (("search", "--out", "r", "--teacher", "nowhere"), "nowhere/teacher.json is missing"),
        (("train-teacher", "mlp", "--out", "t", "--network-arg", "depth=3"), "does not take depth; it takes: inputs"),
        (("train-teacher", "mlp", "--out", "t", "--data", "digitz"), "digits"),
        (("evaluate", "nowhere"), "neither a student folder"),
        (("distill", "nowhere", "--out", "s"), "needs the teacher"),
        (("report", "nowhere"), "is no run folder"),
        (("policy", "show", "nowhere"), "holds no policy"),
    ],
)
def test_bad_usage_is_exit_code_2_and_one_clean_paragraph(
    n2n: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = n2n(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert expected in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_with_json_an_error_is_an_object_too(n2n: Run, said: Said) -> None:
    result = n2n("report", "nowhere", "--json")
    assert result.exit_code == 2
    assert "is no run folder" in said(result)["error"]


def test_a_folder_that_holds_something_is_refused_unless_forced(n2n: Run, teacher: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    flags = ("--out", tmp_path, "--network-arg", "hidden=[4]", "--epochs", "0.2")
    refused = n2n("train-teacher", "mlp", *flags)
    assert refused.exit_code == 2
    assert "is not empty" in refused.stderr
    assert n2n("train-teacher", "mlp", *flags, "--force").exit_code == 0
    assert (tmp_path / "mine.txt").read_text() == "keep me"
    search = n2n("search", "--teacher", teacher, "--out", tmp_path)
    assert search.exit_code == 2
    assert "is not empty" in search.stderr


def test_damaged_and_foreign_weights_are_named(n2n: Run, teacher: Path, tmp_path: Path) -> None:
    copied = tmp_path / "t"
    shutil.copytree(teacher, copied)
    weights = copied / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    damaged = n2n("evaluate", copied)
    assert damaged.exit_code == 2
    assert "model.safetensors is damaged" in damaged.stderr
    tensors = load_file(teacher / "model.safetensors")
    first = next(iter(tensors))
    save_file({**tensors, first: tensors[first][:1].clone()}, weights)
    foreign = n2n("evaluate", copied)
    assert foreign.exit_code == 2
    assert f"{first} has shape" in foreign.stderr


def test_data_of_another_shape_or_other_classes_are_refused(n2n: Run, teacher: Path, run: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (40, 1, 8, 8), dtype=np.uint8), np.arange(40) % 2
    np.savez(tmp_path / "two.npz", images=images, labels=labels)
    flags = ("--data", tmp_path / "two.npz")
    for refused in (
        n2n("evaluate", teacher, *flags),
        n2n("distill", run / "students" / "1", "--teacher", teacher, *flags, "--out", tmp_path / "s"),
        n2n("search", "--teacher", teacher, *flags, "--out", tmp_path / "r"),
    ):
        assert refused.exit_code == 2
        assert "2 classes" in refused.stderr
    np.savez(tmp_path / "wide.npz", images=rng.integers(0, 256, (40, 1, 8, 9), dtype=np.uint8), labels=labels)
    shape = n2n("evaluate", run / "students" / "1", "--data", tmp_path / "wide.npz")
    assert shape.exit_code == 2
    assert "takes images of shape [1, 8, 8]" in shape.stderr


def test_every_command_has_help(n2n: Run) -> None:
    assert [one.name for one in app.registered_commands] == ["train-teacher", "search", "distill", "evaluate", "report"]
    for one in app.registered_commands:
        assert n2n(str(one.name), "--help").exit_code == 0
