"""`n2n search`: smaller students of a trained network, a learned policy and a report, as one run folder."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from torch import nn

from n2n.agents import AGENTS
from n2n.cli import options, search_space
from n2n.cli.config import ConfigError, SearchSettings, TrainTeacherSettings
from n2n.cli.door import OK, UNMET, Outcome, run, say
from n2n.cli.networks import DEFAULT_DATA, Chosen, chosen, load_data, rest_of_command, trained, untrained
from n2n.cli.train_teacher import fit
from n2n.data import DATA, example_inputs
from n2n.distill.teacher import fingerprint
from n2n.job import SearchResult
from n2n.main_job import search as find_students
from n2n.report.tables import HEADER, aligned, figures_table
from n2n.search.files import claim_folder, read_json
from n2n.search.options import BUDGETS
from n2n.search.resume import Earlier
from n2n.search.teachers import TeacherCard, save_teacher
from search_spaces import PUBLISHED

DEFAULT_NETWORK, DEFAULT_ARGUMENTS = "resnet20", {"width": 8}
"""What is trained on the digits where no network is given."""
ELSEWHERE = ("workers", "address", "gpus_per_worker", "seconds", "cache")
"""What may be other than before where a run is gone on with."""
TEACHER = "teacher"
"""The folder of such a teacher in that of the run."""
AT_THE_DOOR = {
    "out", "resume", "data", "data_dir", "teacher", "network", "network_args", "weights", "space", "against",
    "calibrated_for",
}  # fmt: skip
"""Settings that the command turns into the network and the data; the others go on to `n2n.search` as they are."""


def command(
    context: typer.Context,
    space: Annotated[
        str | None, typer.Option("--space", help=f"Search a published space instead: {', '.join(PUBLISHED)}.")
    ] = None,
    against: Annotated[
        str | None, typer.Option("--against", help="With --space: code of what teacher-aware scores compare with.")
    ] = None,
    teacher: options.Teacher = None,
    network: options.Network = None,
    network_arg: options.NetworkArg = None,
    weights: options.Weights = None,
    data: options.Data = None,
    data_dir: options.DataDir = None,
    max_params: Annotated[
        str | None, typer.Option("--max-params", help='Most parameters: a number, or a share such as "20%".')
    ] = None,
    max_macs: Annotated[str | None, typer.Option("--max-macs", help="Most MACs: a number or a share.")] = None,
    max_latency_ms: Annotated[
        str | None, typer.Option("--max-latency-ms", help="Longest latency of one image: ms, or a share.")
    ] = None,
    max_size_mb: Annotated[
        str | None, typer.Option("--max-size-mb", help="Largest size of the weights: MB, or a share.")
    ] = None,
    evaluations: Annotated[
        int | None, typer.Option("--evaluations", help="Students to judge in all. [default: 60]")
    ] = None,
    seconds: Annotated[float | None, typer.Option("--seconds", help="Wall time for the search.")] = None,
    agent: Annotated[
        str | None,
        typer.Option("--agent", help=f"{', '.join(AGENTS)}. [default: uniform, or the policy's; with --space ppo]"),
    ] = None,
    population: Annotated[
        int | None, typer.Option("--population", help="Students that evolution remembers. [default: 8]")
    ] = None,
    tournament: Annotated[
        int | None, typer.Option("--tournament", help="Of them compete to be a parent. [default: 3]")
    ] = None,
    removal: options.Removal = None,
    shrinkage: options.Shrinkage = None,
    granularity: options.Granularity = None,
    factors: options.Factors = None,
    round_to: options.RoundTo = None,
    kernels: options.Kernels = None,
    rollouts: Annotated[int | None, typer.Option("--rollouts", help="Students per policy update. [default: 5]")] = None,
    steps: Annotated[
        int | None,
        typer.Option("--steps", help="Distillation steps to judge a student; 0 with --start refit. [default: 60]"),
    ] = None,
    objective: options.Objective = None,
    final_epochs: Annotated[
        float | None, typer.Option("--final-epochs", help="Distillation of the chosen. [default: 3, or 600 steps]")
    ] = None,
    finalists: Annotated[int | None, typer.Option("--finalists", help="How many are chosen. [default: 2]")] = None,
    importance: Annotated[
        str | None, typer.Option("--importance", help="Which channels stay: l1, l2, bn_scale, taylor or random.")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--start", help="Students start refit (inherited, then solved), inherited or fresh. [default: refit]"
        ),
    ] = None,
    final_start: Annotated[
        str | None,
        typer.Option(
            "--final-start", help="The chosen start so in their distillation. [default: inherited; fresh if judged so]"
        ),
    ] = None,
    ladder: Annotated[
        list[str] | None,
        typer.Option("--rung", help="Judge by a ladder; repeat, cheapest first, e.g. --rung refit:0 --rung refit:60."),
    ] = None,
    promote: Annotated[
        float | None, typer.Option("--promote", help="The share of students that climbs each rung. [default: 0.4]")
    ] = None,
    shortfall: Annotated[
        float | None,
        typer.Option(
            "--shortfall", help="Share of what a student lacks that counts; 1 is the paper's. [default: 0.35]"
        ),
    ] = None,
    evaluate: Annotated[
        str | None,
        typer.Option("--evaluate", help="Judge by this training-free score, and distil the chosen only, e.g. naswot."),
    ] = None,
    prefilter: Annotated[
        str | None, typer.Option("--prefilter", help="Distil those only that are best by this training-free score.")
    ] = None,
    prefilter_ratio: Annotated[
        int | None,
        typer.Option("--prefilter-ratio", help="Students scored for each one that is distilled. [default: 8]"),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option("--cache", help="File of judgements that runs on one teacher and data share.")
    ] = None,
    policy: Annotated[
        str | None, typer.Option("--policy", help="Name in the policy library, a policy folder, or a run.")
    ] = None,
    policy_mode: Annotated[
        str | None,
        typer.Option(
            "--policy-mode", help="warm learns on, zero-shot only acts, proposal feeds evolution. [default: warm]"
        ),
    ] = None,
    ignored_layers: options.IgnoredLayers = None,
    workers: Annotated[
        str | None, typer.Option("--workers", help="Ray workers, a number or auto; 0 judges in this process.")
    ] = None,
    asynchronous: Annotated[
        bool | None,
        typer.Option("--async", help="Workers wait for no batch; it is not repeatable then."),
    ] = None,
    address: Annotated[
        str | None, typer.Option("--address", help="Of a running Ray cluster to judge on; auto finds a local one.")
    ] = None,
    gpus_per_worker: Annotated[
        float | None, typer.Option("--gpus-per-worker", help="Share of a GPU for each worker, e.g. 0.25.")
    ] = None,
    threads: Annotated[
        str | None,
        typer.Option("--threads", help="A number, or auto: what half a second of trying finds. [default: auto]"),
    ] = None,
    out: options.Out = None,
    force: options.Force = None,
    resume: Annotated[
        Path | None,
        typer.Option("--resume", help="Go on with the run in this folder, as it was asked for."),
    ] = None,
    seed: options.Seed = None,
    device: options.Device = None,
    precision: options.Precision = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Search for small students of a trained network and distil the best.

    Without --teacher or --network a small ResNet-20 is trained on the embedded digits on the spot. With --space and
    --evaluate a published space is searched by a score; the best students are trained from fresh weights.
    """
    run(lambda: searched(resumed(options.read(SearchSettings, context)), quiet=as_json), as_json=as_json)


