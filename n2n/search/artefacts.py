"""A student as a folder: `architecture.json`, `model.safetensors`, `card.json`, `card.md`; no pickle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from n2n.networks import build_teacher
from n2n.search.errors import ArtefactError
from n2n.search.files import read_json, write_json, write_tensors, write_text
from search_spaces.base import Architecture, SpaceError
from search_spaces.teacher.student_builder import rebuild

FORMAT = 1
ARCHITECTURE, MODEL, CARD = "architecture.json", "model.safetensors", "card.json"

ForwardFn = Callable[[nn.Module, Tensor], Any]


@dataclass(frozen=True)
class TeacherName:
    """A built-in teacher by name and flat keyword arguments: enough to build its structure again."""

    name: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, value: str | Mapping[str, Any] | TeacherName | None) -> TeacherName | None:
        """Accepts a name, a mapping of "name" and "kwargs", or None.

        Raises:
            ArtefactError: a mapping without a name, or with other keys.
        """
        if value is None or isinstance(value, TeacherName):
            return value
        if isinstance(value, str):
            return cls(value)
        if "name" not in value or not set(value) <= {"name", "kwargs"}:
            raise ArtefactError(f"a teacher is named by the keys name and kwargs; found {sorted(value)}")
        return cls(str(value["name"]), dict(value.get("kwargs") or {}))


def save_student(
    path: str | Path,
    network: nn.Module,
    architecture: Architecture,
    *,
    example_inputs: Tensor,
    teacher_name: str | Mapping[str, Any] | TeacherName | None = None,
    figures: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a student folder and returns its path.

    Args:
        example_inputs: [B, ...]; its shape without B goes into the card, so that loading needs no example.
        teacher_name: the built-in teacher it came from; without it, loading asks for `network=`.
        figures: what is known of the student (accuracy, latency, ...), JSON values; they go into the card.

    Raises:
        WriteError: the file system refused.
    """
    folder = Path(path)
    name = TeacherName.read(teacher_name)
    write_text(folder / ARCHITECTURE, architecture.to_json() + "\n")
    write_tensors(folder / MODEL, network.state_dict())
    card = {
        "format": FORMAT,
        "fingerprint": architecture.fingerprint,
        "teacher": None if name is None else {"name": name.name, "kwargs": dict(name.kwargs)},
        "example_shape": list(example_inputs.shape[1:]),
        "figures": dict(figures or {}),
    }
    write_json(folder / CARD, card)
    write_text(folder / "card.md", _card_text(card))
    return folder


def load_student(
    path: str | Path,
    network: nn.Module | None = None,
    example_inputs: Tensor | None = None,
    *,
    forward_fn: ForwardFn | None = None,
) -> nn.Module:
    """Rebuilds the network of a student folder, in eval mode, on the CPU (or on the device of `network`).

    Args:
        network: the teacher that the student was cut from (any weights; only its structure is read). Not needed where
            the card names a built-in teacher.
        example_inputs: [B, ...]; by default zeros of the shape in the card.

    Raises:
        ArtefactError: a file is missing or damaged, a tensor does not fit, or the teacher is another one.
    """
    folder = Path(path)
    card = read_json(folder / CARD)
    if card.get("format") != FORMAT:
        raise ArtefactError(f"{folder / CARD} has format {card.get('format')!r}, this version reads {FORMAT}")
    if network is None:
        if card.get("teacher") is None:
            raise ArtefactError(
                f"{folder} was cut from a network that is not built in: call "
                f"load_student({str(path)!r}, network=teacher)"
            )
        name = TeacherName.read(card["teacher"])
        assert name is not None
        network = build_teacher(name.name, **{"seed": 0, **name.kwargs})  # its weights are not read
    if example_inputs is None:
        example_inputs = torch.zeros(1, *card["example_shape"])
    text = _read_text(folder / ARCHITECTURE)
    try:
        student = rebuild(network, example_inputs, text, forward_fn=forward_fn)
    except SpaceError as error:
        raise ArtefactError(f"{folder / ARCHITECTURE} does not fit the teacher: {error}") from error
    load_weights(student, folder / MODEL)
    return student.eval()


def load_weights(network: nn.Module, path: str | Path) -> None:
    """Copies the tensors of a safetensors file into a network, every name and shape checked first.

    Raises:
        ArtefactError: the file is missing or damaged, or a tensor is missing, left over or of another shape; the
            network is then as it was.
    """
    tensors = read_tensors(Path(path))
    own = network.state_dict()
    problems = [f"{name} is missing" for name in own if name not in tensors]
    problems += [f"{name} is not in the network" for name in tensors if name not in own]
    problems += [
        f"{name} has shape {list(tensors[name].shape)}, expected {list(value.shape)}"
        for name, value in own.items()
        if name in tensors and tensors[name].shape != value.shape
    ]
    if problems:
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise ArtefactError(f"{path} does not fit the network: {shown}. Is it the file of another network?")
    network.load_state_dict(tensors)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads a safetensors file onto the CPU.

    Raises:
        ArtefactError: it is missing or damaged.
    """
    try:
        return load(path.read_bytes())
    except FileNotFoundError as error:
        raise ArtefactError(f"{path} is missing; is {path.parent} the right folder?") from error
    except SafetensorError as error:
        raise ArtefactError(
            f"{path} is damaged ({error}; {path.stat().st_size} bytes): copy it again, or redo the run"
        ) from error


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError as error:
        raise ArtefactError(f"{path} is missing; is {path.parent} the right folder?") from error


def _card_text(card: Mapping[str, Any]) -> str:
    """The card for people."""
    lines = [f"# Student `{card['fingerprint'][:12]}`", ""]
    teacher = card["teacher"]
    lines.append(f"Cut from: {teacher['name'] if teacher else 'a network of your own (pass it as network=)'}")
    shape = " x ".join(str(size) for size in card["example_shape"])
    lines += [f"Takes one example of shape: {shape}", "", "| figure | value |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in card["figures"].items()]
    argument = "" if teacher else ", network=teacher"
    lines += ["", "```python", "import n2n", f'network = n2n.load_student("this/folder"{argument})', "```", ""]
    return "\n".join(lines)
