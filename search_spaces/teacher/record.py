"""The values inside a teacher: its captured graph is run on a batch, and chosen nodes are looked at."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, fx
from torch.export.graph_signature import InputKind

from search_spaces.base import SpaceError
from search_spaces.teacher.analysis import Reading
from search_spaces.teacher.trace import capture

Look = Callable[[int, Tensor], None]
"""Called with a node's index and its value, while it runs; the value must be copied to be kept."""


class Recorder:
    """A teacher's graph for batches [B, ...] of one size, which is that of `example`.

    Raises:
        SpaceError: at this batch size the graph is another one than the one that was read.
    """

    def __init__(self, reading: Reading, example: Tensor) -> None:
        self._program = capture(reading.network, example, reading.forward_fn)
        self.batch = len(example)
        self._index: dict[fx.Node, int] = {}
        inputs = {str(name) for name in self._program.graph_signature.user_inputs}
        for node in self._program.graph.nodes:
            if node.op == "call_function" or (node.op == "placeholder" and node.name in inputs):
                self._index[node] = len(self._index)
        found = [str(node.target).removeprefix("aten.") for node in self._index if node.op == "call_function"]
        expected = [node.target for node in reading.nodes if node.op not in {"input", "output"}]
        if found != expected:
            raise SpaceError(
                f"{type(reading.network).__name__}: its graph for {self.batch} examples has {len(found)} operations,"
                f" not the {len(expected)} that were read; open the space with a batch of {self.batch} examples"
            )

    def run(self, inputs: Tensor, wanted: Collection[int], look: Look) -> Any:
        """What the teacher gives for `inputs` [B, ...]; `look` sees the value of each wanted node as it arises."""
        arguments: list[Any] = []
        for spec in self._program.graph_signature.input_specs:
            if spec.kind is InputKind.USER_INPUT:
                arguments.append(inputs)
                continue
            state, constants = self._program.state_dict, self._program.constants
            name = str(spec.target)
            arguments.append(state[name] if name in state else constants[name])
        with torch.no_grad():
            return _Looking(self._program.graph_module, self._index, frozenset(wanted), look).run(*arguments)


class _Looking(fx.Interpreter):
    def __init__(self, module: fx.GraphModule, index: dict[fx.Node, int], wanted: frozenset[int], look: Look) -> None:
        super().__init__(module)
        self._number, self._wanted, self._look = index, wanted, look

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        number = self._number.get(n, -1)
        if number in self._wanted:
            self._look(number, value)
        return value