def resumed(settings: SearchSettings) -> SearchSettings:
    """The settings of the run that --resume names, with the few that may be other ones; others as they are.

    Raises:
        ConfigError: more was asked for, or the run was not started by `n2n search`.
        ArtefactError: there is no such run.
    """
    if settings.resume is None:
        return settings
    more = settings.model_fields_set - {"resume", *ELSEWHERE}
    if more:
        raise ConfigError(
            f"--resume goes on with the run as it was started; leave out {', '.join(sorted(more))} or start another"
        )
    command = Earlier.read(settings.resume).config.get("command")
    if not command:
        raise ConfigError(
            f"the run in {settings.resume} was not started by `n2n search`: call n2n.search(..., resume=True) with the"
            " arguments that it was started with"
        )
    changed = {name: getattr(settings, name) for name in settings.model_fields_set}
    if "workers" in changed:  # the cluster that it ran on may be gone
        command = {name: value for name, value in command.items() if name not in ("address", "gpus_per_worker")}
    try:
        return SearchSettings.model_validate({**command, **changed, "out": settings.resume})
    except ValidationError as error:
        raise ConfigError(
            f"the run in {settings.resume} was started by another version of N2N, whose settings this one does not"
            f" understand ({error.errors()[0]['loc']}: {error.errors()[0]['msg']}); go on with it there"
        ) from error


