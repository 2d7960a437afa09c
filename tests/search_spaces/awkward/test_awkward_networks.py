"""Networks whose channels, inputs or modules are hard to follow: each opens and every draft of every space is sound."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from awkward_networks import CASES, Branching, Separate, sequence
from draft_contract import check_draft, check_teacher, expected_of
from torch import nn
from torch.nn import functional as F

from search_spaces import layer_removal, layer_shrinkage
from search_spaces.base import SearchSpace, SpaceError, random_actions, replay

DRAFTS = 4


def spaces(teacher: nn.Module, inputs: Any) -> list[SearchSpace]:
    """All that have anything to decide."""
    found: list[SearchSpace] = []
    for make in (layer_removal, partial(layer_removal, granularity="block"), layer_shrinkage):
        try:
            found.append(make(teacher, inputs))
        except SpaceError as error:
            if "can be removed" not in str(error) and "can shrink" not in str(error):
                raise
    assert found
    return found


@pytest.mark.parametrize("name", CASES)
def test_every_draft_is_sound(name: str) -> None:
    make, inputs_of = CASES[name]
    torch.manual_seed(0)
    teacher, inputs = make().eval(), inputs_of()
    expected = expected_of(teacher, inputs)
    for space in spaces(teacher, inputs):
        for seed in range(DRAFTS):
            torch.manual_seed(seed)
            check_draft(space, space.student(random_actions(space, np.random.default_rng(seed))), inputs, expected)
    check_teacher(teacher, expected)


def test_control_flow_that_depends_on_the_data_is_refused_with_the_way_out() -> None:
    with pytest.raises(SpaceError, match=r"depending on values \(.*x\.sum\(\) > 0.*forward_fn") as caught:
        layer_removal(Branching(), sequence())
    assert "Branching" in str(caught.value)


def test_one_path_through_such_a_network_can_be_chosen() -> None:
    space = layer_removal(
        Branching(), sequence(), forward_fn=lambda network, x: network.classifier(F.relu(network.two(network.one(x))))
    )
    assert [row.name for row in space.describe() if row.status == "removable"] == ["two"]


def test_attention_goes_as_a_whole() -> None:
    teacher = Separate().eval()
    space = layer_removal(teacher, sequence(), granularity="block")
    assert space.num_decisions == 1
    network = space.build(space.student(replay(space, (0,))))
    assert {name.split(".")[0] for name, _ in network.named_parameters()} == {"embed", "last", "classifier"}
    # Embedding and last layer at 7 positions, the classifier on their mean; no product of attention weights is left.
    assert space.cost(space.student(replay(space, (0,)))).macs == 7 * (6 * 16 + 16 * 16) + 16 * 5
    x = sequence()
    torch.testing.assert_close(network.eval()(x), teacher.classifier(teacher.last(teacher.embed(x)).mean(1)))


def test_a_block_with_loose_operations_goes_with_all_that_it_holds() -> None:
    make, inputs = CASES["layer-scale"]
    teacher, x = make().eval(), inputs()
    space = layer_removal(teacher, x, granularity="block")
    assert [space.decision_name(i) for i in range(space.num_decisions)] == ["body.0", "body.1"]
    student = space.student(replay(space, (0, 1)))
    network = space.build(student).eval()
    assert not [name for name, _ in network.named_parameters() if name.startswith("body.0")]
    # The depthwise conv with its bias, the norm, two linear layers with theirs, and the scale.
    gone = 8 * 9 + 8 + 16 + 8 * 24 + 24 + 24 * 8 + 8 + 8
    assert space.teacher_cost.parameters - space.cost(student).parameters == gone
    with torch.no_grad():
        teacher.body[0].scale.zero_()
    torch.testing.assert_close(network(x), teacher(x))
