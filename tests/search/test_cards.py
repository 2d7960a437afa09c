"""The card of a student: every change, by hand; and what it says comes back from the folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from n2n.search.artefacts import load_student, read_student_card, save_student
from n2n.search.cards import card_text, changes_text, comparison
from n2n.search.errors import ArtefactError
from search_spaces import layer_removal, layer_shrinkage
from search_spaces.base import Draft, LayerChange

EXAMPLE = torch.zeros(1, 1, 8, 8)


@pytest.fixture
def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.Flatten(),
        nn.Linear(8 * 64, 10),
    )


def test_what_shrinking_changes_by_hand(network: nn.Module) -> None:
    space = layer_shrinkage(network, EXAMPLE, factors=(0.5, 1.0), kernels=True)
    names = [space.decision_name(decision) for decision in range(space.num_decisions)]
    assert names == ["0", "3", "0.kernel", "3.kernel"]
    found = {layer.name: layer for layer in space.changes(space.student(Draft((0, 1, 1, 0))))}
    assert found["0"] == LayerChange("0", "conv", False, (1, 1), (8, 4), (3, 3), (72, 36))
    assert found["1"] == LayerChange("1", "batch_norm", False, (8, 4), (8, 4), (0, 0), (16, 8))
    assert found["3"] == LayerChange("3", "conv", False, (8, 4), (8, 8), (3, 1), (8 * 8 * 9 + 8, 4 * 8 + 8))
    assert not found["5"].changed
    text = changes_text(list(found.values()))
    assert "| `0` | conv | 1 | 8 → 4 | 3 | 72 → 36 |" in text
    assert "| `3` | conv | 8 → 4 | 8 | 3 → 1 | 584 → 40 |" in text
    assert "3 of 6 layers are as they were." in text


def test_what_removing_changes_by_hand(network: nn.Module) -> None:
    space = layer_removal(network, EXAMPLE)
    actions = tuple(int(space.decision_name(decision) != "3") for decision in range(space.num_decisions))
    found = {layer.name: layer for layer in space.changes(space.student(Draft(actions)))}
    assert found["3"] == LayerChange("3", "conv", True, (8, 0), (8, 0), (3, 0), (584, 0))
    assert [layer.name for layer in found.values() if layer.changed] == ["3"]
    assert "| `3` | conv | removed |  |  | 584 → 0 |" in changes_text(list(found.values()))


def test_teacher_against_student() -> None:
    text = comparison(
        {"test_accuracy": 0.9, "parameters": 100, "latency_ms": 0.5, "device": "cpu (x)", "threads": 1},
        {"test_accuracy": 0.925, "parameters": 1250, "latency_ms": 2.0, "macs": 7},
    )
    assert "| test accuracy | 92.50% | 90.00% | -2.50 points |" in text
    assert "| parameters | 1,250 | 100 | 12.5x |" in text
    assert "| latency of one example (median) | 2.000 ms | 0.500 ms | 4.0x |" in text
    assert "MACs" not in text
    assert text.endswith("Latency on cpu (x), 1 thread(s).")


def test_the_card_comes_back_whole(network: nn.Module, tmp_path: Path) -> None:
    space = layer_shrinkage(network, EXAMPLE, factors=(0.5, 1.0))
    student = space.student(Draft((0, 0)))
    made_by = {"seed": 3, "recipe": {"lr": 0.05, "epochs": 2.0}}
    layers, teacher = space.changes(student), {"parameters": 5000}
    save_student(
        tmp_path / "s",
        space.build(student),
        student,
        example_inputs=EXAMPLE,
        figures={"parameters": 2500},
        layers=layers,
        teacher_figures=teacher,
        made_by=made_by,
    )
    card = read_student_card(tmp_path / "s")
    assert (card.layers, card.teacher_figures, card.made_by) == (layers, teacher, made_by)
    assert card.example_shape == (1, 8, 8)
    text = (tmp_path / "s" / "card.md").read_text(encoding="utf-8")
    assert "8 → 4" in text
    assert "| recipe.lr | 0.05 |" in text
    assert "| parameters | 5,000 | 2,500 | 2.0x |" in text


@pytest.mark.parametrize(
    "damaged",
    [
        {"name": "0"},
        ["0"],
        {**vars(LayerChange("0", "conv", False, (1, 1), (8, 4), (3, 3), (72, 36))), "kernel": [3]},
        {**vars(LayerChange("0", "conv", False, (1, 1), (8, 4), (3, 3), (72, 36))), "removed": "no"},
    ],
)
def test_damaged_layers_are_named(network: nn.Module, tmp_path: Path, damaged: object) -> None:
    space = layer_shrinkage(network, EXAMPLE, factors=(0.5, 1.0))
    student = space.student(Draft((0, 0)))
    save_student(tmp_path / "s", space.build(student), student, example_inputs=EXAMPLE)
    path = tmp_path / "s" / "card.json"
    card = json.loads(path.read_text())
    path.write_text(json.dumps({**card, "layers": [damaged]}))
    with pytest.raises(ArtefactError, match=r"card.json: 'layers' holds .*expected name, kind, removed"):
        load_student(tmp_path / "s", network=network)


def test_a_card_of_an_earlier_version_is_read(network: nn.Module, tmp_path: Path) -> None:
    space = layer_shrinkage(network, EXAMPLE, factors=(0.5, 1.0))
    student = space.student(Draft((0, 0)))
    save_student(tmp_path / "s", space.build(student), student, example_inputs=EXAMPLE)
    path = tmp_path / "s" / "card.json"
    card = json.loads(path.read_text())
    for key in ("layers", "teacher_figures", "made_by"):
        del card[key]
    path.write_text(json.dumps(card))
    assert read_student_card(tmp_path / "s").layers == ()
    assert not load_student(tmp_path / "s", network=network).training


def test_a_card_that_knows_little_has_no_empty_chapters() -> None:
    text = card_text(
        fingerprint="f" * 16,
        cut_from=None,
        example_shape=(3,),
        figures={},
        teacher_figures={},
        layers=(),
        made_by={},
    )
    assert "##" not in text
    assert "network=teacher" in text
