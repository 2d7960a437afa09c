"""`n2n export STUDENT --format F`: a student as a file that runs without N2N."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from torch import nn

from n2n.cli import options
from n2n.cli.config import ConfigError, ExportSettings
from n2n.cli.door import Outcome, run
from n2n.cli.networks import check_network_given, own_network
from n2n.networks import build_teacher
from n2n.networks.units import size_text
from n2n.search.artefacts import ARCHITECTURE
from n2n.search.errors import TakenError
from n2n.search.export import FORMATS, Exported, export_student
from n2n.search.teachers import read_card


def command(
    context: typer.Context,
    student: Annotated[Path, typer.Argument(help="A student folder, such as RUN/students/1.")],
    format: Annotated[
        str | None, typer.Option("--format", help=f"{', '.join(FORMATS)}. [default: safetensors]")
    ] = None,
    teacher: options.Teacher = None,
    network: options.Network = None,
    network_arg: options.NetworkArg = None,
    static_batch: Annotated[
        bool | None, typer.Option("--static-batch", help="Export for one batch size, for networks that fix it.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="File to write (python: folder). [default: exports/ in the student folder]"),
    ] = None,
    force: options.Force = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Write a student as safetensors, pt2 (torch.export), onnx, or a Python module that needs torch alone.

    What was written is read again and compared with the student; where it differs, no file is left. A student of a
    built-in teacher needs nothing else; one of your own network needs --network or --teacher, as for `n2n evaluate`.
    """
    run(lambda: export(student, options.read(ExportSettings, context, positional=("student",))), as_json=as_json)


def export(student: Path, settings: ExportSettings) -> Outcome:
    """Loads, writes and compares."""
    if not (student / ARCHITECTURE).is_file():
        raise ConfigError(
            f"{student} is no student folder (it would hold {ARCHITECTURE}); students of a run are in RUN/students/"
        )
    network = _structure(settings)
    check_network_given(student, network)
    try:
        written = export_student(
            student,
            settings.format,
            settings.out,
            network=network,
            static_batch=settings.static_batch,
            force=settings.force,
        )
    except TakenError as error:
        raise ConfigError(error.words("--out", "--force")) from None
    return Outcome({"student": str(student), **written.to_json()}, lambda: show(written))


def show(written: Exported) -> None:
    """What was written, in words."""
    sizes = ", ".join(str(size) for size in written.batches)
    only = "" if written.dynamic else " (no other batch size works)"
    typer.echo(f"written to {written.path} ({size_text(written.bytes / 1e6)})")
    typer.echo(
        f"largest difference from the student: {written.difference:.2g} of the output's scale, {written.tolerance:g} "
        f"allowed; compared on batches of {sizes}{only}"
    )


def _structure(settings: ExportSettings) -> nn.Module | None:
    """The teacher's network with any weights; None where the student's card names a built-in one."""
    if settings.teacher is not None:
        if settings.network is not None or settings.network_args:
            raise ConfigError("--teacher names a network: leave out --network and --network-arg")
        card = read_card(settings.teacher)
        return _built(card.name, card.arguments)
    return None if settings.network is None else _built(settings.network, settings.network_args)


def _built(name: str, arguments: dict[str, Any]) -> nn.Module:
    if ":" in name:
        return own_network(name, arguments)
    try:
        return build_teacher(name, **{"seed": 0, **arguments})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"cannot build {name}: {error}") from None
