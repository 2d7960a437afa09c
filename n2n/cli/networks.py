"""From what was typed to a trained network: a teacher folder, a built-in name, or the user's own `module:function`."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from n2n.cli.config import ConfigError, DataSettings, NetworkSettings, known
from n2n.cli.door import say
from n2n.data import DATA, Data, DataError, Origin, example_inputs, load
from n2n.data.datasets import resolve
from n2n.distill.teacher import Teacher
from n2n.networks import TEACHERS, build_teacher
from n2n.search.artefacts import MadeWith, load_weights, read_student_card
from n2n.search.checks import check_network
from n2n.search.teachers import load_teacher, read_card

DEFAULT_DATA = "digits"
VALIDATION = 0.1
"""The share of the train images that is held out where nothing else is said."""


@dataclass(frozen=True)
class Chosen:
    """A network with what is needed to build it again; `arguments` are None for the user's own code."""

    network: nn.Module
    name: str
    arguments: dict[str, Any] | None
    data: Data
    source: str

    @property
    def teacher_name(self) -> dict[str, Any] | None:
        """Name and arguments of a built-in teacher, which artefacts keep; None for the user's own."""
        return None if self.arguments is None else {"name": self.name, "kwargs": self.arguments}


def load_data(settings: DataSettings, *, made_with: Origin | None = None) -> tuple[Data, str]:
    """The data that were asked for, or else those of `made_with` or the digits, and their name on a command line.

    The run's seed draws the validation split, unless `made_with` says how a teacher's or student's was drawn: under
    another one, images that it was trained on would count as validation.
    """
    source = settings.data or (made_with.source if made_with else None) or DEFAULT_DATA
    in_reach()
    if made_with is None:
        return load(source, data_dir=settings.data_dir, seed=settings.seed), source
    return load(source, data_dir=settings.data_dir, seed=made_with.seed, validation=made_with.validation), source


def origin_of(folder: Path, settings: NetworkSettings) -> Origin | None:
    """How to load the data that a student folder was made with; None where only --teacher can say it.

    Raises:
        ConfigError: the data are not built in, and neither --data nor --teacher names them.
        ArtefactError: the card is missing or damaged.
    """
    card = read_student_card(folder)
    named = str(card.figures.get("data", ""))  # all that earlier versions wrote of the data
    made = card.data or MadeWith(named, fingerprint="", source=named)
    if settings.data is None and made.source not in DATA:
        if settings.teacher is not None:
            return None
        known_as = f" ({made.source or made.name})" if made.source or made.name else ""
        raise ConfigError(
            f"{folder} was made with data that are not built in{known_as}: say --data PATH, or --data module:function"
        )
    seed = settings.seed if made.seed is None else made.seed
    return Origin(made.source, seed, VALIDATION if made.validation is None else made.validation)


def check_network_given(folder: Path, network: nn.Module | None) -> None:
    """Refuses a student of the user's own network without that network.

    Raises:
        ConfigError: it needs one.
        ArtefactError: the card is missing or damaged.
    """
    card = read_student_card(folder)
    if network is None and card.teacher is None and card.space is None:
        known_as = f" ({card.made_by['teacher']})" if "teacher" in card.made_by else ""
        raise ConfigError(
            f"{folder} was cut from a network of your own{known_as}: say --network module:function, which returns it; "
            "its weights do not matter"
        )


def note_other_data(folder: Path, data: Data, fingerprint: str) -> None:
    """Says so where `data` are not those of the folder, whose fingerprint is given ("" where it is not known)."""
    risk = "validation may hold images that it was trained on"
    if not fingerprint:
        say(f"note: {folder} does not say which split it was made with; {risk}")
    elif data.fingerprint != fingerprint:
        found = f"fingerprint {data.fingerprint}, there {fingerprint}"
        say(f"note: {data.name} as loaded here is not what {folder} was made with ({found}); {risk}")


def untrained(
    name: str, arguments: dict[str, Any], data: Data, seed: int, *, flag: str = "--network"
) -> tuple[nn.Module, dict[str, Any] | None]:
    """A fresh network that fits the data, with all arguments that a built-in teacher was built with.

    The user's own is built with torch's generator at the seed. `flag` is what errors call the name.

    Raises:
        ConfigError: unknown name or argument.
    """
    if ":" in name:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return own_network(name, arguments, flag=flag), None
    known(name, TEACHERS, "network")
    return built_in(name, {"classes": data.classes, **arguments}, data.training.input_shape, seed)


