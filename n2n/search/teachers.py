"""Teacher folders: a network trained on labels, its weights, and what is needed to build it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from n2n.data import Data, Origin, example_inputs
from n2n.distill.accuracy import accuracy
from n2n.distill.fit import train_teacher as fit_teacher
from n2n.distill.loop import Progress
from n2n.networks import TEACHERS, build_teacher, macs, parameters
from n2n.search.artefacts import load_weights
from n2n.search.errors import ArtefactError, SearchError
from n2n.search.files import read_json, write_json, write_tensors

WEIGHTS = "model.safetensors"
CARD = "teacher.json"


@dataclass(frozen=True)
class TeacherCard:
    """What `teacher.json` says; the keys from `lr` on may be missing in the file.

    `name` is a built-in teacher or the `module:function` that builds it, `arguments` its keyword arguments; `data` is
    what loads the data again; accuracies are shares in [0, 1]; `macs` are for one image; `seed` is that of the training
    and `seconds` its wall time.

    How it was trained: `lr` is the peak learning rate, reached after the share `warmup` of the steps; `augmentation`
    holds the keys `pad` (pixels) and `flip`; `threads` and `torch` are the threads and the version of PyTorch.
    `split_seed` drew the validation split, a share `validation` of the train images; None is the same as `seed`.
    `example_shape` is the shape of one example, None in folders of earlier versions.
    """

    name: str
    arguments: dict[str, Any]
    data: str
    data_fingerprint: str
    classes: int
    validation_accuracy: float
    test_accuracy: float
    parameters: int
    macs: int
    epochs: float
    seed: int
    seconds: float
    lr: float | None = None
    warmup: float | None = None
    augmentation: dict[str, Any] | None = None
    split_seed: int | None = None
    validation: float = 0.1
    device: str = ""
    threads: int | None = None
    torch: str = ""
    example_shape: tuple[int, ...] | None = None

    @property
    def origin(self) -> Origin:
        """How to load the data with the split that the teacher was trained on."""
        return Origin(self.data, self.seed if self.split_seed is None else self.split_seed, self.validation)

    @property
    def built_in(self) -> bool:
        """Whether `n2n.networks` builds it, so that no code of the user's is needed."""
        return self.name in TEACHERS


def train_teacher(
    network: nn.Module,
    data: Data,
    *,
    name: str,
    arguments: Mapping[str, Any],
    epochs: float,
    source: str | None = None,
    lr: float = 0.1,
    warmup: float = 0.2,
    batch_size: int = 128,
    seed: int = 0,
    device: str = "cpu",
    precision: str = "auto",
    progress: Progress | None = None,
) -> TeacherCard:
    """Trains `network` in place on the labels of the train split, then reads validation and test accuracy once each.

    `source` is what loads the data again (a name or a path); where it is not given, what they were loaded by, or else
    their name. `lr` is the peak, reached after the share `warmup` of the steps.

    Raises:
        SearchError: the training diverged.
    """
    result = fit_teacher(
        network,
        data.training,
        epochs=epochs,
        lr=lr,
        warmup=warmup,
        batch_size=batch_size,
        seed=seed,
        device=device,
        precision=precision,
        progress=progress,
    )
    if result.diverged:
        raise SearchError(f"training {name} diverged: {result.reason}")
    mean, std = data.training.mean, data.training.std
    validation, test = (
        accuracy(network, split, mean=mean, std=std, device=device, precision=precision)[0]
        for split in (data.validation, data.test)
    )
    return card_of(
        network,
        data,
        name=name,
        arguments=arguments,
        source=source,
        epochs=epochs,
        lr=lr,
        warmup=warmup,
        seed=seed,
        seconds=result.seconds,
        device=device,
        validation_accuracy=validation,
        test_accuracy=test,
    )


def card_of(
    network: nn.Module,
    data: Data,
    *,
    name: str,
    arguments: Mapping[str, Any],
    source: str | None,
    epochs: float,
    lr: float,
    warmup: float,
    seed: int,
    seconds: float,
    device: str,
    validation_accuracy: float,
    test_accuracy: float,
) -> TeacherCard:
    """The card of a network that was just trained on these data; the arguments are `TeacherCard`'s fields."""
    origin = data.origin or Origin(None, seed, TeacherCard.validation)
    return TeacherCard(
        name=name,
        arguments=dict(arguments),
        data=source or origin.source or data.name,
        data_fingerprint=data.fingerprint,
        classes=data.classes,
        validation_accuracy=validation_accuracy,
        test_accuracy=test_accuracy,
        parameters=parameters(network),
        macs=macs(network, example_inputs(data).to(device)),
        epochs=epochs,
        seed=seed,
        seconds=seconds,
        lr=lr,
        warmup=warmup,
        augmentation=asdict(data.training.augmentation),
        split_seed=origin.seed,
        validation=origin.validation,
        device=device,
        threads=torch.get_num_threads(),
        torch=str(torch.__version__),
        example_shape=tuple(data.training.input_shape),
    )


def save_teacher(folder: Path, network: nn.Module, card: TeacherCard) -> None:
    """Writes a teacher folder; the weights first, so that a folder with a card is whole.

    Raises:
        WriteError: the file system refused; files that were there before are as they were.
    """
    write_tensors(folder / WEIGHTS, network.state_dict())
    write_json(folder / CARD, vars(card))


def read_card(folder: Path) -> TeacherCard:
    """What the teacher folder says of itself.

    Raises:
        ArtefactError: no such folder, or its card is damaged.
    """
    known = TeacherCard.__dataclass_fields__
    needed = {name for name, one in known.items() if one.default is MISSING}
    fields = read_json(folder / CARD, [name for name in known if name in needed])
    if not set(fields) <= set(known):
        raise ArtefactError(
            f"{folder / CARD}: expected the keys {sorted(needed)} and perhaps {sorted(set(known) - needed)}, found "
            f"{sorted(fields)}; restore it or train the teacher again"
        )
    shape = fields.get("example_shape")
    if shape is not None and not (isinstance(shape, list) and all(type(size) is int and size > 0 for size in shape)):
        raise ArtefactError(f"{folder / CARD}: 'example_shape' is {shape}, expected positive whole numbers; restore it")
    return TeacherCard(**{**fields, "example_shape": None if shape is None else tuple(shape)})


def load_teacher(folder: Path, network: nn.Module | None = None) -> tuple[nn.Module, TeacherCard]:
    """The trained network of a teacher folder, in eval mode, and its card.

    `network` is needed, freshly built, where the teacher is not a built-in one; it is filled and returned.

    Raises:
        ArtefactError: a file is missing or damaged, or the weights are of another network.
    """
    card = read_card(folder)
    if network is None:
        if not card.built_in:
            raise ArtefactError(f"{folder} holds a teacher built by {card.name}; pass network=, freshly built by it")
        network = build_teacher(card.name, **card.arguments)
    load_weights(network, folder / WEIGHTS)
    return network.eval(), card
