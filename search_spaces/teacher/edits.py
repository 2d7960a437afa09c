"""Edits on a copy of the teacher: removed layers, emptied branches, narrower layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from search_spaces.base import SpaceError
from search_spaces.teacher.analysis import Layer
from search_spaces.teacher.outlines import Outline


class Removed(nn.Module):
    """What stands where a layer was: the identity.

    `copies` is set where the user's code would otherwise overwrite the tensor in place while others still need it;
    `outline` where a composite module stood, whose output had a structure of its own.
    """

    def __init__(self, *, copies: bool = False, outline: Outline | None = None) -> None:
        super().__init__()
        self.copies, self._outline = copies, outline

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """The first tensor that comes in, or a copy of it; what else the layer was told has no meaning."""
        x = _first(inputs, named)
        x = x.clone() if self.copies else x
        return self._outline.around(x) if self._outline else x

    def extra_repr(self) -> str:
        return "copies=True" if self.copies else ""


class Emptied(nn.Module):
    """What stands for an emptied branch: zeros [B, channels, ...] in the shape that the branch gave."""

    def __init__(self, *, channels: int, axis: int, stride: int, outline: Outline | None = None) -> None:
        super().__init__()
        self.channels, self.axis, self.stride, self._outline = channels, axis, stride, outline

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Zeros of the branch's output shape."""
        x = _first(inputs, named)
        shape = [size if i < 2 or i == self.axis else -(-size // self.stride) for i, size in enumerate(x.shape)]
        shape[self.axis] = self.channels
        zeros = x.new_zeros(shape)
        return self._outline.around(zeros) if self._outline else zeros

    def extra_repr(self) -> str:
        return f"channels={self.channels}, stride={self.stride}"


def _first(inputs: tuple[Any, ...], named: dict[str, Any]) -> torch.Tensor:
    return next(value for value in (*inputs, *named.values()) if isinstance(value, torch.Tensor))


def replace(network: nn.Module, name: str, module: nn.Module) -> None:
    """Put `module` where `name` is, in all places where it is registered.

    The user's code may read what a layer says of itself (`conv.out_channels`): the plain attributes stay readable.
    """
    replaced = network.get_submodule(name)
    for attribute, value in vars(replaced).items():
        if (
            isinstance(value, bool | int | float | str | tuple)
            and attribute[0] != "_"
            and not hasattr(module, attribute)
        ):
            setattr(module, attribute, value)
    if isinstance(replaced, nn.MultiheadAttention):
        # An encoder layer around it must not look for its weights to hand them to a fused kernel.
        _set(module, batch_first=False)
    for parent in network.modules():
        for child, registered in list(parent.named_children()):
            if registered is replaced:
                setattr(parent, child, module)


def parameter(values: torch.Tensor) -> nn.Parameter:
    """A trainable parameter that shares memory with nothing."""
    return nn.Parameter(values.detach().clone())


def narrow_conv(
    module: nn.Module,
    layer: Layer,
    keep_in: torch.Tensor,
    keep_out: torch.Tensor,
    fold: torch.Tensor | None,
) -> None:
    """Keep some input and output entries of a conv; `fold` [in of the teacher, in before slicing] is applied first."""
    weight: torch.Tensor = _tensor(module, "weight")
    if layer.kind == "depthwise_conv":
        # One filter for each entry; where the channels are not the teacher's any more, the mean filter.
        mean = weight.mean(dim=0, keepdim=True).expand(len(keep_out), *weight.shape[1:])
        weight = mean if fold is not None else weight[keep_out]
        _set(module, groups=len(keep_in))
    elif layer.groups > 1:
        weight = _grouped_rows(weight, layer.groups, keep_in, keep_out)
    else:
        weight = weight if fold is None else torch.einsum("oi...,ij->oj...", weight, fold)
        weight = weight[keep_out][:, keep_in]
    _set(module, weight=parameter(weight), in_channels=len(keep_in), out_channels=len(keep_out))
    _narrow_vector(module, "bias", keep_out, layer.kind == "depthwise_conv" and fold is not None)


def _grouped_rows(weight: torch.Tensor, groups: int, keep_in: torch.Tensor, keep_out: torch.Tensor) -> torch.Tensor:
    """Rows and columns of a grouped conv's weight [out, in / groups, ...]; each group keeps equally many.

    For a transposed conv's [in, out / groups, ...] the two change places.
    """
    columns = keep_in.reshape(groups, -1) % weight.shape[1]  # [groups, kept]
    rows = keep_out.reshape(groups, -1)
    return torch.cat([weight[rows[g]][:, columns[g]] for g in range(groups)])


def narrow_linear(module: nn.Module, keep_in: torch.Tensor, keep_out: torch.Tensor, fold: torch.Tensor | None) -> None:
    """Keep some inputs and outputs of a linear layer; `fold` as in `narrow_conv`."""
    weight = _tensor(module, "weight")
    weight = weight if fold is None else weight @ fold
    weight = weight[keep_out][:, keep_in]
    _set(module, weight=parameter(weight), in_features=len(keep_in), out_features=len(keep_out))
    _narrow_vector(module, "bias", keep_out, False)


def narrow_conv_transpose(
    module: nn.Module, layer: Layer, keep_in: torch.Tensor, keep_out: torch.Tensor, fold: torch.Tensor | None
) -> None:
    """As `narrow_conv`, for weights [in, out / groups, ...]."""
    weight = _tensor(module, "weight")
    if layer.kind == "depthwise_conv":
        mean = weight.mean(dim=0, keepdim=True).expand(len(keep_out), *weight.shape[1:])
        weight = mean if fold is not None else weight[keep_out]
        _set(module, groups=len(keep_in))
    elif layer.groups > 1:
        weight = _grouped_rows(weight, layer.groups, keep_out, keep_in)
    else:
        weight = weight if fold is None else torch.einsum("io...,ij->jo...", weight, fold)
        weight = weight[keep_in][:, keep_out]
    _set(module, weight=parameter(weight), in_channels=len(keep_in), out_channels=len(keep_out))
    _narrow_vector(module, "bias", keep_out, layer.kind == "depthwise_conv" and fold is not None)


def narrow_embedding(module: nn.Module, keep: torch.Tensor) -> None:
    """Keep some entries of each vector of an embedding."""
    _set(module, weight=parameter(_tensor(module, "weight")[:, keep]), embedding_dim=len(keep))


def narrow_scale(module: nn.Module, keep: torch.Tensor, *, displaced: bool) -> None:
    """Keep some channels of a norm or of per-channel slopes.

    `displaced` says that the channels are not the teacher's any more: all get the mean scale and shift, and fresh
    running statistics.
    """
    for name in ("weight", "bias"):
        _narrow_vector(module, name, keep, displaced)
    for name, fresh in (("running_mean", 0.0), ("running_var", 1.0)):
        values = getattr(module, name, None)
        if isinstance(values, torch.Tensor):
            kept = torch.full_like(values[:1], fresh).expand(len(keep)) if displaced else values[keep]
            setattr(module, name, kept.detach().clone())
    for name in ("num_features", "num_channels", "num_parameters"):
        if isinstance(getattr(module, name, None), int):
            setattr(module, name, len(keep))
    shape = getattr(module, "normalized_shape", None)
    if isinstance(shape, tuple):
        # The channels lie on the first normalised axis (images) or on the only one (features).
        _set(module, normalized_shape=(len(keep), *shape[1:]))


def shrink_kernel(module: nn.Module, layer: Layer, kernel: int) -> None:
    """Keep the middle of a square kernel and pad less, so that positions stay."""
    if not isinstance(module, nn.Conv2d):
        raise SpaceError(f"kernel of {layer.name}: expected a Conv2d, found {type(module).__name__}")
    cut = (layer.kernel - kernel) // 2
    middle = slice(cut, layer.kernel - cut)
    padding = (layer.dilation * (kernel // 2),) * 2
    weight = parameter(module.weight[:, :, middle, middle])
    _set(module, weight=weight, kernel_size=(kernel, kernel), padding=padding)


def start_afresh(network: nn.Module, seed: int) -> None:
    """Give every layer its own initialisation again, from `seed`; the global generator is left alone.

    Raises:
        SpaceError: a module with parameters does not know how to initialise them.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, module in network.named_modules():
            reset: Callable[[], None] | None = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
            elif any(True for _ in module.parameters(recurse=False)):
                raise SpaceError(
                    f"inherit=False: {name or 'the network'} ({type(module).__name__}) holds parameters but has no "
                    "reset_parameters(); give it one, or inherit"
                )


def _set(module: nn.Module, **attributes: object) -> None:
    """Set attributes that a module keeps about its own weights."""
    for name, value in attributes.items():
        setattr(module, name, value)


def _narrow_vector(module: nn.Module, name: str, keep: torch.Tensor, displaced: bool) -> None:
    values = getattr(module, name, None)
    if isinstance(values, nn.Parameter):
        kept = values.mean(dim=0, keepdim=True).expand(len(keep), *values.shape[1:]) if displaced else values[keep]
        setattr(module, name, parameter(kept))


def _tensor(module: nn.Module, name: str) -> torch.Tensor:
    value = getattr(module, name)
    if not isinstance(value, torch.Tensor):
        raise SpaceError(f"{type(module).__name__}.{name}: expected a tensor, found {type(value).__name__}")
    return value.detach()
