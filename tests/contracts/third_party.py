"""Networks that no one here wrote, with random weights: `pytorchcv`, and classifiers of `transformers` from configs.

Nothing is downloaded. Of each family the CIFAR version or the smallest one, on the smallest input that it takes; batch
norms need two examples. Where a family has no small member, its own class is made with fewer or narrower blocks.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

Inputs = torch.Tensor | dict[str, torch.Tensor]
BATCH = 2


@dataclass(frozen=True)
class ThirdParty:
    """One network: `make` gives it and a batch; `kind` is "cnn" or "transformer"."""

    name: str
    kind: str
    make: Callable[[], tuple[nn.Module, Inputs]]

    def __str__(self) -> str:
        return self.name

    def open(self, seed: int = 0) -> tuple[nn.Module, Inputs]:
        """The network in eval mode with weights drawn from `seed`, and its batch."""
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old code of other people
            torch.manual_seed(seed)
            network, inputs = self.make()
        return network.eval(), inputs


def _pytorchcv(name: str, size: int = 224, channels: int = 3, **arguments: Any) -> ThirdParty:
    def make() -> tuple[nn.Module, Inputs]:
        from pytorchcv.model_provider import get_model

        return get_model(name, pretrained=False, **arguments), torch.randn(BATCH, channels, size, size)

    return ThirdParty(name, "cnn", make)


def _narrow_vgg() -> tuple[nn.Module, Inputs]:
    from pytorchcv.models.vgg import VGG

    widths = [[16], [32], [64, 64], [64, 64], [32, 32]]  # VGG-11 with an eighth of the channels
    return VGG(channels=widths, bias=False, use_bn=True, num_classes=10), torch.randn(BATCH, 3, 224, 224)


def _narrow_wrn() -> tuple[nn.Module, Inputs]:
    from pytorchcv.models.wrn_cifar import get_wrn_cifar

    return get_wrn_cifar(10, blocks=16, width_factor=2), torch.randn(BATCH, 3, 32, 32)


def _short_pyramidnet() -> tuple[nn.Module, Inputs]:
    from pytorchcv.models.pyramidnet_cifar import get_pyramidnet_cifar

    return get_pyramidnet_cifar(10, blocks=20, alpha=48, bottleneck=False), torch.randn(BATCH, 3, 32, 32)


def _regnet(*, use_se: bool) -> tuple[nn.Module, Inputs]:
    from pytorchcv.models.regnet import RegNet

    # `get_regnet` computes these numbers (RegNetX-200MF's) with a name that NumPy has dropped.
    channels = [[24], [56], [152] * 4, [368] * 7]
    network = RegNet(channels=channels, init_block_channels=32, groups=[3, 7, 19, 46], use_se=use_se)
    return network, torch.randn(BATCH, 3, 64, 64)


def _transformer(name: str, model: str, config: str, inputs: Callable[[], Inputs], **arguments: Any) -> ThirdParty:
    def make() -> tuple[nn.Module, Inputs]:
        import transformers

        settings = getattr(transformers, config)(num_labels=10, **arguments)
        return getattr(transformers, model)(settings), inputs()

    return ThirdParty(name, "cnn" if name in _HF_CNNS else "transformer", make)


def _pixels(size: int, channels: int = 3) -> Callable[[], Inputs]:
    return lambda: {"pixel_values": torch.randn(BATCH, channels, size, size)}


def _tokens() -> Inputs:
    return {
        "input_ids": torch.randint(1, 100, (BATCH, 12)),
        "attention_mask": torch.ones(BATCH, 12, dtype=torch.long),
    }


_HF_CNNS = frozenset({"hf-resnet", "hf-convnext", "hf-mobilenetv2", "hf-regnet"})
_VIT = {
    "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 96, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip
_TEXT = {"vocab_size": 100, "max_position_embeddings": 32}

NETWORKS: tuple[ThirdParty, ...] = (
    # CIFAR versions
    *(
        _pytorchcv(f"{name}_cifar10", 32)
        for name in (
            "resnet20", "preresnet20", "resnext20_16x4d", "seresnet20", "sepreresnet20", "densenet40_k12_bc",
            "diaresnet20", "diapreresnet20", "nin", "xdensenet40_2_k24_bc", "rir", "ror3_56",
            "shakeshakeresnet20_2x16d", "shakedropresnet20", "resdropresnet20", "fractalnet", "msdnet22",
        )
    ),
    ThirdParty("wrn16_2_cifar10", "cnn", _narrow_wrn),
    ThirdParty("pyramidnet20_a48_cifar10", "cnn", _short_pyramidnet),
    # ImageNet versions
    ThirdParty("bn_vgg11 (an eighth as wide)", "cnn", _narrow_vgg),
    *(
        _pytorchcv(name)
        for name in (
            "squeezenet_v1_1", "mobilenet_wd4", "fdmobilenet_wd4", "mobilenetv2_wd4", "mobilenetv3_small_w7d20",
            "shufflenet_g3_wd4", "shufflenetv2_wd2", "shufflenetv2b_wd2", "mnasnet_small", "igcv3_wd4",
            "menet108_8x1_g3", "sqnxt23_w1", "dla46c", "ghostnet", "efficientnet_b0", "proxylessnas_mobile",
            "fbnet_cb", "spnasnet", "mixnet_s", "hardnet39ds", "peleenet", "dicenet_wd5", "espnetv2_wd2",
            "condensenet74_c4_g4", "darknet_tiny", "resnet10", "resneta10", "preresnet10", "seresnet10",
            "resnestabc14", "octresnet10_ad2", "dpn68", "vovnet27s", "selecsls42", "hrnet_w18_small_v1", "scnet50",
            "bninception", "sknet50", "cbam_resnet18", "bam_resnet18", "diracnet18v2", "drnd22", "ibn_resnet50",
            "sharesnet18", "revnet38", "densenet121", "resattnet56", "airnet50_1x64d_r16", "senet16", "darknet53",
        )
    ),
    ThirdParty("regnetx002", "cnn", lambda: _regnet(use_se=False)),
    ThirdParty("regnety002", "cnn", lambda: _regnet(use_se=True)),
    *(_pytorchcv(name, 299) for name in ("xception", "inceptionv3", "inceptionv4")),
    # transformers
    _transformer("hf-resnet", "ResNetForImageClassification", "ResNetConfig", _pixels(64), embedding_size=16,
                 hidden_sizes=[16, 32, 64], depths=[1, 2, 1], layer_type="basic"),
    _transformer("hf-convnext", "ConvNextForImageClassification", "ConvNextConfig", _pixels(64),
                 hidden_sizes=[16, 32, 48], depths=[1, 2, 1], num_stages=3),
    _transformer("hf-mobilenetv2", "MobileNetV2ForImageClassification", "MobileNetV2Config", _pixels(64),
                 depth_multiplier=0.35, image_size=64),
    _transformer("hf-regnet", "RegNetForImageClassification", "RegNetConfig", _pixels(64), embedding_size=16,
                 hidden_sizes=[24, 48, 96], depths=[1, 2, 1], groups_width=12),
    _transformer("hf-vit", "ViTForImageClassification", "ViTConfig", _pixels(32), **_VIT),
    _transformer("hf-deit", "DeiTForImageClassification", "DeiTConfig", _pixels(32), **_VIT),
    _transformer("hf-swin", "SwinForImageClassification", "SwinConfig", _pixels(32), image_size=32, patch_size=2,
                 embed_dim=24, depths=[2, 2], num_heads=[2, 4], window_size=4),
    _transformer("hf-bert", "BertForSequenceClassification", "BertConfig", _tokens, hidden_size=48, num_hidden_layers=3,
                 num_attention_heads=4, intermediate_size=96, **_TEXT),
    _transformer("hf-distilbert", "DistilBertForSequenceClassification", "DistilBertConfig", _tokens, dim=48,
                 n_layers=3, n_heads=4, hidden_dim=96, **_TEXT),
)  # fmt: skip
"""All of them, fast ones first within a source."""
