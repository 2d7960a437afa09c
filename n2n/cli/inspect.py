"""`n2n inspect NETWORK`: what a search could change in a network, layer by layer, and how far down it could go.

`n2n inspect --space NAME`: the decisions of a published space, and between which costs its students lie.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor, nn

from n2n.cli import options
from n2n.cli.config import ConfigError, InspectSettings, known
from n2n.cli.door import Outcome, run
from n2n.cli.networks import built_in, load_data, own_network, runs_code, untrained
from n2n.data import example_inputs
from n2n.inspection import Inspection, SpaceInspection, inspect_space
from n2n.inspection import inspect as look_at
from n2n.networks import TEACHERS
from n2n.report.reading import (
    DECISION_HEADER,
    LAYER_HEADER,
    RANGE_HEADER,
    SPACE_RANGE_HEADER,
    decision_rows,
    latency_note,
    layer_rows,
    range_rows,
    shares_text,
)
from n2n.report.tables import aligned
from n2n.search import teachers
from n2n.search.artefacts import load_weights
from search_spaces import PUBLISHED
from search_spaces.layer_shrinkage import FACTORS

CIFAR = (3, 32, 32)
"""What the built-in image networks are looked at with where nothing else is said."""


def command(
    context: typer.Context,
    network: Annotated[
        str | None,
        typer.Argument(help="A built-in name such as resnet20, a teacher folder, or your own module:function."),
    ] = None,
    space: Annotated[
        str | None,
        typer.Option("--space", help=f"A published space instead of a network: {', '.join(PUBLISHED)}."),
    ] = None,
    network_arg: options.NetworkArg = None,
    weights: options.Weights = None,
    data: options.Data = None,
    data_dir: options.DataDir = None,
    input_shape: Annotated[
        str | None, typer.Option("--input-shape", help="Shape of a batch instead of --data, such as 1,3,32,32.")
    ] = None,
    removal: options.Removal = None,
    shrinkage: options.Shrinkage = None,
    granularity: options.Granularity = None,
    factors: options.Factors = None,
    round_to: options.RoundTo = None,
    kernels: options.Kernels = None,
    ignored_layers: options.IgnoredLayers = None,
    latency: Annotated[
        bool | None, typer.Option("--latency/--no-latency", help="Whether teacher and smallest students are timed.")
    ] = None,
    seed: options.Seed = None,
    device: options.Device = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Say which layers can be removed or shrunk, which cannot and why, and between which costs students lie.

    Nothing is trained and no weights are needed. A built-in network is looked at with images of 3x32x32, a teacher
    folder with those that it was trained on, unless --data or --input-shape says otherwise. A published space takes
    classes, channels and image_size by --network-arg.
    """
    run(lambda: inspect(options.read(InspectSettings, context)), as_json=as_json)


def inspect(settings: InspectSettings) -> Outcome:
    """Reads the network, or opens the space, and says what was found."""
    if settings.space is not None:
        return _space(settings, settings.space)
    if settings.network is None:
        raise ConfigError("say what to inspect: a network, as in n2n inspect resnet20, or --space NAME")
    name = settings.network
    network, inputs = _network(settings, name)
    found = look_at(
        network.to(settings.device),
        inputs.to(settings.device),
        removal=settings.removal,
        shrinkage=settings.shrinkage,
        granularity=settings.granularity,
        factors=settings.factors or FACTORS,
        round_to=settings.round_to,
        kernels=settings.kernels,
        ignored_layers=settings.ignored_layers,
        measure_latency=settings.latency,
    )
    return Outcome({"inspected": name, **found.to_json()}, lambda: show(name, found))


def _space(settings: InspectSettings, name: str) -> Outcome:
    """The decisions of a published space, and its range of costs.

    Raises:
        ConfigError: something was said that is about networks.
        SpaceError: an argument that the space does not take.
    """
    idle = sorted(settings.model_fields_set - {"space", "network_args", "seed"})
    if idle:
        raise ConfigError(f"--space {name} takes --network-arg and --seed; leave out {', '.join(idle)}")
    if "seed" in settings.network_args:
        raise ConfigError("seed is no argument of a space: say --seed")
    found = inspect_space(name, seed=settings.seed, **settings.network_args)
    return Outcome({"inspected": name, **found.to_json()}, lambda: show_space(found))


