"""`n2n policy`: the library of learned policies, and what can be done with one at once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import typer

from n2n.cli import options
from n2n.cli.config import ApplySettings, CompareSettings, ConfigError, SearchSettings
from n2n.cli.door import Outcome, run
from n2n.cli.networks import chosen, trained
from n2n.cli.search import number
from n2n.cli.search import search as find_students
from n2n.cli.strict import Command, Group
from n2n.comparison import Compared, Side, compare_policies, comparison
from n2n.data import example_inputs
from n2n.job_agents import learned_space
from n2n.policies.card import CARD, Card, write_card
from n2n.policies.files import Policy
from n2n.policies.library import Broken, Entry, Library
from n2n.report.tables import aligned

app = typer.Typer(
    cls=Group, no_args_is_help=True, rich_markup_mode=None, help="Keep, share, compare and apply learned policies."
)

Named = Annotated[str, typer.Argument(help="A name in the library, a policy folder, or a run.")]
Replace = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
TargetParams = Annotated[
    str | None, typer.Option("--target-params", help='Most parameters: a number, or a share such as "20%".')
]
TargetMacs = Annotated[str | None, typer.Option("--target-macs", help="Most MACs: a number or a share.")]


@app.command("list", cls=Command)
def list_command(as_json: options.Json = False) -> None:
    """List the policies of the library (~/.n2n/policies, or $N2N_POLICIES) and those that come with the package."""
    run(lambda: listed(Library.usual()), as_json=as_json)


@app.command("show", cls=Command)
def show_command(path: Named, as_json: options.Json = False) -> None:
    """Show what a policy was trained on, and its card; a search starts from it with --policy."""
    run(lambda: shown(path), as_json=as_json)


@app.command("apply", cls=Command)
def apply_command(
    context: typer.Context,
    policy: Named,
    target_params: TargetParams = None,
    target_macs: TargetMacs = None,
    teacher: options.Teacher = None,
    network: options.Network = None,
    network_arg: options.NetworkArg = None,
    weights: options.Weights = None,
    data: options.Data = None,
    data_dir: options.DataDir = None,
    students: Annotated[
        int | None, typer.Option("--students", help="Of each stage; of several the best is taken. [default: 1]")
    ] = None,
    final_epochs: Annotated[
        float | None, typer.Option("--final-epochs", help="Its distillation. [default: 3, or 600 steps]")
    ] = None,
    final_start: Annotated[
        str | None,
        typer.Option(
            "--final-start", help="inherited, or refit: as it was judged; for a short one. [default: inherited]"
        ),
    ] = None,
    objective: options.Objective = None,
    out: options.Out = None,
    force: options.Force = None,
    seed: options.Seed = None,
    device: options.Device = None,
    precision: options.Precision = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Cut a student with a policy at once, without a search, and distil it.

    The policy's likeliest student within the target; with more --students also some that it draws, of which the best
    by closed-form distillation is taken.
    """
    run(lambda: applied(options.read(ApplySettings, context), quiet=as_json), as_json=as_json)


