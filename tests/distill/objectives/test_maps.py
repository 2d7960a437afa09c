"""Objectives on maps against numbers worked by hand and their definitions, and what brings maps to one size."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from objective_contract import batch_of
from torch import Tensor, nn

from n2n.distill.objectives import OBJECTIVES, Seen
from n2n.distill.objectives.activation_boundary import activation_boundary, open_activation_boundary
from n2n.distill.objectives.attention import attention, attention_map
from n2n.distill.objectives.exact import lengths, one_size, over_length
from n2n.distill.objectives.factor import factor, open_factor, train_paraphraser
from n2n.distill.objectives.hint import hint, open_hint
from n2n.distill.objectives.nd import direction_loss, nd, open_nd
from n2n.distill.objectives.sides import conv, norm, seeded
from n2n.distill.objectives.vid import START, gaussian_loss, open_vid, vid

GIVEN = {"examples": 9, "classes": 4, "seed": 5}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def seen(*maps: Tensor) -> Seen:
    return Seen(torch.zeros(len(maps[0]), 4, dtype=maps[0].dtype), maps)


def line(*values: float) -> Tensor:
    """One example's map with one channel: [1, 1, P]."""
    return torch.tensor([[values]])


def test_hint_by_hand():
    student, teacher = seen(line(1, 2)), seen(line(4, 0))
    found = hint(student, teacher, batch_of(), side=nn.Identity())
    assert found.item() == pytest.approx(0.5 * (9 + 4) / 2)
    assert hint(student, teacher, batch_of(), side=nn.Identity(), per_element=False).item() == pytest.approx(6.5)


def test_hint_is_its_definition_and_pools_the_larger_map():
    student, teacher = seen(draw(3, 2, 8, 4)), seen(draw(3, 5, 4, 4, seed=1))
    side = open_hint(student, teacher, **GIVEN).double()
    pooled = student.maps[0].unflatten(2, (4, 2)).mean(dim=3)
    guess = torch.einsum("oi,bihw->bohw", side.weight[:, :, 0, 0], pooled) + side.bias[None, :, None, None]
    expected = sum(0.5 * torch.dist(t, s) ** 2 for t, s in zip(teacher.maps[0], guess, strict=True)) / 3
    torch.testing.assert_close(hint(student, teacher, batch_of(), side=side, per_element=False), expected)
    torch.testing.assert_close(hint(student, teacher, batch_of(), side=side), expected / (5 * 16))


def test_attention_by_hand():
    # One looks at the first of two places, the other at the second: a distance of sqrt(2).
    student, teacher = seen(line(3, 0)), seen(line(0, -1))
    assert attention(student, teacher, batch_of()).item() == pytest.approx(math.sqrt(2) / (2 * 2))
    assert attention(student, teacher, batch_of(), squared=True).item() == pytest.approx(1)
    # Maps of (1, 1) and (1, 0): sums of squares (2, 0)... over channels are (1 + 1, 1 + 0), over their length.
    two = attention_map(torch.tensor([[[1.0, 1.0], [1.0, 0.0]]]))
    torch.testing.assert_close(two, torch.tensor([[2.0, 1.0]]) / math.sqrt(5))


def test_attention_is_its_definition():
    student, teacher = (
        seen(draw(3, 2, 4, 4), draw(3, 3, 2, 2)),
        seen(draw(3, 5, 4, 4, seed=1), draw(3, 4, 2, 2, seed=2)),
    )
    norms, squares = 0.0, 0.0
    for ours, theirs in zip(student.maps, teacher.maps, strict=True):
        places = ours[0, 0].numel()
        for b in range(3):
            q_s, q_t = (torch.einsum("chw,chw->hw", one[b], one[b]).flatten() for one in (ours, theirs))
            difference = q_s / q_s.norm() - q_t / q_t.norm()
            norms += difference.norm().item() / (2 * places) / 3
            squares += difference.pow(2).sum().item() / places / 3
    assert attention(student, teacher, batch_of()).item() == pytest.approx(norms)
    assert attention(student, teacher, batch_of(), squared=True).item() == pytest.approx(squares)


