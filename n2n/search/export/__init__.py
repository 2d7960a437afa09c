"""Students that run anywhere: one file per format, and one comparison with the student for all of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from n2n.search.artefacts import ARCHITECTURE, CARD, EXPORTS, load_student, read_student_card, read_text
from n2n.search.errors import ExportError, TakenError
from n2n.search.export.check import EXACT, OTHER_KERNELS, RECORDED, sizes
from n2n.search.export.onnx_file import write_onnx
from n2n.search.export.pt2 import write_pt2
from n2n.search.export.python import write_python
from n2n.search.export.subject import Subject, subject_of
from n2n.search.export.weights import write_weights
from n2n.search.files import read_json, write_folder, write_with
from search_spaces.teacher.capture import ExampleInputs, ForwardFn

__all__ = ["FORMATS", "Exported", "Format", "export_network", "export_student"]


@dataclass(frozen=True)
class Format:
    """How a format is written: `name` is the file or folder that it gets where none is named, `write` fills it, checks
    it and returns the largest difference, of which `tolerance` is allowed."""

    name: str
    write: Callable[[Subject, Path], float]
    tolerance: float
    folder: bool = False


FORMATS: dict[str, Format] = {
    "safetensors": Format("student.safetensors", write_weights, EXACT),
    "pt2": Format("student.pt2", write_pt2, RECORDED),
    "onnx": Format("student.onnx", write_onnx, OTHER_KERNELS),
    "python": Format("student_python", write_python, EXACT, folder=True),
}


@dataclass(frozen=True)
class Exported:
    """What was written: `difference` is the largest one from the network's outputs, as a share of their scale;
    `batches` are the batch sizes that were compared, `dynamic` says whether others work too."""

    path: str
    format: str
    difference: float
    tolerance: float
    batches: tuple[int, ...]
    dynamic: bool
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {**vars(self), "batches": list(self.batches)}


def export_network(
    network: nn.Module,
    example_inputs: ExampleInputs,
    format: str,
    out: str | Path,
    *,
    static_batch: bool = False,
    force: bool = False,
    name: str | None = None,
    facts: Mapping[str, str] | None = None,
) -> Exported:
    """Writes any network in one of `FORMATS`, reads it again, and compares its outputs with the network's.

    The network is exported in eval mode, on the CPU; it is left as it was. All of it is written, or nothing.

    Args:
        example_inputs: one batch: a tensor [B, ...], a tuple of positional inputs or a dict of keyword inputs.
        out: the file to write; for format python the folder.
        static_batch: export for the batch size of `example_inputs` alone.
        force: replace what is there.
        name: what messages call the network. facts: text for the metadata of formats that have some.

    Raises:
        ExportError: unknown format, `out` is taken, the network cannot be captured, or the export differs from it.
        WriteError: the file system refused.
    """
    if format not in FORMATS:
        raise ExportError(f"unknown format {format!r}; the formats are: {', '.join(FORMATS)}")
    chosen, path = FORMATS[format], Path(out)
    _check_free(path, chosen, force=force)
    subject = subject_of(network, example_inputs, static_batch=static_batch, name=name, facts=facts)
    found: list[float] = []

    def write(temporary: Path) -> None:
        found.append(chosen.write(subject, temporary))

    (write_folder if chosen.folder else write_with)(path, write)
    files = [one for one in path.iterdir() if one.is_file()] if path.is_dir() else [path]
    return Exported(
        path=str(path),
        format=format,
        difference=found[0],
        tolerance=chosen.tolerance,
        batches=tuple(sorted(set(sizes(subject)))),
        dynamic=subject.dynamic,
        bytes=sum(one.stat().st_size for one in files),
    )


def export_student(
    folder: str | Path,
    format: str,
    out: str | Path | None = None,
    *,
    network: nn.Module | None = None,
    example_inputs: ExampleInputs | None = None,
    forward_fn: ForwardFn | None = None,
    static_batch: bool = False,
    force: bool = False,
) -> Exported:
    """Writes the student of a folder in one of `FORMATS`; see `export_network`.

    Args:
        folder: a student folder, such as RUN/students/1.
        out: where to write, by default `exports/` in the student folder.
        network: the teacher that the student was cut from, where the card names no built-in one.
        example_inputs: one batch as the student takes it; by default noise of the shape in the card.
        forward_fn: as in `load_student`; the student itself is exported, called with `example_inputs`.

    Raises:
        ArtefactError: the folder is damaged, or its teacher must be passed.
        ExportError, WriteError: see `export_network`.
    """
    student = Path(folder)
    if format not in FORMATS:
        raise ExportError(f"unknown format {format!r}; the formats are: {', '.join(FORMATS)}")
    path = student / EXPORTS / FORMATS[format].name if out is None else Path(out)
    _check_free(path, FORMATS[format], force=force)
    card = read_student_card(student)
    facts = {
        "fingerprint": card.fingerprint,
        **{key: str(value) for key in ("teacher", "teacher_fingerprint") if (value := card.made_by.get(key))},
        "architecture": read_text(student / ARCHITECTURE),
        "card": json.dumps(read_json(student / CARD)),
    }
    loaded = load_student(student, network, forward_fn=forward_fn)
    noise = torch.randn(2, *card.example_shape, generator=torch.Generator().manual_seed(0))
    return export_network(
        loaded,
        noise if example_inputs is None else example_inputs,
        format,
        path,
        static_batch=static_batch,
        force=force,
        name=f"student {card.fingerprint[:12]}",
        facts=facts,
    )


def _check_free(path: Path, chosen: Format, *, force: bool) -> None:
    """Raises `TakenError` where something stands in the way that may not be replaced."""
    if path.is_dir() != chosen.folder and path.exists():
        kind, expected = ("a folder", "a file") if path.is_dir() else ("a file", "a folder")
        raise TakenError(path, f"is {kind}, and this format writes {expected}", replaceable=False)
    taken = any(path.iterdir()) if path.is_dir() else path.exists()
    if taken and not force:
        raise TakenError(path, "exists", replaceable=True)
