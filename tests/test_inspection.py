"""`n2n.inspect` in Python: the same figures as the spaces', also where nothing can change; and published spaces."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from awkward_networks import CASES
from torch import nn

import n2n
from n2n.inspection import inspect_space
from n2n.networks import build_teacher
from search_spaces import PUBLISHED, layer_shrinkage
from search_spaces.base import SpaceError, replay


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    return build_teacher("resnet20", width=4, seed=0)


@pytest.fixture(scope="module")
def found(resnet: nn.Module) -> n2n.Inspection:
    before = {name: value.clone() for name, value in resnet.state_dict().items()}
    inspected = n2n.inspect(resnet, torch.zeros(1, 3, 16, 16))
    assert all(torch.equal(value, before[name]) for name, value in resnet.state_dict().items())
    return inspected


def test_the_ends_of_the_ranges(found: n2n.Inspection, resnet: nn.Module) -> None:
    space = layer_shrinkage(resnet, torch.zeros(1, 3, 16, 16))
    least = space.cost(space.student(replay(space, (0,) * space.num_decisions)))
    assert found.ranges["shrinkage"].low.parameters == least.parameters
    assert list(found.ranges) == ["removal", "shrinkage", "removal, then shrinkage"]
    parameters = sum(weight.numel() for weight in resnet.parameters())
    assert {one.high.parameters for one in found.ranges.values()} == {parameters}
    assert sum(row.parameters for row in found.rows) == parameters
    assert all(one.low.parameters < one.middle.parameters < parameters for one in found.ranges.values())


def test_latency_is_reported_beside_the_macs(found: n2n.Inspection) -> None:
    assert set(found.timings) == {"teacher", *found.ranges}
    assert all(one.median_ms > 0 and one.iqr_ms >= 0 for one in found.timings.values())
    assert found.timings["removal"].median_ms < found.timings["teacher"].median_ms


def test_the_table_and_the_json_say_the_same(found: n2n.Inspection) -> None:
    text, record = found.table(), json.loads(json.dumps(found.to_json()))
    layers = {row["name"]: row for row in record["layers"]}
    assert layers["conv1"]["status"] == "shrinkable"
    assert layers["conv1"]["group"] == "conv1"
    reason = layers["conv1"]["reasons"]["layer_removal"]
    assert reason.startswith("is the first layer (cifar_resnet.py:")
    assert reason in text
    assert f"either {record['shares']['either']:.1%}" in text
    assert record["ranges"]["removal"]["max"]["parameters"] == found.teacher.parameters


def test_a_network_without_a_decision_is_described_all_the_same() -> None:
    found = n2n.inspect(nn.Sequential(nn.Linear(4, 3)), torch.zeros(1, 4), measure_latency=False)
    assert [row.status for row in found.rows] == ["frozen"]
    assert dict(found.rows[0].reasons)["layer_removal"] == "is the first layer"
    assert found.coverage.none == 1.0
    assert all(one.low == one.middle == one.high for one in found.ranges.values())
    assert found.timings == {}


def test_one_kind_of_decision_alone(resnet: nn.Module) -> None:
    only = n2n.inspect(resnet, torch.zeros(1, 3, 16, 16), shrinkage=False, granularity="block", measure_latency=False)
    assert list(only.ranges) == ["removal"]
    assert "shrinkable" not in {row.status for row in only.rows}
    with pytest.raises(SpaceError, match="matches no layer"):
        n2n.inspect(resnet, torch.zeros(1, 3, 16, 16), ignored_layers=["nope"])


def test_what_belongs_to_no_layer_is_named_and_counted() -> None:
    make, inputs = CASES["torch-attention"]
    found = n2n.inspect(make().eval(), inputs(), measure_latency=False)
    names = (
        "attention.in_proj_weight",
        "attention.in_proj_bias",
        "attention.out_proj.weight",
        "attention.out_proj.bias",
    )
    assert found.outside == names
    # [48, 16] and [16, 16] with their biases
    assert found.coverage.outside == 48 * 17 + 16 * 17
    assert found.coverage.outside_macs == found.teacher.macs - sum(row.macs for row in found.rows) > 0
    assert "belongs to no layer: attention.in_proj_weight" in found.table()
    reasons = {row.name: dict(row.reasons) for row in found.rows}
    assert "meets attention.in_proj_weight and attention.in_proj_bias, whose shape is fixed" in str(reasons["embed"])
    assert found.to_json()["outside_layers"] == list(names)


def test_a_stored_size_is_named_where_it_may_be_what_holds_channels() -> None:
    make, inputs = CASES["own-attention"]
    reasons = {row.name: str(row.reasons) for row in n2n.inspect(make().eval(), inputs(), measure_latency=False).rows}
    assert "they may come from heads = 4 or dim = 4" in reasons["qkv"]
    assert "meets channels that are not followed in add.Tensor" in reasons["mlp.3"]


def test_a_published_space_is_described_without_a_network() -> None:
    found = inspect_space("cifar_resnet")
    assert (found.students, len(found.decisions)) == (64, 3)
    # The published ends of S0 at 100 classes.
    assert (found.range.low.parameters, found.range.high.parameters) == (83_892, 667_188)
    assert (found.range.low.macs, found.range.high.macs) == (12_507_392, 97_442_048)
    record, text = json.loads(json.dumps(found.to_json())), found.table()
    assert record["decisions"][1] == {"name": "stage2.depth", "choices": ["1", "3", "5", "7"]}
    assert record["range"]["min"]["parameters"] == 83_892
    assert ["stage2.depth", "1,", "3,", "5,", "7"] in [line.split() for line in text.splitlines()]
    assert "64 students; their code: three depths" in text


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_range_of_a_published_space_holds_its_students(name: str) -> None:
    found, space = inspect_space(name, classes=10, image_size=16), PUBLISHED[name](classes=10, image_size=16)
    rng = np.random.default_rng(5)
    for cost in (space.cost(space.random(rng)) for _ in range(200)):
        assert found.range.low.parameters <= cost.parameters <= found.range.high.parameters
        assert found.range.low.macs <= cost.macs <= found.range.high.macs


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("darts", {}, "the published spaces are: cifar_resnet, "),
        ("vit", {"depth": 3}, "does not take depth; it takes: classes, channels, image_size"),
        ("vit", {"classes": "ten"}, "found classes='ten'"),
    ],
)
def test_a_space_that_there_is_not_is_told_in_words(name: str, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(SpaceError, match=words):
        inspect_space(name, **arguments)
