"""What a network is made of and how it may change."""

from collections.abc import Callable

from search_spaces.cifar_resnet import cifar_resnet
from search_spaces.cifar_resnet_width import cifar_resnet_width
from search_spaces.layer_removal import layer_removal
from search_spaces.layer_shrinkage import layer_shrinkage
from search_spaces.nas_bench_201 import nas_bench_201
from search_spaces.published import PublishedSpace
from search_spaces.super_residual import super_residual
from search_spaces.teacher.inherit import weight_gradients
from search_spaces.vit import vit

PUBLISHED: dict[str, Callable[..., PublishedSpace]] = {
    "cifar_resnet": cifar_resnet,
    "cifar_resnet_width": cifar_resnet_width,
    "nas_bench_201": nas_bench_201,
    "super_residual": super_residual,
    "vit": vit,
}
"""The published spaces: `PUBLISHED[name](classes=..., channels=..., image_size=...)`."""

__all__ = [
    "PUBLISHED",
    "cifar_resnet",
    "cifar_resnet_width",
    "layer_removal",
    "layer_shrinkage",
    "nas_bench_201",
    "super_residual",
    "vit",
    "weight_gradients",
]
