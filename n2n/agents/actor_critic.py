"""Actor-critic learning on masked recurrent policies, once per batch of rollouts or in PPO's clipped epochs.

One loss serves both. With one epoch the ratio of new to old probability is 1 wherever its gradient is taken, so that
PPO's clipped objective has the gradient of the plain advantage actor-critic (Mnih et al. 2016).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from n2n.agents.advantages import SCALES, clipped_surrogate, generalised_advantages, leave_one_out
from n2n.agents.base import Stats, Trajectory, fitting
from n2n.agents.draws import Draws
from n2n.agents.elite import Elite
from n2n.agents.encoders import ENCODERS, AnyEncoder
from n2n.agents.masks import masked_log_probabilities
from n2n.agents.policies import Memory, one_hot_previous
from n2n.agents.threads import one_thread

BASELINES = ("value", "average", "leave_one_out")


@dataclass(frozen=True)
class ActorCriticOptions:
    """How an actor-critic learns; see `n2n.agents.ppo.ppo` for what each means."""

    learning_rate: float
    epochs: int
    clip_range: float
    gae_decay: float
    baseline: str
    scale: str
    history: int
    entropy_weight: float
    value_weight: float
    imitation_weight: float
    elite: int
    baseline_decay: float
    max_gradient_norm: float
    repeats: bool

    def __post_init__(self) -> None:
        checks = {
            "learning_rate > 0": self.learning_rate > 0,
            "epochs >= 1": self.epochs >= 1,
            "0 < clip_range < 1": 0 < self.clip_range < 1,
            "0 <= gae_decay <= 1": 0 <= self.gae_decay <= 1,
            f"baseline one of {', '.join(BASELINES)}": self.baseline in BASELINES,
            f"scale one of {', '.join(SCALES)}": self.scale in SCALES,
            "history >= 2": self.history >= 2,
            "entropy_weight >= 0": self.entropy_weight >= 0,
            "value_weight > 0": self.value_weight > 0,
            "imitation_weight >= 0": self.imitation_weight >= 0,
            "elite >= 1": self.elite >= 1,
            "0 <= baseline_decay < 1": 0 <= self.baseline_decay < 1,
            "max_gradient_norm > 0": self.max_gradient_norm > 0,
        }
        broken = [rule for rule, holds in checks.items() if not holds]
        if broken:
            raise ValueError(f"expected {' and '.join(broken)}; found {self}")


class ActorCritic(nn.Module):
    """An encoder with two heads: logits [.., A] and the expected reward [..]. Nearly uniform before it has learned."""

    def __init__(self, encoder: AnyEncoder, actions: int, *, hidden: int, keep_bias: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.policy = nn.Linear(hidden, actions)
        self.value = nn.Linear(hidden, 1)
        with torch.no_grad():
            self.policy.weight.mul_(0.01)
            self.policy.bias.zero_()
            self.policy.bias[-1] += keep_bias
            self.value.weight.mul_(0.01)
            self.value.bias.zero_()

    def step(self, observation: Tensor, previous: Tensor, memory: Memory | None) -> tuple[Tensor, Memory]:
        """Logits [B, A] of one decision, and what to remember."""
        code, memory = self.encoder.step(observation, previous, memory)
        return self.policy(code), memory

    def all_steps(self, observations: Tensor, previous: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [T, B, A] and values [T, B] of whole rollouts."""
        codes = self.encoder.all_steps(observations, previous)
        return self.policy(codes), self.value(codes).squeeze(-1)


