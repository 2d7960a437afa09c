"""Operations as code: `x + y`, `x.flatten(1)`, `torch.cat((x, y), 1)`, and `torch.ops.aten...` where nothing is nicer.

`CALLS` holds the operations that need a form of their own. The others follow one rule: PyTorch makes the methods of
`torch.Tensor` and the functions of `torch` from the same declarations as its operators, with the same arguments, so an
operator that has such a namesake is written as a call of it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from n2n.search.export.graph import Op, Ref, State, leaves

Write = Callable[[Any], str]
"""Writes an argument: a ref as its variable, a state as its attribute, other values as Python writes them."""


def call(op: Op, write: Write) -> str:
    """The expression of one operation."""
    if not isinstance(op.target, torch._ops.OpOverload):
        return _python(op, write)
    name = op.target.overloadpacket.__name__
    own = CALLS.get(name) if op.target.namespace == "aten" else None
    text = own(op, write) if own else None
    if text is not None:
        return text
    args, kwargs = _declared(op)
    if op.target.namespace == "aten" and not name.startswith("_") and name not in OVERRIDDEN:
        tensor = bool(args) and isinstance(args[0], Ref | State) and op.target._schema.arguments[0].name == "self"
        if tensor and name in SPREAD and len(args) == 2 and isinstance(args[1], list | tuple) and not kwargs:
            return f"{operand(args[0], write)}.{name}({arguments(tuple(args[1]), {}, write)})"
        if tensor and hasattr(Tensor, name):
            return f"{operand(args[0], write)}.{name}({arguments(args[1:], kwargs, write)})"
        if hasattr(torch, name):
            return f"torch.{name}({arguments(args, kwargs, write)})"
    kwargs = dict(op.kwargs)
    target = f"torch.ops.{op.target.namespace}.{name}.{op.target._overloadname}"
    return f"{target}({arguments(op.args, kwargs, write)})"


OVERRIDDEN = {
    "norm",
    "split",
    "split_with_sizes",
    "stft",
    "istft",
    "unique",
    "einsum",
    "meshgrid",
    "cdist",
    "lstm",
    "gru",
    "rnn_tanh",
    "rnn_relu",
    "lift_fresh_copy",
}
"""Operators whose namesake in `torch` is a Python function with other arguments."""


SPREAD = {"view", "reshape", "expand", "permute", "repeat"}
"""Methods that take a shape number by number."""


def operand(value: Any, write: Write) -> str:
    """An argument that stands before a dot or beside an operator: negative numbers in brackets."""
    text = write(value)
    return f"({text})" if text.startswith("-") else text


def arguments(args: tuple[Any, ...], kwargs: Mapping[str, Any], write: Write) -> str:
    """Arguments as they stand in the brackets of a call."""
    return ", ".join([*(write(one) for one in args), *(f"{name}={write(one)}" for name, one in kwargs.items())])


def _declared(op: Op) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments without keywords that only say where a tensor lies in memory."""
    dropped = {"layout", "pin_memory", "memory_format"}
    kept = {
        name: value
        for name, value in op.kwargs.items()
        if not (name in dropped and value in (None, False, torch.strided, torch.preserve_format))
        and not (name == "device" and value is None)
    }
    return op.args, kept


def _python(op: Op, write: Write) -> str:
    """A function of Python itself: arithmetic on sizes, entries of tuples."""
    if op.target is torch.set_grad_enabled:
        return f"torch.set_grad_enabled({write(op.args[0])})"
    if op.target is operator.getitem:
        return f"{write(op.args[0])}[{op.args[1]}]"
    sign = SIGNS.get(op.target)
    if sign and len(op.args) == 2:
        return f"{operand(op.args[0], write)} {sign} {operand(op.args[1], write)}"
    name = getattr(op.target, "__name__", str(op.target))
    module = getattr(op.target, "__module__", "") or ""
    place = {"_operator": "operator", "math": "math", "builtins": ""}.get(module, "torch")
    return f"{place}{'.' if place else ''}{name}({arguments(op.args, op.kwargs, write)})"


SIGNS: dict[Any, str] = {
    operator.add: "+",
    operator.sub: "-",
    operator.mul: "*",
    operator.truediv: "/",
    operator.floordiv: "//",
    operator.mod: "%",
    operator.pow: "**",
    operator.eq: "==",
    operator.ne: "!=",
    operator.lt: "<",
    operator.le: "<=",
    operator.gt: ">",
    operator.ge: ">=",
}


def _infix(sign: str) -> Callable[[Op, Write], str | None]:
    def form(op: Op, write: Write) -> str | None:
        if len(op.args) != 2 or op.kwargs:
            return None  # alpha= or rounding_mode=
        return f"{operand(op.args[0], write)} {sign} {operand(op.args[1], write)}"

    return form


def _functional(name: str) -> Callable[[Op, Write], str]:
    """A call of the function of `torch.nn.functional` that takes the same arguments."""
    return lambda op, write: f"F.{name}({arguments(op.args, op.kwargs, write)})"


