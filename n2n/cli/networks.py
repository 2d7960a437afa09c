"""From what was typed to a trained network: a teacher folder, a built-in name, or the user's own `module:function`."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from n2n.cli.config import ConfigError, DataSettings, NetworkSettings, known
from n2n.cli.door import say
from n2n.data import Data, load
from n2n.networks import TEACHERS, build_teacher
from n2n.search.artefacts import load_weights
from n2n.search.teachers import load_teacher, read_card

DEFAULT_DATA = "digits"


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


def load_data(
    settings: DataSettings, *, default: str = DEFAULT_DATA, split_seed: int | None = None
) -> tuple[Data, str]:
    """The data that were asked for (or else `default`), and what they are called on a command line.

    The run's seed draws the validation split, unless `split_seed` says that a teacher was trained on another one.
    """
    source = settings.data or default
    in_reach()
    seed = settings.seed if split_seed is None else split_seed
    return load(source, data_dir=settings.data_dir, seed=seed), source


def untrained(name: str, arguments: dict[str, Any], data: Data, seed: int) -> tuple[nn.Module, dict[str, Any] | None]:
    """A fresh network that fits the data, with all arguments that a built-in teacher was built with.

    Raises:
        ConfigError: unknown name or argument.
    """
    if ":" in name:
        return own_network(name, arguments), None
    known(name, TEACHERS, "network")
    shape = data.training.input_shape
    told: dict[str, Any] = {"classes": data.classes}
    told["inputs" if name == "mlp" else "channels"] = math.prod(shape) if name == "mlp" else shape[0]
    full = {**told, **arguments}
    try:
        return build_teacher(name, seed=seed, **full), full
    except (TypeError, ValueError) as error:
        raise ConfigError(f"cannot build {name}: {error}") from None


def chosen(settings: NetworkSettings) -> Chosen | None:
    """The trained network of `--teacher`, or of `--network` with its weights; None where neither was given.

    Raises:
        ConfigError: contradicting settings, an unknown name, or no weights for a built-in network.
        ArtefactError: weights that are missing, damaged or of another network.
    """
    if settings.teacher is not None:
        return _from_folder(settings, settings.teacher)
    if settings.network is None:
        if settings.weights is not None:
            raise ConfigError(f"--weights {settings.weights} needs --network: the network that they are of")
        return None
    data, source = load_data(settings)
    network, arguments = untrained(settings.network, settings.network_args, data, settings.seed)
    if settings.weights is not None:
        load_weights(network, settings.weights)
    elif arguments is not None:
        raise ConfigError(
            f"--network {settings.network} has no weights yet: add --weights FILE.safetensors, or train it with "
            f"`n2n train-teacher {settings.network} --out FOLDER` and say --teacher FOLDER"
        )
    return Chosen(network.eval(), settings.network, arguments, data, source)


def _from_folder(settings: NetworkSettings, folder: Path) -> Chosen:
    if settings.network is not None or settings.weights is not None or settings.network_args:
        raise ConfigError("--teacher names a network with its weights: leave out --network, --network-arg, --weights")
    card = read_card(folder)
    # The teacher's own split: under another one, images that it was trained on would count as validation.
    data, source = load_data(settings, default=card.data, split_seed=card.seed)
    if source == card.data and data.fingerprint != card.data_fingerprint:
        say(f"note: {source} is not what {folder} was trained on; validation may hold images that the teacher has seen")
    built = None if card.built_in else own_network(card.name, card.arguments)
    network, card = load_teacher(folder, built)
    return Chosen(network, card.name, card.arguments if card.built_in else None, data, source)


def own_network(name: str, arguments: dict[str, Any]) -> nn.Module:
    """The network that the user's `module:function` returns; the module is looked for in the working directory too.

    Raises:
        ConfigError: no such module or function, or it does not return a torch.nn.Module.
    """
    network = _function(name)(**arguments)
    if not isinstance(network, nn.Module):
        raise ConfigError(f"--network {name} returned a {type(network).__name__}, expected a torch.nn.Module")
    return network


def _function(name: str) -> Callable[..., Any]:
    module_name, _, function_name = name.partition(":")
    in_reach()
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"--network {name}: {error}; looked in {Path.cwd()} and the installed packages. Expected MODULE:FUNCTION, "
            "e.g. mynet:build for a function build() in mynet.py"
        ) from None
    function = getattr(module, function_name, None)
    if not callable(function):
        names = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise ConfigError(f"--network {name}: {module_name} has no function {function_name!r}; it has {names}")
    made: Callable[..., Any] = function
    return made


def in_reach() -> None:
    """Puts the working directory on the import path, for the user's own `module:function`."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
