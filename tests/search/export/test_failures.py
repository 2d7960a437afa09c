"""An export that would be wrong leaves no file, and the message says what to do."""

from __future__ import annotations

import json
import math
import resource
import sys
from pathlib import Path

import export_networks
import pytest
import torch
from torch import Tensor, nn

from n2n.search.errors import ArtefactError, ExportError, WriteError
from n2n.search.export import FORMATS, export_network, export_student
from n2n.search.export.check import difference


@pytest.mark.parametrize("format", FORMATS)
def test_an_export_that_differs_leaves_no_file_and_no_folder(format: str, tmp_path: Path) -> None:
    with pytest.raises(
        ExportError, match=r"Noisy as \w+, batch of 2: the largest difference .* is [\d.]+ of .* allowed"
    ):
        export_network(export_networks.Noisy(), torch.randn(2, 4), format, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", FORMATS)
def test_an_older_export_survives_one_that_fails(format: str, tmp_path: Path) -> None:
    export_network(nn.Linear(4, 2), torch.randn(2, 4), "python", tmp_path / "python")
    (tmp_path / "file").write_text("older")
    out = tmp_path / ("python" if FORMATS[format].folder else "file")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()}
    with pytest.raises(ExportError, match="exists: name another place with out=, or say force=True to replace it"):
        export_network(nn.Linear(4, 2), torch.randn(2, 4), format, out)
    with pytest.raises(ExportError, match="largest difference"):
        export_network(export_networks.Noisy(), torch.randn(2, 4), format, out, force=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()} == before
    assert (tmp_path / "file").read_text() == "older"
    export_network(nn.Linear(4, 3), torch.randn(2, 4), format, out, force=True)
    assert not (tmp_path / "file").read_bytes().startswith(b"older") or FORMATS[format].folder


@pytest.mark.parametrize("format", FORMATS)
def test_a_place_that_cannot_be_written_is_named(format: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WriteError, match=r"cannot write .*(Not a directory|File exists)"):
        export_network(nn.Linear(4, 2), torch.randn(2, 4), format, tmp_path / "file" / "out")


@pytest.mark.parametrize("format", FORMATS)
def test_a_full_disk_leaves_nothing(format: str, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, before[1]))
    try:
        with pytest.raises(WriteError, match="File too large"):
            export_network(nn.Linear(64, 64), torch.randn(2, 64), format, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_format_lists_the_formats(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="unknown format 'tflite'; the formats are: safetensors, pt2, onnx, python"):
        export_network(nn.Linear(4, 2), torch.randn(2, 4), "tflite", tmp_path / "out")


def test_a_folder_where_a_file_goes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ExportError, match="is a folder, and this format writes a file"):
        export_network(nn.Linear(4, 2), torch.randn(2, 4), "pt2", tmp_path, force=True)
    with pytest.raises(ExportError, match="is a file, and this format writes a folder"):
        export_network(nn.Linear(4, 2), torch.randn(2, 4), "python", tmp_path / "file", force=True)


@pytest.mark.parametrize("folder", ["mlp"], indirect=True)
def test_a_damaged_student_is_named(folder: Path, tmp_path: Path) -> None:
    copied = tmp_path / "student"
    copied.mkdir()
    for path in folder.iterdir():
        (copied / path.name).write_bytes(path.read_bytes())
    model = copied / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-8])
    with pytest.raises(ArtefactError, match=r"model.safetensors is damaged"):
        export_student(copied, "pt2", tmp_path / "s.pt2")
    (copied / "architecture.json").unlink()
    with pytest.raises(ArtefactError, match=r"architecture.json is missing"):
        export_student(copied, "pt2", tmp_path / "s.pt2")
    with pytest.raises(ArtefactError, match=r"card.json is missing"):
        export_student(tmp_path / "nowhere", "pt2", tmp_path / "s.pt2")
    card = json.loads((folder / "card.json").read_text())
    (copied / "architecture.json").write_bytes((folder / "architecture.json").read_bytes())
    (copied / "card.json").write_text(json.dumps({**card, "teacher": None}))
    with pytest.raises(ArtefactError, match="network=teacher"):
        export_student(copied, "pt2", tmp_path / "s.pt2")
    assert not (tmp_path / "s.pt2").exists()


def test_inputs_that_do_not_fit_are_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"Linear does not run on example inputs of shape \[\[2, 5\]\]"):
        export_network(nn.Linear(4, 2), torch.randn(2, 5), "pt2", tmp_path / "out")
    with pytest.raises(ExportError, match="expected a tensor, a tuple or a dict, found list"):
        export_network(nn.Linear(4, 2), [torch.randn(2, 4)], "pt2", tmp_path / "out")  # type: ignore[arg-type]


def test_outputs_that_no_file_can_hold_are_named(tmp_path: Path) -> None:
    class Text(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, str]:
            return x, "cat"

    with pytest.raises(ExportError, match="Text returns a str; an export can hold tensors"):
        export_network(Text(), torch.randn(2, 4), "pt2", tmp_path / "out")


def test_control_flow_that_depends_on_the_data_is_refused(tmp_path: Path) -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(ExportError, match=r"could not capture it in eval mode.*depends on the data"):
        export_network(Branching(), torch.randn(2, 4), "python", tmp_path / "out")


def test_a_module_named_like_a_keyword(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="names are Python keywords are one cause; format python may serve"):
        export_network(export_networks.Keyword(), torch.randn(2, 4), "pt2", tmp_path / "out")
    export_network(export_networks.Keyword(), torch.randn(2, 4), "python", tmp_path / "out")
    assert "self.lambda_ = nn.Linear(4, 2)  # lambda" in (tmp_path / "out" / "student.py").read_text()


def test_without_the_extra_the_command_that_installs_it_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)  # which makes Python take it for absent
    with pytest.raises(ExportError, match=r"needs onnx, onnxscript, onnxruntime: pip install 'n2n\[export\]'"):
        export_network(nn.Linear(4, 2), torch.randn(2, 4), "onnx", tmp_path / "out")


def test_the_difference_is_a_share_of_the_outputs_scale() -> None:
    expected = {"a": torch.tensor([1.0, -4.0]), "b": (torch.tensor([3]), None)}
    found = {"a": torch.tensor([1.5, -4.0]), "b": (torch.tensor([3]), None)}
    assert difference(expected, expected, what="x") == 0
    assert difference(expected, found, what="x") == 0.5 / 4
    nan = torch.tensor([math.nan, math.inf, 2.0])
    assert difference(nan, nan, what="x") == 0
    assert difference(nan, torch.tensor([math.nan, math.inf, 1.0]), what="x") == 0.5
    assert difference(torch.ones(2), torch.tensor([1.0, math.nan]), what="x") == math.inf
    assert difference(torch.zeros(2), torch.tensor([0.0, 0.25]), what="x") == 0.25
    for other in ({"a": found["a"]}, {**found, "a": torch.ones(3)}, {**found, "a": found["a"].double()}):
        with pytest.raises(ExportError, match="the network"):
            difference(expected, other, what="x")
