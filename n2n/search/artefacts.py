"""A student as a folder: `architecture.json`, `model.safetensors`, `card.json`, `card.md`; no pickle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from n2n.data import Data
from n2n.networks import build_teacher
from n2n.search.cards import card_text, other_network
from n2n.search.errors import ArtefactError
from n2n.search.files import read_json, write_folder, write_json, write_tensors, write_text
from n2n.search.space_students import SpaceName, published_student
from search_spaces.base import Architecture, LayerChange, SpaceError
from search_spaces.teacher.architecture import TeacherArchitecture, architecture_from_json
from search_spaces.teacher.reading import read, rebuild

FORMAT = 1
ARCHITECTURE, MODEL, CARD = "architecture.json", "model.safetensors", "card.json"
EXPORTS = "exports"
"""The folder in a student's that `n2n export` writes to."""

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
        if not isinstance(value, Mapping) or "name" not in value or not set(value) <= {"name", "kwargs"}:
            found = sorted(value) if isinstance(value, Mapping) else repr(value)
            raise ArtefactError(f"a teacher is named by the keys name and kwargs; found {found}")
        return cls(str(value["name"]), dict(value.get("kwargs") or {}))


@dataclass(frozen=True)
class MadeWith:
    """The data that a student was made with, so that it is measured on the same splits again.

    `source`, `seed` and `validation` are those of `n2n.data.load`; None for data that were made in Python.
    """

    name: str
    fingerprint: str
    source: str | None = None
    seed: int | None = None
    validation: float | None = None

    @classmethod
    def of(cls, data: Data) -> MadeWith:
        """What the data say of themselves."""
        origin = vars(data.origin) if data.origin else {}
        return cls(data.name, data.fingerprint, **origin)


@dataclass(frozen=True)
class StudentCard:
    """What `card.json` says.

    `teacher` is None where the student was cut from a network that is not built in, or is one of a published `space`;
    `example_shape` is the shape of one example. What follows is empty where it was not told (also in cards of earlier
    versions): the data, what became of each layer, what was measured of the teacher, and how the student was made
    (seeds, recipe, search), as JSON values.
    """

    fingerprint: str
    teacher: TeacherName | None
    example_shape: tuple[int, ...]
    figures: Mapping[str, Any]
    data: MadeWith | None = None
    layers: tuple[LayerChange, ...] = ()
    teacher_figures: Mapping[str, Any] = field(default_factory=dict)
    made_by: Mapping[str, Any] = field(default_factory=dict)
    space: SpaceName | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {"format": FORMAT, **asdict(self), "example_shape": list(self.example_shape)}


def save_student(
    path: str | Path,
    network: nn.Module,
    architecture: Architecture,
    *,
    example_inputs: Tensor,
    teacher_name: str | Mapping[str, Any] | TeacherName | None = None,
    figures: Mapping[str, Any] | None = None,
    data: Data | None = None,
    layers: Sequence[LayerChange] = (),
    teacher_figures: Mapping[str, Any] | None = None,
    made_by: Mapping[str, Any] | None = None,
    space: SpaceName | None = None,
) -> Path:
    """Writes a student folder, all of it or nothing, and returns its path; exports of one that it replaces go.

    Args:
        example_inputs: [B, ...]; its shape without B goes into the card, so that loading needs no example.
        teacher_name: the built-in teacher it came from; without it, loading asks for `network=`.
        figures: what is known of the student (accuracy, latency, ...), JSON values; they go into the card.
        data: what it was distilled and measured on; the card says how to load the same splits again.
        layers: what became of the teacher's layers, `space.changes(architecture)`.
        teacher_figures: the teacher's figures under the same names, to compare with.
        made_by: how it was made: seeds, recipe, search; JSON values.
        space: of a student of a published space its name there, which says all that loading needs.

    Raises:
        WriteError: the file system refused; a student that was there before is as it was.
    """
    card = StudentCard(
        fingerprint=architecture.fingerprint,
        teacher=TeacherName.read(teacher_name),
        example_shape=tuple(example_inputs.shape[1:]),
        figures=dict(figures or {}),
        data=None if data is None else MadeWith.of(data),
        layers=tuple(layers),
        teacher_figures=dict(teacher_figures or {}),
        made_by=dict(made_by or {}),
        space=space,
    )

    def fill(folder: Path) -> None:
        write_text(folder / ARCHITECTURE, architecture.to_json() + "\n")
        write_tensors(folder / MODEL, network.state_dict())
        write_json(folder / CARD, card.to_json())
        write_text(folder / "card.md", _card_text(card))

    write_folder(Path(path), fill, stale=(EXPORTS,))
    return Path(path)


