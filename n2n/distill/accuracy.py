"""Accuracy on a split, and batch-norm statistics estimated afresh."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from n2n.data.base import Split
from n2n.data.prepare import prepare
from n2n.distill.precision import Wish, resolve


def predict(
    network: nn.Module,
    images: Tensor,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device | str = "cpu",
    precision: Wish = "auto",
    batch_size: int = 256,
) -> Tensor:
    """The logits [n, K] (float32, on the CPU) of raw images [n, C, H, W], in eval mode; the mode is restored.

    Raises:
        ValueError: the network gives something else than a tensor.
    """
    settings = resolve(precision, network, device)
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    logits: list[Tensor] = []
    try:
        with torch.no_grad(), settings.autocast():
            for chunk in torch.split(images, batch_size):
                inputs = settings.place(prepare(chunk.to(device), mean=mean, std=std))  # [B, C, H, W]
                logits.append(logits_of(network, inputs).float().cpu())  # [B, K]
    finally:
        for module, training in modes:
            module.training = training
    return torch.cat(logits)  # [n, K]


def logits_of(network: nn.Module, inputs: Tensor) -> Tensor:
    """What a network gives for prepared images [B, C, H, W].

    Raises:
        ValueError: that is no tensor.
    """
    given = network(inputs)
    if not isinstance(given, Tensor):
        raise ValueError(
            f"{type(network).__name__} gives a {type(given).__name__}, expected a tensor of logits [B, K];"
            " wrap it in a module whose forward returns the logits alone"
        )
    return given


def chance_level(split: Split) -> float:
    """The accuracy of always naming the most common class of a split."""
    return torch.bincount(split.labels).max().item() / len(split)


def at_chance(accuracy: float, split: Split) -> bool:
    """Whether an accuracy on a split is hardly above that of always naming its most common class."""
    return accuracy <= 1.2 * chance_level(split)


def accuracy(
    network: nn.Module,
    split: Split,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device | str = "cpu",
    precision: Wish = "auto",
    batch_size: int = 256,
) -> tuple[float, float]:
    """The share of right answers (0 to 1) and the mean cross-entropy (0 or more) of a network on a split.

    Raises:
        ValueError: the split is empty.
    """
    if len(split) == 0:
        raise ValueError(f"split {split.name!r} has no images, so it has no accuracy; give it at least one")
    logits = predict(
        network, split.images, mean=mean, std=std, device=device, precision=precision, batch_size=batch_size
    )
    return accuracy_of(logits, split.labels)


def accuracy_of(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """Share of right answers and mean cross-entropy of logits [n, K] for labels [n]."""
    labels = labels.cpu()
    right = (logits.argmax(dim=1) == labels).double().mean().item()
    return right, F.cross_entropy(logits, labels).item()


def agreement(logits: Tensor, teacher_logits: Tensor) -> float:
    """How near logits [n, K] are to the teacher's: `1 - |z_s - z_t|^2 / |z_t - mean_n z_t|^2`, at most 1 (equal).

    0 is what the teacher's mean logits would give. It orders students as their negative mean squared error does.
    """
    wanted = teacher_logits.to(logits).double()
    spread = (wanted - wanted.mean(dim=0)).square().sum().clamp_min(torch.finfo(torch.float64).tiny)
    return 1 - float((logits.double() - wanted).square().sum() / spread)


def reestimate_batch_norm(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replaces the running statistics of every batch norm by the plain average over prepared batches [B, C, H, W].

    Weights and modes stay as they are; a network without running statistics is left alone.
    """
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    chosen = list(batches)
    if not norms or not chosen:
        return
    modes = [(module, module.training) for module in network.modules()]
    momenta = [norm.momentum for norm in norms]
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average: every batch counts the same
        norm.train()
    try:
        with torch.no_grad():
            for batch in chosen:
                network(batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, training in modes:
            module.training = training
