"""What every training-free score owes its callers: `check_score(score)` fails at the first broken promise."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from n2n.scores import Probe, Score, ScoreError


class Residual(nn.Module):
    """A convolutional network with batch norm, dropout, a skip connection, and ReLUs of both spellings."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.act = nn.ReLU(inplace=True)
        self.body = nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Conv2d(width, 8, 1)  # as wide whatever the width, for scores that compare classifiers
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(8, 4)

    def forward(self, images: Tensor) -> Tensor:
        features = self.act(self.norm(self.stem(images)))
        features = F.relu(self.last(F.relu(features + self.body(features))))
        logits: Tensor = self.head(self.dropout(features.mean(dim=(2, 3))))
        return logits


def network(seed: int, width: int = 6) -> Residual:
    """One as a caller may hand it over: mixed modes, a frozen weight, gradients, a hook, statistics of its own."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        made = Residual(width)
        made.body.eval()
        made.head.weight.requires_grad_(False)
        made.stem.register_forward_hook(lambda *_: None)
        made(draw(3, seed)).sum().backward()
    return made


def draw(count: int, seed: int) -> Tensor:
    return torch.randn(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed))


def probe(seed: int = 5, count: int = 8) -> Probe:
    return Probe(draw(count, seed), torch.arange(count) % 4, network(99, width=8), seed)


def snapshot(of: nn.Module) -> dict[str, object]:
    """All that must come back: values and places of tensors, gradients, modes, hooks, children."""
    state = of.state_dict(keep_vars=True)
    return {
        "state": {name: (id(value), value.data_ptr(), value.dtype, value.tolist()) for name, value in state.items()},
        "gradients": [None if p.grad is None else (id(p.grad), p.grad.tolist()) for p in of.parameters()],
        "requires": [p.requires_grad for p in of.parameters()],
        "modes": [(id(module), module.training) for module in of.modules()],
        "hooks": [[*module._forward_hooks, *module._forward_pre_hooks] for module in of.modules()],
    }


def check_score(score: Score) -> None:
    """Runs every check below."""
    check_value(score)
    check_untouched(score)
    check_order(score)
    check_callers_state(score)
    check_not_finite(score)


def check_value(score: Score) -> None:
    """A finite float, the same again, and that of an equal network."""
    value = score(network(0), probe())
    assert type(value) is float
    assert math.isfinite(value)
    assert score(network(0), probe()) == value
    assert score(network(0).train(), probe()) == score(network(0).eval(), probe()) == value


def check_untouched(score: Score) -> None:
    """Network, teacher and images come back as they were, also after an error."""
    lent, given = network(0), probe()
    assert given.teacher is not None
    images, labels = given.images.clone(), given.labels.clone()
    before, teacher_before = snapshot(lent), snapshot(given.teacher)
    score(lent, given)
    assert snapshot(lent) == before
    assert snapshot(given.teacher) == teacher_before
    assert torch.equal(given.images, images)
    assert torch.equal(given.labels, labels)
    with contextlib.suppress(RuntimeError, ValueError):  # it does not run on two channels; not every score finds out
        score(lent, replace(given, images=draw(8, 0)[:, :2]))
    assert snapshot(lent) == before
    assert snapshot(given.teacher) == teacher_before


def check_order(score: Score) -> None:
    """What was scored before does not matter, with one probe for all."""
    networks, given = [network(seed, width) for seed, width in ((0, 6), (1, 4), (2, 9))], probe()
    forwards = [score(one, given) for one in networks]
    backwards = [score(one, given) for one in networks[::-1]][::-1]
    assert forwards == backwards == [score(copy.deepcopy(one), probe()) for one in networks]


def check_callers_state(score: Score) -> None:
    """The caller's gradient mode and random generators neither matter nor change; so torch's settings."""
    lent, given = network(0), probe()
    value, fused = score(lent, given), torch.backends.mha.get_fastpath_enabled()
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled):
            torch.manual_seed(int(enabled))
            generator = torch.get_rng_state()
            assert score(lent, given) == value
            assert torch.is_grad_enabled() == enabled
            assert torch.equal(torch.get_rng_state(), generator)
    assert torch.backends.mha.get_fastpath_enabled() == fused


def check_not_finite(score: Score) -> None:
    """A network whose values are not finite has a finite score all the same, or a ScoreError that says why not."""
    for broken in broken_networks():
        given = probe()
        with contextlib.suppress(ScoreError):
            assert math.isfinite(score(broken, given))


def broken_networks() -> Iterator[nn.Module]:
    """Weights that are NaN, infinite, huge and zero."""
    for value in (math.nan, math.inf, 1e38, 0.0):
        broken = network(0)
        with torch.no_grad():
            for weight in (broken.stem.weight, broken.body.weight, broken.head.weight):
                weight.fill_(value)
        yield broken
