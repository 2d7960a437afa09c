"""Networks that are awkward to export, in every format: what is returned has been compared with the network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import export_networks
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from n2n.search.export import FORMATS, export_network


def untouched_state(network: nn.Module) -> dict[str, Any]:
    tensors = [*network.named_parameters(), *network.named_buffers()]
    return {name: value.detach().clone() for name, value in tensors} | {"training": network.training}


@pytest.mark.parametrize("name", export_networks.NETWORKS)
@pytest.mark.parametrize("format", ["safetensors", "pt2", "python", pytest.param("onnx", marks=pytest.mark.slow)])
def test_an_awkward_network_is_exported_for_any_batch(name: str, format: str, tmp_path: Path) -> None:
    network, inputs = export_networks.make(name)
    before = untouched_state(network)
    written = export_network(network, inputs, format, tmp_path / "out")
    assert written.difference <= FORMATS[format].tolerance
    assert {1, 2, 3, 5} <= set(written.batches)
    assert all(torch.equal(value, before[key]) for key, value in untouched_state(network).items() if key != "training")
    assert network.training == before["training"]


def code(name: str, tmp_path: Path) -> str:
    network, inputs = export_networks.make(name)
    export_network(network, inputs, "python", tmp_path)
    return (tmp_path / "student.py").read_text(encoding="utf-8")


def test_the_code_is_what_a_person_would_write(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
    export_network(network, torch.randn(2, 1, 4, 4), "python", tmp_path)
    text = (tmp_path / "student.py").read_text(encoding="utf-8")
    expected = """
    def __init__(self):
        super().__init__()
        self.layer_0 = nn.Conv2d(1, 2, 3, bias=False)  # 0
        self.layer_1 = nn.BatchNorm2d(2)  # 1
        self.layer_2 = nn.ReLU()  # 2
        self.layer_3 = nn.Flatten()  # 3
        self.layer_4 = nn.Linear(8, 3)  # 4

    def forward(self, input):
        input = self.layer_0(input)  # [B, 2, 2, 2]
        input = self.layer_1(input)  # [B, 2, 2, 2]
        input = self.layer_2(input)  # [B, 2, 2, 2]
        input = self.layer_3(input)  # [B, 8]
        input = self.layer_4(input)  # [B, 3]
        return input
"""
    assert expected in text
    assert set(load_file(tmp_path / "student.safetensors")) == {
        "layer_0.weight",
        *(f"layer_1.{one}" for one in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")),
        *("layer_4.weight", "layer_4.bias"),
    }


def test_a_module_that_is_called_twice_is_made_once(tmp_path: Path) -> None:
    text = code("twice", tmp_path)
    assert text.count("nn.Conv2d(") == text.count("nn.BatchNorm2d(") == text.count("nn.ReLU(inplace=True)") == 1
    assert text.count("self.conv(") == text.count("self.norm(") == text.count("self.act(") == 2


def test_what_differs_between_the_modes_follows_the_mode(tmp_path: Path) -> None:
    dropping = code("dropping", tmp_path / "a")
    assert "F.dropout(x, 0.3, self.training)" in dropping
    assert "F.dropout(x, 0.2, False)" in dropping
    assert "def forward_train" not in dropping
    assert "0.1 if self.training else 0.0" in code("attention", tmp_path / "b")
    modes = code("modes", tmp_path / "c")
    train = modes[modes.index("def forward_train") :]
    assert "randn_like" in train
    assert "randn_like" not in modes[: modes.index("def forward_train")]


def test_what_lies_outside_layers_is_registered(tmp_path: Path) -> None:
    text = code("outside", tmp_path)
    assert "self.scale = nn.Parameter(torch.zeros(4, 1, 1))" in text
    assert 'self.register_buffer("seen", torch.zeros(()))' in text
    assert "self.seen.copy_(" in text
    # Not persistent in the user's network, so not in its state dict; the file must have it all the same.
    network, _ = export_networks.make("outside")
    assert torch.equal(load_file(tmp_path / "student.safetensors")["mean"], network.get_buffer("mean"))


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4, bias=False)
            self.b.weight = self.a.weight

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.b(self.a(x).relu())
            return out

    export_network(Tied(), torch.randn(2, 4), "python", tmp_path)
    names: dict[str, Any] = {"__file__": str(tmp_path / "student.py"), "__name__": "student"}
    exec((tmp_path / "student.py").read_text(encoding="utf-8"), names)
    loaded = names["load"]()
    assert sum(one.numel() for one in loaded.parameters()) == 4 * 4 + 4


def test_a_fixed_batch_is_refused_unless_it_is_asked_for(tmp_path: Path) -> None:
    for format in ("pt2", "python"):
        with pytest.raises(ValueError, match=r"FixedBatch fixes its batch size.*constant \(2\).*--static-batch"):
            export_network(export_networks.FixedBatch(), torch.randn(2, 4), format, tmp_path / format)
        written = export_network(
            export_networks.FixedBatch(), torch.randn(3, 4), format, tmp_path / format, static_batch=True
        )
        assert (written.dynamic, written.batches) == (False, (3,))


def test_outputs_of_own_classes_become_plain_ones(tmp_path: Path) -> None:
    class Answer(dict[str, Tensor]):
        """Like the outputs of transformers."""

    class Answers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Answer:
            return Answer(logits=self.fc(x))

    export_network(Answers(), torch.randn(2, 4), "pt2", tmp_path / "a.pt2")
    loaded = torch.export.load(tmp_path / "a.pt2").module()
    assert type(loaded(torch.randn(6, 4))) is dict
    export_network(Answers(), torch.randn(2, 4), "python", tmp_path / "a")
    assert 'return {"logits": x}' in (tmp_path / "a" / "student.py").read_text(encoding="utf-8")
    export_network(Answers(), torch.randn(2, 4), "safetensors", tmp_path / "a.safetensors", facts={"card": "{}"})
    assert json.dumps(sorted(load_file(tmp_path / "a.safetensors"))) == '["fc.bias", "fc.weight"]'
    export_network(Answers(), {"x": torch.randn(2, 4)}, "pt2", tmp_path / "named.pt2")
