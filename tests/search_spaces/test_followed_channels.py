"""Channels through concatenations, shuffles, gates, splits, transposed convs, embeddings and attention."""

from __future__ import annotations

import pytest
import torch
from awkward_networks import CASES
from silence import silence
from torch import Tensor, nn

from search_spaces import layer_shrinkage
from search_spaces.base import SpaceError, replay
from search_spaces.layer_shrinkage import LayerShrinkage
from search_spaces.teacher.analysis import analyse
from search_spaces.teacher.architecture import TeacherArchitecture
from search_spaces.teacher.reading import read, settled
from search_spaces.teacher.reshape import axis_blocks

NORMS = (nn.LayerNorm, nn.GroupNorm)


def halved(network: nn.Module, inputs: object) -> tuple[LayerShrinkage, TeacherArchitecture]:
    space = layer_shrinkage(network, inputs, factors=(0.5, 1.0))  # type: ignore[arg-type]
    return space, space.student(replay(space, (0,) * space.num_decisions))


def leaves(output: object) -> list[Tensor]:
    return [leaf for leaf in torch.utils._pytree.tree_leaves(output) if isinstance(leaf, Tensor)]


@pytest.mark.parametrize("name", CASES)
def test_silent_channels_go_without_a_trace(name: str) -> None:
    """A network whose removed channels were zero gives the same outputs after shrinking."""
    make, inputs_of = CASES[name]
    torch.manual_seed(0)
    network, inputs = make().eval(), inputs_of()
    if any(isinstance(module, NORMS) for module in network.modules()):
        pytest.skip("layer and group norms look at all channels together, so silent ones do leave a trace")
    try:
        space, student = halved(network, inputs)
    except SpaceError as error:
        if "can shrink" not in str(error):
            raise
        pytest.skip("every width is frozen, each with its reason")
    silence(network, space.reading.full, dict(student.widths))
    space, student = halved(network, inputs)
    small = space.build(student).eval()
    arguments, named = ((), inputs) if isinstance(inputs, dict) else ((inputs,), {})
    if isinstance(inputs, tuple):
        arguments = inputs
    with torch.no_grad():
        for mine, theirs in zip(leaves(small(*arguments, **named)), leaves(network(*arguments, **named)), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


class Joined(nn.Module):
    """Two convs side by side, joined, read by a linear layer behind a flatten of 2x2 positions."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(1, 2, 1, bias=False), nn.Conv2d(1, 4, 1, bias=False)
        self.fc = nn.Linear(24, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.cat([self.left(x), self.right(x)], 1).flatten(1))


def test_offsets_behind_a_concatenation() -> None:
    network, batch = Joined(), torch.randn(2, 1, 2, 2)
    with torch.no_grad():
        network.left.weight.copy_(torch.tensor([1.0, 2.0]).reshape(2, 1, 1, 1))
        network.right.weight.copy_(torch.tensor([1.0, 4.0, 3.0, 2.0]).reshape(4, 1, 1, 1))
        network.fc.weight.copy_(torch.arange(24.0).reshape(1, 24))
    space = layer_shrinkage(network, batch)
    student = space.build(TeacherArchitecture(space.reading.fingerprint, widths=(("left", 1), ("right", 2))))
    assert student.left.weight.flatten().tolist() == [2.0]
    assert student.right.weight.flatten().tolist() == [4.0, 3.0]
    # Channel 1 of the left conv, then channels 1 and 2 of the right one, which begin at 2: four positions each.
    assert student.fc.weight.flatten().tolist() == [4, 5, 6, 7, 12, 13, 14, 15, 16, 17, 18, 19]


class Mixed(nn.Module):
    """A channel shuffle of 2 groups between two convs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 6, 1, bias=False), nn.Conv2d(6, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        b, _, h, w = (x := self.first(x)).shape
        return self.last(x.view(b, 2, x.shape[1] // 2, h, w).transpose(1, 2).reshape(b, -1, h, w))


def test_channels_of_a_shuffle_go_in_pairs() -> None:
    network, batch = Mixed(), torch.randn(2, 1, 2, 2)
    with torch.no_grad():
        network.first.weight.copy_(torch.tensor([1.0, 2.0, 3.0, 1.0, 2.0, 9.0]).reshape(6, 1, 1, 1))
        network.last.weight.copy_(torch.arange(6.0).reshape(1, 6, 1, 1))
    space = layer_shrinkage(network, batch)
    assert [group.unit for group in space.reading.full.groups if group.name == "first"] == [2]
    student = space.build(TeacherArchitecture(space.reading.fingerprint, widths=(("first", 4),)))
    # The pairs are (0, 3), (1, 4) and (2, 5); the shuffle puts each pair side by side, so the last two stay.
    assert student.first.weight.flatten().tolist() == [2.0, 3.0, 2.0, 9.0]
    assert student.last.weight.flatten().tolist() == [2.0, 3.0, 4.0, 5.0]


class Heads(nn.Module):
    """Attention whose head count is left to the tensor, as in the networks of `transformers`."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q, k, v = (layer(x).view(b, t, -1, 2).transpose(1, 2) for layer in (self.q, self.k, self.v))
        return self.o(((q @ k.transpose(-1, -2)).softmax(-1) @ v).transpose(1, 2).reshape(b, t, -1))


def test_heads_go_as_wholes_in_queries_keys_and_values() -> None:
    torch.manual_seed(0)
    network, batch = Heads(), torch.randn(2, 5, 8)
    with torch.no_grad():
        for layer in (network.q, network.k, network.v):
            layer.weight[2:4] *= 0.01  # head 1 of 4
    space = layer_shrinkage(network, batch)
    group = next(group for group in space.reading.full.groups if group.name == "q")
    assert (group.producers, group.unit) == (("q", "k", "v"), 2)
    student = space.build(TeacherArchitecture(space.reading.fingerprint, widths=(("q", 6),)))
    rest = [0, 1, 4, 5, 6, 7]
    for mine, theirs in ((student.q, network.q), (student.k, network.k), (student.v, network.v)):
        assert torch.equal(mine.weight, theirs.weight[rest])
    assert torch.equal(student.o.weight, network.o.weight[:, rest])


def test_a_stored_head_size_freezes_the_heads_with_the_line() -> None:
    class Stored(Heads):
        def forward(self, x: Tensor) -> Tensor:
            b, t, _ = x.shape
            q, k, v = (layer(x).view(b, t, 4, 2).transpose(1, 2) for layer in (self.q, self.k, self.v))
            return self.o(((q @ k.transpose(-1, -2)).softmax(-1) @ v).transpose(1, 2).reshape(b, t, 8))

    with pytest.raises(SpaceError, match=r"q reaches view\.default at test_followed_channels\.py:\d+, whose sizes do"):
        layer_shrinkage(Stored(), torch.randn(2, 5, 8))


def test_what_there_was_no_time_to_try_is_frozen() -> None:
    network, batch = Heads(), torch.randn(2, 5, 8)
    hasty = settled(analyse(network, batch), deadline=0.0)
    assert "there was no time left to try" in next(group for group in hasty.full.groups if group.name == "q").frozen
    assert not next(group for group in read(network, batch).full.groups if group.name == "q").frozen


def test_a_grouped_transposed_conv_keeps_the_rows_of_its_own_group() -> None:
    network = nn.Sequential(
        nn.Conv2d(1, 4, 1, bias=False), nn.ConvTranspose2d(4, 4, 1, groups=2, bias=False), nn.Conv2d(4, 1, 1)
    )
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([1.0, 2.0, 4.0, 3.0]).reshape(4, 1, 1, 1))
        # [in, out / groups]: inputs 0 and 1 give outputs 0 and 1, inputs 2 and 3 give outputs 2 and 3.
        weight = torch.tensor([[1.0, 5.0], [2.0, 6.0], [30.0, 70.0], [40.0, 80.0]])
        network[1].weight.copy_(weight.reshape(4, 2, 1, 1))
    space = layer_shrinkage(network, torch.randn(2, 1, 2, 2))
    student = space.build(TeacherArchitecture(space.reading.fingerprint, widths=(("0", 2), ("1", 2))))
    assert student[0].weight.flatten().tolist() == [2.0, 4.0]  # inputs 1 and 2
    assert student[1].weight.flatten().tolist() == [6.0, 70.0]  # outputs 1 and 3 have the larger rows
    assert space.cost(TeacherArchitecture(space.reading.fingerprint)).macs == 4 * (4 + 8 + 4)


def test_what_is_looked_up_is_narrowed_with_what_is_added_to_it() -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.places, self.last = nn.Embedding(7, 4), nn.Embedding(5, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            places = torch.arange(5, device=x.device).expand(x.shape[0], 5)
            return self.last((self.words(x) + self.places(places))[:, 0])

    network, batch = Words(), torch.randint(7, (2, 5))
    with torch.no_grad():
        network.words.weight[:, 1] = 0.0
        network.places.weight[:, 1] = 0.0
    space = layer_shrinkage(network, batch)
    student = space.build(TeacherArchitecture(space.reading.fingerprint, widths=(("words", 3),)))
    assert student.places.weight.shape == (5, 3)
    torch.testing.assert_close(student(batch), network(batch))


def test_equal_runs_of_axes() -> None:
    assert axis_blocks((2, 6, 4, 4), (2, 2, 3, 4, 4)) == [((0,), (0,)), ((1,), (1, 2)), ((2,), (3,)), ((3,), (4,))]
    assert axis_blocks((2, 6, 4, 4), (2, 96)) == [((0,), (0,)), ((1, 2, 3), (1,))]
    assert axis_blocks((2, 6, 1, 1), (2, 6)) == [((0,), (0,)), ((1,), (1,))]
    assert axis_blocks((2, 3, 4), (6, 4)) == [((0, 1), (0,)), ((2,), (1,))]
