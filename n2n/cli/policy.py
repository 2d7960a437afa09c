"""`n2n policy show PATH`: what a saved policy was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from n2n.cli import options
from n2n.cli.door import Outcome, run
from n2n.cli.strict import Command, Group
from n2n.policies.files import Policy, load_policies

app = typer.Typer(cls=Group, no_args_is_help=True, help="Look at saved policies.")


@app.command("show", cls=Command)
def command(
    path: Annotated[Path, typer.Argument(help="A policy folder, a run's policies folder, or a run.")],
    as_json: options.Json = False,
) -> None:
    """Show what policies were trained on; a later search starts from them with --policy PATH."""
    run(lambda: show(path), as_json=as_json)


def show(path: Path) -> Outcome:
    """The policies at `path`, by stage."""
    policies = load_policies(path)
    record = {stage: {**policy.meta.to_json(), "parameters": size(policy)} for stage, policy in policies.items()}
    return Outcome({"path": str(path), "policies": record}, lambda: words(policies))


def size(policy: Policy) -> int:
    """How many numbers the policy has learned."""
    return sum(tensor.numel() for tensor in policy.state.values())


def words(policies: dict[str, Policy]) -> None:
    """The policies in words."""
    for stage, policy in policies.items():
        meta = policy.meta
        typer.echo(
            f"{stage}: agent {meta.agent}, {size(policy):,} numbers in {len(policy.state)} tensors, {meta.updates} "
            f"updates, seed {meta.seed}"
        )
        typer.echo(f"  trained on {meta.network or 'an unnamed network'}: {meta.num_decisions} decisions")
        typer.echo(
            f"  fits any network: {meta.num_actions} actions, {len(meta.features)} features, observation version "
            f"{meta.observation_version}"
        )
