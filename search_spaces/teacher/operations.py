"""How channels travel through each operation: the one table of what is understood.

`classify` turns an exported operation into a rule's name and the integers that the rule needs. The rules, which
`rules.py` follows:

    conv, conv_transpose        weights with an input and an output width      detail: groups
    linear, embedding           the same, on the last axis
    batch_norm, vector          one number per channel on axis 1
    group_norm                  the same, in `detail[0]` equal blocks
    layer_norm                  normalises the last `detail[0]` axes
    same                        elementwise, one tensor: shape and channels stay
    pool                        channels stay, spatial sizes may change
    binary                      elementwise on two tensors: their channels are tied; detail: the shape of the second
                                where it is a parameter
    cat                         joins tensors along axis `detail[0]`
    split                       parts of the sizes detail[1:] along axis `detail[0]`, which "item" nodes take
    item                        part `detail[0]` of a split
    slice                       the entries detail[1] to detail[2] of axis `detail[0]`
    view                        other axes, same order: flatten, view, reshape, squeeze; detail: the axis whose size is
                                left to the tensor (-1: none is), and whether that holds whatever the widths
    expand                      axes of size 1 repeated
    reduce                      averages, sums, ... over the axes detail[1:]; detail[0] says whether they stay
    softmax                     normalises axis `detail[0]`
    permute                     axes in the order `detail`
    select                      one entry of axis `detail[0]`, which is then gone
    pad                         axes `detail` grow, are rolled, or keep every n-th entry
    matmul                      matrix product over the last axes
    attention                   scaled dot products; detail[0]: whether its scale is given
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
        "rsqrt",
        "exp",
        "log",
        "reciprocal",
        "clamp",
        "clamp_min",
        "clamp_max",
        "erf",
        "pow",
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
        "adaptive_max_pool3d",
        "upsample_nearest1d",
        "upsample_nearest2d",
        "upsample_nearest3d",
        "upsample_linear1d",
        "upsample_bilinear2d",
        "upsample_bicubic2d",
        "upsample_trilinear3d",
        "lp_pool2d",
    ]
)
BINARY = frozenset(["add", "sub", "mul", "div", "maximum", "minimum"])
CONV = frozenset(["conv1d", "conv2d", "conv3d"])
CONV_TRANSPOSE = frozenset(["conv_transpose1d", "conv_transpose2d", "conv_transpose3d"])
REDUCE = frozenset(["mean", "sum", "amax", "amin", "var", "std"])
SPLIT = frozenset(["split", "chunk", "split_with_sizes", "tensor_split"])
WEIGHTS = frozenset(["conv", "conv_transpose", "linear", "embedding"])
"""Rules of layers whose weights have an input and an output width."""
LAYERED = WEIGHTS | {"batch_norm", "vector", "group_norm", "layer_norm"}
"""Rules of layers whose weights or scales follow their channels."""
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
    """The rule of an exported operation and its integers; ("opaque", ()) where there is none.

    Args:
        node: the operation.
        shape: of its output; empty where that is not one tensor.
        tensor_inputs: how many different tensors it takes that are neither parameters nor buffers.
        parameters: from how many modules it takes parameters or buffers.
    """
    name = base_name(str(node.target))
    if "getitem" in name:
        return _item(node)
    if name in SPLIT or name == "cat":
        return _joined(node, name)
    if not shape:
        return "opaque", ()
    if name == "embedding":
        own = parameters == 1 and str(node.args[0]).endswith("_weight")
        return ("embedding", (1,)) if own else ("opaque", ())
    if name in BINARY and tensor_inputs + bool(parameters) == 2:
        others = [_shape_of(a) for a in node.args[:2] if isinstance(a, fx.Node) and a.op == "placeholder"]
        return "binary", others[0] if parameters else ()
    if name in {"matmul", "bmm"}:
        return "matmul", ()
    if name == "scaled_dot_product_attention":
        return "attention", (int(node.kwargs.get("scale") is not None),)
    if name == "expand_as":
        return "expand", ()
    before = _shape_of(node.args[0] if node.args else None)
    if tensor_inputs != 1 or not before:
        return "opaque", ()
    return _one_tensor(node, name, before, shape, parameters)


def _item(node: fx.Node) -> tuple[str, tuple[int, ...]]:
    source, index = node.args[0], node.args[1]
    known = isinstance(source, fx.Node) and base_name(str(source.target)) in SPLIT and isinstance(index, int)
    return ("item", (_int(index),)) if known else ("opaque", ())


def _joined(node: fx.Node, name: str) -> tuple[str, tuple[int, ...]]:
    axis = _argument(node, 1 if name == "cat" else 2, "dim")
    axis = 0 if axis is None else _int(axis)
    if name == "cat":
        first = node.args[0]
        shape = _shape_of(first[0] if isinstance(first, Sequence) and first else None)
        return ("cat", (axis % len(shape),)) if shape else ("opaque", ())
    shape, parts = _shape_of(node.args[0]), node.meta.get("val")
    if not shape or not isinstance(parts, list | tuple):
        return "opaque", ()
    axis %= len(shape)
    return "split", (axis, *(int(part.shape[axis]) for part in parts))


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
    if name in SAME or (name in BINARY and all(a == node.args[0] or not isinstance(a, fx.Node) for a in node.args)):
        return "same", ()
    if name in POOL and len(shape) == len(before):
        return "pool", ()
    if name in {"softmax", "log_softmax", "_softmax", "_log_softmax"}:
        return "softmax", (_int(_argument(node, 1, "dim")) % len(before),)
    if name in REDUCE and _argument(node, 1, "dim") is not None:
        axes = sorted(axis % len(before) for axis in _ints(_argument(node, 1, "dim")))
        return "reduce", (int(len(shape) == len(before)), *axes)
    return _reshaped(node, name, before, shape)


def _weighted(node: fx.Node, name: str, before: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """Operations with weights of a module; others with parameters stay opaque."""
    if not all(_is_named(node, position, kind) for position, kind in ((1, "weight"), (2, "bias"))):
        return "opaque", ()
    if name in CONV or name in CONV_TRANSPOSE:
        groups = _argument(node, 6, "groups")
        return "conv" if name in CONV else "conv_transpose", (_int(groups) if groups is not None else 1,)
    if name == "linear":
        return "linear", (1,)
    if name == "prelu":
        single = _shape_of(node.args[1]) == (1,)
        return ("same", ()) if single or len(before) < 2 else ("vector", ())
    return "opaque", ()


def _is_named(node: fx.Node, position: int, kind: str) -> bool:
    """Whether an argument is a module's own `weight` or `bias` (and not computed from one), or is not there."""
    value = _argument(node, position, kind)
    if not isinstance(value, fx.Node):
        return True
    return value.op == "placeholder" and (value.name.endswith(f"_{kind}") or value.name == f"p_{kind}")


