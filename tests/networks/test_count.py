"""Parameters, MACs and MB against numbers worked by hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from n2n.networks import build_teacher, macs, parameters, size_mb


def test_convolution_and_linear_by_hand() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 25, 7))
    # 10x10 halves to 5x5: 25 positions of 8 * 3 * 9 products, then 200 * 7.
    assert macs(network, torch.zeros(1, 3, 10, 10)) == 25 * 8 * 3 * 9 + 200 * 7
    assert parameters(network) == 8 * 27 + 8 + 200 * 7 + 7


def test_grouped_and_depthwise_convolutions_by_hand() -> None:
    grouped = nn.Conv2d(8, 12, 3, padding=1, groups=4)
    depthwise = nn.Conv2d(8, 8, 5, padding=2, groups=8)
    assert macs(grouped, torch.zeros(1, 8, 6, 6)) == 36 * 12 * 2 * 9
    assert macs(depthwise, torch.zeros(1, 8, 6, 6)) == 36 * 8 * 25


def test_macs_are_per_example_whatever_the_batch() -> None:
    network = build_teacher("resnet20", width=4, seed=0)
    assert macs(network, torch.zeros(1, 3, 16, 16)) == macs(network, torch.zeros(5, 3, 16, 16))


def test_resnet20_has_the_macs_of_its_layers_one_by_one() -> None:
    network = build_teacher("resnet20", seed=0).eval()
    total = 0

    def add(module: nn.Module, _: object, output: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            total += output.numel() * module.weight[0].numel()
        if isinstance(module, nn.Linear):
            total += module.weight.numel()

    for module in network.modules():
        module.register_forward_hook(add)
    with torch.no_grad():
        network(torch.zeros(1, 3, 32, 32))
    assert macs(network, torch.zeros(1, 3, 32, 32)) == total == 40_813_184


def test_counting_leaves_the_network_and_the_users_hooks_alone() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 2))
    network.train()
    network(torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))).sum().backward()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    gradient = network[0].weight.grad
    seen: list[object] = []
    network[0].register_forward_hook(lambda *args: seen.append(args))
    macs(network, torch.zeros(1, 1, 4, 4))
    assert seen == []
    assert network.training
    assert network[0].weight.grad is gradient
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    network(torch.zeros(2, 1, 4, 4))
    assert len(seen) == 1


class LooksAtValues(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) if float(x.sum()) > 0 else x


def test_a_network_that_looks_at_values_is_counted_on_the_real_inputs() -> None:
    assert macs(LooksAtValues(), torch.ones(2, 4)) == 12


def test_a_shared_parameter_counts_once() -> None:
    shared = nn.Linear(4, 4)
    assert parameters(nn.Sequential(shared, nn.ReLU(), shared)) == 20


def test_megabytes_count_buffers_and_precision() -> None:
    # 1,000 weights and, of the norm, 2 * 10 parameters and 2 * 10 buffers in float32, and one int64 counter.
    network = nn.Sequential(nn.Linear(100, 10, bias=False), nn.BatchNorm1d(10))
    assert size_mb(network) == (1_000 * 4 + 40 * 4 + 8) / 1e6
    assert size_mb(nn.Linear(100, 10, bias=False).to(torch.bfloat16)) == 2_000 / 1e6
