"""The values inside a teacher: its captured graph is run on a batch, and chosen nodes are looked at."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind

from search_spaces.base import SpaceError
from search_spaces.teacher.analysis import Reading
from search_spaces.teacher.capture import capture

Look = Callable[[int, Tensor], None]
"""Called with a node's index and its value, while it runs; the value must be copied to be kept."""
Program = tuple[torch.export.ExportedProgram, dict[fx.Node, int]]
"""A captured graph, and the index of the reading's node for each of its nodes."""
_CAPTURED: WeakKeyDictionary[nn.Module, dict[str, Program]] = WeakKeyDictionary()
"""By a reading's network, which nobody edits, and the kind of batch: a capture takes as long as judging a student."""


class Recorder:
    """A teacher's graph for batches [B, ...] of one size, which is that of `example`.

    Raises:
        SpaceError: at this batch size the graph is another one than the one that was read.
    """

    def __init__(self, reading: Reading, example: Tensor) -> None:
        self._reading, self._example = reading, example
        self._captured()

    @property
    def batch(self) -> int:
        """B, the examples of each run."""
        return len(self._example)

    def __getstate__(self) -> dict[str, Any]:
        """Without the graph, which does not travel to other processes; it is captured anew there."""
        return {"_reading": self._reading, "_example": self._example}

    def _captured(self) -> Program:
        """The graph for batches like the example, captured once for all recorders of the reading's network."""
        known = _CAPTURED.setdefault(self._reading.network, {})
        example = self._example
        kind = f"{tuple(example.shape)} {example.dtype} {example.device}"
        if kind not in known:
            known[kind] = self._capture()
        return known[kind]

    def _capture(self) -> Program:
        reading = self._reading
        program = capture(reading.network, self._example, reading.forward_fn)
        index: dict[fx.Node, int] = {}
        inputs = {str(name) for name in program.graph_signature.user_inputs}
        for node in program.graph.nodes:
            if node.op == "call_function" or (node.op == "placeholder" and node.name in inputs):
                index[node] = len(index)
        found = [str(node.target).removeprefix("aten.") for node in index if node.op == "call_function"]
        expected = [node.target for node in reading.nodes if node.op not in {"input", "output"}]
        if found != expected:
            raise SpaceError(
                f"{type(reading.network).__name__}: its graph for {self.batch} examples has {len(found)} operations,"
                f" not the {len(expected)} that were read; open the space with a batch of {self.batch} examples"
            )
        return program, index

    def run(self, inputs: Tensor, wanted: Collection[int], look: Look) -> Any:
        """What the teacher gives for `inputs` [B, ...]; `look` sees the value of each wanted node as it arises."""
        program, index = self._captured()
        arguments: list[Any] = []
        for spec in program.graph_signature.input_specs:
            if spec.kind is InputKind.USER_INPUT:
                arguments.append(inputs)
                continue
            state, constants = program.state_dict, program.constants
            name = str(spec.target)
            arguments.append(state[name] if name in state else constants[name])
        with torch.no_grad():
            return _Looking(program.graph_module, index, frozenset(wanted), look).run(*arguments)


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
