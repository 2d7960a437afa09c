"""A policy as a folder: `policy.safetensors` and `policy.json` with the schema of its observations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from n2n.agents import AGENTS, PROPOSING
from n2n.agents.base import Agent
from n2n.search.artefacts import read_tensors
from n2n.search.errors import ArtefactError
from n2n.search.files import read_json, write_json, write_tensors
from n2n.search.stage import StageResult
from search_spaces.base import FEATURES, OBSERVATION_VERSION

META, WEIGHTS = "policy.json", "policy.safetensors"
STAGES = ("removal", "shrinkage")
DEFAULT_AGENT = "uniform"
"""Where neither an agent nor a policy is named: of those that start from nothing the best one on networks, by
`scripts/benchmarks/learning_networks.py`."""
LEARNING_AGENT = "reinforce"
"""The same where uniform scaling cannot be: layers are only removed, or nobody waits for the others of a batch."""


class PolicyError(ValueError):
    """A policy is missing, damaged, or was trained on other observations or actions."""


@dataclass(frozen=True)
class PolicyMeta:
    """What a policy was trained on; `num_decisions` and `network` only inform, for it runs on others too.

    `options` are the arguments of its agent's builder that are not the usual ones, such as `{"encoder": "attention"}`;
    `space` says what its decisions were: the factors of shrinkage, the granularity of removal, whether kernels shrank.
    """

    agent: str
    stage: str
    num_actions: int
    num_decisions: int
    seed: int = 0
    updates: int = 0
    network: str = ""
    features: tuple[str, ...] = FEATURES
    observation_version: int = OBSERVATION_VERSION
    options: Mapping[str, Any] = field(default_factory=dict)
    space: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        own = {"features": list(self.features), "options": dict(self.options), "space": dict(self.space)}
        return {**self.__dict__, **own}


@dataclass(frozen=True)
class Policy:
    """A policy's description and its tensors by name, as `Agent.state()` gave them."""

    meta: PolicyMeta
    state: Mapping[str, Tensor]

    def check(self, *, stage: str, num_actions: int, agent: str | None = None) -> None:
        """Refuses a search that this policy cannot act in; `agent` is None where another may act with it.

        Raises:
            PolicyError: another agent, stage or number of actions; both sides are named, and what to do.
        """
        factors = self.meta.space.get("factors")
        if stage == self.meta.stage == "shrinkage" and factors is not None and num_actions != self.meta.num_actions:
            words = " ".join(f"--factor {value:g}" for value in factors)
            raise PolicyError(
                f"the shrinkage policy was trained with {len(factors)} factors, the search has {num_actions}: say"
                f" {words} (factors={tuple(factors)})"
            )
        if agent is not None and agent != self.meta.agent:
            raise PolicyError(
                f"the {self.meta.stage} policy is of the agent {self.meta.agent!r}, the search has {agent!r}: leave out"
                " --agent, or let evolution draw from the policy (policy_mode='proposal')"
            )
        pairs = (
            ("stage", self.meta.stage, stage),
            ("num_actions", self.meta.num_actions, num_actions),
        )
        wrong = [f"{name} is {mine!r}, the search has {theirs!r}" for name, mine, theirs in pairs if mine != theirs]
        if wrong:
            raise PolicyError(f"the {self.meta.stage} policy does not fit the search: {'; '.join(wrong)}")

    def strange(self, space: Mapping[str, Any]) -> str:
        """What of a search's space is not as the policy learned it, in words; empty where all that is known agrees."""
        asked = {name: list(value) if isinstance(value, tuple) else value for name, value in space.items()}
        other = [
            f"{name} {self.meta.space[name]!r}, the search has {value!r}"
            for name, value in asked.items()
            if name in self.meta.space and json_value(self.meta.space[name]) != value
        ]
        return f"the {self.meta.stage} policy was trained with {' and '.join(other)}" if other else ""

    def agent(self, num_decisions: int, *, seed: int) -> Agent:
        """The agent as it was when the policy was saved, in a space of so many decisions; it can learn on.

        Raises:
            PolicyError: this n2n has no such agent, or one with other weights.
        """
        meta = self.meta
        if meta.agent not in AGENTS:
            raise PolicyError(f"the policy is of the agent {meta.agent!r}, this n2n has {', '.join(AGENTS)}")
        try:
            agent = AGENTS[meta.agent](
                len(FEATURES), meta.num_actions, num_decisions, seed=seed, **own_options(meta.agent, meta.stage),
                **meta.options,
            )  # fmt: skip
            agent.load(self.state)
        except (TypeError, ValueError) as error:
            raise PolicyError(f"the {meta.stage} policy does not fit: {error}") from error
        return agent

    def proposes(self) -> None:
        """Refuses a policy that others cannot act with.

        Raises:
            PolicyError: its agent keeps its policy to itself.
        """
        if self.meta.agent not in PROPOSING:
            raise PolicyError(
                f"the {self.meta.stage} policy is of the agent {self.meta.agent!r}, which can only learn on"
                f" (policy_mode='warm'); policies of {', '.join(PROPOSING)} can act without learning, too"
            )


def json_value(value: Any) -> Any:
    """A tuple as a list, as JSON has it; other values as they are."""
    return list(value) if isinstance(value, tuple) else value


