"""`n2n distill STUDENT`: a longer distillation of a student that a search found."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from n2n.cli import options
from n2n.cli.config import ConfigError, DistillSettings
from n2n.cli.door import Outcome, run, say
from n2n.cli.evaluate import check_fit
from n2n.cli.networks import Chosen, chosen, origin_of, rest_of_command, trained
from n2n.data import example_inputs
from n2n.distill.recipe import full_recipe
from n2n.distill.teacher import Teacher
from n2n.networks.units import compression_text
from n2n.search.artefacts import ARCHITECTURE, load_student, read_student_card, save_student
from n2n.search.checks import check_network
from n2n.search.finish import Figures, distill_student, measure
from search_spaces.teacher.architecture import architecture_from_json


def command(
    context: typer.Context,
    student: Annotated[Path, typer.Argument(help="A student folder, such as RUN/students/1.")],
    teacher: options.Teacher = None,
    network: options.Network = None,
    network_arg: options.NetworkArg = None,
    weights: options.Weights = None,
    data: options.Data = None,
    data_dir: options.DataDir = None,
    epochs: Annotated[float | None, typer.Option("--epochs", help="Passes over the train split. [default: 3]")] = None,
    objective: options.Objective = None,
    out: options.Out = None,
    force: options.Force = None,
    seed: options.Seed = None,
    device: options.Device = None,
    precision: options.Precision = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Distil a student further from its teacher, into a new student folder."""
    run(
        lambda: distill(student, options.read(DistillSettings, context, positional=("student",))),
        as_json=as_json,
    )


def distill(folder: Path, settings: DistillSettings) -> Outcome:
    """Loads, distils, measures and writes the student."""
    out = options.out_folder(settings.out, force=settings.force)
    if settings.teacher is None and settings.network is None:
        raise ConfigError("n2n distill needs the teacher: --teacher FOLDER, or --network with --weights")
    base = chosen(settings, made_with=origin_of(folder, settings))
    assert base is not None
    trained(base, settings)
    inputs = example_inputs(base.data)  # [1, C, H, W]
    check_network(base.network, inputs, base.data.training)
    student = check_fit(load_student(folder, base.network, inputs), folder, base.data)
    teacher = Teacher(
        base.network, base.data.training, name=base.name, device=settings.device, precision=settings.precision
    )
    for note in teacher.notes:
        say(f"warning: {note}")
    say(f"distilling {folder} from {base.name} on {base.data.name}: {settings.epochs:g} epochs")
    result = distill_student(
        student,
        teacher,
        base.data.training,
        epochs=settings.epochs,
        objective=settings.objective,
        seed=settings.seed,
        device=settings.device,
        precision=settings.precision,
    )
    if result.diverged:
        raise ConfigError(f"distilling {folder} diverged: {result.reason}; try another --objective or --seed")
    card = read_student_card(folder)
    of_teacher = measure(teacher.network, inputs, base.data, device=settings.device, precision=settings.precision)
    figures = measure(student, inputs, base.data, device=settings.device, precision=settings.precision)
    architecture = architecture_from_json((folder / ARCHITECTURE).read_text(encoding="utf-8"))
    save_student(
        out,
        student,
        architecture,
        example_inputs=inputs,
        teacher_name=base.teacher_name,
        figures={**figures.to_json(), "data": base.data.name, "distillation_steps": result.steps},
        data=base.data,
        layers=card.layers,
        teacher_figures=of_teacher.to_json(),
        made_by={
            "teacher": type(base.network).__name__ if base.teacher_name is None else base.name,
            "teacher_fingerprint": teacher.fingerprint,
            "seed": settings.seed,
            "recipe": asdict(full_recipe(epochs=settings.epochs, objective=settings.objective)),
            "distilled_from": {"folder": str(folder), **card.made_by},
        },
    )
    return Outcome({"out": str(out), **figures.to_json()}, lambda: show(out, base, teacher, figures))


def show(out: Path, base: Chosen, teacher: Teacher, figures: Figures) -> None:
    """The outcome in words."""
    times = compression_text(teacher.parameters, figures.parameters)
    typer.echo(
        f"student on {base.data.name}: {figures.test_accuracy:.2%} on test, {figures.validation_accuracy:.2%} on "
        f"validation (teacher {teacher.accuracy:.2%}), {times} fewer parameters"
    )
    typer.echo(f"written to {out}; measure it again: n2n evaluate {out}{rest_of_command(base)}")
