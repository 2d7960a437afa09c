"""torch.nn modules as the line of code that makes them: `nn.Conv2d(16, 8, 3, padding=1, bias=False)`."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

_ACTIVATIONS = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid, nn.Tanh),
    *(nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Softplus, nn.Softsign, nn.LogSigmoid, nn.PReLU, nn.GLU),
    *(nn.Softmax, nn.LogSoftmax, nn.Softmax2d, nn.Threshold, nn.Hardshrink, nn.Softshrink, nn.Tanhshrink),
)
_LAYERS = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    *(nn.Linear, nn.Embedding, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm),
)
_OTHERS = (
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
    *(nn.Flatten, nn.Unflatten, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout),
    *(nn.Upsample, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle, nn.LocalResponseNorm),
    *(nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d, nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReflectionPad3d),
    *(nn.ReplicationPad1d, nn.ReplicationPad2d, nn.ReplicationPad3d),
)
MODULES: frozenset[type[nn.Module]] = frozenset((*_ACTIVATIONS, *_LAYERS, *_OTHERS))
"""The modules that are written as modules: one tensor in, one tensor out. Others are written operation by operation."""

_SKIPPED = {"self", "device", "dtype", "_weight", "_freeze", "min_value", "max_value"}
_SHAPES = {"normalized_shape", "unflattened_size"}


def constructor(module: nn.Module) -> str | None:
    """The line that makes a module like this one, or None where no such line does.

    A module of another type, with hooks, or whose weights or settings differ from what its constructor would make, has
    none.
    """
    if type(module) not in MODULES or "forward" in vars(module) or _hooked(module):
        return None
    if getattr(module, "return_indices", False):
        return None  # two tensors out
    arguments = _arguments(module)
    if arguments is None:
        return None
    positional, named, dtype = arguments
    try:
        with torch.device("meta"):
            again = type(module)(*positional, **named, **({} if dtype is None else {"dtype": dtype}))
    except (TypeError, ValueError, RuntimeError):
        return None  # its settings were edited into something that the constructor refuses
    if _looks(again) != _looks(module):
        return None
    texts = [_text(value) for value in positional] + [f"{name}={_text(value)}" for name, value in named.items()]
    texts += [] if dtype is None else [f"dtype={dtype}"]
    return f"nn.{type(module).__name__}({', '.join(texts)})"


def _arguments(module: nn.Module) -> tuple[list[Any], dict[str, Any], torch.dtype | None] | None:
    """Positional and keyword arguments, without those at their default, and a dtype where it is not float32."""
    positional: list[Any] = []
    named: dict[str, Any] = {}
    for name, parameter in inspect.signature(type(module).__init__).parameters.items():
        if name in _SKIPPED or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if not hasattr(module, name):
            return None
        value = getattr(module, name)
        if isinstance(value, Tensor) or (value is None and parameter.default is True):
            value = value is not None  # bias=
        elif name == "bias" and value is None:
            value = False
        if name == "bias" and False in (getattr(module, "elementwise_affine", True), getattr(module, "affine", True)):
            continue
        value = value if name in _SHAPES and len(value) > 1 else _short(value)
        if parameter.default is parameter.empty or name == "p":
            positional.append(value)
        elif name == "stride" and parameter.default is None and value == _short(module.kernel_size):
            continue  # a pooling's default
        elif value != _short(parameter.default):
            named[name] = value
    dtypes = {value.dtype for value in module.parameters(recurse=False)}
    return positional, named, (dtypes - {torch.float32}).pop() if dtypes - {torch.float32} else None


def _short(value: Any) -> Any:
    """(3, 3) as 3; other values as they are."""
    if (
        isinstance(value, tuple | list)
        and value
        and all(isinstance(one, int) for one in value)
        and len(set(value)) == 1
    ):
        return value[0]
    return value


def _text(value: Any) -> str:
    return repr(tuple(value)) if isinstance(value, torch.Size) else repr(value)


def _hooked(module: nn.Module) -> bool:
    return any(value for name, value in vars(module).items() if name.endswith("_hooks") and isinstance(value, dict))


def _looks(module: nn.Module) -> tuple[dict[str, Any], dict[str, Any]]:
    """Everything public that a module is: its settings, and the shapes and dtypes of its tensors."""
    settings = {
        name: _short(value)
        for name, value in vars(module).items()
        if not name.startswith("_") and name != "training" and not isinstance(value, nn.Module)
    }
    tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    return settings, {name: (tuple(value.shape), value.dtype) for name, value in tensors}