@app.command("compare", cls=Command)
def compare_command(
    context: typer.Context,
    policies: Annotated[list[str], typer.Argument(help="Names in the library, policy folders, or runs.")],
    target_params: TargetParams = None,
    target_macs: TargetMacs = None,
    teacher: options.Teacher = None,
    network: options.Network = None,
    network_arg: options.NetworkArg = None,
    weights: options.Weights = None,
    data: options.Data = None,
    data_dir: options.DataDir = None,
    judged: Annotated[int | None, typer.Option("--judged", help="Students of each side. [default: 10]")] = None,
    seeds: Annotated[int | None, typer.Option("--seeds", help="Runs of each side. [default: 3]")] = None,
    against: Annotated[
        list[str] | None, typer.Option("--against", help="An agent to compare with; repeat. [default: random, uniform]")
    ] = None,
    policy_modes: Annotated[
        list[str] | None,
        typer.Option("--policy-mode", help="zero-shot, warm or proposal; may be repeated. [default: zero-shot]"),
    ] = None,
    rung: Annotated[str | None, typer.Option("--rung", help="How students are judged. [default: refit:0]")] = None,
    keep: Annotated[
        bool | None, typer.Option("--keep", help="Write the comparison with random choice into the policies' cards.")
    ] = None,
    device: options.Device = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Compare policies with random choice and uniform widths, on as many judged students each."""
    run(
        lambda: compared(options.read(CompareSettings, context), quiet=as_json),
        as_json=as_json,
    )


@app.command("import", cls=Command)
def import_command(
    source: Annotated[str, typer.Argument(help="A file that `n2n policy export` wrote, a policy folder, or a run.")],
    name: Annotated[str, typer.Option("--name", help="What the library is to call it.")],
    force: Replace = False,
    as_json: options.Json = False,
) -> None:
    """Take a policy into the library under a name."""
    run(lambda: taken(Library.usual().add(source, name, force=force)), as_json=as_json)


@app.command("export", cls=Command)
def export_command(
    policy: Named,
    file: Annotated[Path, typer.Argument(help="The zip file to write.")],
    force: Replace = False,
    as_json: options.Json = False,
) -> None:
    """Write a policy into one zip file of JSON and safetensors, to be imported elsewhere."""
    run(lambda: exported(policy, file, force=force), as_json=as_json)


@app.command("remove", cls=Command)
def remove_command(
    name: Annotated[str, typer.Argument(help="A name in the library.")], as_json: options.Json = False
) -> None:
    """Take a policy of yours out of the library; its folder is gone then."""
    run(lambda: removed(name), as_json=as_json)


def removed(name: str) -> Outcome:
    """A policy that is gone."""
    library = Library.usual()
    path = library.remove(name)
    again = f"; the package's {name} is, again" if (library.shipped / name).is_dir() else ""
    return Outcome(
        {"removed": str(path)}, lambda: typer.echo(f"yours of the name {name} is no longer in the library{again}")
    )


def listed(library: Library) -> Outcome:
    """All policies by name."""
    found = library.entries()
    record = {"folder": str(library.folder), "policies": [_record(one) for one in found]}
    return Outcome(record, lambda: _list(library, found))


def shown(wanted: str) -> Outcome:
    """One policy."""
    entry = Library.usual().find(wanted)
    return Outcome({"path": str(entry.folder), **_record(entry)}, lambda: _show(entry))


def taken(entry: Entry) -> Outcome:
    """A policy that came into the library."""
    text = (
        f"{entry.name} is in the library: {entry.folder}\n  n2n search --policy {entry.name} ...\n"
        f"  n2n policy apply {entry.name} --teacher ... --target-params 20% --out ..."
    )
    return Outcome({"path": str(entry.folder), **_record(entry)}, lambda: typer.echo(text))


def exported(wanted: str, file: Path, *, force: bool) -> Outcome:
    """A policy as one file."""
    path = Library.usual().export(wanted, file, force=force)
    size = path.stat().st_size
    return Outcome({"file": str(path), "bytes": size}, lambda: typer.echo(f"{path}: {size / 1000:.0f} kB"))


def applied(settings: ApplySettings, *, quiet: bool) -> Outcome:
    """A search that draws `students` of each stage from the policy, judges them in closed form, and learns nothing."""
    if settings.target_params is None and settings.target_macs is None:
        raise ConfigError('--target-params or --target-macs is needed, e.g. --target-params "20%"')
    entry = Library.usual().find(settings.policy)
    stages = entry.policies
    values = {name: getattr(settings, name) for name in settings.model_fields_set - {"students"} if name in SHARED}
    targets = {"max_params": settings.target_params, "max_macs": settings.target_macs}
    asked = SearchSettings.model_validate(
        {
            **learned_space([entry]),
            **values,
            **{name: value for name, value in targets.items() if value is not None},
            "policy_mode": "zero-shot",
            "removal": "removal" in stages,
            "shrinkage": "shrinkage" in stages,
            "evaluations": settings.students * len(stages),
            "rollouts": settings.students,
            "start": "refit",
            "steps": 0,
            "finalists": 1,
        }
    )
    return find_students(asked, quiet=quiet)


SHARED = frozenset(ApplySettings.model_fields) & frozenset(SearchSettings.model_fields)
"""Settings that mean the same in both."""


def compared(settings: CompareSettings, *, quiet: bool) -> Outcome:
    """A comparison, and what of it the cards keep."""
    if settings.teacher is None and settings.network is None:
        raise ConfigError("n2n policy compare needs a network: --teacher FOLDER, or --network with --weights")
    base = chosen(settings)
    assert base is not None
    base = trained(base, settings)
    library = Library.usual()
    if settings.keep:
        _check_kept([library.find(one) for one in settings.policies], settings.against)
    found = compare_policies(
        settings.policies, base.network, example_inputs(base.data), base.data,
        max_params=number(settings.target_params), max_macs=number(settings.target_macs), judged=settings.judged,
        seeds=settings.seeds, against=settings.against, policy_modes=settings.policy_modes, rung=settings.rung,
        teacher_name=base.name, device=settings.device, progress=not quiet, library=library,
    )  # fmt: skip
    notes = (
        [_kept(library.find(one), found, settings.policy_modes) for one in settings.policies] if settings.keep else []
    )
    notes = [*found.notes, *notes]
    return Outcome({**found.to_json(), "notes": notes}, lambda: _compared(found, notes))


def _check_kept(entries: Sequence[Entry], against: Sequence[str]) -> None:
    """Refuses, before anything is judged, what no card could keep."""
    without = [one.name for one in entries if one.shipped or one.card is None]
    if without:
        raise ConfigError(
            f"--keep writes into cards of yours; {', '.join(without)} belongs to the package or has no card. Of one of"
            " the package make your own with `n2n policy import NAME --name MINE`, and compare MINE"
        )
    if "random" not in against:
        raise ConfigError("--keep writes the comparison with random choice: say --against random, too")


def _kept(entry: Entry, found: Compared, modes: Sequence[str]) -> str:
    """Writes the comparison into a policy's card, and says what was done."""
    assert entry.card is not None  # `_check_kept` has looked
    known = entry.card.knows(found.key, found.data, found.parameters)
    lines = [comparison(found, entry.name, mode, held_back=not known) for mode in modes]
    if None in lines:
        return f"{entry.name}: nothing was kept: a side found no student within the budget"
    card = reduce(Card.compared_with, [line for line in lines if line is not None], entry.card)
    write_card(entry.cards, card)
    return f"{entry.name}: kept in {entry.cards / CARD}"


def size(policy: Policy) -> int:
    """How many numbers the policy has learned."""
    return sum(tensor.numel() for tensor in policy.state.values())


def _record(entry: Entry | Broken) -> dict[str, Any]:
    if isinstance(entry, Broken):
        return {"name": entry.name, "problem": entry.problem}
    policies = {stage: {**one.meta.to_json(), "parameters": size(one)} for stage, one in entry.policies.items()}
    card = None if entry.card is None else entry.card.to_json()
    return {"name": entry.name, "shipped": entry.shipped, "policies": policies, "card": card}


def _list(library: Library, found: list[Entry | Broken]) -> None:
    rows = []
    for one in found:
        if isinstance(one, Broken):
            rows.append((one.name, "broken", "", "", "", ""))
            continue
        card = one.card
        networks = "" if card is None else str(len(card.trained))
        students = "" if card is None else f"{card.judged:,}"
        agent = ", ".join(sorted({policy.meta.agent for policy in one.policies.values()}))
        rows.append((one.name, "package" if one.shipped else "you", agent, " ".join(one.policies), networks, students))
    typer.echo(f"{library.folder}, and what comes with the package:")
    if rows:
        typer.echo(aligned(("policy", "from", "agent", "stages", "networks", "students"), rows))
    else:
        typer.echo("no policy yet; `n2n policy import RUN --name NAME` takes what a search has learned")
    for one in found:
        if isinstance(one, Broken):
            typer.echo(f"\nbroken: {one.name}: {one.problem}")


def _show(entry: Entry) -> None:
    for stage, policy in entry.policies.items():
        meta = policy.meta
        typer.echo(
            f"{stage}: agent {meta.agent}, {size(policy):,} numbers in {len(policy.state)} tensors, {meta.updates} "
            f"updates, seed {meta.seed}"
        )
        told = f": {meta.num_decisions} decisions" if meta.num_decisions else ""  # several networks have no one number
        typer.echo(f"  trained on {meta.network or 'an unnamed network'}{told}")
        typer.echo(
            f"  fits any network: {meta.num_actions} actions, {len(meta.features)} features, observation version "
            f"{meta.observation_version}"
        )
    if entry.card is None:
        typer.echo("no card: it was saved by hand, or by an earlier n2n")
    else:
        _card(entry.card)


def _card(card: Card) -> None:
    typer.echo(f"made by {card.made_by}: {card.judged:,} students judged, rewarded by {card.reward}")
    typer.echo(f"budget: {card.budget}; space: {', '.join(f'{name} {value}' for name, value in card.space.items())}")
    for one in card.trained:
        accuracy = "" if one.accuracy is None else f", {one.accuracy:.2%} on validation"
        typer.echo(f"  trained on {one.teacher}, {one.data}: {one.parameters:,} parameters{accuracy}")
    others = ", of other networks and goals each time" if len(card.trained) > 1 else ""
    for stage in dict.fromkeys(point.stage for point in card.curve):
        own = [point for point in card.curve if point.stage == stage]
        first, last = f"{own[0].reward:.3f}", f"{own[-1].reward:.3f}"
        reward = f"from {first} (first batches) to {last} (last)" if len(own) > 1 else last
        typer.echo(f"  {stage}: mean reward {reward}{others}, {own[-1].judged:,} students")
    for line in card.compared:
        where = "held back" if line.held_back else "trained on"
        typer.echo(
            f"  {line.mode} ({line.stages}) on {line.teacher}, {line.data} ({where}), budget"
            f" {line.budget}: best reward {line.policy:.3f}, random {line.random:.3f}, after {line.judged} students,"
            f" {line.seeds} runs"
        )
    typer.echo(f"weights: {', '.join(f'{stage} {found[:16]}' for stage, found in card.weights.items())}")


def _compared(found: Compared, notes: list[str]) -> None:
    typer.echo(
        f"{found.teacher}, {found.data}, budget {found.budget}: {found.judged} students in each of {found.seeds} runs, "
        f"{' and '.join(found.stages)}; means (lowest to highest) over the runs"
    )
    header = ("side", "mode", "reward of the first within the budget", "best reward", "runs without one")
    typer.echo(aligned(header, [_row(one) for one in found.sides]))
    for note in notes:
        typer.echo(f"note: {note}")


def _row(side: Side) -> tuple[str, ...]:
    missed = sum(value is None for value in side.best)
    return (side.name, side.mode, _spread(side.first), _spread(side.best), str(missed))


def _spread(values: Sequence[float | None]) -> str:
    """Mean, lowest and highest of the runs that have a value."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    ends = f" ({min(known):.3f} to {max(known):.3f})" if len(known) > 1 else ""
    return f"{fmean(known):.3f}{ends}"
