"""Borrowing a network: whatever happens in between, it is handed back as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def untouched(network: nn.Module, *, parameters: bool = True) -> Iterator[nn.Module]:
    """Lend `network` for a while; afterwards, also after an error, it is as before.

    Restored: the mode of every module, children, parameters, buffers, gradients, `requires_grad`, hooks, and the values
    and places of all tensors. `parameters=False` saves the copy of the parameters' values where nobody edits them in
    place, as for forward and backward passes. Plain attributes that a module writes in its forward are not restored.
    """
    modules = list(network.modules())
    tables = [(module, name, table, dict(table)) for module in modules for name, table in _tables(module)]
    modes = [(module, module.training) for module in modules]
    weights = [(weight, weight.data, weight.requires_grad, weight.grad) for weight in network.parameters()]
    values = [(weight.data, weight.detach().clone()) for weight in network.parameters()] if parameters else []
    # Gradients and buffers are always copied: a pass writes them.
    others = [(grad, grad.data) for *_, grad in weights if grad is not None]
    others += [(buffer, buffer.data) for buffer in network.buffers()]
    values += [(data, data.clone()) for _, data in others]
    try:
        yield network
    finally:
        for module, name, table, content in tables:
            # The same dict object comes back, because the handles of hooks refer to it.
            vars(module)[name] = table
            table.clear()
            table.update(content)
        for module, mode in modes:
            module.training = mode
        for tensor, data in others:
            tensor.data = data
        for weight, data, requires_grad, grad in weights:
            weight.grad = None  # one of another dtype would stand in the way of the data
            weight.data = data
            weight.requires_grad_(requires_grad)
            weight.grad = grad
        _write_back(values)


def _tables(module: nn.Module) -> list[tuple[str, dict[Any, Any]]]:
    """The dicts of a module that hold its children, parameters, buffers and hooks, with their names."""
    names = ("_modules", "_parameters", "_buffers")
    return [
        (name, value)
        for name, value in vars(module).items()
        if isinstance(value, dict) and (name in names or "_hooks" in name)
    ]


def _write_back(values: list[tuple[Tensor, Tensor]]) -> None:
    with torch.no_grad():
        for tensor, saved in values:
            tensor.copy_(saved)
