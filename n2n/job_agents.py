"""Who takes the decisions of a search over a teacher: its agents, and the policies that they start from and leave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from n2n.agents import AGENTS, BIASED, EVOLUTION
from n2n.agents.base import Agent, Learned
from n2n.agents.frozen import FrozenAgent
from n2n.policies import Policy, PolicyError, own_options, save_policy, save_stage
from n2n.policies.card import Card, Trained, points, weights_hash, write_card
from n2n.policies.files import json_value
from n2n.policies.library import Entry, Library, read_entry
from n2n.search.budgets import budget_text
from n2n.search.conclude import Finish
from n2n.search.files import NAMED, STARTED, read_json, write_json
from n2n.search.options import SearchOptions
from n2n.search.stage import StageResult
from search_spaces.base import FEATURES, SearchSpace

KEEP_BIAS = 2.2
"""The removal policy starts by keeping nine layers of ten: without half of its layers no teacher is worth a try."""
SPACE = {"removal": ("granularity",), "shrinkage": ("factors", "kernels")}
"""The options that say what the decisions of a stage are."""


def checked_policies(policies: Mapping[str, Policy], options: SearchOptions) -> Mapping[str, Policy]:
    """The policies of the stages that are played, each of them tried.

    Raises:
        PolicyError: one does not fit, none is of a stage that is played, or a mode lacks one.
    """
    found = {stage: policy for stage, policy in policies.items() if stage in options.stages}
    played = " and ".join(options.stages)
    if policies and not found:
        raise PolicyError(
            f"the policy is for the stage {' and '.join(policies)}, and this search runs {played} only; give another"
            " policy, or run that stage"
        )
    mode = options.policy_mode
    if mode != "warm" and not policies:
        raise PolicyError(f"policy_mode={mode!r} without a policy has no effect; name one (`n2n policy list`)")
    without = [stage for stage in options.stages if stage not in found]
    if mode == "zero-shot" and without:
        raise PolicyError(
            f"policy_mode='zero-shot': there is no policy for {' and '.join(without)}; give the folder with those of"
            " all stages, or switch these stages off"
        )
    for stage, policy in found.items():
        actions = 2 if stage == "removal" else len(options.factors)
        policy.check(stage=stage, num_actions=actions, agent=options.agent if mode == "warm" else None)
        if mode != "warm":
            policy.proposes()
        policy.agent(1, seed=0)  # as it will be made when the stage begins
    return found


def make_agent(options: SearchOptions, policies: Mapping[str, Policy], stage: str, space: SearchSpace) -> Agent:
    """The agent of a stage: with what its policy has learned, where there is one."""
    seed, policy = stage_seed(options.seed, stage), policies.get(stage)
    if policy is not None and options.policy_mode == "warm":
        return policy.agent(space.num_decisions, seed=seed)
    own = own_options(options.agent, stage)
    if options.agent == "evolution":
        own = {name: value for name in EVOLUTION if (value := getattr(options, name)) is not None}
    if options.agent in BIASED:
        own["keep_bias"] = KEEP_BIAS if stage == "removal" else 0.0
    if policy is not None:
        learned = policy.agent(space.num_decisions, seed=seed)
        assert isinstance(learned, Learned)  # `checked_policies` has asked
        if options.policy_mode == "zero-shot":
            return FrozenAgent(learned.acting, space.num_actions, space.num_decisions, seed=seed)
        own["proposal"] = learned.acting
    return AGENTS[options.agent](len(FEATURES), space.num_actions, space.num_decisions, seed=seed, **own)


def space_of(options: SearchOptions, stage: str) -> dict[str, Any]:
    """What the decisions of a stage are, as the options say."""
    return {name: json_value(getattr(options, name)) for name in SPACE[stage]}


def learned_space(entries: Sequence[Entry]) -> dict[str, Any]:
    """The space options that policies were trained with, as far as they say; those of the first that does."""
    found: dict[str, Any] = {}
    for policy in (policy for entry in reversed(entries) for policy in entry.policies.values()):
        own = {name: policy.meta.space[name] for name in SPACE[policy.meta.stage] if name in policy.meta.space}
        found |= {name: tuple(value) if isinstance(value, list) else value for name, value in own.items()}
    return found


def strange(policies: Mapping[str, Policy], options: SearchOptions) -> tuple[str, ...]:
    """What of the search is not as its policies have learned it, in words."""
    found = (policy.strange(space_of(options, stage)) for stage, policy in policies.items())
    return tuple(f"{text}: it acts, and may be of little use" for text in found if text)


def started_from(policy: str | Path | None, run: Path | None, library: Library) -> Entry | None:
    """The policy that a search starts from: where `run` is gone on with, the copy that it has kept.

    Raises:
        PolicyError: there is no such policy, or it cannot be read.
    """
    if policy is None:
        return None
    if run is not None and (run / STARTED).is_dir() and _names_of(policy) & {*read_json(run / NAMED).get("names", ())}:
        return read_entry(run / STARTED, str(policy))
    return library.find(policy)


def keep_start(run: Path, began: Entry | None) -> None:
    """Keeps a copy of the policy that a run starts from, so that it can be gone on with when the policy is gone."""
    if began is None:
        return
    for stage, policy in began.policies.items():
        save_policy(run / STARTED / stage, policy.state, policy.meta)
    if began.card is not None:
        write_card(run / STARTED, began.card)
    write_json(run / NAMED, {"names": sorted(_names_of(began.name))})


def _names_of(policy: str | Path) -> set[str]:
    """A policy as it was named, and the absolute path that the name would be: it may be gone when it is asked again."""
    return {str(policy), str(Path(policy).expanduser().resolve())}


def stage_seed(seed: int, stage: str) -> int:
    """The seed of a stage's agent, so that the two stages do not draw the same numbers."""
    return 2 * seed + (stage == "shrinkage")