@pytest.mark.parametrize("squared", [False, True])
def test_attention_is_nothing_for_maps_that_differ_by_a_factor_or_dead_channels(squared):
    maps = draw(3, 2, 4, 4)
    wider = torch.cat([-7 * maps, torch.zeros_like(maps)], dim=1)
    assert attention(seen(maps), seen(wider), batch_of(), squared=squared).item() == pytest.approx(0, abs=1e-15)


def test_vid_by_hand():
    # A deviation of 2 for an error of 2: ln 2 + 4/8.
    found = gaussian_loss(line(3.0), line(1.0), torch.tensor([4.0]))
    assert found.item() == pytest.approx(math.log(2) + 0.5)


def test_vid_is_least_where_the_variance_is_the_squared_error():
    variance = torch.tensor([4.0], dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(gaussian_loss(draw(1, 1, 1) * 0 + 3, draw(1, 1, 1) * 0 + 1, variance), variance)
    assert gradient.item() == pytest.approx(0)
    for other in (3.5, 4.5):
        changed = gaussian_loss(line(3.0), line(1.0), torch.tensor([other]))
        assert changed > gaussian_loss(line(3.0), line(1.0), torch.tensor([4.0]))


def test_vid_is_the_likelihood_of_a_gaussian():
    student, teacher = seen(draw(3, 2, 4, 4), draw(3, 3, 2)), seen(draw(3, 5, 4, 4, seed=1), draw(3, 4, 2, seed=2))
    side = open_vid(student, teacher, **GIVEN).double()
    expected = torch.zeros((), dtype=torch.float64)
    for guess, ours, theirs in zip(side.stages, student.maps, teacher.maps, strict=True):
        mean, variance = guess(ours)
        torch.testing.assert_close(variance, torch.full_like(variance, START), rtol=1e-6, atol=0)
        shaped = variance.sqrt().view(1, -1, *[1] * (theirs.dim() - 2)).expand_as(theirs)
        likelihood = torch.distributions.Normal(mean, shaped).log_prob(theirs)
        expected = expected - likelihood.mean() - 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(vid(student, teacher, batch_of(), side=side), expected)
    assert set(dict(side.named_parameters())) >= {"stages.0.alpha", "stages.1.alpha"}


def straight(student: Seen) -> nn.ModuleList:
    return nn.ModuleList(nn.Identity() for _ in student.maps)


def test_activation_boundary_by_hand():
    # Fired at 1/2 it lacks 1/2 of the margin; not to fire, it exceeds it by 3/2; the third holds its margin.
    student, teacher = seen(line(0.5, 0.5, -2.0)), seen(line(3.0, -0.1, 0.0))
    found = activation_boundary(student, teacher, batch_of(), side=straight(student), per_element=False)
    assert found.item() == pytest.approx(0.25 + 2.25)
    found = activation_boundary(student, teacher, batch_of(), side=straight(student))
    assert found.item() == pytest.approx(2.5 / 3)


def test_activation_boundary_is_nothing_if_and_only_if_every_margin_holds():
    teacher = draw(3, 2, 4)
    held = teacher.sign() * (1 + teacher.abs())
    student = seen(held)
    assert activation_boundary(student, seen(teacher), batch_of(), side=straight(student)) == 0
    for place in itertools.product(range(3), range(2), range(4)):
        fallen = held.clone()
        fallen[place] = 0.99 * teacher[place].sign()
        assert activation_boundary(seen(fallen), seen(teacher), batch_of(), side=straight(student)) > 0
        assert activation_boundary(seen(fallen), seen(teacher), batch_of(), side=straight(student), margin=0.9) == 0


def test_activation_boundary_is_its_definition():
    student, teacher = (
        seen(draw(3, 2, 4, 4), draw(3, 3, 2, 2)),
        seen(draw(3, 5, 4, 4, seed=1), draw(3, 4, 2, 2, seed=2)),
    )
    side = open_activation_boundary(student, teacher, **GIVEN).double()
    expected = 0.0
    for connector, ours, theirs in zip(side, student.maps, teacher.maps, strict=True):
        connected = F.batch_norm(
            torch.einsum("oi,bihw->bohw", connector[0].weight[:, :, 0, 0], ours), None, None, training=True
        )
        fires = (theirs > 0).double()
        vector = fires * (1.5 - connected).clamp(min=0) + (1 - fires) * (1.5 + connected).clamp(min=0)
        expected += vector.norm().item() ** 2 / 3
    found = activation_boundary(student, teacher, batch_of(), side=side, margin=1.5, per_element=False)
    assert found.item() == pytest.approx(expected)


def test_factor_by_hand():
    # Over their lengths the factors are (0.6, 0.8) and (1, 0).
    student, teacher = seen(line(2.0, 0.0)), seen(line(3.0, 4.0))
    side = open_factor(student, teacher, **GIVEN)
    side.translator = side.paraphraser.encode = nn.Identity()
    assert factor(student, teacher, batch_of(), side=side).item() == pytest.approx((0.4 + 0.8) / 2)
    assert factor(teacher, teacher, batch_of(), side=side).item() == 0


def test_factor_is_its_definition_and_pools_the_larger_factors():
    student, teacher = seen(draw(3, 2, 4, 4)), seen(draw(3, 6, 2, 2, seed=1))
    side = open_factor(student, teacher, rate=0.7, **GIVEN).double()
    ours = side.translator(student.maps[0]).unflatten(2, (2, 2)).unflatten(4, (2, 2)).mean(dim=(3, 5))
    theirs = side.paraphraser.encode(teacher.maps[0])
    assert ours.shape == theirs.shape == (3, 4, 2, 2)
    expected = sum((s / s.norm() - t / t.norm()).abs().sum() for s, t in zip(ours, theirs, strict=True)) / ours.numel()
    torch.testing.assert_close(factor(student, teacher, batch_of(), side=side), expected)


def test_the_paraphraser_learns_to_give_back_and_is_frozen():
    student, teacher = seen(torch.randn(8, 2, 4, 4)), seen(torch.randn(8, 3, 4, 4).relu())
    side = open_factor(student, teacher, rate=1.0, **GIVEN)
    before = {name: value.clone() for name, value in side.state_dict().items()}

    def error() -> float:
        maps = teacher.maps[0]
        return (side.paraphraser.decode(side.paraphraser.encode(maps)) - maps).square().mean().item()

    untrained = error()
    with torch.no_grad():
        train_paraphraser(side, [teacher] * 60)
    assert error() < 0.8 * untrained
    moved = {name for name, value in side.state_dict().items() if not torch.equal(value, before[name])}
    assert moved
    assert all(name.startswith("paraphraser.") for name in moved)
    side.train()
    assert side.translator.training
    assert not any(module.training for module in side.paraphraser.modules())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in side.paraphraser.parameters())
    frozen = {name: value.clone() for name, value in side.paraphraser.state_dict().items()}
    factor(student, teacher, batch_of(), side=side).backward()
    assert all(torch.equal(value, frozen[name]) for name, value in side.paraphraser.state_dict().items())


