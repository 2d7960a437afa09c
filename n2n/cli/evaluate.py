"""`n2n evaluate FOLDER`: what a teacher or student folder is worth, measured afresh."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from torch import nn

from n2n.cli import options
from n2n.cli.config import ConfigError, EvaluateSettings
from n2n.cli.door import Outcome, run
from n2n.cli.networks import check_network_given, chosen, load_data, note_other_data, origin_of
from n2n.data import Data, example_inputs
from n2n.networks.units import latency_text, mac_text, millions, size_text
from n2n.search import teachers
from n2n.search.artefacts import ARCHITECTURE, load_student, read_student_card
from n2n.search.checks import check_network
from n2n.search.finish import Figures, measure


def command(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="A student folder of a run, or a folder of train-teacher.")],
    data: options.Data = None,
    data_dir: options.DataDir = None,
    teacher: options.Teacher = None,
    network: options.Network = None,
    network_arg: options.NetworkArg = None,
    weights: options.Weights = None,
    seed: options.Seed = None,
    device: options.Device = None,
    precision: options.Precision = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Measure a student (or teacher) folder: accuracy on validation and test, parameters, MACs, latency, size.

    A student of a built-in teacher and built-in data needs nothing else: it is measured on the splits that it was made
    with. One of your own network needs --teacher or --network, and one of your own data --data.
    """
    run(
        lambda: evaluate(folder, options.read(EvaluateSettings, context, positional=("folder",))),
        as_json=as_json,
    )


def evaluate(folder: Path, settings: EvaluateSettings) -> Outcome:
    """Loads the network and measures it."""
    built, data = _load(folder, settings)
    inputs = example_inputs(data)  # [1, C, H, W]
    figures = measure(built, inputs, data, device=settings.device, precision=settings.precision)
    return Outcome({"folder": str(folder), "data": data.name, **figures.to_json()}, lambda: show(folder, data, figures))


def _load(folder: Path, settings: EvaluateSettings) -> tuple[nn.Module, Data]:
    """The network of the folder, in eval mode on the device, and the data to measure it on."""
    if (folder / teachers.CARD).is_file():
        taken = chosen(settings.model_copy(update={"teacher": folder}))
        assert taken is not None
        check_network(taken.network, example_inputs(taken.data), taken.data.training)
        return taken.network.to(settings.device), taken.data
    if not (folder / ARCHITECTURE).is_file():
        raise ConfigError(
            f"{folder} is neither a student folder (it would hold {ARCHITECTURE}) nor a teacher folder "
            f"(it would hold {teachers.CARD}); students of a run are in RUN/students/"
        )
    origin = origin_of(folder, settings)
    base = chosen(settings, made_with=origin)
    data = load_data(settings, made_with=origin)[0] if base is None else base.data
    network = None if base is None else base.network
    check_network_given(folder, network)
    student = load_student(folder, network)
    return check_fit(student, folder, data).to(settings.device), data


def check_fit(student: nn.Module, folder: Path, data: Data) -> nn.Module:
    """The student, where it takes the data's images; a note where they are not those that it was made with.

    Raises:
        ConfigError: it was made for images of another shape.
    """
    card = read_student_card(folder)
    note_other_data(folder, data, card.data.fingerprint if card.data else "")
    expected = list(card.example_shape)
    if expected != list(data.training.input_shape):
        raise ConfigError(
            f"{folder} takes images of shape {expected}, {data.name} has {list(data.training.input_shape)}; say with "
            "--data which data it was made for"
        )
    return student


def show(folder: Path, data: Data, figures: Figures) -> None:
    """The figures in words."""
    typer.echo(f"{folder} on {data.name}")
    typer.echo(f"  test accuracy        {figures.test_accuracy:.2%} of {len(data.test)} images")
    typer.echo(f"  validation accuracy  {figures.validation_accuracy:.2%} of {len(data.validation)} images")
    typer.echo(f"  parameters           {millions(figures.parameters)} ({size_text(figures.size_mb)})")
    typer.echo(f"  MACs                 {mac_text(figures.macs)} for one image")
    typer.echo(
        f"  latency (IQR)        {latency_text(figures.latency_ms, figures.latency_iqr_ms)} for one image, "
        f"{figures.threads} thread(s)"
    )
