"""`n2n train-teacher NAME`: a network trained on labels, as a folder that the other commands take as --teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from torch import nn

from n2n.cli import options
from n2n.cli.config import TrainTeacherSettings
from n2n.cli.door import Outcome, run, say
from n2n.cli.networks import load_data, runs_code, untrained
from n2n.data import Data, example_inputs
from n2n.networks.units import mac_text, millions
from n2n.search.checks import check_network
from n2n.search.teachers import TeacherCard, save_teacher, train_teacher

EPOCHS = {"digits": 20.0, "mnist": 3.0, "fashion-mnist": 4.0, "cifar-10": 30.0, "cifar-100": 30.0}
OTHER_EPOCHS = 10.0
"""How long to train where --epochs does not say."""


def command(
    context: typer.Context,
    network: Annotated[str, typer.Argument(help="A built-in name such as resnet20, or your own module:function.")],
    data: options.Data = None,
    data_dir: options.DataDir = None,
    network_arg: options.NetworkArg = None,
    epochs: Annotated[float | None, typer.Option("--epochs", help="Passes over the train split.")] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Peak learning rate. [default: 0.1]")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Images a step. [default: 128]")] = None,
    out: options.Out = None,
    force: options.Force = None,
    seed: options.Seed = None,
    device: options.Device = None,
    precision: options.Precision = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Train a built-in network, or your own, on labels; the folder is what --teacher takes."""
    run(lambda: train(options.read(TrainTeacherSettings, context)), as_json=as_json)


def train(settings: TrainTeacherSettings) -> Outcome:
    """Trains, writes the folder and says how good the teacher is."""
    out = options.out_folder(settings.out, force=settings.force)
    data, source = load_data(settings)
    for note in data.notes:
        say(f"note: {note}")
    network, arguments = untrained(settings.network, settings.network_args, data, settings.seed)
    check_network(network, example_inputs(data), data.training)
    given = settings.network_args if arguments is None else arguments
    card = fit(network, data, settings, source, given)
    save_teacher(out, network, card)
    return Outcome({"out": str(out), **vars(card)}, lambda: show(out, card))


def fit(
    network: nn.Module, data: Data, settings: TrainTeacherSettings, source: str, arguments: dict[str, Any]
) -> TeacherCard:
    """Trains `network` in place, with a line of progress for every tenth of the way."""
    epochs = settings.epochs or EPOCHS.get(source, OTHER_EPOCHS)
    say(f"training {settings.network} on {data.name}: {len(data.train)} images, {epochs:g} epochs")

    def progress(step: int, total: int, loss: float) -> None:
        if step * 10 // total != (step - 1) * 10 // total:
            say(f"  step {step} of {total}, loss {loss:.3f}")

    return train_teacher(
        network,
        data,
        name=settings.network,
        arguments=arguments,
        epochs=epochs,
        source=source,
        lr=settings.lr or 0.1,
        batch_size=settings.batch_size,
        seed=settings.seed,
        device=settings.device,
        precision=settings.precision,
        progress=progress,
    )


def show(out: Path, card: TeacherCard) -> None:
    """The outcome in words."""
    typer.echo(
        f"{card.name} on {card.data}: {card.validation_accuracy:.2%} on validation, {card.test_accuracy:.2%} on test, "
        f"{millions(card.parameters)} parameters, {mac_text(card.macs)} MACs, trained in {card.seconds:.0f} s"
    )
    own = "" if card.built_in else f" --network {card.name}"  # code that a folder names is run where it is named too
    own += f" --data {card.data}" if runs_code(card.data) else ""
    typer.echo(f"written to {out}; search for smaller ones: n2n search --teacher {out}{own} --out runs/first")
