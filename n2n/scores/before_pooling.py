"""What a network makes of images before its global pooling, and the classifier behind it, found on any network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from n2n.networks.stages import Stage, StageError, last_stage, reading
from n2n.networks.untouched import untouched
from n2n.scores.base import ScoreError

Classifier = nn.Linear | _ConvNd


def classifier_of(network: nn.Module, images: Tensor, name: str) -> Classifier:
    """The layer that gives the logits: the last linear layer or convolution to run that has an output for each.

    Args:
        network: handed back as it was.
        images: [B, C, H, W], one is enough.
        name: of the score, for errors.

    Raises:
        ScoreError: there is none.
    """
    ran: list[Classifier] = []
    with untouched(network, parameters=False), torch.no_grad():
        for module in network.eval().modules():
            if isinstance(module, nn.Linear | _ConvNd):
                module.register_forward_hook(lambda layer, inputs, output: ran.append(layer))
        logits = network(images)
    for layer in reversed(ran):
        if logits.shape[1:] == layer.weight.shape[:1]:
            return layer
    raise ScoreError(
        f"{name}: expected a last linear layer or convolution with an output for each logit, found none for outputs of"
        f" shape {list(logits.shape)} among {len(ran)} layers that ran; take another score"
    )


@contextmanager
def before_pooling(network: nn.Module, images: Tensor, name: str) -> Iterator[Callable[[], Tensor]]:
    """Reads the features [B, C H W] that the network has before global pooling, in every pass that runs inside.

    They are the maps of the last module that gives several places (see `last_stage`). A network without maps (an MLP),
    or with maps whose channels cannot be told, has what its classifier takes instead.

    Args:
        network: gets a hook, which is gone afterwards.
        images: [B, C, H, W], one is enough; they tell where the features are.
        name: of the score, for errors.

    Yields:
        what hands out the features of the last pass.

    Raises:
        ScoreError: there are neither maps nor a classifier.
    """
    try:
        stage: Stage | None = last_stage(network, images)
    except StageError:
        stage = None
    if stage is not None:
        with reading(network, stage) as reader:
            yield lambda: reader.take().flatten(1)
        return
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        kept[:] = [inputs[0]]

    handle = classifier_of(network, images, name).register_forward_pre_hook(keep)
    try:
        yield lambda: kept[0].flatten(1)
    finally:
        handle.remove()
