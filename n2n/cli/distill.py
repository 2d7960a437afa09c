"""`n2n distill STUDENT`: a longer distillation of a student that a search found, or of any network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from torch import nn

from n2n.cli import options
from n2n.cli.config import ConfigError, DistillSettings
from n2n.cli.door import Outcome, run, say
from n2n.cli.evaluate import check_fit
from n2n.cli.networks import Chosen, chosen, origin_of, rest_of_command, trained, untrained
from n2n.data import DATA, example_inputs
from n2n.distill.accuracy import at_chance
from n2n.distill.fit import FitResult, check_objective, fit
from n2n.distill.recipe import Recipe, full_recipe
from n2n.distill.teacher import Teacher, fingerprint
from n2n.networks.units import compression_text
from n2n.report.plots import plot_curve
from n2n.search.artefacts import (
    ARCHITECTURE,
    check_architecture,
    load_student,
    load_weights,
    read_student_card,
    read_text,
    save_student,
)
from n2n.search.checks import check_network
from n2n.search.distilling import CHECKPOINT, CURVE, PLOT, Keeper
from n2n.search.files import write_json
from n2n.search.finish import Figures, measure
from n2n.search.space_students import published_student
from n2n.search.teachers import TeacherCard, card_of, save_teacher
from search_spaces.base import Architecture

LR_ADAM = 0.001
"""The highest learning rate of Adam where none is asked for; that of SGD is `full_recipe`'s."""