def test_nd_by_hand():
    direction, long = torch.tensor([[1.0, 0.0]]), torch.tensor([[6.0, 8.0]])
    assert direction_loss(torch.tensor([[3.0, 4.0]]), long, direction).item() == pytest.approx(1 - 3 / 10)
    assert direction_loss(long, direction, direction).item() == pytest.approx(1 - 6 / 10)
    assert direction_loss(torch.tensor([[-9.0, 0.0]]), long, direction).item() == pytest.approx(1 + 9 / 10)
    assert direction_loss(torch.tensor([[10.0, 0.0]]), long, direction).item() == pytest.approx(0)


def test_nd_is_its_definition_and_projects_other_widths():
    student, teacher, labels = seen(draw(3, 4)), seen(draw(3, 5, seed=1)), [2, 0, 2]
    means = F.normalize(draw(4, 5, seed=2), dim=1)
    side = open_nd(student, teacher, **GIVEN).double()
    expected = 0.0
    for row, y in enumerate(labels):
        projected = side.weight @ student.maps[0][row] + side.bias
        longest = max(projected.norm().item(), teacher.maps[0][row].norm().item())
        expected += (1 - torch.dot(projected, means[y]).item() / longest) / 3
    found = nd(student, teacher, batch_of(labels, class_means=means), side=side)
    assert found.item() == pytest.approx(expected)
    assert isinstance(open_nd(student, student, **GIVEN), nn.Identity)


