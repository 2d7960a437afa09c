"""The built-in teachers: published sizes, shapes, and layers that are called once."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn

from n2n.networks import TEACHERS, build_teacher

# Parameters at full width with 3 channels and 10 classes. The CIFAR ResNets: the option A numbers of the literature
# (269,722 for ResNet-20 as usually coded) plus the two 1x1 shortcuts with norms, 16*32 + 64 + 32*64 + 128 = 2,752.
# ResNet-18/34 and VGG: the numbers of the widely used kuangliu/pytorch-cifar, for VGG without the convolutions' biases.
SIZES = {
    "resnet20": 269_722 + 2_752,
    "resnet32": 464_154 + 2_752,
    "resnet56": 853_018 + 2_752,
    "resnet110": 1_727_962 + 2_752,
    "resnet18": 11_173_962,
    "resnet34": 21_282_122,
    "vgg11_bn": 9_231_114 - 2_752,
    "vgg13_bn": 9_416_010 - 2_944,
    "vgg16_bn": 14_728_266 - 4_224,
    "vgg19_bn": 20_040_522 - 5_504,
    "mlp": 64 * 128 + 128 + 128 * 128 + 128 + 128 * 10 + 10,
}


def test_every_teacher_has_a_published_size_here() -> None:
    assert set(SIZES) == set(TEACHERS)


@pytest.mark.parametrize("name", TEACHERS)
def test_full_width_has_the_published_number_of_parameters(name: str) -> None:
    with torch.device("meta"):
        network = TEACHERS[name]()
    assert sum(parameter.numel() for parameter in network.parameters()) == SIZES[name]


@pytest.mark.parametrize("name", [name for name in TEACHERS if name != "mlp"])
@pytest.mark.parametrize("size", [28, 32])
def test_logits_are_batch_by_classes_and_odd_widths_work(name: str, size: int) -> None:
    network = build_teacher(name, classes=7, channels=2, width=3, seed=0)
    with torch.no_grad():
        assert network(torch.zeros(2, 2, size, size)).shape == (2, 7)


def test_mlp_flattens_and_takes_its_hidden_widths() -> None:
    network = build_teacher("mlp", inputs=2 * 4 * 4, channels=2, hidden=(5,), classes=3, seed=0)
    assert network(torch.zeros(6, 2, 4, 4)).shape == (6, 3)
    assert [tuple(weight.shape) for weight in network.parameters()] == [(5, 32), (5,), (3, 5), (3,)]


def test_mlp_refuses_inputs_that_channels_cannot_share() -> None:
    with pytest.raises(ValueError, match=r"inputs=64 .* multiple of channels=3"):
        build_teacher("mlp", inputs=64, channels=3)


@pytest.mark.parametrize("name", ["resnet20", "resnet18", "vgg11_bn", "mlp"])
def test_every_leaf_module_is_called_exactly_once(name: str) -> None:
    told = {"inputs": 256} if name == "mlp" else {"channels": 1, "width": 2}
    network = build_teacher(name, classes=3, seed=0, **told)
    calls: Counter[str] = Counter()
    leaves = [(path, module) for path, module in network.named_modules() if not list(module.children())]
    for path, module in leaves:
        module.register_forward_hook(lambda *_, path=path: calls.update([path]))
    network(torch.zeros(2, 1, 16, 16))
    assert calls == Counter({path: 1 for path, _ in leaves})


def test_a_block_adds_its_input_to_its_branch() -> None:
    network = build_teacher("resnet20", width=2, seed=0).eval()
    block = network.get_submodule("stages.0.0")
    bn2 = block.get_submodule("bn2")
    assert isinstance(bn2, nn.BatchNorm2d)
    nn.init.zeros_(bn2.weight)  # the branch is silent, so the block is relu(x)
    x = torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(block(x), x.clamp(min=0))


def test_a_seed_fixes_the_weights_and_leaves_the_global_generator() -> None:
    before = torch.get_rng_state()
    first, second, other = (build_teacher("resnet20", width=2, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    same = [torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)]
    assert all(same)
    assert not torch.equal(next(first.parameters()), next(other.parameters()))


def test_unknown_name_and_keyword_list_the_valid_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown teacher 'resnet21'.*resnet20.*vgg13_bn.*mlp"):
        build_teacher("resnet21")
    with pytest.raises(ValueError, match=r"'resnet20' does not take depth; it takes: classes, channels, width"):
        build_teacher("resnet20", depth=3)
