"""Python: a folder with `student.py`, a readable module that needs torch alone, and `student.safetensors`."""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from n2n.search.errors import ExportError
from n2n.search.export.check import EXACT, TRAINING, difference, verify, within
from n2n.search.export.graph import graph_of
from n2n.search.export.source import RESERVED, Source, tensor_of, write_class
from n2n.search.export.steps import merged, steps_of
from n2n.search.export.subject import CAPTURE_ERRORS, Subject
from n2n.search.export.weights import detached

MODULE, WEIGHTS = "student.py", "student.safetensors"


def write_python(subject: Subject, folder: Path) -> float:
    """Writes both files, imports the module, and compares: outputs in eval mode; in train mode outputs, gradients and
    buffers. Returns the largest difference of outputs in eval mode, which is 0.

    Raises:
        ExportError: the graph cannot be captured or written as code, or the module computes something else.
    """
    source, tensors = sources(subject)
    (folder / MODULE).write_text(_file(subject, source), encoding="utf-8")
    (folder / WEIGHTS).write_bytes(save(detached(tensors), {"network": subject.name, **subject.facts}))
    what = f"{subject.name} as python"
    student = _loaded(folder, what)
    found = verify(subject, student, EXACT, what=what)
    _verify_training(subject, student, source, what=f"{what}, in train mode")
    return found


def sources(subject: Subject) -> tuple[Source, dict[str, Tensor]]:
    """The class of a network, and the tensors of its state dict.

    Raises:
        ExportError: the graph cannot be captured or written as code.
    """
    prefix = "" if subject.own is subject.network else "network."
    graphs = [graph_of(subject.program(training=training), prefix) for training in (False, True)]
    steps = [steps_of(graph, subject.own) for graph in graphs]
    both = merged(*steps)
    graph = graphs[0]
    constants = {**graphs[1].constants, **graph.constants}
    graph = type(graph)(graph.ops, graph.inputs, graph.output, constants)
    doc = "The network. A comment behind a layer is its name in the network that it was exported from."
    source = write_class(subject.own, steps if both is None else [both], graph, _parameters(subject), doc=doc)
    return source, {key: tensor_of(subject.own, graph, name) for key, name in source.keys.items()}


def _parameters(subject: Subject) -> list[str]:
    """The names of the positional inputs, as the network's own `forward` calls them."""
    names = []
    for parameter in subject.forward.parameters.values():
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            names.append(parameter.name)
    names += [f"input_{i}" for i in range(len(names), len(subject.args))]
    return [f"{name}_" if name in RESERVED else name for name in names[: len(subject.args)]]


def _loaded(folder: Path, what: str) -> nn.Module:
    spec = importlib.util.spec_from_file_location("exported_student", folder / MODULE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        student = module.load()
    except (*CAPTURE_ERRORS, SyntaxError, AttributeError, NameError) as error:
        raise ExportError(
            f"{what}: the generated module does not load ({' '.join(str(error).split())[:400]}); nothing was written. "
            "This is a bug of n2n export: please report the network; format pt2 may serve"
        ) from error
    assert isinstance(student, nn.Module)
    return student


def _verify_training(subject: Subject, student: nn.Module, source: Source, *, what: str) -> None:
    """One forward and backward pass in train mode on both, with the same random numbers."""
    ours, theirs = copy.deepcopy(subject.network).train(), copy.deepcopy(student).train()
    args, kwargs = subject.inputs(subject.batch, seed=1)
    expected, found = _pass(ours, args, kwargs, what), _pass(theirs, args, kwargs, what)
    within(difference(expected, found, what=what), TRAINING, what=what)
    inner = ours if subject.own is subject.network else ours.get_submodule("network")
    gradients = dict(theirs.named_parameters())
    scale = max((p.grad.abs().max().item() for p in inner.parameters() if p.grad is not None), default=0.0)
    for key, parameter in gradients.items():
        gap = (_gradient(inner.get_parameter(source.keys[key])) - _gradient(parameter)).abs().max().item()
        within(gap / (scale or 1.0), TRAINING, what=f"{what}, gradient of {source.keys[key]}")
    for key, buffer in theirs.named_buffers():
        name = source.keys[key]
        if name in dict(inner.named_buffers()):
            within(difference(inner.get_buffer(name), buffer, what=f"{what}, {name}"), TRAINING, what=f"{what}, {name}")


def _gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _pass(network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], what: str) -> Any:
    network.requires_grad_(True)
    args, kwargs = pytree.tree_map(lambda v: v.clone() if isinstance(v, Tensor) else v, (args, kwargs))
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.default_generator.manual_seed(0)
        try:
            output = network(*args, **kwargs)
            values = [v for v in pytree.tree_leaves(output) if isinstance(v, Tensor) and v.requires_grad]
            weights = [torch.randn(v.shape, generator=torch.Generator().manual_seed(i)) for i, v in enumerate(values)]
            if values:
                torch.autograd.backward(values, [w.to(v.dtype) for w, v in zip(weights, values, strict=True)])
        except CAPTURE_ERRORS as error:
            raise ExportError(f"{what}: a training step fails: {' '.join(str(error).split())[:400]}") from error
    return pytree.tree_map(lambda v: v.detach() if isinstance(v, Tensor) else v, output)


def _file(subject: Subject, source: Source) -> str:
    uses = [name for name in ("math", "operator") if f" {name}." in source.body or f"({name}." in source.body]
    functional = ["from torch.nn import functional as F"] if "F." in source.body else []
    imports = ["import json", *(f"import {name}" for name in uses), "from pathlib import Path", ""]
    imports += ["import torch", "from torch import nn", *functional]
    return "\n".join([_HEAD, *sorted(imports[: len(uses) + 1]), *imports[len(uses) + 1 :], "", "", source.body, _TAIL])


_HEAD = '''"""A small network, written by `n2n export --format python`. It needs torch and nothing else.

    from student import load

    network = load()  # in eval mode; student.safetensors lies beside this file
    network.train()  # or train it further
"""
'''

_TAIL = '''
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def read_safetensors(path):
    """The tensors of a safetensors file: 8 bytes with the header's length, a JSON header, then the numbers."""
    content = Path(path).read_bytes()
    begin = 8 + int.from_bytes(content[:8], "little")
    tensors = {}
    for name, entry in json.loads(content[8:begin]).items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            numbers = bytearray(content[begin + start : begin + end])
            dtype = DTYPES[entry["dtype"]]
            flat = torch.frombuffer(numbers, dtype=dtype) if numbers else torch.empty(0, dtype=dtype)
            tensors[name] = flat.reshape(entry["shape"])
    return tensors


def load(path=None):
    """The trained student in eval mode; `path` is its safetensors file, by default the one beside this module."""
    student = Student()
    student.load_state_dict(read_safetensors(path or Path(__file__).with_name("student.safetensors")))
    return student.eval()
'''
