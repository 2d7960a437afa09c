"""The commands end to end, on a tiny teacher: what they write, what they print, and their exit codes."""

from __future__ import annotations

import json
import re
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


NAPPING = """
import time
from torch import nn

class Naps(nn.Module):
    def forward(self, x):
        time.sleep(0.03)
        return x * 1.0

def build():
    layers = [nn.Linear(64, 16), nn.ReLU(), Naps(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU()]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(16, 10))
"""


@pytest.fixture(scope="module")
def napping(n2n: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher folder of a network of the user's own, that holds a layer which takes long and changes nothing."""
    folder = tmp_path_factory.mktemp("napping")
    (folder / "napping_network.py").write_text(NAPPING)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        made = n2n("train-teacher", "napping_network:build", "--epochs", 2, "--batch-size", "32", "--out", folder / "t")
    assert made.exit_code == 0, made.stderr
    assert f"n2n search --teacher {folder / 't'} --network napping_network:build" in made.stdout
    return folder


def test_a_budget_that_no_judged_student_meets_is_exit_code_3(
    n2n: Run, napping: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(napping))
    limits = ("--evaluations", 1, "--rollouts", 1, "--steps", 1, "--final-epochs", 0.1)
    # Only without the nap a student is quick enough, and the one that is judged keeps it: this seed draws that.
    flags = ("--agent", "random", "--seed", 1, "--no-shrinkage", "--max-latency-ms", "50%", "--out", tmp_path / "r")
    network = ("--teacher", napping / "t", "--network", "napping_network:build")
    result = n2n("search", *network, *flags, *limits)
    assert result.exit_code == 3, result.stderr
    assert re.search(r"budget missed: 3\d.* ms, 1\d.* ms allowed", result.stdout), result.stdout


def test_code_that_a_folder_names_is_not_run(n2n: Run, teacher: Path, tmp_path: Path) -> None:
    """Neither the network's nor the data's; a folder that someone sent must be as harmless as it looks."""
    trace = tmp_path / "it_ran"
    commands = (("evaluate", tmp_path / "t"), ("inspect", tmp_path / "t"))
    commands += (("search", "--teacher", tmp_path / "t", "--out", tmp_path / "r"),)  # type: ignore[assignment]
    for changed in (
        {"name": "os:system", "arguments": {"command": f"touch {trace}"}},
        {"data": "os:getcwd", "example_shape": None},
    ):
        shutil.copytree(teacher, tmp_path / "t", dirs_exist_ok=True)
        card = json.loads((teacher / "teacher.json").read_text())
        (tmp_path / "t" / "teacher.json").write_text(json.dumps({**card, **changed}))
        for command in commands:
            refused = n2n(*command)
            assert refused.exit_code == 2
            assert "code that" in refused.stderr
            assert not trace.exists()


def test_the_card_of_a_student_says_what_was_changed_and_how(run: Path) -> None:
    card = json.loads((run / "students" / "1" / "card.json").read_text())
    layers = {layer["name"]: layer for layer in card["layers"]}
    tensors = load_file(run / "students" / "1" / "model.safetensors")
    for name, layer in layers.items():
        sizes = [tensor.numel() for key, tensor in tensors.items() if key.rpartition(".")[0] == name]
        assert sum(sizes) == layer["parameters"][1]
        if f"{name}.weight" in tensors:
            assert list(tensors[f"{name}.weight"].shape) == [layer["width_out"][1], layer["width_in"][1]]
    assert card["teacher_figures"]["parameters"] == 3466
    assert card["made_by"]["seed"] == 0
    assert card["made_by"]["recipe"]["epochs"] == 1
    assert card["made_by"]["search"]["evaluations"] == 6
    text = (run / "students" / "1" / "card.md").read_text(encoding="utf-8")
    assert " → " in text
    assert "Cut from: mlp(inputs=64, classes=10, hidden=[32, 32])" in text
    assert "| latency of one example (median) |" in text


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
    words = n2n("evaluate", teacher).stdout
    assert "test accuracy" in words
    assert re.search(r"parameters +3,466 \(0\.0139 MB\)", words), words
    assert re.search(r"MACs +3,392 for one image", words), "64 x 32 + 32 x 32 + 32 x 10"


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


@pytest.fixture(scope="module")
def other_split(n2n: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose validation split is not the one of seed 0."""
    folder = tmp_path_factory.mktemp("split")
    sizes = ("--network-arg", "hidden=[32, 32]", "--batch-size", "32")
    trained = n2n("train-teacher", "mlp", *sizes, "--epochs", "2", "--seed", 7, "--out", folder / "teacher")
    assert trained.exit_code == 0, trained.stderr
    limits = ("--evaluations", 1, "--rollouts", 1, "--steps", 2, "--final-epochs", 1, "--no-removal")
    found = n2n("search", "--teacher", folder / "teacher", "--out", folder / "run", *limits)
    assert found.exit_code == 0, found.stderr
    return folder


def test_a_student_is_measured_on_the_split_that_it_was_made_with(n2n: Run, said: Said, other_split: Path) -> None:
    student = other_split / "run" / "students" / "1"
    result = n2n("evaluate", student, "--json")
    assert "note:" not in result.stderr
    data = load("digits", seed=7)
    expected, _ = accuracy(load_student(student), data.validation, mean=data.training.mean, std=data.training.std)
    seed_0 = load("digits")
    elsewhere, _ = accuracy(load_student(student), seed_0.validation, mean=data.training.mean, std=data.training.std)
    assert said(result)["validation_accuracy"] == pytest.approx(expected)
    assert expected != elsewhere


def test_a_student_on_other_images_than_its_own_is_noted(
    n2n: Run, other_split: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "from n2n.data import load\n\ndef build(seed):\n    return load('digits', seed=seed + 1)\n"
    (tmp_path / "own_cli_images.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    result = n2n("evaluate", other_split / "run" / "students" / "1", "--data", "own_cli_images:build")
    assert result.exit_code == 0, result.stderr
    assert (
        f"fingerprint {load('digits', seed=8).fingerprint}, there {load('digits', seed=7).fingerprint}" in result.stderr
    )


def test_a_student_of_data_that_are_not_built_in_asks_for_them(
    n2n: Run, said: Said, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "from n2n.data import load\n\ndef images(seed):\n    return load('digits', seed=seed)\n"
    (tmp_path / "own_cli_data.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    limits = ("--evaluations", 1, "--rollouts", 1, "--steps", 2, "--final-epochs", 0.2, "--no-removal")
    flags = ("--data", "own_cli_data:images")
    found = n2n("search", "--teacher", teacher, *flags, "--out", "r", *limits)
    assert found.exit_code == 0, found.stderr
    refused = n2n("evaluate", "r/students/1")
    assert refused.exit_code == 2
    assert "data that are not built in (own_cli_data:images): say --data" in refused.stderr
    assert n2n("distill", "r/students/1", "--network", "mlp", "--out", "s").exit_code == 2
    named = n2n("evaluate", "r/students/1", *flags)
    assert named.exit_code == 0
    assert "note:" not in named.stderr


def test_distilling_from_a_teacher_at_chance_level_is_warned_of(
    n2n: Run, run: Path, teacher: Path, tmp_path: Path
) -> None:
    guessing = tmp_path / "guessing"
    shutil.copytree(teacher, guessing)
    tensors = load_file(guessing / "model.safetensors")
    save_file({name: value.mul(0) for name, value in tensors.items()}, guessing / "model.safetensors")
    flags = ("--teacher", guessing, "--epochs", 0.1, "--out", tmp_path / "s")
    result = n2n("distill", run / "students" / "1", *flags)
    assert result.exit_code == 0, result.stderr
    assert "warning: teacher 'mlp' is at chance level" in result.stderr


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
        (("serach",), "unknown command 'serach'; the commands are: train-teacher, inspect, search"),
        (("search", "--evalutions", "3"), "unknown flag --evalutions; n2n search has: --address, --against, --agent"),
        (("search",), "--out FOLDER is required"),
        (("search", "--out", "r", "--data", "digitz"), "--data digitz needs a trained network"),
        (("search", "--out", "r", "--network", "resnet-20"), "unknown network 'resnet-20' (did you mean 'resnet20'?)"),
        (("search", "--out", "r", "--network", "resnet20"), "has no weights yet"),
        (("search", "--out", "r", "--network", "nowhere_at_all:build"), "No module named 'nowhere_at_all'"),
        (("search", "--out", "r", "--network", "json:lods"), "module 'json' has no function 'lods'"),
        (("search", "--out", "r", "--network", "json:dumps", "--network-arg", "obj=1"), "returned a str"),
        (("search", "--out", "r", "--weights", "w.safetensors"), "needs --network"),
        (("search", "--out", "r", "--agent", "sarsa"), "unknown agent 'sarsa'; valid: reinforce"),
        (("search", "--out", "r", "--teacher", "nowhere"), "nowhere/teacher.json is missing"),
        (("train-teacher", "mlp", "--out", "t", "--network-arg", "depth=3"), "does not take depth; it takes: inputs"),
        (("train-teacher", "mlp", "--out", "t", "--data", "digitz"), "digits"),
        (("evaluate", "nowhere"), "neither a student folder"),
        (("distill", "nowhere", "--out", "s"), "needs the teacher"),
        (("report", "nowhere"), "is no run folder"),
        (("policy", "show", "nowhere"), "there is no folder nowhere"),
        (("policy", "show", "--bogus"), "unknown flag --bogus; n2n policy show has: --help, --json"),
        (("policy", "bogus"), "unknown command 'bogus'; the commands of n2n policy are: list"),
        (("evaluate", "nowhere", "--device", "mps"), "device 'mps': this PyTorch sees no mps device"),
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
    names = [
        "train-teacher",
        "inspect",
        "search",
        "sweep",
        "calibrate",
        "score",
        "distill",
        "evaluate",
        "export",
        "report",
    ]
    names += ["runs", "query", "doctor"]
    assert [one.name for one in app.registered_commands] == names
    for one in app.registered_commands:
        assert n2n(str(one.name), "--help").exit_code == 0


def test_an_own_network_that_knows_nothing_is_no_teacher(
    n2n: Run, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Searching or distilling with an untrained teacher would only ruin students."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_untrained.py").write_text(
        "from n2n.networks import build_teacher\n\n"
        "def build():\n    return build_teacher('mlp', inputs=64, hidden=(32, 32), classes=10, seed=5)\n"
    )
    for command in (("search",), ("distill", run / "students/1", "--epochs", 1)):
        refused = n2n(*command, "--network", "own_untrained:build", "--data", "digits", "--out", tmp_path / "out")
        assert refused.exit_code == 2
        assert "returned a network at chance level on digits: add --weights" in refused.stderr
    assert not (tmp_path / "out").exists()
