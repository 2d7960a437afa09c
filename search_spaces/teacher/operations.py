"""How channels travel through each operation: the one table of what is understood.

`classify` turns an exported operation into a rule's name and the integers that the rule needs. The rules:

    conv, linear                weights with an input and an output width      detail: groups
    batch_norm, vector          one number per channel on axis 1
    group_norm                  the same, in `detail[0]` equal blocks
    layer_norm                  normalises the last `detail[0]` axes
    same                        elementwise, one tensor: shape and channels stay
    pool                        channels stay, spatial sizes may change
    binary                      elementwise on two tensors: their channels are tied
    flatten                     axes from `detail[0]` on are merged into one
    mean                        averages over the axes detail[1:]; detail[0] says whether they stay
    permute                     axes in the order `detail`
    opaque                      not understood
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import fx

SAME = frozenset(
    [
        "relu",
        "relu6",
        "hardtanh",
        "hardswish",
        "hardsigmoid",
        "gelu",
        "silu",
        "mish",
        "elu",
        "selu",
        "celu",
        "leaky_relu",
        "sigmoid",
        "tanh",
        "softplus",
        "softsign",
        "log_sigmoid",
        "hardshrink",
        "softshrink",
        "tanhshrink",
        "threshold",
        "rrelu",
        "dropout",
        "feature_dropout",
        "alpha_dropout",
        "feature_alpha_dropout",
        "native_dropout",
        "clone",
        "contiguous",
        "detach",
        "alias",
        "to",
        "_to_copy",
        "neg",
        "abs",
        "square",
        "sqrt",
        "exp",
    ]
)
POOL = frozenset(
    [
        "max_pool1d",
        "max_pool2d",
        "max_pool3d",
        "avg_pool1d",
        "avg_pool2d",
        "avg_pool3d",
        "adaptive_avg_pool1d",
        "adaptive_avg_pool2d",
        "adaptive_avg_pool3d",
        "adaptive_max_pool1d",
        "adaptive_max_pool2d",
        "upsample_nearest1d",
        "upsample_nearest2d",
        "upsample_bilinear2d",
    ]
)
BINARY = frozenset(["add", "sub", "mul", "div", "maximum", "minimum"])
CONV = frozenset(["conv1d", "conv2d", "conv3d"])
ZERO_TO_ZERO = frozenset(
    [
        "relu",
        "relu6",
        "gelu",
        "silu",
        "mish",
        "elu",
        "selu",
        "celu",
        "leaky_relu",
        "tanh",
        "hardtanh",
        "hardswish",
        "dropout",
        "feature_dropout",
        "alpha_dropout",
        "clone",
        "contiguous",
        "detach",
        "alias",
        "to",
        "_to_copy",
        "neg",
        "abs",
        "square",
        "sqrt",
    ]
)
"""Operations that map zero to zero, so that a branch may be emptied in front of them."""


def base_name(target: str) -> str:
    """`relu_.default` → `relu`."""
    return target.removeprefix("aten.").split(".")[0].rstrip("_")


def classify(
    node: fx.Node, shape: tuple[int, ...], *, tensor_inputs: int, parameters: int
) -> tuple[str, tuple[int, ...]]:
    """The rule of an exported operation and its integers; ("opaque", ()) where there is none."""
    name = base_name(str(node.target))
    source = node.args[0] if node.args and isinstance(node.args[0], fx.Node) else None
    value = source.meta.get("val") if source is not None else None
    if not isinstance(value, torch.Tensor) or not shape:
        return "opaque", ()
    before = tuple(int(size) for size in value.shape)
    if tensor_inputs == 2 and name in BINARY and parameters == 0:
        return "binary", ()
    if tensor_inputs != 1:
        return "opaque", ()
    return _one_tensor(node, name, before, shape, parameters)


def _one_tensor(
    node: fx.Node, name: str, before: tuple[int, ...], shape: tuple[int, ...], parameters: int
) -> tuple[str, tuple[int, ...]]:
    if name == "layer_norm":
        return "layer_norm", (len(_ints(_argument(node, 1, "normalized_shape"))),)
    if name == "group_norm":
        return "group_norm", (_int(_argument(node, 1, "num_groups")),)
    if name in {"batch_norm", "instance_norm"}:
        return "batch_norm", ()
    if parameters:
        return _weighted(node, name, before)
    if name in SAME or (name in BINARY and all(isinstance(a, int | float) for a in node.args[1:])):
        return "same", ()
    if name in POOL and len(shape) == len(before):
        return "pool", ()
    return _reshaped(node, name, before, shape)


def _weighted(node: fx.Node, name: str, before: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """Operations with weights of a module; others with parameters stay opaque."""
    if name in CONV:
        groups = _argument(node, 6, "groups")
        return "conv", (_int(groups) if groups is not None else 1,)
    if name == "linear":
        return "linear", (1,)
    if name == "prelu":
        weight = node.args[1]
        single = isinstance(weight, fx.Node) and weight.meta["val"].numel() == 1
        return ("same", ()) if single or len(before) < 2 else ("vector", ())
    return "opaque", ()


def _reshaped(node: fx.Node, name: str, before: tuple[int, ...], shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    rank = len(before)
    if name == "flatten":
        start = _int(_argument(node, 1, "start_dim") or 0) % rank
        end = _int(_argument(node, 2, "end_dim") if _argument(node, 2, "end_dim") is not None else -1) % rank
        return ("flatten", (start,)) if end == rank - 1 and start >= 1 else ("opaque", ())
    if name in {"view", "reshape"}:
        # Only a size that is left to the tensor (-1) survives a change of width.
        wished = _ints(_argument(node, 1, "size") or _argument(node, 1, "shape"))
        merges = len(shape) >= 2 and shape[:-1] == before[: len(shape) - 1] and wished[-1] == -1
        fixed_channels = len(shape) > 2
        return ("flatten", (len(shape) - 1,)) if merges and not fixed_channels else ("opaque", ())
    if name == "mean" and _argument(node, 1, "dim") is not None:
        axes = sorted(axis % rank for axis in _ints(_argument(node, 1, "dim")))
        return "mean", (int(len(shape) == rank), *axes)
    if name == "permute":
        return "permute", tuple(axis % rank for axis in _ints(_argument(node, 1, "dims")))
    if name == "transpose":
        first, second = (_int(_argument(node, i, "")) % rank for i in (1, 2))
        order = list(range(rank))
        order[first], order[second] = order[second], order[first]
        return "permute", tuple(order)
    return "opaque", ()


def _argument(node: fx.Node, position: int, name: str) -> object:
    if len(node.args) > position:
        return node.args[position]
    return node.kwargs.get(name)


def _int(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError(f"expected a whole number in an exported operation, found {value!r}")
    return value


def _ints(value: object) -> tuple[int, ...]:
    if isinstance(value, int):
        return (value,)
    if isinstance(value, Sequence):
        return tuple(_int(item) for item in value)
    raise TypeError(f"expected whole numbers in an exported operation, found {value!r}")
