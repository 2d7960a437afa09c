from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Sequence

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import FlattenObservation

from envs import IllegalAction, NearestLegal, StudentEnv
from envs.registration import IDS, register, size_evaluate, size_reward
from search_spaces.base import FEATURES, Architecture
from search_spaces.toy import ToySpace, toy


def open_env(space: ToySpace, **options: str) -> StudentEnv:
    return StudentEnv(space, size_evaluate(space), size_reward, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("space", [toy(), toy(decisions=1), toy(decisions=6, actions=2)], ids=["4x3", "1x3", "6x2"])
def test_passes_gymnasiums_check(space: ToySpace) -> None:
    check_env(open_env(space), skip_render_check=True)


@pytest.mark.parametrize("name", sorted(IDS))
def test_registered_ids_pass_both_checks(name: str) -> None:
    from stable_baselines3.common.env_checker import check_env as check_for_sb3

    env = gymnasium.make(name).unwrapped
    check_env(env)
    check_for_sb3(FlattenObservation(env))
    with pytest.warns(UserWarning, match="unconventional shape"):  # advice about [N, F], not a failure
        check_for_sb3(env)


def test_registered_id_takes_network_and_judgement() -> None:
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 6, 3), torch.nn.Flatten(), torch.nn.Linear(96, 2)
    )

    def evaluate(students: Sequence[Architecture]) -> list[str]:
        return [student.fingerprint for student in students]

    env = gymnasium.make(
        "n2n/LayerShrinkage-v0",
        network=network,
        example_inputs=torch.zeros(1, 1, 8, 8),
        evaluate=evaluate,
        reward=lambda evaluation: 0.25,
    )
    env.reset(seed=0)
    done = False
    while not done:
        _, reward, done, _, info = env.step(env.action_space.sample())
    assert reward == 0.25
    assert info["evaluation"] == info["architecture"].fingerprint


def test_half_given_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="both network= and example_inputs="):
        gymnasium.make("n2n/LayerRemoval-v0", network=torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="both evaluate= and reward="):
        gymnasium.make("n2n/LayerRemoval-v0", reward=size_reward)


def test_ids_are_found_by_their_module_in_a_new_process() -> None:
    code = "import gymnasium; print(gymnasium.make('envs:n2n/LayerRemoval-v0').unwrapped.space.name)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "layer_removal"


def test_registering_twice_changes_nothing() -> None:
    spec = gymnasium.registry["n2n/LayerRemoval-v0"]
    register()
    assert gymnasium.registry["n2n/LayerRemoval-v0"] is spec


def test_one_episode() -> None:
    space = toy(decisions=3, actions=3, width=12)
    env = open_env(space)
    observation, info = env.reset(seed=1)
    assert observation.shape == (4, len(FEATURES))
    assert info["decision"] == "layer0"
    assert info["legal"].tolist() == [False, True, True]
    seen = [env.step(np.int64(action)) for action in (1, 0, 2)]
    assert [step[1] for step in seen[:2]] == [0.0, 0.0]
    assert [step[2] for step in seen] == [False, False, True]
    assert not any(step[3] for step in seen)
    assert seen[1][4]["legal"].tolist() == [False, True, True]  # two narrowest may not follow each other
    last = seen[2][4]
    assert last["architecture"].widths == (8, 4, 12)
    assert not last["legal"].any()
    # 12 -> 8 -> 4 -> 12 -> 2 against 12 -> 12 -> 12 -> 12 -> 2.
    student, teacher = 104 + 36 + 60 + 26, 3 * 156 + 26
    assert seen[2][1] == pytest.approx(1 - student / teacher)


@pytest.mark.parametrize("action", [0, -1, 3, 1.0, np.array([1, 2]), None])
def test_an_illegal_action_names_layer_and_legal_actions(action: object) -> None:
    env = open_env(toy(actions=3))
    before, _ = env.reset()
    with pytest.raises(IllegalAction, match=r"layer0.*legal actions: \[1, 2\]"):
        env.step(action)  # type: ignore[arg-type]
    after, *_ = env.step(2)
    assert not np.array_equal(before, after)  # the draft had not moved, and can