def kept(settings: SearchSettings) -> dict[str, Any]:
    """The settings as JSON values, with paths that hold wherever the run is resumed from."""
    paths = {name: value.resolve() for name, value in settings if isinstance(value, Path)}
    if settings.data is not None and settings.data not in DATA and Path(settings.data).exists():
        paths["data"] = Path(settings.data).resolve()
    if settings.policy is not None and Path(settings.policy).exists():
        paths["policy"] = Path(settings.policy).resolve()
    said = settings.model_copy(update={name: str(value) for name, value in paths.items()})
    return said.model_dump(mode="json", exclude={"out", "resume", "force"}, exclude_unset=True, warnings=False)


def searched(settings: SearchSettings, *, quiet: bool = False) -> Outcome:
    """Searches the space that is named, or else a teacher's.

    Raises:
        ConfigError: a setting that belongs to searches of a published space, without one.
    """
    if settings.agent == "sb3_ppo" and importlib.util.find_spec("stable_baselines3") is None:
        raise ConfigError('--agent sb3_ppo needs Stable-Baselines3: pip install "n2n[sb3]"')
    if settings.space is not None:
        budgets = {name: number(getattr(settings, name)) for name in BUDGETS}
        return search_space.search(settings, budgets, kept(settings), quiet=quiet)
    if settings.against is not None:
        raise ConfigError("--against goes with --space: students of a teacher are compared with that teacher")
    if settings.final_epochs == 0:
        raise ConfigError("--final-epochs 0 goes with --space; a search over a teacher distils the chosen students")
    return search(settings, quiet=quiet)


def search(settings: SearchSettings, *, quiet: bool = False) -> Outcome:
    """Runs one search and says what came out."""
    resuming = settings.resume is not None
    out = options.out_folder(settings.out, force=settings.force or resuming)
    taken = chosen(settings)
    card: TeacherCard | None = None
    if taken is None:
        taken, card = on_the_spot(settings)
        claim_folder(out, force=settings.force)
        save_teacher(out / TEACHER, taken.network, card)
        settings = settings.model_copy(update={"teacher": out / TEACHER, "force": True})
    taken = trained(taken, settings)
    check_calibration(settings, taken.network)
    for note in taken.data.notes:
        say(f"note: {note}")
    result = find_students(
        taken.network,
        example_inputs(taken.data),
        taken.data,
        out=out,
        teacher_name=taken.teacher_name,
        progress=not quiet,
        resume=resuming,
        command=kept(settings),
        **arguments(settings),
    )
    return outcome(result, rest_of_command(taken))


def check_calibration(settings: SearchSettings, network: nn.Module) -> None:
    """Refuses a ladder that was calibrated for another teacher.

    Raises:
        ConfigError: both are named.
    """
    known = fingerprint(network)
    if settings.calibrated_for not in (None, known):
        raise ConfigError(
            f"the ladder was calibrated for the teacher {settings.calibrated_for}, and this is {known}: run `n2n"
            " calibrate` on this one, or leave out its ladder.toml"
        )