def command(
    context: typer.Context,
    folder: Annotated[
        Path | None, typer.Argument(metavar="[STUDENT]", help="A student folder, such as RUN/students/1.")
    ] = None,
    student: Annotated[
        str | None,
        typer.Option("--student", help="Instead of a folder: a built-in name, module:function or file.py:function."),
    ] = None,
    student_arg: Annotated[
        list[str] | None,
        typer.Option("--student-arg", help="NAME=VALUE for the builder of --student; may be repeated."),
    ] = None,
    student_weights: Annotated[
        Path | None, typer.Option("--student-weights", help="safetensors file that --student starts from.")
    ] = None,
    teacher: options.Teacher = None,
    network: options.Network = None,
    network_arg: options.NetworkArg = None,
    weights: options.Weights = None,
    data: options.Data = None,
    data_dir: options.DataDir = None,
    epochs: Annotated[float | None, typer.Option("--epochs", help="Passes over the train split. [default: 3]")] = None,
    objective: options.Objective = None,
    layer: Annotated[
        list[str] | None,
        typer.Option("--layer", help="STUDENT=TEACHER, modules whose maps are compared; may be repeated."),
    ] = None,
    ema: Annotated[
        float | None, typer.Option("--ema", help="Give back an average of the weights, with this decay, e.g. 0.999.")
    ] = None,
    optimizer: Annotated[str | None, typer.Option("--optimizer", help="sgd or adam (AdamW). [default: sgd]")] = None,
    lr: Annotated[
        float | None, typer.Option("--lr", help="Highest learning rate. [default: 0.05; 0.001 with adam]")
    ] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Images a step. [default: 64]")] = None,
    clip: Annotated[float | None, typer.Option("--clip", help="Highest norm of the gradient. [default: none]")] = None,
    out: options.Out = None,
    resume: Annotated[bool | None, typer.Option("--resume", help="Go on from the last epoch kept in --out.")] = None,
    force: options.Force = None,
    seed: options.Seed = None,
    device: options.Device = None,
    precision: options.Precision = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Distil a student further from its teacher, into a new student folder; or any --student network, into a folder
    that --teacher takes.
    """
    run(
        lambda: distill(folder, options.read(DistillSettings, context, positional=("folder",))),
        as_json=as_json,
    )


@dataclass(frozen=True)
class _Work:
    """A student with its teacher, and how the one is distilled from the other."""

    folder: Path | None
    settings: DistillSettings
    out: Path
    base: Chosen
    teacher: Teacher
    student: nn.Module
    arguments: dict[str, Any]
    recipe: Recipe


def distill(folder: Path | None, settings: DistillSettings) -> Outcome:
    """Loads, distils, measures and writes the student."""
    work = _opened(folder, settings)
    base, teacher, student, recipe = work.base, work.teacher, work.student, work.recipe
    asked = {
        "student": fingerprint(student),
        "teacher": teacher.fingerprint,
        "data": base.data.training.fingerprint,
        "seed": settings.seed,
        "precision": settings.precision,
        "recipe": asdict(recipe),
    }
    keeper = Keeper(work.out, asked, student, base.data.training, settings.device, settings.precision, say)
    state = keeper.resumed() if settings.resume else None
    what = settings.student or str(folder)
    onward = "" if state is None else f", going on from step {state.step}"
    length = f"{settings.epochs:g} epochs of {recipe.objective}"
    student.to(settings.device)
    start = keeper.measured()[0]
    say(f"distilling {what} from {base.name} on {base.data.name}: {length}{onward}")
    try:
        result = fit(
            student,
            base.data.training,
            recipe,
            teacher=teacher,
            seed=settings.seed,
            device=settings.device,
            precision=settings.precision,
            epoch_end=keeper.epoch_end,
            resume=state,
        )
    except KeyboardInterrupt:
        if keeper.rows:
            say(f"epoch {len(keeper.rows)} is kept: the same command with --resume goes on from there")
        raise
    if result.diverged:
        raise ConfigError(
            f"distilling {what} diverged: {result.reason}; say a smaller --lr, --clip 1, or a smaller weight in"
            " --objective"
        )
    return _written(work, keeper, result, start)


def _opened(folder: Path | None, settings: DistillSettings) -> _Work:
    if (folder is None) == (settings.student is None):
        raise ConfigError("n2n distill needs a student: its folder, or --student NAME, and not both")
    if settings.student is None and (settings.student_args or settings.student_weights):
        raise ConfigError("--student-arg and --student-weights go with --student, not with a student folder")
    kept = settings.resume and settings.out is not None and (settings.out / CHECKPOINT).is_file()
    if settings.resume and not kept and settings.out is not None and (settings.out / CURVE).is_file():
        raise ConfigError(
            f"{settings.out} holds a distillation that is done, so that nothing is left to resume; leave out --resume,"
            " and say --force to do it again"
        )
    out = options.out_folder(settings.out, force=settings.force or kept)
    if settings.teacher is None and settings.network is None:
        raise ConfigError("n2n distill needs the teacher: --teacher FOLDER, or --network with --weights")
    base = chosen(settings, made_with=None if folder is None else origin_of(folder, settings))
    assert base is not None
    trained(base, settings)
    inputs = example_inputs(base.data)  # [1, C, H, W]
    check_network(base.network, inputs, base.data.training)
    usual = full_recipe(epochs=settings.epochs, objective=settings.objective, batch_size=settings.batch_size)
    recipe = replace(
        usual,
        lr=settings.lr or (usual.lr if settings.optimizer == "sgd" else LR_ADAM),
        optimizer=settings.optimizer,
        clip_norm=settings.clip,
        ema=settings.ema,
        layers=settings.layers,
    )
    if folder is not None:
        student = check_fit(load_student(folder, base.network, inputs), folder, base.data)
        arguments: dict[str, Any] = {}
    else:
        student, arguments = _network(settings, base)
    teacher = Teacher(
        base.network, base.data.training, name=base.name, device=settings.device, precision=settings.precision
    )
    for note in teacher.notes:
        say(f"warning: {note}")
    check_objective(recipe.objective, teacher, recipe.layers)
    return _Work(folder, settings, out, base, teacher, student, arguments, recipe)


def _network(settings: DistillSettings, base: Chosen) -> tuple[nn.Module, dict[str, Any]]:
    """The network of --student, with its weights, and the arguments that it was built with."""
    assert settings.student is not None
    student, full = untrained(settings.student, settings.student_args, base.data, settings.seed, flag="--student")
    if settings.student_weights is not None:
        load_weights(student, settings.student_weights)
    check_network(student, example_inputs(base.data), base.data.training, what="the student")
    return student, settings.student_args if full is None else full


def _written(work: _Work, keeper: Keeper, result: FitResult, start: float) -> Outcome:
    """Measures the student, writes its folder, and says how good it is; `start` is its accuracy before."""
    settings, base, teacher, student, out = work.settings, work.base, work.teacher, work.student, work.out
    inputs = example_inputs(base.data)
    of_teacher = measure(teacher.network, inputs, base.data, device=settings.device, precision=settings.precision)
    figures = measure(student, inputs, base.data, device=settings.device, precision=settings.precision)
    best = keeper.best
    assert best is not None
    made_by = {
        "teacher": type(base.network).__name__ if base.teacher_name is None else base.name,
        "teacher_fingerprint": teacher.fingerprint,
        "seed": settings.seed,
        "recipe": asdict(work.recipe),
    }
    told = {
        **figures.to_json(),
        "data": base.data.name,
        "distillation_steps": result.steps,
        "start_validation_accuracy": start,
        "best_epoch": best.epoch,
        "best_epoch_validation_accuracy": best.validation_accuracy,
    }
    if work.folder is None:
        save_teacher(out, student, _card(work, figures, result))
        write_json(out / "distillation.json", {"figures": told, "teacher": of_teacher.to_json(), "made_by": made_by})
    else:
        _save(work, told, of_teacher, made_by)
    plot_curve(out / PLOT, keeper.rows, teacher=teacher.accuracy)
    keeper.clear()
    return Outcome({"out": str(out), **told}, _show(work, figures, keeper, start))


def _save(work: _Work, told: dict[str, Any], of_teacher: Figures, made_by: dict[str, Any]) -> None:
    """Writes the student's folder with its card."""
    assert work.folder is not None
    card = read_student_card(work.folder)
    text = read_text(work.folder / ARCHITECTURE)
    architecture: Architecture = (
        check_architecture(work.folder, card, text)
        if card.space is None
        else published_student(card.space, text, card.fingerprint, work.folder)[1]
    )
    save_student(
        work.out,
        work.student,
        architecture,
        example_inputs=example_inputs(work.base.data),
        teacher_name=work.base.teacher_name if card.space is None else None,
        space=card.space,
        figures=told,
        data=work.base.data,
        layers=card.layers,
        teacher_figures=of_teacher.to_json(),
        made_by={**made_by, "distilled_from": {"folder": str(work.folder), **card.made_by}},
    )


def _card(work: _Work, figures: Figures, result: FitResult) -> TeacherCard:
    settings, base = work.settings, work.base
    assert settings.student is not None
    return card_of(
        work.student,
        base.data,
        name=settings.student,
        arguments=work.arguments,
        source=base.source,
        epochs=settings.epochs,
        lr=work.recipe.lr,
        warmup=work.recipe.warmup,
        seed=settings.seed,
        seconds=result.seconds,
        device=settings.device,
        validation_accuracy=figures.validation_accuracy,
        test_accuracy=figures.test_accuracy,
    )


def _worse(work: _Work, reached: float, start: float) -> str:
    """What to do about a student that ends at chance or below its start; empty for any other."""
    chance = at_chance(reached, work.base.data.training.validation)
    if not chance and reached >= start:
        return ""
    found = "at chance level" if chance else f"below the {start:.2%} that it started with"
    return (
        f"note: the student ended {found}: try more --epochs, a smaller --lr or --clip 1, or a smaller weight of the"
        " objective, whose published one may be too large for these networks and images"
    )


def _show(work: _Work, figures: Figures, keeper: Keeper, start: float) -> Callable[[], None]:
    """The outcome in words."""

    def show() -> None:
        base, teacher, best = work.base, work.teacher, keeper.best
        assert best is not None
        times = compression_text(teacher.parameters, figures.parameters)
        typer.echo(
            f"student on {base.data.name}: {figures.test_accuracy:.2%} on test, {figures.validation_accuracy:.2%} on "
            f"validation (teacher {teacher.accuracy:.2%}), {times} fewer parameters"
        )
        typer.echo(
            f"these are of the last epoch; the best on validation was epoch {best.epoch} of {len(keeper.rows)} with "
            f"{best.validation_accuracy:.2%}"
        )
        if note := _worse(work, figures.validation_accuracy, start):
            typer.echo(note)
        rest = rest_of_command(base) if work.folder is not None else _rest_of_own(work)
        typer.echo(f"written to {work.out}; measure it again: n2n evaluate {work.out}{rest}")

    return show


def _rest_of_own(work: _Work) -> str:
    """What `n2n evaluate` needs besides the folder of a `--student` network."""
    name, source = work.settings.student, work.base.source
    network = f" --network {name}" if name is not None and ":" in name else ""
    return network + ("" if source in DATA else f" --data {source}")
