"""A borrowed network comes back as it was, whatever was done to it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from n2n.networks import untouched


def network_with_gradients() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))
    network[0].eval()  # a mixed mode, as of a frozen part
    network[3].bias.requires_grad_(False)
    network(torch.randn(5, 4, generator=torch.Generator().manual_seed(1))).sum().backward()
    return network


def snapshot(network: nn.Module) -> dict[str, object]:
    return {
        "state": {name: (id(tensor), tensor.tolist()) for name, tensor in network.state_dict(keep_vars=True).items()},
        "gradients": [None if p.grad is None else (id(p.grad), p.grad.tolist()) for p in network.parameters()],
        "requires": [p.requires_grad for p in network.parameters()],
        "modes": [(id(module), module.training) for module in network.modules()],
        "hooks": [list(module._forward_hooks) for module in network.modules()],
        "dtypes": [tensor.dtype for tensor in network.state_dict().values()],
    }


def train_a_step(network: nn.Sequential) -> None:
    network.train()
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=1.0)
    network(torch.ones(5, 4)).sum().backward()
    optimizer.step()


def clear_gradients(network: nn.Sequential) -> None:
    network.zero_grad(set_to_none=True)


def freeze(network: nn.Sequential) -> None:
    network.eval().requires_grad_(False)


def replace_a_layer(network: nn.Sequential) -> None:
    network[3] = nn.Linear(6, 9)
    del network[1]


def leave_a_hook(network: nn.Sequential) -> None:
    network[0].register_forward_hook(lambda *_: None)
    network[0].register_buffer("left", torch.zeros(3))


def convert(network: nn.Sequential) -> None:
    network.to(torch.float64)


def edit_through_data(network: nn.Sequential) -> None:
    network[0].weight.data.zero_()
    assert network[1].running_mean is not None
    network[1].running_mean.fill_(3.0)


@pytest.mark.parametrize(
    "change",
    [train_a_step, clear_gradients, freeze, replace_a_layer, leave_a_hook, convert, edit_through_data],
)
def test_a_change_is_undone(change: Callable[[nn.Sequential], None]) -> None:
    network = network_with_gradients()
    before = snapshot(network)
    with untouched(network) as lent:
        assert lent is network
        change(network)
        assert snapshot(network) != before
    assert snapshot(network) == before


def test_an_error_passes_and_the_network_is_still_restored() -> None:
    network = network_with_gradients()
    before = snapshot(network)

    def fail() -> None:
        with untouched(network):
            train_a_step(network)
            raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        fail()
    assert snapshot(network) == before


def test_the_users_own_hook_stays_and_its_handle_still_removes_it() -> None:
    network = network_with_gradients()
    calls: list[int] = []
    handle = network[0].register_forward_hook(lambda *_: calls.append(1))
    with untouched(network):
        network[0]._forward_hooks.clear()
        network(torch.ones(2, 4))
        assert calls == []
    network(torch.ones(2, 4))
    assert calls == [1]
    handle.remove()
    network(torch.ones(2, 4))
    assert calls == [1]