@pytest.mark.parametrize(("given", "what"), [({"labels": [0]}, "class means of the teacher"), ({}, "labels")])
def test_nd_names_what_is_missing(given, what):
    one = seen(torch.ones(1, 2))
    with pytest.raises(ValueError, match=f"nd: expected {what}, found none; use the objective 'kd'"):
        nd(one, one, batch_of(**given), side=nn.Identity())


def test_maps_are_pooled_to_the_smaller_axis_by_axis():
    ours, theirs = one_size(draw(2, 3, 8, 2), draw(2, 5, 4, 6), "x")
    assert ours.shape == (2, 3, 4, 2)
    assert theirs.shape == (2, 5, 4, 2)
    torch.testing.assert_close(ours, draw(2, 3, 8, 2).unflatten(2, (4, 2)).mean(dim=3))


def test_tokens_are_the_grid_that_they_were_cut_from():
    grid, tokens = draw(2, 3, 4, 4), draw(2, 5, 16, seed=1)
    for with_class_token in (tokens, torch.cat([draw(2, 5, 1), tokens], dim=2)):
        ours, theirs = one_size(grid, with_class_token, "x")
        assert torch.equal(ours, grid)
        assert torch.equal(theirs, tokens.view(2, 5, 4, 4))
        assert torch.equal(one_size(with_class_token, grid, "x")[0], theirs)
    assert one_size(tokens, tokens[:, :, :7], "x")[0].shape == (2, 5, 7)  # no square: places along one axis
    assert one_size(tokens, tokens + 1, "x")[0] is tokens
    values = torch.arange(16.0).view(1, 1, 16)
    coarse = torch.tensor([[[9.0, 0.0, 1.0, 2.0, 3.0]]])  # a class token before 2 x 2
    ours, theirs = one_size(values, coarse, "x")
    assert ours.flatten().tolist() == [2.5, 4.5, 10.5, 12.5]  # means of the squares of 2 x 2, not of four in a row
    assert theirs.flatten().tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [((2, 3, 4, 4), (2, 3, 7)), ((2, 3, 4, 4), (3, 3, 4, 4)), ((2, 3, 2, 2, 2, 2), (2, 3, 2, 2, 2, 1))],
)
def test_maps_that_cannot_be_brought_to_one_size_are_refused(ours, theirs):
    with pytest.raises(ValueError, match=r"^x: .*; name other layers, or use the objective 'kd'"):
        one_size(torch.zeros(ours), torch.zeros(theirs), "x")


def test_lengths_have_a_gradient_of_zero_at_zero():
    values = torch.tensor([[3.0, 4.0], [0.0, 0.0]]).requires_grad_()
    lengths(values).sum().backward()
    torch.testing.assert_close(values.grad, torch.tensor([[0.6, 0.8], [0.0, 0.0]]))
    assert over_length(values).tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0, 0]]


def test_side_modules_are_drawn_from_the_seed_alone():
    torch.manual_seed(1)
    first, state = seeded(4, lambda: conv(2, 3, 5)), torch.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(seeded(4, lambda: conv(2, 3, 5)).weight, first.weight)
    assert not torch.equal(seeded(5, lambda: conv(2, 3, 5)).weight, first.weight)


@pytest.mark.parametrize("make", [lambda: conv(0, 2, 2), lambda: norm(4, 2)])
def test_side_modules_take_maps_with_one_to_three_axes(make):
    with pytest.raises(ValueError, match="one to three spatial axes, found"):
        make()


@pytest.mark.parametrize("name", [name for name, one in OBJECTIVES.items() if one.needs.features in ("stages", "last")])
def test_token_maps_will_do(name):
    one = OBJECTIVES[name]
    count = 2 if one.needs.features == "stages" else 1
    student, teacher = seen(*[draw(3, 4, 9)] * count), seen(*[draw(3, 6, 16, seed=1)] * count)
    given = {} if one.open is None else {"side": one.open(student, teacher, **GIVEN).double()}
    assert math.isfinite(one.loss(student, teacher, batch_of([0, 1, 2]), **given).item())