def read_student_card(folder: Path) -> StudentCard:
    """What the student folder says of itself.

    Raises:
        ArtefactError: no such folder, or its card is damaged or of another format; the key is named.
    """
    path = folder / CARD
    values = read_json(path, ("format", *(key for key in _CARD_KINDS if key not in _CARD_LATER)))
    if values["format"] != FORMAT:
        raise ArtefactError(
            f"{path} has format {values['format']!r}, this version reads {FORMAT}; use the n2n that wrote it, or "
            "run again"
        )
    for key, kinds in _CARD_KINDS.items():
        if key in values and not isinstance(values[key], kinds):
            raise ArtefactError(
                f"{path} has {key!r}: {values[key]!r}; it was damaged or edited: restore it or run again"
            )
    shape, data = values["example_shape"], values.get("data")
    if not all(type(size) is int and size > 0 for size in shape):
        raise ArtefactError(f"{path}: 'example_shape' is {shape}, expected positive whole numbers; restore it")
    if data is not None and (not isinstance(data, dict) or set(data) != set(MadeWith.__dataclass_fields__)):
        raise ArtefactError(f"{path}: 'data' is {data}, expected {sorted(MadeWith.__dataclass_fields__)}; restore it")
    return StudentCard(
        fingerprint=values["fingerprint"],
        teacher=TeacherName.read(values["teacher"]),
        example_shape=tuple(shape),
        figures=values["figures"],
        data=None if data is None else MadeWith(**data),
        layers=tuple(_layer_change(value, path) for value in values.get("layers", [])),
        teacher_figures=values.get("teacher_figures", {}),
        made_by=values.get("made_by", {}),
        space=SpaceName.read(values.get("space"), path),
    )


def _layer_change(value: Any, path: Path) -> LayerChange:
    """One layer of a card.

    Raises:
        ArtefactError: other keys, or other values than words, a yes or no, and pairs of whole numbers.
    """
    fields = value if isinstance(value, dict) else {}
    pairs = {name: tuple(fields[name]) for name in _LAYER_PAIRS if isinstance(fields.get(name), list)}
    whole = all(len(pair) == 2 and all(type(size) is int for size in pair) for pair in pairs.values())
    if (
        set(fields) != set(LayerChange.__dataclass_fields__)
        or len(pairs) != len(_LAYER_PAIRS)
        or not whole
        or not (isinstance(fields["name"], str) and isinstance(fields["kind"], str))
        or type(fields["removed"]) is not bool
    ):
        raise ArtefactError(
            f"{path}: 'layers' holds {value}; expected name, kind, removed and the pairs {', '.join(_LAYER_PAIRS)}; "
            "it was damaged or edited: restore it or run again"
        )
    return LayerChange(fields["name"], fields["kind"], fields["removed"], **pairs)


