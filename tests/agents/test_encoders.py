from __future__ import annotations

import pytest
import torch
from agent_contract import FEATURE_COUNT
from torch import Tensor

from n2n.agents.encoders import ENCODERS
from n2n.agents.policies import one_hot_previous
from n2n.agents.relations import RELATIONS, relations
from search_spaces.base import CURSOR, FEATURES

COLUMN = {name: index for index, name in enumerate(FEATURES)}


def encoder_of(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return ENCODERS[name](FEATURE_COUNT, 3, hidden=8, layers=2)


def drawn(layers: int, steps: int, *, same_start: bool) -> tuple[Tensor, Tensor]:
    """Observations [T, 2, N, F] and previous actions [T, 2, 3]."""
    generator = torch.Generator().manual_seed(0)
    observations = torch.rand(steps, 2, layers, FEATURE_COUNT, generator=generator)
    observations[..., CURSOR] = torch.eye(layers)[:steps].unsqueeze(1)
    observations[0] = observations[0, :1] if same_start else observations[0]
    return observations, one_hot_previous(torch.randint(3, (steps, 2), generator=generator), 3)


@pytest.mark.parametrize("name", sorted(ENCODERS))
@pytest.mark.parametrize("same_start", [True, False])
def test_step_by_step_and_all_at_once_agree(name: str, same_start: bool) -> None:
    encoder = encoder_of(name)
    observations, previous = drawn(6, 5, same_start=same_start)
    memory, codes = None, []
    for step in range(5):
        code, memory = encoder.step(observations[step], previous[step], memory)
        codes.append(code)
    torch.testing.assert_close(torch.stack(codes), encoder.all_steps(observations, previous))


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_a_batch_is_read_row_by_row(name: str) -> None:
    encoder = encoder_of(name)
    observations, previous = drawn(6, 5, same_start=False)
    together = encoder.all_steps(observations, previous)
    alone = encoder.all_steps(observations[:, 1:], previous[:, 1:])
    torch.testing.assert_close(together[:, 1:], alone)


@pytest.mark.parametrize("name", ["layers", "attention"])
def test_layers_that_are_not_under_the_cursor_are_seen(name: str) -> None:
    encoder = encoder_of(name)
    observations, previous = drawn(6, 1, same_start=True)
    other = observations.clone()
    other[0, :, 5, 0] += 1
    assert not torch.allclose(encoder.all_steps(observations, previous), encoder.all_steps(other, previous))


def test_attention_sees_what_the_draft_has_become() -> None:
    encoder = encoder_of("attention")
    observations, previous = drawn(6, 2, same_start=True)
    other = observations.clone()
    other[1, :, 5, COLUMN["decision"]] = 0
    codes, others = encoder.all_steps(observations, previous), encoder.all_steps(other, previous)
    torch.testing.assert_close(codes[0], others[0])
    assert not torch.allclose(codes[1], others[1])


def test_attention_heeds_relations() -> None:
    encoder = encoder_of("attention")
    with torch.no_grad():
        for block in encoder.blocks:
            block.bias[:, RELATIONS.index("skip")] = 3.0
    observations, previous = drawn(4, 1, same_start=True)
    observations[..., [COLUMN["skip_start"], COLUMN["skip_end"]]] = 0
    joined = observations.clone()
    joined[..., 0, COLUMN["skip_start"]] = joined[..., 3, COLUMN["skip_end"]] = 1e-6  # a relation, hardly a feature
    assert (encoder.all_steps(observations, previous) - encoder.all_steps(joined, previous)).abs().max() > 1e-3


def test_relations_of_a_residual_block() -> None:
    rows = torch.zeros(1, 5, FEATURE_COUNT)
    rows[0, 1, COLUMN["skip_start"]] = rows[0, 3, COLUMN["skip_end"]] = 1  # a skip from layer 1 to layer 3
    rows[0, [0, 3], COLUMN["group"]] = 0.5  # one decision about layers 0 and 3
    rows[0, 4, COLUMN["group"]] = 1.0
    found = {name: relations(rows)[0, index].nonzero().tolist() for index, name in enumerate(RELATIONS)}
    assert found == {
        "before": [[1, 0], [2, 1], [3, 2], [4, 3]],
        "after": [[0, 1], [1, 2], [2, 3], [3, 4]],
        "group": [[0, 3], [3, 0]],
        "skip": [[1, 3], [3, 1]],
    }


def test_every_skip_meets_the_next_end() -> None:
    rows = torch.zeros(1, 6, FEATURE_COUNT)
    rows[0, [0, 2, 5], COLUMN["skip_start"]] = 1
    rows[0, [2, 4], COLUMN["skip_end"]] = 1
    found = relations(rows)[0, RELATIONS.index("skip")].nonzero().tolist()
    assert found == [[0, 2], [2, 0]]  # layer 2 starts and ends by itself, layer 5 has no end after it


def test_heads_divide_the_table() -> None:
    with pytest.raises(ValueError, match="hidden must be a multiple of 2, found 7"):
        ENCODERS["attention"](FEATURE_COUNT, 3, hidden=7, layers=1)
