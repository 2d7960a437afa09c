"""A policy comes back as it was, and what does not fit is refused by name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from n2n.agents import AGENTS
from n2n.policies import Policy, PolicyError, PolicyMeta, load_policies, load_policy, save_policy
from search_spaces.base import FEATURES

META = PolicyMeta(agent="reinforce", stage="removal", num_actions=2, num_decisions=9, seed=3, updates=7, network="net")


@pytest.fixture
def state() -> dict[str, Tensor]:
    return AGENTS["reinforce"](len(FEATURES), 2, 9, seed=5, policy="removal").state()


@pytest.fixture
def folder(tmp_path: Path, state: dict[str, Tensor]) -> Path:
    return save_policy(tmp_path / "policies" / "removal", state, META)


def edit(folder: Path, **changed: object) -> None:
    values = json.loads((folder / "policy.json").read_text())
    (folder / "policy.json").write_text(json.dumps({**values, **changed}))


def test_a_policy_comes_back_into_an_agent_of_a_deeper_network(folder: Path, state: dict[str, Tensor]) -> None:
    policy = load_policy(folder)
    assert policy.meta == META
    other = AGENTS["reinforce"](len(FEATURES), 2, 100, seed=6, policy="removal")
    other.load(policy.state)
    assert other.state().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in other.state().items())


def test_another_version_of_the_observation_is_refused_with_both_named(folder: Path) -> None:
    edit(folder, observation_version=99)
    with pytest.raises(PolicyError, match="version 99, this n2n has version 2"):
        load_policy(folder)


def test_other_features_are_refused_with_the_difference_named(folder: Path) -> None:
    edit(folder, features=["colour", *FEATURES[1:]])
    with pytest.raises(PolicyError, match=rf"only in the policy: \['colour'\]; only here: \['{FEATURES[0]}'\]"):
        load_policy(folder)


def test_damaged_files_are_named(folder: Path) -> None:
    weights = folder / "policy.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PolicyError, match=r"policy.safetensors is damaged"):
        load_policy(folder)
    weights.write_bytes(whole)
    edit(folder, extra=1)
    with pytest.raises(PolicyError, match="keys"):
        load_policy(folder)


def test_weights_of_another_policy_are_noticed(folder: Path, state: dict[str, Tensor]) -> None:
    other = save_policy(folder.parent / "other", {"w": torch.zeros(2)}, META)
    (folder / "policy.safetensors").write_bytes((other / "policy.safetensors").read_bytes())
    with pytest.raises(PolicyError, match="two policies"):
        load_policy(folder)


def test_policies_are_found_in_a_run(folder: Path, state: dict[str, Tensor]) -> None:
    save_policy(folder.parent / "shrinkage", state, replace(META, stage="shrinkage"))
    run = folder.parent.parent
    for path in (run, run / "policies"):
        assert sorted(load_policies(path)) == ["removal", "shrinkage"]
    assert list(load_policies(folder)) == ["removal"]
    with pytest.raises(PolicyError, match=r"there is no folder .*nowhere"):
        load_policies(run / "nowhere")
    (run / "empty").mkdir()
    with pytest.raises(PolicyError, match="holds no policy"):
        load_policies(run / "empty")


def test_a_policy_that_cannot_act_in_a_search_says_why() -> None:
    policy = Policy(META, {})
    policy.check(agent="reinforce", stage="removal", num_actions=2)
    policy.check(stage="removal", num_actions=2)
    with pytest.raises(PolicyError, match=r"of the agent 'reinforce', the search has 'ppo': leave out --agent"):
        policy.check(agent="ppo", stage="removal", num_actions=2)
    with pytest.raises(
        PolicyError, match=r"stage is 'removal', the search has 'shrinkage'; num_actions is 2, .* has 5"
    ):
        policy.check(stage="shrinkage", num_actions=5)