def arguments(settings: SearchSettings) -> dict[str, Any]:
    """The settings that are arguments of `n2n.search` under the same name, without an agent that nobody has said."""
    unsaid = {"agent"} - settings.model_fields_set
    kept = {name: value for name, value in settings if name not in AT_THE_DOOR | unsaid}
    return {**kept, **{name: number(getattr(settings, name)) for name in BUDGETS}}


def number(budget: int | float | str | None) -> int | float | str | None:
    """A budget as typed: a number where it reads as one, otherwise as it stands ("20%")."""
    if not isinstance(budget, str):
        return budget
    try:
        value = float(budget)
    except ValueError:
        return budget
    return int(value) if value.is_integer() else value


def on_the_spot(settings: SearchSettings) -> tuple[Chosen, TeacherCard]:
    """A small teacher for the embedded digits, trained now.

    Raises:
        ConfigError: other data, which take longer than a search without a teacher should.
    """
    if settings.data not in (None, DEFAULT_DATA):
        raise ConfigError(
            f"--data {settings.data} needs a trained network: run `n2n train-teacher {DEFAULT_NETWORK} --data "
            f"{settings.data} --out FOLDER` and say --teacher FOLDER, or give --network with --weights"
        )
    data, source = load_data(settings)
    say(f"no --teacher and no --network: training a small {DEFAULT_NETWORK} on {source} first, kept in OUT/teacher")
    network, known_as = untrained(DEFAULT_NETWORK, DEFAULT_ARGUMENTS, data, settings.seed)
    assert known_as is not None  # a built-in network
    training = TrainTeacherSettings(
        network=DEFAULT_NETWORK, seed=settings.seed, device=settings.device, precision=settings.precision
    )
    card = fit(network, data, training, source, known_as)
    say(f"teacher: {card.validation_accuracy:.2%} on validation after {card.seconds:.0f} s")
    return Chosen(network, DEFAULT_NETWORK, known_as, data, source), card


def outcome(result: SearchResult, rest: str = "") -> Outcome:
    """The result for machines and for people; exit code 3 where no student meets the budget."""
    record = {
        "out": str(result.out),
        "stopped": result.stopped,
        "evaluations": result.evaluations,
        "seconds": result.seconds,
        "overhead": result.overhead,
        "meets_budget": result.meets_budget,
        "teacher": result.teacher.to_json(),
        "students": [one.to_json() for one in result.students],
        "notes": list(result.notes),
    }
    return Outcome(record, lambda: show(result, rest), OK if result.meets_budget else UNMET)


def show(result: SearchResult, rest: str) -> None:
    """The outcome in words; `rest` is what `n2n evaluate` needs besides the folder."""
    typer.echo(f"\n{aligned(HEADER, figures_table(read_json(result.out / 'result.json')))}\n")
    for note in result.notes:
        typer.echo(f"note: {note}")
    for missed in () if result.meets_budget else [*(one for all_of in result.students for one in all_of.violations)]:
        typer.echo(f"budget missed: {missed}")
    if not result.students:
        more = "it was interrupted" if result.stopped == "interrupted" else "allow more --evaluations or a wider budget"
        typer.echo(f"no student was finished; {more}")
    known = f", {result.reused} of them by the cache" if result.reused else ""
    typer.echo(f"{result.evaluations} students judged{known} in {result.seconds:.0f} s; ended by: {result.stopped}")
    typer.echo(f"run folder: {result.out}\nlook next at:")
    typer.echo(f"  {result.out / 'report.md'}")
    for one in result.students[:1]:
        typer.echo(f"  n2n evaluate {result.out / one.folder}{rest}")
    if (result.out / "policies").is_dir():  # agents without weights leave none
        typer.echo(f"  n2n policy show {result.out}")
