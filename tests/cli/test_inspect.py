"""`n2n inspect`: every way of naming a network, the table, the JSON, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file
from typer.testing import Result

from n2n.networks import build_teacher

Run = Callable[..., Result]
Said = Callable[[Result], dict[str, Any]]


def test_a_built_in_network_as_a_table(n2n: Run) -> None:
    done = n2n("inspect", "mlp", "--network-arg", "hidden=[16, 16]", "--no-latency")
    assert done.exit_code == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["3", "linear", "removable,", "shrinkable", "3", "272", "256"] in lines
    assert any(line[:2] == ["1", "linear"] and line[-3:] == ["the", "first", "layer"] for line in lines)
    assert "latency" not in done.stdout


def test_a_teacher_folder_is_looked_at_with_its_own_images(n2n: Run, said: Said, teacher: Path) -> None:
    record = said(n2n("inspect", teacher, "--json"))
    sizes = {row["name"]: row["parameters"] for row in record["layers"]}
    assert sizes["1"] == 64 * 32 + 32
    assert set(record["latency"]) == {"teacher", *record["ranges"]}
    assert record["latency"]["teacher"]["median_ms"] > 0
    assert 0 < record["ranges"]["shrinkage"]["min"]["parameters"] < record["teacher"]["parameters"]


def test_a_network_of_the_users_own(n2n: Run, said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nets_of_mine.py").write_text(
        "from torch import nn\ndef make(width=8):\n"
        "    return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 2))\n"
    )
    monkeypatch.chdir(tmp_path)
    arguments = ("inspect", "nets_of_mine:make", "--network-arg", "width=5", "--no-latency")
    record = said(n2n(*arguments, "--input-shape", "1,6", "--json"))
    assert record["teacher"]["parameters"] == 6 * 5 + 5 + 5 * 2 + 2
    refused = n2n(*arguments)
    assert refused.exit_code == 2
    assert "--input-shape" in refused.stderr


def test_weights_that_do_not_fit_are_refused(n2n: Run, tmp_path: Path) -> None:
    save_file(build_teacher("mlp", hidden=(8,)).state_dict(), tmp_path / "w.safetensors")
    same = ("inspect", "mlp", "--no-latency", "--weights", tmp_path / "w.safetensors")
    assert n2n(*same, "--network-arg", "hidden=[8]").exit_code == 0
    refused = n2n(*same, "--network-arg", "hidden=[9]")
    assert refused.exit_code == 2
    assert "1.weight" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("resnet21",), "did you mean 'resnet"),
        (("mlp", "--input-shape", "1,x"), "expected whole numbers above 0"),
        (("mlp", "--input-shape", "64"), "the batch and the shape of an example"),
        (("mlp", "--input-shape", "1,64", "--data", "digits"), "leave one out"),
        (("vgg11_bn", "--input-shape", "1,1,32"), "does not run on the example inputs [1, 1, 32]"),
        (("mlp", "--network-arg", "depth=3"), "cannot build mlp"),
    ],
)
def test_what_cannot_be_is_refused_in_words(n2n: Run, arguments: tuple[str, ...], words: str) -> None:
    done = n2n("inspect", *arguments)
    assert done.exit_code == 2
    assert words in done.stderr


def test_a_published_space_instead_of_a_network(n2n: Run, said: Said) -> None:
    done = n2n("inspect", "--space", "nas_bench_201")
    assert done.exit_code == 0, done.stderr
    assert "edge 3<-2  0 none, 1 skip, 4 avgpool3x3, 2 conv1x1, 3 conv3x3" in done.stdout
    assert "15,625 students" in done.stdout
    lines = [line.split() for line in done.stdout.splitlines()]
    assert any(
        line[:4] == ["nas_bench_201", "parameters", "0.0733", "M"] and line[-2:] == ["1.53", "M"] for line in lines
    )
    record = said(n2n("inspect", "--space", "nas_bench_201", "--network-arg", "classes=100", "--json"))
    assert record["range"]["min"]["parameters"] == 73_306 + 90 * 65
    assert record["inspected"] == record["space"] == "nas_bench_201"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "n2n inspect resnet20, or --space NAME"),
        (("--space", "nas_bench_200"), "did you mean 'nas_bench_201'"),
        (("resnet20", "--space", "vit"), "leave out network"),
        (("--space", "vit", "--data", "digits", "--no-latency"), "leave out data, latency"),
        (("--space", "vit", "--network-arg", "seed=3"), "say --seed"),
        (("--space", "vit", "--network-arg", "image_size=30"), "a multiple of 4"),
    ],
)
def test_what_cannot_be_asked_of_a_space_is_refused(n2n: Run, arguments: tuple[str, ...], words: str) -> None:
    done = n2n("inspect", *arguments)
    assert done.exit_code == 2
    assert words in done.stderr