def save_policies(
    out: Path,
    stages: Sequence[StageResult],
    finish: Finish,
    policies: Mapping[str, Policy],
    began: Entry | None,
    key: str,
) -> None:
    """Writes what the agents of a run have learned, with its card; nothing where they have learned nothing.

    Args:
        policies: those that the stages started from.
        began: where these come from.
        key: of the teacher.

    Raises:
        WriteError: the file system refused.
    """
    learned = [stage for stage in stages if stage.state]
    for stage in learned:
        start = policies.get(stage.name)
        save_stage(
            out, stage, agent=finish.options.agent, seed=finish.options.seed, network=finish.teacher.name,
            options=None if start is None else start.meta.options, space=space_of(finish.options, stage.name),
        )  # fmt: skip
    if learned:
        write_card(out / "policies", _card(out, learned, finish, began, key))


def _card(out: Path, stages: Sequence[StageResult], finish: Finish, began: Entry | None, key: str) -> Card:
    options, teacher = finish.options, finish.teacher
    space = {name: value for stage in stages for name, value in space_of(options, stage.name).items()}
    before = began.card if began is not None else None
    own = Trained(teacher.name, finish.data.training.name, teacher.parameters, round(teacher.accuracy, 5), key)
    judged = f"the score {options.evaluate}" if options.evaluate else " then ".join(one.name for one in options.rungs)
    return Card(
        trained=(*(one for one in (before.trained if before else ()) if one.key != key or not key), own),
        space={"stages": [one.name for one in stages], **space},
        reward=f"C (2 - C) A / A_T, A by {judged}, {options.counted_shortfall:g} of what it lacks counted",
        budget=budget_text(options),
        judged=sum(one.evaluations for one in stages),
        curve=points(out / "learning_curve.csv"),
        weights={one.name: weights_hash(one.state) for one in stages},
        made_by="n2n search" + (f", from the policy {Path(began.name).name}" if began is not None else ""),
    )