def _reshaped(node: fx.Node, name: str, before: tuple[int, ...], shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    rank = len(before)
    if name == "flatten":
        return "view", (_int(_argument(node, 1, "start_dim") or 0) % rank, 1)
    if name in {"squeeze", "unsqueeze"}:
        return "view", (-1, 1)
    if name in {"view", "reshape", "_unsafe_view", "unflatten"}:
        sizes = _argument(node, 1, "size") or _argument(node, 1, "shape")
        inferred = _ints(sizes).index(-1) if name != "unflatten" and -1 in _ints(sizes) else -1
        return "view", (inferred, 0)
    if name == "expand":
        return "expand", ()
    if name == "permute":
        return "permute", tuple(axis % rank for axis in _ints(_argument(node, 1, "dims")))
    if name in {"transpose", "t", "numpy_T"}:
        first, second = (0, rank - 1) if name != "transpose" else (_int(_argument(node, i, "")) % rank for i in (1, 2))
        order = list(range(rank))
        order[first], order[second] = order[second], order[first]
        return ("permute", tuple(order)) if name == "transpose" or rank == 2 else ("opaque", ())
    if name == "slice":
        return _slice(node, before)
    if name == "select":
        return "select", (_int(_argument(node, 1, "dim")) % rank,)
    if name == "roll" and _argument(node, 2, "dims"):
        return "pad", tuple(axis % rank for axis in _ints(_argument(node, 2, "dims")))
    if name in {"pad", "constant_pad_nd"}:
        pairs = _ints(node.args[1])
        return "pad", tuple(rank - 1 - i // 2 for i in range(0, len(pairs), 2) if pairs[i] or pairs[i + 1])
    return "opaque", ()


def _slice(node: fx.Node, before: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    axis = _int(_argument(node, 1, "dim") or 0) % len(before)
    start, stop, step = (_argument(node, i, n) for i, n in ((2, "start"), (3, "end"), (4, "step")))
    if step not in (None, 1):
        return "pad", (axis,)
    first, last, _ = slice(None if start is None else _int(start), None if stop is None else _int(stop)).indices(
        before[axis]
    )
    return "slice", (axis, first, last)


def _shape_of(value: object) -> tuple[int, ...]:
    found = value.meta.get("val") if isinstance(value, fx.Node) else None
    return tuple(int(size) for size in found.shape) if isinstance(found, torch.Tensor) else ()


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