def _interpolate(mode: str) -> Callable[[Op, Write], str | None]:
    def form(op: Op, write: Write) -> str | None:
        if getattr(op.target, "_overloadname", "") != "vec":
            return None
        x, size, *corners, scale = op.args
        named = {"size": size, "scale_factor": scale, "mode": mode}
        named |= {"align_corners": corners[0]} if corners else {}
        return f"F.interpolate({arguments((x,), {k: v for k, v in named.items() if v is not None}, write)})"

    return form


def _batch_norm(op: Op, write: Write) -> str:
    x, weight, bias, mean, var, training, momentum, eps, *_ = op.args
    named = {"weight": weight, "bias": bias, "training": training, "momentum": momentum, "eps": eps}
    return f"F.batch_norm({arguments((x, mean, var), named, write)})"


def _embedding(op: Op, write: Write) -> str | None:
    weight, ids, *rest = op.args
    return f"F.embedding({write(ids)}, {write(weight)})" if not rest or rest == [-1] else None


def _index(op: Op, write: Write) -> str | None:
    x, indices = op.args
    inside = ", ".join(":" if one is None else write(one) for one in indices)
    return f"{operand(x, write)}[{inside}]"


def _slice(op: Op, write: Write) -> str | None:
    x = op.args[0]
    dim, start, end, step = (op.args[i] if i < len(op.args) else None for i in range(1, 5))
    dim = dim or 0
    if dim < 0:
        return None
    end = None if isinstance(end, int) and end >= 2**62 else end
    span = f"{'' if start in (None, 0) else write(start)}:{'' if end is None else write(end)}"
    span += "" if step in (None, 1) else f":{write(step)}"
    return f"{operand(x, write)}[{':, ' * dim}{span}]"


def _select(op: Op, write: Write) -> str | None:
    x, dim, index = op.args
    return f"{operand(x, write)}[{':, ' * dim}{write(index)}]" if dim >= 0 else None


def _split(op: Op, write: Write) -> str:
    sizes = op.args[1]
    return f"{operand(op.args[0], write)}.split({arguments((sizes, *op.args[2:]), op.kwargs, write)})"


def _sym_size(op: Op, write: Write) -> str:
    return f"{operand(op.args[0], write)}.shape[{op.args[1]}]"


def _copy(op: Op, write: Write) -> str:
    return f"{operand(op.args[0], write)}.clone()"


def _concatenated(op: Op, write: Write) -> str:
    return f"torch.cat({arguments((tuple(op.args[0]), *op.args[1:]), op.kwargs, write)})"


def _reversed_sub(op: Op, write: Write) -> str | None:
    x, y = op.args[:2]
    return None if op.kwargs or len(op.args) > 2 else f"{operand(y, write)} - {operand(x, write)}"


def _einsum(op: Op, write: Write) -> str:
    return f"torch.einsum({write(op.args[0])}, {', '.join(write(one) for one in op.args[1])})"


SAME_IN_FUNCTIONAL = (
    "gelu",
    "silu",
    "elu",
    "hardtanh",
    "hardswish",
    "hardsigmoid",
    "leaky_relu",
    "softplus",
    "linear",
    "pad",
    "dropout",
    "scaled_dot_product_attention",
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "one_hot",
    "pixel_shuffle",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
)
"""Operators that `torch.nn.functional` has under the same name, with the same arguments in the same order."""

CALLS: dict[str, Callable[[Op, Write], str | None]] = {
    **{name: _functional(name) for name in SAME_IN_FUNCTIONAL},
    "add": _infix("+"),
    "sub": _infix("-"),
    "mul": _infix("*"),
    "div": _infix("/"),
    "matmul": _infix("@"),
    "pow": _infix("**"),
    "eq": _infix("=="),
    "ne": _infix("!="),
    "lt": _infix("<"),
    "le": _infix("<="),
    "gt": _infix(">"),
    "ge": _infix(">="),
    "rsub": _reversed_sub,
    "neg": lambda op, write: f"-{operand(op.args[0], write)}",
    "cat": _concatenated,
    "einsum": _einsum,
    "relu": lambda op, write: f"torch.relu({write(op.args[0])})",
    "sigmoid": lambda op, write: f"torch.sigmoid({write(op.args[0])})",
    "tanh": lambda op, write: f"torch.tanh({write(op.args[0])})",
    "batch_norm": _batch_norm,
    "layer_norm": lambda op, write: f"F.layer_norm({arguments(op.args[:5], {}, write)})",
    "group_norm": lambda op, write: f"F.group_norm({arguments(op.args[:5], {}, write)})",
    "upsample_nearest2d": _interpolate("nearest"),
    "upsample_bilinear2d": _interpolate("bilinear"),
    "embedding": _embedding,
    "index": _index,
    "slice": _slice,
    "select": _select,
    "split": _split,
    "split_with_sizes": _split,
    "sym_size": _sym_size,
    "lift_fresh_copy": _copy,
}


def devices(op: Op) -> bool:
    """Whether the operation names a device, which the code takes from its first input instead."""
    return any(isinstance(leaf, torch.device) for leaf in leaves(op))