def built_in(
    name: str, arguments: dict[str, Any], shape: tuple[int, ...], seed: int
) -> tuple[nn.Module, dict[str, Any]]:
    """A fresh built-in network for examples of a shape, with all arguments that it was built with.

    Raises:
        ConfigError: an argument that it does not take.
    """
    inputs = {"inputs": math.prod(shape)} if name == "mlp" else {"channels": shape[0]}
    full = {**inputs, **arguments}
    try:
        return build_teacher(name, seed=seed, **full), full
    except (TypeError, ValueError) as error:
        raise ConfigError(f"cannot build {name}: {error}") from None


def chosen(settings: NetworkSettings, *, made_with: Origin | None = None) -> Chosen | None:
    """The trained network of `--teacher`, or of `--network` with its weights; None where neither was given.

    Its data are those that were asked for, or else those of `made_with`, of the teacher's folder, or the digits.

    Raises:
        ConfigError: contradicting settings, an unknown name, or no weights for a built-in network.
        ArtefactError: weights that are missing, damaged or of another network.
    """
    if settings.teacher is not None:
        return _from_folder(settings, settings.teacher, made_with)
    if settings.network is None:
        if settings.weights is not None:
            raise ConfigError(f"--weights {settings.weights} needs --network: the network that they are of")
        return None
    data, source = load_data(settings, made_with=made_with)
    network, arguments = untrained(settings.network, settings.network_args, data, settings.seed)
    if settings.weights is not None:
        load_weights(network, settings.weights)
    elif arguments is not None:
        raise ConfigError(
            f"--network {settings.network} has no weights yet: add --weights FILE.safetensors, or train it with "
            f"`n2n train-teacher {settings.network} --out FOLDER` and say --teacher FOLDER"
        )
    return Chosen(network.eval(), settings.network, arguments, data, source)


def trained(found: Chosen, settings: NetworkSettings) -> Chosen:
    """`found`, unless it is the user's own network without weights and knows nothing of the data.

    Raises:
        ConfigError: it is.
        SearchError: it does not give logits for the data.
    """
    if found.arguments is None and settings.teacher is None and settings.weights is None:
        check_network(found.network, example_inputs(found.data), found.data.training)
        notes = Teacher(found.network, found.data.training, name=found.name).notes
        if notes:
            raise ConfigError(
                f"--network {found.name} returned a network at chance level on {found.data.name}: add --weights "
                "FILE.safetensors, or let the function load them"
            )
    return found


def rest_of_command(found: Chosen) -> str:
    """What `n2n evaluate STUDENT` needs besides the folder: nothing for built-in networks and data."""
    network = "" if found.arguments is not None else f" --network {found.name}"
    return network + ("" if found.source in DATA and not network else f" --data {found.source}")


def _from_folder(settings: NetworkSettings, folder: Path, made_with: Origin | None) -> Chosen:
    card = read_card(folder)
    pointed_at = not card.built_in and settings.network == card.name
    if (settings.network is not None and not pointed_at) or settings.weights is not None or settings.network_args:
        raise ConfigError("--teacher names a network with its weights: leave out --network, --network-arg, --weights")
    if not card.built_in and not pointed_at:
        raise ConfigError(f"{folder} is of a network that {card.name} builds: {_ASK_FOR_TRUST} --network {card.name}")
    if settings.data is None and runs_code(card.data):
        raise ConfigError(f"{folder} was trained on what {card.data} gives: {_ASK_FOR_TRUST} --data {card.data}")
    data, source = load_data(settings, made_with=made_with or card.origin)
    note_other_data(folder, data, card.data_fingerprint)
    built = None if card.built_in else own_network(card.name, card.arguments)
    network, card = load_teacher(folder, built)
    return Chosen(network, card.name, card.arguments if card.built_in else None, data, source)


_ASK_FOR_TRUST = "code that a folder names is not run unless you name it too; where you trust it, say"


def runs_code(source: str) -> bool:
    """Whether loading data from there calls a `module:function`."""
    return ":" in source and source not in DATA and not source.endswith(".npz") and not Path(source).is_dir()


def own_network(name: str, arguments: dict[str, Any], *, flag: str = "--network") -> nn.Module:
    """The network that the user's `module:function` returns; the module is looked for in the working directory too.

    `flag` is what errors call the name.

    Raises:
        ConfigError: no such module or function, or it does not return a torch.nn.Module.
    """
    in_reach()
    try:
        make = resolve(name)
    except DataError as error:
        raise ConfigError(f"{flag} {error}") from None
    network = make(**arguments)
    if not isinstance(network, nn.Module):
        raise ConfigError(f"{flag} {name} returned a {type(network).__name__}, expected a torch.nn.Module")
    return network


def in_reach() -> None:
    """Puts the working directory on the import path, for the user's own `module:function`."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
