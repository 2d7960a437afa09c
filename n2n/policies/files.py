"""A policy as a folder: `policy.safetensors` and `policy.json` with the schema of its observations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from n2n.search.artefacts import read_tensors
from n2n.search.errors import ArtefactError
from n2n.search.files import read_json, write_json, write_tensors
from n2n.search.stage import StageResult
from search_spaces.base import FEATURES, OBSERVATION_VERSION

META, WEIGHTS = "policy.json", "policy.safetensors"
STAGES = ("removal", "shrinkage")


class PolicyError(ValueError):
    """A policy is missing, damaged, or was trained on other observations or actions."""


@dataclass(frozen=True)
class PolicyMeta:
    """What a policy was trained on; `num_decisions` and `network` only inform, for it runs on others too."""

    agent: str
    stage: str
    num_actions: int
    num_decisions: int
    seed: int = 0
    updates: int = 0
    network: str = ""
    features: tuple[str, ...] = FEATURES
    observation_version: int = OBSERVATION_VERSION

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {**self.__dict__, "features": list(self.features)}


@dataclass(frozen=True)
class Policy:
    """A policy's description and its tensors by name, as `Agent.state()` gave them."""

    meta: PolicyMeta
    state: Mapping[str, Tensor]

    def check(self, *, agent: str, stage: str, num_actions: int) -> None:
        """Refuses a search that this policy cannot act in.

        Raises:
            PolicyError: another agent, stage or number of actions; both sides are named.
        """
        pairs = (
            ("agent", self.meta.agent, agent),
            ("stage", self.meta.stage, stage),
            ("num_actions", self.meta.num_actions, num_actions),
        )
        wrong = [f"{name} is {mine!r}, the search has {theirs!r}" for name, mine, theirs in pairs if mine != theirs]
        if wrong:
            raise PolicyError(
                f"the policy does not fit the search: {'; '.join(wrong)}; change the search or the policy"
            )


def save_policy(path: str | Path, state: Mapping[str, Tensor], meta: PolicyMeta) -> Path:
    """Writes a policy folder and returns its path. Raises `WriteError` where the file system refuses."""
    folder = Path(path)
    write_tensors(folder / WEIGHTS, state)
    shapes = {name: list(tensor.shape) for name, tensor in state.items()}
    write_json(folder / META, {**meta.to_json(), "shapes": shapes})
    return folder


def save_stage(out: Path, stage: StageResult, *, agent: str, seed: int, network: str) -> None:
    """Writes what a stage of the run in `out` has learned, where its agent has weights.

    Args:
        agent: its name.
        seed: of the run.
        network: what it was learned on, a teacher's or a space's name.

    Raises:
        WriteError: the file system refused.
    """
    if stage.state:
        meta = PolicyMeta(agent, stage.name, stage.num_actions, stage.num_decisions, seed, stage.updates, network)
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
    raise PolicyError(
        f"{folder} holds no policy: expected {META}, or folders such as {' and '.join(STAGES)} with one; agents "
        "without weights (random, uniform, evolution) leave none"
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
    known = set(PolicyMeta.__dataclass_fields__)
    if set(values) != known:
        raise PolicyError(
            f"{folder / META} has the keys {sorted(values)}, expected {sorted(known)}; it was edited or damaged"
        )