def _network(settings: InspectSettings, name: str) -> tuple[nn.Module, Tensor]:
    """The network, and a batch that it takes.

    Raises:
        ConfigError: an unknown name, or nothing says what the network takes.
        ArtefactError: a damaged teacher folder, or weights of another network.
    """
    if settings.data is not None and settings.input_shape is not None:
        raise ConfigError("--data and --input-shape both say what the network takes: leave one out")
    folder = Path(name)
    if (folder / teachers.CARD).is_file():
        return _teacher(settings, folder)
    if settings.data is not None:
        data, _ = load_data(settings)
        network, _ = untrained(name, settings.network_args, data, settings.seed)
        inputs = example_inputs(data)
    elif ":" in name:
        if settings.input_shape is None:
            raise ConfigError(f"say what {name} takes: --input-shape 1,3,32,32 (a batch), or --data")
        network, inputs = own_network(name, settings.network_args), torch.zeros(settings.input_shape)
    else:
        network, inputs = _built_in(settings, name)
    if settings.weights is not None:
        load_weights(network, settings.weights)
    return network, inputs


def _teacher(settings: InspectSettings, folder: Path) -> tuple[nn.Module, Tensor]:
    if settings.network_args or settings.weights is not None:
        raise ConfigError(f"{folder} is a teacher folder with its weights: leave out --network-arg and --weights")
    card = teachers.read_card(folder)
    if not card.built_in:
        raise ConfigError(
            f"{folder} is of a network that {card.name} builds, and code that a folder names is not run; where you "
            f"trust it, say n2n inspect {card.name} --weights {folder / teachers.WEIGHTS} --input-shape ..."
        )
    network, card = teachers.load_teacher(folder)
    if settings.input_shape is not None:
        return network, torch.zeros(settings.input_shape)
    if settings.data is None and card.example_shape is not None:
        return network, torch.zeros(1, *card.example_shape)
    if settings.data is None and runs_code(card.data):
        raise ConfigError(f"say what {folder} takes, for code that it names is not run: --input-shape, or --data")
    return network, example_inputs(load_data(settings, made_with=card.origin)[0])


def _built_in(settings: InspectSettings, name: str) -> tuple[nn.Module, Tensor]:
    arguments = settings.network_args
    known(name, TEACHERS, "network")
    usual = (arguments.get("inputs", 64),) if name == "mlp" else (arguments.get("channels", CIFAR[0]), *CIFAR[1:])
    shape = settings.input_shape or (1, *usual)
    if len(shape) < 2:
        raise ConfigError(f"--input-shape {shape[0]}: expected the batch and the shape of an example, as in 1,3,32,32")
    return built_in(name, arguments, shape[1:], settings.seed)[0], torch.zeros(shape)


def show(name: str, found: Inspection) -> None:
    """The tables, as wide as the terminal allows."""
    typer.echo(f"{name}: {len(found.rows)} layers")
    print_table(LAYER_HEADER, layer_rows(found.coverage, found.outside))
    print_table(RANGE_HEADER, range_rows(found.ranges, found.timings))
    typer.echo(shares_text(found.coverage))
    if note := latency_note(found.timings):
        typer.echo(note)


def show_space(found: SpaceInspection) -> None:
    """The tables of a published space."""
    typer.echo(f"{found.space}: {len(found.decisions)} decisions")
    print_table(DECISION_HEADER, decision_rows(found.decisions))
    print_table(SPACE_RANGE_HEADER, range_rows(found.ranges, {}))
    typer.echo(found.summary())


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on standard output: cells fold where a terminal is narrow; lines of a pipe are as long as they are."""
    if not sys.stdout.isatty():
        typer.echo(f"\n{aligned(header, rows)}\n")
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for title in header:
        number = title in ("parameters", "MACs", "min", "middle", "max", "max (teacher)")
        table.add_column(title, justify="right" if number else "left", overflow="fold", no_wrap=number)
    for row in rows:
        table.add_row(*row)
    Console(markup=False, highlight=False).print(table)