class ActorCriticAgent:
    """Acts by sampling its policy; learns from each batch in one or more epochs, and again from the best so far."""

    def __init__(self, network: ActorCritic, actions: int, decisions: int, options: ActorCriticOptions, seed: int):
        self.network = network
        self.options = options
        self._actions, self._decisions = actions, decisions
        self._generator = torch.Generator().manual_seed(seed)
        self._forget()

    def _forget(self) -> None:
        """All that belongs to one network to be compressed, not to the policy."""
        self._optimizer = torch.optim.Adam(self.network.parameters(), lr=self.options.learning_rate, fused=True)
        self._elite = Elite(self.options.elite)
        self._rewards: list[float] = []  # of the last rollouts, the latest last
        self._average: float | None = None
        self.draws = Draws(self._actions, self._decisions, repeats=self.options.repeats, generator=self._generator)
        self.reset(0)

    @property
    def acting(self) -> ActorCritic:
        """The policy, for agents that only act with it."""
        return self.network

    def reset(self, batch_size: int) -> None:
        """Forgets the rollout before."""
        self._memory: Memory | None = None
        self.draws.reset(batch_size)

    @torch.no_grad()
    @one_thread()
    def act(self, observation: Tensor, legal: Tensor) -> Tensor:
        """Samples a legal action for each draft, [B]; without `repeats` one that leads to something new, if any."""
        logits, self._memory = self.network.step(observation, self.draws.previous, self._memory)
        return self.draws.draw(observation, logits, legal)

    @one_thread()
    def learn(self, trajectory: Trajectory) -> Stats:
        """Minimises, `epochs` times over, with `s` the scaled rewards and `V` the expected ones,

        `- mean_tb min(r A, clip(r) A) - entropy_weight H + value_weight / 2 mean_tb (V - s)^2` and, over the elite,
        `imitation_weight mean_tb [ - (s - V)_+ log pi + value_weight / 2 (s - V)_+^2 ]` (Oh et al. 2018,
        "Self-Imitation Learning", equations 1 to 3, with the best rollouts in place of prioritised ones).

        Without a value head the baseline stands for `V`, and the squares are not there.
        """
        options = self.options
        trajectory = self._drawn_under(trajectory)
        expected = self._expect(trajectory.rewards)
        if options.imitation_weight:  # the observations of a deep network are not kept for nothing
            self._elite.add(trajectory)
        history = torch.tensor(self._rewards)
        scaled = SCALES[options.scale](trajectory.rewards, history)  # [B]
        level = SCALES[options.scale](torch.tensor([expected]), history)  # [1]
        first: dict[str, float] = {}
        before = gain = torch.empty(0)
        for _ in range(options.epochs):
            logs, taken, values = self._read(trajectory)
            if not first:  # the policy that acted, and its advantages, stay the reference of all epochs
                before = taken.detach()
                gain = self._advantages(values.detach(), scaled, level)  # [T, B]
            entropy = -(logs.exp() * logs).sum(-1).mean()
            surrogate = clipped_surrogate((taken - before).exp(), gain, options.clip_range).mean()
            loss = -surrogate - options.entropy_weight * entropy
            if options.baseline == "value":
                loss = loss + options.value_weight / 2 * (values - scaled).square().mean()
            if options.imitation_weight:
                loss = loss + options.imitation_weight * self._imitation(history, level)
            self._optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            norm = nn.utils.clip_grad_norm_(self.network.parameters(), options.max_gradient_norm)
            self._optimizer.step()
            if not first:
                first = {"loss": loss.item(), "entropy": entropy.item(), "gradient_norm": norm.item()}
        rewards = trajectory.rewards
        return Stats(rewards.mean().item(), rewards.max().item(), baseline=expected, **first)

    @one_thread()
    def imitate(self, shown: Trajectory) -> float:
        """One gradient step towards the actions of rollouts that somebody else chose: `- mean_tb log pi`, given back.

        Where an action was the only legal one there is nothing to learn, and nothing is counted.
        """
        _, taken, _ = self._read(shown)
        free = shown.legal.sum(-1) > 1  # [T, B]
        loss = -taken[free].mean() if bool(free.any()) else taken.sum() * 0
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        nn.utils.clip_grad_norm_(self.network.parameters(), self.options.max_gradient_norm)
        self._optimizer.step()
        return loss.item()

    def state(self) -> dict[str, Tensor]:
        """The weights of encoder and heads."""
        return {name: value.detach().cpu().clone() for name, value in self.network.state_dict().items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Takes weights over; optimiser, baseline and memories start afresh, as another teacher has other rewards."""
        fitting(self.network, state)
        self.network.load_state_dict(dict(state))
        self._forget()

    def _drawn_under(self, trajectory: Trajectory) -> Trajectory:
        """The rollout with the masks that its actions were drawn under, where it is the one just made."""
        taken, masks = self.draws.taken, self.draws.open
        mine = len(taken) == len(trajectory.actions) and torch.equal(torch.stack(taken), trajectory.actions)
        return replace(trajectory, legal=torch.stack(masks)) if mine else trajectory

    def _expect(self, rewards: Tensor) -> float:
        """The moving average before these rewards, which then enter it and the history."""
        mean, decay = rewards.mean().item(), self.options.baseline_decay
        expected = mean if self._average is None else self._average
        self._average = decay * expected + (1 - decay) * mean
        self._rewards = [*self._rewards, *rewards.tolist()][-max(self.options.history, len(rewards)) :]
        return expected

    def _read(self, trajectory: Trajectory) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probabilities [T, B, A], those of the actions [T, B], and values [T, B]."""
        previous = one_hot_previous(trajectory.actions, self._actions)
        logits, values = self.network.all_steps(trajectory.observations, previous)
        logs = masked_log_probabilities(logits, trajectory.legal)
        return logs, logs.gather(-1, trajectory.actions.unsqueeze(-1)).squeeze(-1), values

    def _advantages(self, values: Tensor, scaled: Tensor, level: Tensor) -> Tensor:
        """What each action did better than expected, [T, B]."""
        if self.options.baseline == "value":
            return generalised_advantages(values, scaled, self.options.gae_decay)
        alone = self.options.baseline == "average" or len(scaled) == 1
        return (scaled - level if alone else leave_one_out(scaled)).expand_as(values)

    def _imitation(self, history: Tensor, level: Tensor) -> Tensor:
        """The loss of self-imitation over the elite, see `learn`."""
        elite = self._elite.trajectory()
        _, taken, values = self._read(elite)
        scaled = SCALES[self.options.scale](elite.rewards, history)  # [K]
        if self.options.baseline != "value":
            return -((scaled - level).clamp(min=0) * taken).mean()
        better = (scaled - values).clamp(min=0)  # [T, K]
        return (-better.detach() * taken + self.options.value_weight / 2 * better.square()).mean()


def build(
    features: int,
    actions: int,
    decisions: int,
    *,
    seed: int,
    encoder: str,
    hidden: int,
    layers: int,
    keep_bias: float,
    options: ActorCriticOptions,
) -> ActorCriticAgent:
    """The agent behind `ppo` and `actor_critic`, which say what the arguments mean.

    Raises:
        ValueError: unknown encoder, or sizes that it cannot have.
    """
    if encoder not in ENCODERS:
        raise ValueError(f"unknown encoder {encoder!r}; choose one of {', '.join(ENCODERS)}")
    if hidden < 1 or layers < 1:
        raise ValueError(f"expected hidden >= 1 and layers >= 1, found hidden={hidden}, layers={layers}")
    with torch.random.fork_rng(devices=[]):  # modules draw their first weights from the global generator only
        torch.manual_seed(seed)
        body = ENCODERS[encoder](features, actions, hidden=hidden, layers=layers)
        network = ActorCritic(body, actions, hidden=hidden, keep_bias=keep_bias)
    return ActorCriticAgent(network, actions, decisions, options, seed)


def actor_critic(
    features: int,
    actions: int,
    decisions: int,
    *,
    seed: int,
    encoder: str = "decisions",
    hidden: int = 32,
    layers: int = 1,
    learning_rate: float = 1e-2,
    gae_decay: float = 0.95,
    baseline: str = "value",
    scale: str = "rank",
    history: int = 100,
    entropy_weight: float = 0.05,
    value_weight: float = 0.5,
    imitation_weight: float = 0.0,
    elite: int = 8,
    baseline_decay: float = 0.8,
    max_gradient_norm: float = 1.0,
    repeats: bool = False,
    keep_bias: float = 0.0,
) -> ActorCriticAgent:
    """Advantage actor-critic (Mnih et al. 2016), one gradient step for each batch; the arguments are those of `ppo`.

    Raises:
        ValueError: an argument is out of its range; says which.
    """
    return build(
        features, actions, decisions, seed=seed, encoder=encoder, hidden=hidden, layers=layers, keep_bias=keep_bias,
        options=ActorCriticOptions(
            learning_rate=learning_rate, epochs=1, clip_range=0.2, gae_decay=gae_decay, baseline=baseline, scale=scale,
            history=history, entropy_weight=entropy_weight, value_weight=value_weight,
            imitation_weight=imitation_weight, elite=elite, baseline_decay=baseline_decay,
            max_gradient_norm=max_gradient_norm, repeats=repeats,
        ),
    )  # fmt: skip
