"""An ONNX file calls its outputs, its batch axis and its maker by name; read with onnxruntime."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from n2n.search.export import export_network
from n2n.search.export.onnx_file import quiet
from n2n.search.export.onnx_names import output_names


class Outputs(nn.Module):
    """Gives what `shape` makes of its input, of twice that, and of a weight."""

    def __init__(self, shape: Any) -> None:
        super().__init__()
        self.fc, self.weight, self.shape = nn.Linear(4, 4), nn.Parameter(torch.ones(3)), shape

    def forward(self, logits: Tensor) -> Any:
        return self.shape(logits, self.fc(logits), self.weight)


def in_a_dict(x: Tensor, y: Tensor, w: Tensor) -> Any:
    return {"probabilities": y.softmax(1), "linear": y.relu(), "hidden": (y, None, 2 * y), "hidden_0": w}


def in_a_tuple(x: Tensor, y: Tensor, w: Tensor) -> Any:
    return y.relu(), [y, w], torch.cat([y, y])


def alone(x: Tensor, y: Tensor, w: Tensor) -> Any:
    return y + w.sum()


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (in_a_dict, ["probabilities", "linear", "hidden_0", "hidden_2", "hidden_0_2"]),
        (in_a_tuple, ["output_0", "output_1_0", "output_1_1", "output_2"]),
        (alone, ["logits_2"]),  # the input is called logits
    ],
)
def test_outputs_are_named_as_the_network_calls_them(shape: Any, expected: list[str], tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    network = Outputs(shape).eval()
    export_network(network, torch.randn(2, 4), "onnx", tmp_path / "n.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "n.onnx", providers=["CPUExecutionProvider"])
    assert [one.name for one in session.get_inputs()] == ["logits"]
    assert [one.name for one in session.get_outputs()] == expected
    axes = {one.name: one.shape[0] for one in (*session.get_inputs(), *session.get_outputs())}
    assert set(axes.values()) <= {"batch", "2*batch", 3}
    images = torch.randn(7, 4)
    with torch.no_grad():
        leaves = [leaf for leaf in torch.utils._pytree.tree_leaves(network(images)) if leaf is not None]
    for name, leaf in zip(expected, leaves, strict=True):
        torch.testing.assert_close(torch.from_numpy(session.run([name], {"logits": images.numpy()})[0]), leaf)


def test_a_tensor_alone_is_the_logits_and_the_file_says_who_wrote_it(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    facts = {"fingerprint": "f" * 16, "teacher": "resnet20"}
    export_network(nn.Linear(4, 2), torch.randn(2, 4), "onnx", tmp_path / "n.onnx", name="mine", facts=facts)
    model = onnx.load(tmp_path / "n.onnx")
    assert [one.name for one in model.graph.output] == ["logits"]
    assert [one.type.tensor_type.shape.dim[0].dim_param for one in model.graph.output] == ["batch"]
    assert model.producer_name == "n2n"
    assert model.producer_version
    assert {one.key: one.value for one in model.metadata_props} == {"network": "mine", **facts}


def test_a_static_batch_has_no_name(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    export_network(nn.Linear(4, 2), torch.randn(2, 4), "onnx", tmp_path / "n.onnx", static_batch=True)
    axis = onnx.load(tmp_path / "n.onnx").graph.output[0].type.tensor_type.shape.dim[0]
    assert (axis.dim_param, axis.dim_value) == ("", 2)


def test_names_of_outputs_by_hand() -> None:
    x = torch.zeros(1)
    assert output_names(x) == ["logits"]
    assert output_names((x, None, x)) == ["output_0", "output_2"]
    assert output_names({"a": x, "b": {"c": [x]}}) == ["a", "b_c_0"]


def test_warnings_of_others_pass_through() -> None:
    with pytest.warns(FutureWarning, match="yours"), quiet():
        warnings.warn("yours", FutureWarning, stacklevel=1)
    with pytest.warns(DeprecationWarning, match="yours"), quiet():
        warnings.warn("yours", DeprecationWarning, stacklevel=1)
