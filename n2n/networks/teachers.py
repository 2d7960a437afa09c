"""The built-in teachers by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from n2n.networks.cifar_resnet import resnet18, resnet20, resnet32, resnet34, resnet56, resnet110
from n2n.networks.mlp import mlp
from n2n.networks.vgg import vgg11_bn, vgg13_bn, vgg16_bn, vgg19_bn

TEACHERS: dict[str, Callable[..., nn.Module]] = {
    "resnet20": resnet20,
    "resnet32": resnet32,
    "resnet56": resnet56,
    "resnet110": resnet110,
    "resnet18": resnet18,
    "resnet34": resnet34,
    "vgg11_bn": vgg11_bn,
    "vgg13_bn": vgg13_bn,
    "vgg16_bn": vgg16_bn,
    "vgg19_bn": vgg19_bn,
    "mlp": mlp,
}


def build_teacher(name: str, *, seed: int | None = None, **kwargs: Any) -> nn.Module:
    """The untrained network of a name of `TEACHERS`, on the CPU and in train mode.

    With a `seed` its weights are always the same, and torch's global generator is left where it was.

    Raises:
        ValueError: unknown name or keyword; the message lists the valid ones.
    """
    if name not in TEACHERS:
        raise ValueError(f"unknown teacher {name!r}; the built-in teachers are: {', '.join(TEACHERS)}")
    builder = TEACHERS[name]
    known = inspect.signature(builder).parameters
    unknown = sorted(set(kwargs) - set(known))
    if unknown:
        raise ValueError(f"teacher {name!r} does not take {', '.join(unknown)}; it takes: {', '.join(known)}")
    if seed is None:
        return builder(**kwargs)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return builder(**kwargs)
