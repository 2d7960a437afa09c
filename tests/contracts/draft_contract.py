"""What every student of a teacher owes: `check_draft` raises an AssertionError at the first broken promise.

Used by tests on small networks and by `scripts/benchmarks/coverage.py` on many that no one here wrote.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from search_spaces.base import Architecture, SearchSpace


@dataclass(frozen=True)
class Expected:
    """What a teacher did before any space was opened on it: the structure, shapes and dtypes of its output in eval
    and in train mode, the parameters that a gradient reaches, and a copy of all that it holds."""

    structure: pytree.TreeSpec
    leaves: tuple[str, ...]
    leaves_in_training: tuple[str, ...]
    reached: frozenset[str]
    state: Mapping[str, torch.Tensor]


def expected_of(teacher: nn.Module, inputs: Any) -> Expected:
    """Run a copy of a teacher in both modes."""
    twin = copy.deepcopy(teacher)
    structure, leaves = _run(twin.eval(), inputs)
    with torch.enable_grad():
        trained, in_training = _run(twin.train(), inputs)
        _loss(trained[1]).backward()
    reached = frozenset(name for name, value in twin.named_parameters() if value.grad is not None)
    state = {name: value.detach().clone() for name, value in teacher.state_dict().items()}
    return Expected(structure[0], leaves, in_training, reached, state)


def check_teacher(teacher: nn.Module, expected: Expected) -> None:
    """The teacher holds, bit for bit, what it held; it has no gradients and is in eval mode as before."""
    state = teacher.state_dict()
    assert state.keys() == expected.state.keys(), "the teacher's state has other names"
    for name, value in state.items():
        assert torch.equal(value, expected.state[name]), f"the teacher's {name} has changed"
    assert all(value.grad is None for value in teacher.parameters()), "the teacher has gradients"
    assert not any(module.training for module in teacher.modules()), "the teacher has left eval mode"


def check_draft(space: SearchSpace, student: Architecture, inputs: Any, expected: Expected) -> None:
    """Builds, runs in both modes, trains, costs what was predicted, and comes back from JSON."""
    network = space.build(student)
    cost = space.cost(student)
    parameters = sum(value.numel() for value in network.parameters())
    assert parameters == cost.parameters, f"{cost.parameters} parameters predicted, {parameters} built"
    twin = space.from_json(student.to_json())
    assert twin == student, "the architecture read back from JSON is another one"
    assert twin.fingerprint == student.fingerprint, "the fingerprint changed on the way through JSON"
    mine, theirs = network.state_dict(), space.build(twin).state_dict()
    assert mine.keys() == theirs.keys(), "the network of the architecture read back has other names"
    for name, value in mine.items():
        assert torch.equal(value, theirs[name]), f"{name} differs in the network of the architecture read back"
    macs = count_macs(network, inputs)
    assert macs == cost.macs, f"{cost.macs} MACs predicted, {macs} counted"
    (structure, _), leaves = _run(network.eval(), inputs)
    assert structure == expected.structure, f"the output is {structure}, the teacher's {expected.structure}"
    assert leaves == expected.leaves, f"the output is {leaves}, the teacher's {expected.leaves}"
    with torch.enable_grad():
        (_, values), leaves = _run(network.train(), inputs)
        assert leaves == expected.leaves_in_training, f"in train mode the output is {leaves}"
        _loss(values).backward()
    missed = [n for n, v in network.named_parameters() if v.grad is None and n in expected.reached]
    assert not missed, f"no gradient reaches {missed[0]} and {len(missed) - 1} more"


def count_macs(network: nn.Module, inputs: Any) -> int:
    """MACs of one example by PyTorch's counter, on a copy without values; with values where the network reads them.

    Attention is counted as the two matrix products that it is: some fused kernels are unknown to the counter.
    """
    batch = pytree.tree_leaves(inputs)[0].shape[0]
    twin = copy.deepcopy(network).eval()
    try:
        flops = _flops(copy.deepcopy(twin).to("meta"), pytree.tree_map(lambda value: value.to("meta"), inputs))
    except RuntimeError as error:
        if "meta tensors" not in str(error):
            raise
        flops = _flops(twin, inputs)
    return flops // 2 // batch


def _flops(network: nn.Module, inputs: Any) -> int:
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        _call(network, inputs)
    return int(counter.get_total_flops())


def _call(network: nn.Module, inputs: Any) -> Any:
    if isinstance(inputs, Mapping):
        return network(**inputs)
    return network(*inputs) if isinstance(inputs, tuple) else network(inputs)


def _run(network: nn.Module, inputs: Any) -> tuple[tuple[pytree.TreeSpec, list[Any]], tuple[str, ...]]:
    """The output's structure and leaves, and the leaves in words."""
    values, structure = pytree.tree_flatten(_call(network, inputs))
    words = tuple(f"{v.dtype} {list(v.shape)}" if isinstance(v, torch.Tensor) else repr(v) for v in values)
    return (structure, values), words


def _loss(values: list[Any]) -> torch.Tensor:
    """A number that depends on every output, with a gradient that is not the same everywhere."""
    floats = [v for v in values if isinstance(v, torch.Tensor) and v.is_floating_point()]
    assert floats, "the output holds no tensor of floats"
    return torch.stack([v.square().mean() + v.mean() for v in floats]).sum()