_LAYER_PAIRS = ("width_in", "width_out", "kernel", "parameters")
_CARD_KINDS: dict[str, tuple[type, ...]] = {
    "fingerprint": (str,),
    "teacher": (dict, type(None)),
    "example_shape": (list,),
    "figures": (dict,),
    "layers": (list,),
    "teacher_figures": (dict,),
    "made_by": (dict,),
}
_CARD_LATER = ("layers", "teacher_figures", "made_by")
"""Keys that cards of earlier versions do not have."""


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
            the card names a built-in teacher or a published space.
        example_inputs: [B, ...]; by default zeros of the shape in the card.

    Raises:
        ArtefactError: a file is missing or damaged, a tensor does not fit, or the teacher is another one.
    """
    folder = Path(path)
    card = read_student_card(folder)
    if card.space is not None:
        space, published = published_student(card.space, read_text(folder / ARCHITECTURE), card.fingerprint, folder)
        own = space.build(published, inherit=False)
        load_weights(own, folder / MODEL)
        return own.eval()
    if network is None:
        if card.teacher is None:
            raise ArtefactError(
                f"{folder} was cut from a network that is not built in: call "
                f"load_student({str(path)!r}, network=teacher)"
            )
        try:
            network = build_teacher(card.teacher.name, **{"seed": 0, **card.teacher.kwargs})  # its weights are not read
        except (TypeError, ValueError) as error:
            raise ArtefactError(f"{folder / CARD}: the teacher cannot be built: {error}") from error
    if example_inputs is None:
        example_inputs = torch.zeros(1, *card.example_shape)
    text = read_text(folder / ARCHITECTURE)
    architecture = check_architecture(folder, card, text)
    try:
        student = rebuild(network, example_inputs, text, forward_fn=forward_fn)
    except SpaceError as error:
        misfit = _misfit_of(network, example_inputs, architecture.teacher, card, forward_fn) or str(error)
        what = f"{folder / ARCHITECTURE} does not fit the network {type(network).__name__}"
        raise ArtefactError(f"{what}: {misfit}") from error
    load_weights(student, folder / MODEL)
    return student.eval()


def _misfit_of(
    network: nn.Module, example_inputs: Tensor, structure: str, card: StudentCard, forward_fn: ForwardFn | None
) -> str:
    """Which network a student needs, where this is another one; "" where it is the right one."""
    try:
        reading = read(network, example_inputs, forward_fn=forward_fn)
        if reading.fingerprint == structure:
            return ""
        difference = other_network(card.layers, reading.layers)
    except SpaceError as error:
        difference = f"it cannot be read with an example of shape {list(example_inputs.shape)} ({error})"
    return (
        f"the student was cut from {_cut_from(card) or 'another network'}, and this is another one: {difference}. Give "
        "the network that it was cut from, of the same class and built with the same arguments (network=, or --network "
        "and --network-arg); its weights do not matter"
    )


def check_architecture(folder: Path, card: StudentCard, text: str) -> TeacherArchitecture:
    """The architecture of a text; refuses one that the card was not written for, for some fit the same weights.

    Raises:
        ArtefactError: it is another one, or cannot be read.
    """
    try:
        architecture = architecture_from_json(text)
    except SpaceError as error:
        raise ArtefactError(f"{folder / ARCHITECTURE} is damaged: {error}; restore it or run again") from error
    if architecture.fingerprint != card.fingerprint:
        raise ArtefactError(
            f"{folder / ARCHITECTURE} is the architecture {architecture.fingerprint}, {CARD} is of "
            f"{card.fingerprint}: the files are of different students; restore them or run again"
        )
    return architecture


def load_weights(network: nn.Module, path: str | Path) -> None:
    """Copies the tensors of a safetensors file into a network, every name and shape checked first.

    Raises:
        ArtefactError: the file is missing or damaged, or a tensor is missing, left over, of another shape, of another
            kind of numbers, or not finite; the first that differs is named, in the network's order. The network is then
            as it was.
    """
    tensors = read_tensors(Path(path))
    own = network.state_dict()
    problems = [misfit for name, value in own.items() if (misfit := _misfit(name, value, tensors.get(name)))]
    problems += [f"{name} {list(tensors[name].shape)} is not in the network" for name in tensors if name not in own]
    if problems:
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise ArtefactError(f"{path} does not fit the network: {shown}. Is it the file of another network?")
    network.load_state_dict(tensors)


def _misfit(name: str, expected: Tensor, found: Tensor | None) -> str:
    """What is wrong with a tensor of a file; "" where it fits."""
    if found is None:
        return f"{name} is missing, expected {list(expected.shape)}"
    if found.shape != expected.shape:
        return f"{name} has shape {list(found.shape)}, expected {list(expected.shape)}"
    if found.is_floating_point() != expected.is_floating_point() or found.is_complex() != expected.is_complex():
        return f"{name} holds {found.dtype}, expected {expected.dtype}"
    if found.is_floating_point() and not found.isfinite().all() and bool(expected.isfinite().all()):
        return f"{name} holds numbers that are not finite"
    return ""


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


def read_text(path: Path) -> str:
    """The text of a file without blanks around it. Raises `ArtefactError` where there is no such file."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError as error:
        raise ArtefactError(f"{path} is missing; is {path.parent} the right folder?") from error


def _card_text(card: StudentCard) -> str:
    """The card for people."""
    return card_text(
        fingerprint=card.fingerprint,
        cut_from=_cut_from(card) if card.teacher or card.space else None,
        example_shape=card.example_shape,
        figures=card.figures,
        teacher_figures=card.teacher_figures,
        layers=card.layers,
        made_by=card.made_by,
    )


def _cut_from(card: StudentCard) -> str:
    """The teacher as it is called, "mlp(inputs=64)"; a network of the user's own by its class, "" where none is.

    Of a student of a published space the name there, for nothing else is needed to build it.
    """
    if card.space is not None:
        return f"the space {card.space}"
    if card.teacher is None:
        return str(card.made_by.get("teacher", ""))
    arguments = ", ".join(f"{key}={value!r}" for key, value in card.teacher.kwargs.items())
    return f"{card.teacher.name}({arguments})"
