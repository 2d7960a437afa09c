"""The flags that several commands share, and how flags become settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from n2n.cli.config import ConfigError, Settings, assignments, settings
from n2n.distill.objectives import OBJECTIVES
from n2n.search.files import LOCK
from n2n.search.lock import check_held

Config = Annotated[Path | None, typer.Option("--config", help="TOML file with the same keys; flags win.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else there.")]
Out = Annotated[Path | None, typer.Option("--out", help="Folder to write; refused where it holds something.")]
Force = Annotated[bool | None, typer.Option("--force", help="Replace what --out holds.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of everything random. [default: 0]")]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1, mps or auto. [default: cpu]")]
Precision = Annotated[str | None, typer.Option("--precision", help="auto, fp32 or bf16. [default: auto]")]
Data = Annotated[
    str | None,
    typer.Option("--data", help="digits, mnist, fashion-mnist, cifar-10, cifar-100, a PATH or module:function."),
]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Where the files of --data are.")]
Teacher = Annotated[Path | None, typer.Option("--teacher", help="Folder that `n2n train-teacher` wrote.")]
Network = Annotated[
    str | None, typer.Option("--network", help="A built-in name such as resnet20, or your own module:function.")
]
NetworkArg = Annotated[
    list[str] | None, typer.Option("--network-arg", help="NAME=VALUE for the network's builder; may be repeated.")
]
Weights = Annotated[Path | None, typer.Option("--weights", help="safetensors file with the weights of --network.")]

Objective = Annotated[
    str | None,
    typer.Option(
        "--objective",
        help="A distillation loss or a weighted sum, such as kd, or 'kd:0.9,T=4 + similarity:3000' (NAME:WEIGHT,OPTION="
        f"VALUE). Names: {', '.join(OBJECTIVES)}. [default: kd]",
    ),
]
Removal = Annotated[bool | None, typer.Option("--removal/--no-removal", help="Whether layers are removed.")]
Shrinkage = Annotated[bool | None, typer.Option("--shrinkage/--no-shrinkage", help="Whether layers are narrowed.")]
Granularity = Annotated[str | None, typer.Option("--granularity", help="What one removal speaks of: layer or block.")]
Factors = Annotated[
    list[float] | None, typer.Option("--factor", help="A width factor of shrinkage; repeat, ascending to 1.0.")
]
RoundTo = Annotated[int | None, typer.Option("--round-to", help="Widths are multiples of this.")]
Kernels = Annotated[
    bool | None, typer.Option("--kernels/--no-kernels", help="Whether kernels shrink too. [default: no-kernels]")
]
IgnoredLayers = Annotated[
    list[str] | None, typer.Option("--ignored-layer", help="A layer to leave as it is; may be repeated.")
]


def read(model: type[Settings], context: typer.Context, *, positional: tuple[str, ...] = ()) -> Any:
    """The validated settings of a command: its flags that were given, over its --config file, over the defaults."""
    skip = {"config", "as_json", *positional}
    given = {name: value for name, value in context.params.items() if name not in skip and value not in (None, (), [])}
    if "network_arg" in given:
        given["network_args"] = assignments(given.pop("network_arg"))
    if "student_arg" in given:
        given["student_args"] = assignments(given.pop("student_arg"), flag="--student-arg")
    if "layer" in given:
        given["layers"] = given.pop("layer")
    return settings(model, context.params.get("config"), given)


def out_folder(out: Path | None, *, force: bool) -> Path:
    """The folder that --out names.

    Raises:
        ConfigError: it was not given, is a file, or holds something and `force` is off.
        ArtefactError: a search is at work there, whatever `force` says.
    """
    if out is None:
        raise ConfigError("--out FOLDER is required: where to write the result")
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file; give a folder")
    check_held(out)
    if not force and out.is_dir() and any(child.name != LOCK for child in out.iterdir()):
        raise ConfigError(f"--out {out} is not empty; choose another folder, or say --force to replace what it holds")
    return out