def chosen_agent(agent: str | None, policies: Mapping[str, Policy], mode: str, *, usual: str = DEFAULT_AGENT) -> str:
    """The agent of a search: the one that is named, or the policies', or the `usual` one.

    Raises:
        PolicyError: the policies are of several agents and none is named, or evolution is to draw from them and
            another agent is named.
    """
    if policies and mode == "proposal":
        if agent not in (None, "evolution"):
            raise PolicyError(
                f"policy_mode='proposal' is for evolution, not for agent={agent!r}; leave one of both out"
            )
        return "evolution"
    found = sorted({one.meta.agent for one in policies.values()})
    if agent is None and len(found) > 1:
        raise PolicyError(f"the policies are of the agents {' and '.join(found)}; give those of one agent")
    return agent or (found[0] if found else usual)


def own_options(agent: str, stage: str) -> dict[str, Any]:
    """What the builder of an agent is told of the stage: REINFORCE has a network for each."""
    return {"policy": stage} if agent == "reinforce" else {}


def save_policy(path: str | Path, state: Mapping[str, Tensor], meta: PolicyMeta) -> Path:
    """Writes a policy folder and returns its path. Raises `WriteError` where the file system refuses."""
    folder = Path(path)
    write_tensors(folder / WEIGHTS, state)
    shapes = {name: list(tensor.shape) for name, tensor in state.items()}
    write_json(folder / META, {**meta.to_json(), "shapes": shapes})
    return folder


def save_stage(
    out: Path,
    stage: StageResult,
    *,
    agent: str,
    seed: int,
    network: str,
    options: Mapping[str, Any] | None = None,
    space: Mapping[str, Any] | None = None,
) -> None:
    """Writes what a stage of the run in `out` has learned, where its agent has weights.

    Args:
        agent: its name.
        seed: of the run.
        network: what it was learned on, a teacher's or a space's name.
        options, space: see `PolicyMeta`.

    Raises:
        WriteError: the file system refused.
    """
    if stage.state:
        meta = PolicyMeta(
            agent=agent,
            stage=stage.name,
            num_actions=stage.num_actions,
            num_decisions=stage.num_decisions,
            seed=seed,
            updates=stage.updates,
            network=network,
            options=options or {},
            space={name: json_value(value) for name, value in (space or {}).items()},
        )
        save_policy(out / "policies" / stage.name, stage.state, meta)


def load_policy(path: str | Path) -> Policy:
    """Reads a policy folder.

    Raises:
        PolicyError: no such policy, damaged files, or observations of another version or with other features.
    """
    folder = Path(path)
    try:
        values = read_json(folder / META, ("observation_version", "features", "shapes"))
        shapes = values.pop("shapes")
        _check_schema(folder, values)
        state = read_tensors(folder / WEIGHTS)
    except ArtefactError as error:
        raise PolicyError(str(error)) from error
    found = {name: list(tensor.shape) for name, tensor in state.items()}
    if found != shapes:
        raise PolicyError(
            f"{folder / WEIGHTS} does not hold the tensors that {folder / META} lists; they are of two policies"
        )
    return Policy(PolicyMeta(**{**values, "features": tuple(values["features"])}), state)


def load_policies(path: str | Path) -> dict[str, Policy]:
    """The policies by stage: of one policy folder, or of the folder `policies` of a run (or the run itself).

    Raises:
        PolicyError: there is none, or one of them cannot be read.
    """
    folder = Path(path)
    if (folder / META).is_file():
        one = load_policy(folder)
        return {one.meta.stage: one}
    for parent in (folder, folder / "policies"):
        found = {path.parent.name: load_policy(path.parent) for path in sorted(parent.glob(f"*/{META}"))}
        if found:
            return found
    if not folder.exists():
        raise PolicyError(f"there is no folder {folder}; name that of a policy, or of a run")
    if folder.suffix == ".zip":
        raise PolicyError(f"{folder} is an exported policy: `n2n policy import {folder} --name NAME` takes it in first")
    raise PolicyError(
        f"{folder} holds no policy: expected {META}, or folders such as {' and '.join(STAGES)} with one; agents without"
        " weights (random, uniform, evolution) leave none, nor do searches that only act with a policy"
    )


def _check_schema(folder: Path, values: Mapping[str, Any]) -> None:
    version = values["observation_version"]
    if version != OBSERVATION_VERSION:
        raise PolicyError(
            f"{folder} was trained on observations of version {version}, this n2n has version {OBSERVATION_VERSION}: "
            "use the n2n that wrote it, or train a new policy"
        )
    features = tuple(values["features"])
    if features != FEATURES:
        lost, new = sorted(set(features) - set(FEATURES)), sorted(set(FEATURES) - set(features))
        raise PolicyError(
            f"{folder} was trained on {len(features)} features, this n2n has {len(FEATURES)} "
            f"(only in the policy: {lost}; only here: {new}; or another order): train a new policy"
        )
    known = PolicyMeta.__dataclass_fields__
    needed = {name for name, one in known.items() if one.default is MISSING and one.default_factory is MISSING}
    if not needed <= set(values) <= set(known):
        raise PolicyError(
            f"{folder / META} has the keys {sorted(values)}, expected {sorted(known)}; it was edited or damaged"
        )
