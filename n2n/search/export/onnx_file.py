"""ONNX: one `.onnx` file from PyTorch's dynamo exporter, checked in ONNX Runtime."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from n2n.search.errors import ExportError
from n2n.search.export.check import OTHER_KERNELS, verify
from n2n.search.export.onnx_names import name_batch, name_outputs, output_names, sign
from n2n.search.export.subject import CAPTURE_ERRORS, RunFn, Subject

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
LARGEST = 2_000_000_000
"""Bytes of one protobuf file."""


def write_onnx(subject: Subject, path: Path) -> float:
    """Writes, checks with onnx.checker, and compares in ONNX Runtime; returns the largest difference.

    Raises:
        ExportError: a package is missing, ONNX has no such operation, or the file computes something else.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(f"format onnx needs {', '.join(missing)}: pip install 'n2n[export]'")
    content = _content(subject)
    if len(content) > LARGEST:
        raise ExportError(f"{subject.name} as onnx: {len(content) / 1e9:.1f} GB, one file holds 2 GB; use format pt2")
    path.write_bytes(content)
    import onnx

    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"{subject.name} as onnx is not valid: {' '.join(str(error).split())[:400]}") from error
    return verify(subject, _runner(subject, path), OTHER_KERNELS, what=f"{subject.name} as onnx")


def _content(subject: Subject) -> bytes:
    program = subject.program()
    try:
        with quiet():
            exported = torch.onnx.export(program, dynamo=True, verbose=False, external_data=False)
            assert exported is not None  # torch gives None for its other exporter only
            name_outputs(exported.model, output_names(_output(subject)))
            proto = exported.model_proto
            name_batch(proto)
            sign(proto, {"network": subject.name, **subject.facts})
            return bytes(proto.SerializeToString())
    except (*CAPTURE_ERRORS, torch.onnx.errors.OnnxExporterError) as error:
        reason = " ".join(re.sub(r"\x1b\[[\d;]*m", "", str(error)).split())[:400]  # torch colours its messages
        raise ExportError(
            f"{subject.name}: torch.onnx could not translate it: {reason}. Formats pt2 and python do not need it to"
        ) from error


def _output(subject: Subject) -> Any:
    with torch.no_grad():
        return subject.network(*subject.args, **subject.kwargs)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps what the exporter says of its own progress and of its own dependencies from the user."""
    levels = {logger: logger.level for logger in map(logging.getLogger, ("torch.onnx", "onnx_ir"))}
    for logger in levels:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            # torch.onnx copies programs, and copyreg makes what torch.utils._pytree deprecates.
            warnings.filterwarnings("ignore", message=r".*LeafSpec\)?` is deprecated", category=FutureWarning)
            yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


def _runner(subject: Subject, path: Path) -> RunFn:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    leaves, structure = pytree.tree_flatten(_output(subject))

    def run(*args: Any, **kwargs: Any) -> Any:
        given = [value for value in pytree.tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        found = session.run(None, {name: value.numpy() for name, value in zip(names, given, strict=True)})
        results = iter(torch.from_numpy(value) for value in found)
        # What is None in the network's outputs has no place in the file.
        return pytree.tree_unflatten([None if leaf is None else next(results) for leaf in leaves], structure)

    return run