def test_steps_outside_an_episode_are_refused() -> None:
    env = open_env(toy(decisions=1))
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(2)
    env.reset()
    env.step(2)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(2)


def test_samples_are_legal_everywhere_and_cover_what_is_legal() -> None:
    env = open_env(toy(decisions=3, actions=4, width=12))
    env.action_space.seed(0)
    played = set()
    for _ in range(150):
        env.reset()
        for decision in range(3):
            action = env.action_space.sample()
            played.add((decision, int(action)))
            env.step(action)
    assert played == {(0, 1), (0, 2), (0, 3), *((decision, action) for decision in (1, 2) for action in range(4))}


def test_a_sample_of_a_freshly_seeded_space_can_open_an_episode() -> None:
    env = open_env(toy(decisions=3, actions=4, width=12))
    for seed in range(30):
        env.reset()
        env.step(2)
        env.action_space.seed(seed)
        action = env.action_space.sample()
        env.reset()
        env.step(action)


def test_the_action_space_survives_a_copy() -> None:
    space = open_env(toy(actions=3)).action_space
    twin = copy.deepcopy(space)
    assert twin == space
    assert {int(twin.sample()) for _ in range(30)} == {1, 2}


def test_what_is_returned_is_the_callers() -> None:
    env = open_env(toy())
    observation, info = env.reset()
    observation[:] = 9.0
    info["legal"][:] = False
    again, info = env.reset()
    assert again.max() <= 1.0
    assert info["legal"].any()
    env.step(env.action_space.sample())


def test_render_shows_the_draft() -> None:
    env = open_env(toy(decisions=2), render_mode="ansi")
    env.reset()
    env.step(1)
    assert env.render() == "    0  layer0: 1 of 0..2\n>   1  layer1: -"
    assert open_env(toy()).render() is None
    with pytest.raises(ValueError, match="unknown render_mode 'human'"):
        open_env(toy(), render_mode="human")


@pytest.mark.parametrize(("wish", "played"), [(0, 1), (1, 1), (3, 3)])
def test_nearest_legal_wrapper(wish: int, played: int) -> None:
    env = NearestLegal(open_env(toy(decisions=1, actions=4, width=12)))
    env.reset()
    *_, info = env.step(np.int64(wish))
    assert info["architecture"].widths == (3 * (played + 1),)


def test_sb3_ppo_trains_on_it() -> None:
    from stable_baselines3 import PPO

    env = NearestLegal(open_env(toy()))
    before = torch.get_rng_state()
    model = PPO("MlpPolicy", env, n_steps=16, batch_size=16, n_epochs=1, device="cpu")
    weights = [value.clone() for value in model.policy.parameters()]
    model.learn(32)
    torch.set_rng_state(before)
    assert any(not torch.equal(old, new) for old, new in zip(weights, model.policy.parameters(), strict=True))


@pytest.mark.parametrize("name", ["MaskablePPO", "RecurrentPPO"])
def test_the_learners_of_sb3_contrib_train_on_it(name: str) -> None:
    import sb3_contrib
    from gymnasium.wrappers import FlattenObservation

    masked = name == "MaskablePPO"
    env = open_env(toy())
    before = torch.get_rng_state()
    model = getattr(sb3_contrib, name)(
        "MlpPolicy" if masked else "MlpLstmPolicy",
        FlattenObservation(env if masked else NearestLegal(env)),
        n_steps=16, batch_size=16, n_epochs=1, device="cpu",
    )  # fmt: skip
    weights = [value.clone() for value in model.policy.parameters()]
    model.learn(32)
    torch.set_rng_state(before)
    assert any(not torch.equal(old, new) for old, new in zip(weights, model.policy.parameters(), strict=True))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_reward_that_is_no_number_is_refused(value: float) -> None:
    env = StudentEnv(toy(decisions=1), lambda students: list(students), lambda evaluation: value)
    env.reset()
    with pytest.raises(ValueError, match="a reward is finite"):
        env.step(2)
