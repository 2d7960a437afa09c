"""Students of real teachers in every format, read back by other means than N2N's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from n2n.search.artefacts import ARCHITECTURE, read_student_card
from n2n.search.export import FORMATS, export_student

STUDENTS = ["resnet20", "mlp", pytest.param("vgg11_bn", marks=pytest.mark.slow)]
pytestmark = pytest.mark.parametrize("folder", STUDENTS, indirect=True)


def batch(folder: Path, size: int) -> Tensor:
    """Images that no export was compared on."""
    return torch.randn(size, *read_student_card(folder).example_shape, generator=torch.Generator().manual_seed(99))


def test_safetensors_holds_the_weights_the_architecture_and_the_card(
    folder: Path, student: nn.Module, tmp_path: Path
) -> None:
    written = export_student(folder, "safetensors", tmp_path / "s.safetensors")
    assert written.difference == 0
    found = load_file(tmp_path / "s.safetensors")
    state = student.state_dict()
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], value) for name, value in state.items())
    with safe_open(tmp_path / "s.safetensors", framework="pt") as file:
        facts = file.metadata()
    assert facts["architecture"] == (folder / ARCHITECTURE).read_text().strip()
    assert json.loads(facts["card"]) == json.loads((folder / "card.json").read_text())


def test_pt2_runs_on_any_batch_without_n2n(
    folder: Path, student: nn.Module, tmp_path: Path, isolated: Callable[[str], str]
) -> None:
    written = export_student(folder, "pt2", tmp_path / "s.pt2")
    assert written.dynamic
    assert written.difference <= FORMATS["pt2"].tolerance
    images = batch(folder, 7)
    torch.save(images, tmp_path / "images.pt")
    isolated(
        f"import torch\nnetwork = torch.export.load({str(tmp_path / 's.pt2')!r}).module()\n"
        f"images = torch.load({str(tmp_path / 'images.pt')!r})\n"
        f"torch.save(network(images), {str(tmp_path / 'outputs.pt')!r})\n"
    )
    with torch.no_grad():
        torch.testing.assert_close(torch.load(tmp_path / "outputs.pt").detach(), student(images))


def test_onnx_runs_on_any_batch_in_onnxruntime(folder: Path, student: nn.Module, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    written = export_student(folder, "onnx", tmp_path / "s.onnx")
    assert written.difference <= FORMATS["onnx"].tolerance
    assert [path.name for path in tmp_path.iterdir()] == ["s.onnx"]  # the weights are in the file
    images = batch(folder, 7)
    session = onnxruntime.InferenceSession(tmp_path / "s.onnx", providers=["CPUExecutionProvider"])
    assert [one.name for one in session.get_outputs()] == ["logits"]
    assert {one.shape[0] for one in (*session.get_inputs(), *session.get_outputs())} == {"batch"}
    facts = session.get_modelmeta().custom_metadata_map
    assert facts["fingerprint"] == read_student_card(folder).fingerprint
    assert facts["architecture"] == (folder / ARCHITECTURE).read_text().strip()
    assert session.get_modelmeta().producer_name == "n2n"
    (found,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), student(images), rtol=1e-4, atol=1e-5)


def test_python_is_the_student_itself_without_n2n(
    folder: Path, student: nn.Module, tmp_path: Path, isolated: Callable[[str], str]
) -> None:
    written = export_student(folder, "python", tmp_path / "out")
    assert written.difference == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["student.py", "student.safetensors"]
    images = batch(folder, 7)
    torch.save(images, tmp_path / "images.pt")
    isolated(
        f"import sys, torch\nsys.dont_write_bytecode = True\nsys.path.insert(0, {str(tmp_path / 'out')!r})\n"
        "from student import load\n"
        f"images = torch.load({str(tmp_path / 'images.pt')!r})\nnetwork = load()\n"
        "assert not network.training\n"
        f"outputs = network(images).detach()\nnetwork.train()(images).sum().backward()\n"
        "gradients = [p.grad for p in network.parameters()]\nstate = list(network.state_dict().values())\n"
        f"torch.save((outputs, gradients, state), {str(tmp_path / 'outputs.pt')!r})\n"
    )
    outputs, gradients, state = torch.load(tmp_path / "outputs.pt")
    with torch.no_grad():
        assert torch.equal(outputs, student(images))
    expected = trained(student, images)
    assert len(gradients) == len(expected[0])
    for ours, theirs in zip((*expected[0], *expected[1]), (*gradients, *state), strict=True):
        torch.testing.assert_close(theirs, ours)


def trained(student: nn.Module, images: Tensor) -> tuple[list[Any], list[Tensor]]:
    """Gradients of the sum of the outputs in train mode, and the state after that pass; the student stays as it was."""
    before = {name: value.clone() for name, value in student.state_dict().items()}
    student.train()(images).sum().backward()
    result = [one.grad.clone() for one in student.parameters() if one.grad is not None]
    state = [value.clone() for value in student.state_dict().values()]
    student.eval().zero_grad()
    student.load_state_dict(before)
    return result, state
