"""Proximal policy optimisation (Schulman et al. 2017) by Stable-Baselines3, behind the interface of an agent.

Stable-Baselines3 owns the network, the buffer and the update; this file only feeds them. Its policies know no masks: an
action that is not legal is played as the nearest legal one, and the wished one is what is reinforced, so that the
replacement is a part of the environment and the update stays on-policy.

Its perceptron reads a summary of the observation in place of all N rows, which costs the same for any depth and lets
the weights fit other teachers.
"""

from __future__ import annotations

import random as python_random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from n2n.agents.base import Stats, Trajectory, fitting, nearest_legal
from n2n.agents.policies import cursor_weight, under_cursor
from n2n.agents.threads import one_thread
from search_spaces.base import FEATURES

_DECIDED = FEATURES.index("decided")


def summary(observation: Tensor) -> Tensor:
    """Three mean rows [..., 3F] of observations [..., N, F]: under the cursor, of all layers, of the decided ones."""
    decided = observation[..., _DECIDED]  # [..., N]
    share = decided / decided.sum(dim=-1, keepdim=True).clamp_min(1.0)
    current = under_cursor(observation, cursor_weight(observation))
    return torch.cat((current, observation.mean(dim=-2), under_cursor(observation, share)), dim=-1)


class Sb3PpoAgent:
    """PPO with Stable-Baselines3's two-layer perceptrons, one for the policy and one for the value."""

    def __init__(self, features: int, actions: int, seed: int, options: dict[str, Any]) -> None:
        _require()
        self._steps: list[tuple[Tensor, Tensor, Tensor]] = []  # wished actions, values, log-probabilities, each [B]
        self._random = _Random(seed)
        with self._random.swapped():
            self._model = _model(features, actions, options)

    def reset(self, batch_size: int) -> None:
        """Forgets the rollout before."""
        self._steps = []

    @torch.no_grad()
    @one_thread()
    def act(self, observation: Tensor, legal: Tensor) -> Tensor:
        """Samples an action for each draft, [B], and replaces what is not legal."""
        with self._random.swapped():
            self._model.policy.set_training_mode(False)
            wished, values, log_probabilities = self._model.policy(summary(observation))
        self._steps.append((wished, values.flatten(), log_probabilities))
        return nearest_legal(legal, wished)

    @one_thread()
    def learn(self, trajectory: Trajectory) -> Stats:
        """Fills Stable-Baselines3's buffer with the rollouts and lets it train."""
        steps, batch = trajectory.actions.shape
        if len(self._steps) != steps:
            raise ValueError(
                f"learn was given {steps} decisions, and act was called {len(self._steps)} times since reset; "
                "PPO learns from the rollout that it has just made"
            )
        model = self._model
        model.n_envs, model.n_steps = batch, steps
        model.rollout_buffer = self._buffer(trajectory)
        with self._random.swapped():
            model.train()
        logged = model.logger.name_to_value
        self._steps = []
        return Stats(
            mean_reward=trajectory.rewards.mean().item(),
            best_reward=trajectory.rewards.max().item(),
            loss=float(logged["train/loss"]),
            entropy=-float(logged["train/entropy_loss"]),
            baseline=float(model.rollout_buffer.values.mean()),
        )

    def state(self) -> dict[str, Tensor]:
        """The weights of policy and value network."""
        return {name: value.detach().cpu().clone() for name, value in self._model.policy.state_dict().items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Takes weights over; the optimiser keeps what it knows of the steps before."""
        fitting(self._model.policy, state)
        self._model.policy.load_state_dict(dict(state))

    def _buffer(self, trajectory: Trajectory) -> Any:
        from stable_baselines3.common.buffers import RolloutBuffer

        model = self._model
        steps, batch = trajectory.actions.shape
        buffer = RolloutBuffer(
            steps,
            model.observation_space,
            model.action_space,
            device="cpu",
            gamma=model.gamma,
            gae_lambda=model.gae_lambda,
            n_envs=batch,
        )
        seen = summary(trajectory.observations).numpy()  # [T, B, 3F]
        for step, (wished, values, log_probabilities) in enumerate(self._steps):
            last = step == steps - 1
            buffer.add(
                seen[step],
                wished.numpy().reshape(-1, 1),
                trajectory.rewards.numpy() if last else np.zeros(batch, dtype=np.float32),
                np.full(batch, float(step == 0), dtype=np.float32),
                values,
                log_probabilities,
            )
        buffer.compute_returns_and_advantage(torch.zeros(batch), np.ones(batch, dtype=np.float32))
        return buffer


def _model(features: int, actions: int, options: dict[str, Any]) -> Any:
    """Stable-Baselines3's PPO without an environment, set up as `PPO.load` does it."""
    from gymnasium import spaces
    from stable_baselines3 import PPO
    from stable_baselines3.common.logger import Logger

    model = PPO("MlpPolicy", None, device="cpu", _init_setup_model=False, **options)  # type: ignore[arg-type]
    model.observation_space = spaces.Box(0.0, 1.0, (3 * features,), np.float32)
    model.action_space = spaces.Discrete(actions)
    model.n_envs = 1
    model._setup_model()
    model.set_logger(Logger(folder=None, output_formats=[]))
    return model


class _Random:
    """Stable-Baselines3 draws from the global generators; this lends them the agent's own stream, and puts back."""

    def __init__(self, seed: int) -> None:
        self._numpy = np.random.RandomState(seed).get_state()
        self._torch = torch.Generator().manual_seed(seed).get_state()
        self._python = python_random.Random(seed).getstate()

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """The global generators are the agent's inside, and as they were afterwards."""
        before = (np.random.get_state(), torch.get_rng_state(), python_random.getstate())
        self._install(self._numpy, self._torch, self._python)
        try:
            yield
        finally:
            self._numpy, self._torch, self._python = (
                np.random.get_state(),
                torch.get_rng_state(),
                python_random.getstate(),
            )
            self._install(*before)

    @staticmethod
    def _install(numpy_state: Any, torch_state: Tensor, python_state: Any) -> None:
        np.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)
        python_random.setstate(python_state)


def sb3_ppo(
    features: int,
    actions: int,
    decisions: int,
    *,
    seed: int,
    learning_rate: float = 3e-3,
    epochs: int = 8,
    batch_size: int = 128,
    clip_range: float = 0.2,
    gae_lambda: float = 0.95,
    entropy_weight: float = 0.2,
) -> Sb3PpoAgent:
    """PPO, undiscounted, since a student is worth as much after many decisions as after few.

    Args:
        features: F.
        actions: A.
        decisions: T.
        seed: of weights, draws and minibatches.
        learning_rate: of Adam.
        epochs: passes over each batch of rollouts.
        batch_size: decisions per minibatch.
        clip_range: how far the ratio of new to old probability is followed.
        gae_lambda: bias against variance of the advantages.
        entropy_weight: weight of the entropy bonus.

    Raises:
        ImportError: Stable-Baselines3 is not installed.
    """
    return Sb3PpoAgent(
        features,
        actions,
        seed,
        {
            "learning_rate": learning_rate,
            "n_epochs": epochs,
            "batch_size": batch_size,
            "clip_range": clip_range,
            "gae_lambda": gae_lambda,
            "ent_coef": entropy_weight,
            "gamma": 1.0,
            "n_steps": max(decisions, 2),
        },
    )


def _require() -> None:
    try:
        import stable_baselines3  # noqa: F401 - only whether it is there
    except ModuleNotFoundError as error:
        raise ImportError(
            'the agent "sb3_ppo" needs Stable-Baselines3; install it with: pip install "n2n[sb3]"'
        ) from error
