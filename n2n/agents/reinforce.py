"""REINFORCE (Williams 1992) on N2N's policies, with masks, an EMA baseline and one advantage per rollout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from n2n.agents.base import Stats, Trajectory, fitting
from n2n.agents.draws import Draws
from n2n.agents.masks import masked_log_probabilities
from n2n.agents.policies import Memory, Policy, RemovalPolicy, ShrinkagePolicy, one_hot_previous
from n2n.agents.threads import one_thread

PolicyBuilder: TypeAlias = Callable[..., Policy]
POLICIES: dict[str, PolicyBuilder] = {"removal": RemovalPolicy, "shrinkage": ShrinkagePolicy}
LEARNING_RATES = {"removal": 3e-3, "shrinkage": 1e-2}
"""Those of the paper."""


@dataclass(frozen=True)
class ReinforceOptions:
    """How REINFORCE learns; see `reinforce` for what each means."""

    learning_rate: float
    entropy_weight: float
    baseline_decay: float
    normalise: bool
    max_gradient_norm: float

    def __post_init__(self) -> None:
        checks = {
            "learning_rate > 0": self.learning_rate > 0,
            "entropy_weight >= 0": self.entropy_weight >= 0,
            "0 <= baseline_decay < 1": 0 <= self.baseline_decay < 1,
            "max_gradient_norm > 0": self.max_gradient_norm > 0,
        }
        broken = [rule for rule, holds in checks.items() if not holds]
        if broken:
            raise ValueError(f"expected {' and '.join(broken)}; found {self}")


def advantages(rewards: Tensor, baseline: float, *, normalise: bool) -> Tensor:
    """What each rollout did better than expected, [B]: `R_b - baseline`.

    Normalised, they are divided by their root mean square (plus 0.01, so that rollouts which all did as expected are
    not blown up). The mean over the batch is not subtracted again: the baseline has done that.
    """
    gain = rewards - baseline
    return gain / (gain.square().mean().sqrt() + 0.01) if normalise else gain


class ReinforceAgent:
    """Acts by sampling its policy, learns from each batch once and forgets it."""

    def __init__(self, policy: Policy, actions: int, decisions: int, options: ReinforceOptions, seed: int):
        self.policy = policy
        self.options = options
        self.baseline: float | None = None
        self._actions = actions
        self.draws = Draws(actions, decisions, repeats=True, generator=torch.Generator().manual_seed(seed))
        self._optimizer = torch.optim.Adam(policy.parameters(), lr=options.learning_rate)
        self._memory: Memory | None = None

    @property
    def acting(self) -> Policy:
        """The policy, for agents that only act with it."""
        return self.policy

    def reset(self, batch_size: int) -> None:
        """Forgets the rollout before."""
        self._memory = None
        self.draws.reset(batch_size)

    @torch.no_grad()
    @one_thread()
    def act(self, observation: Tensor, legal: Tensor) -> Tensor:
        """Samples a legal action for each draft, [B]."""
        logits, self._memory = self.policy.step(observation, self.draws.previous, self._memory)
        return self.draws.draw(observation, logits, legal)

    @one_thread()
    def learn(self, trajectory: Trajectory) -> Stats:
        """Minimises `- mean_tb A_b log pi(a_tb) - entropy_weight * mean_tb H(pi_tb)`.

        The mean over the decisions in place of the sum scales the loss alone: Adam does not see it, and the entropy
        bonus means the same for short and long rollouts.

        Rollouts of an earlier policy mu count by `min(1, prod_t pi(a_tb) / mu(a_tb))`: importance sampling, truncated
        so that no rollout counts for more than one (Ionides 2008; Espeholt et al. 2018, IMPALA, section 4.1). Below
        the bound the gradient is that of pi; at the bound it leans to what mu preferred.
        """
        rewards, options = trajectory.rewards, self.options
        expected = rewards.mean().item() if self.baseline is None else self.baseline
        gain = advantages(rewards, expected, normalise=options.normalise)  # [B]
        previous = one_hot_previous(trajectory.actions, self._actions)  # [T, B, A]
        logits = self.policy.all_logits(trajectory.observations, previous)
        log_probabilities = masked_log_probabilities(logits, trajectory.legal)  # [T, B, A]
        taken = log_probabilities.gather(-1, trajectory.actions.unsqueeze(-1)).squeeze(-1)  # [T, B]
        if trajectory.behaviour is not None:
            gain = gain * (taken.detach() - trajectory.behaviour).sum(0).clamp(max=0.0).exp()
        entropy = -(log_probabilities.exp() * log_probabilities).sum(-1).mean()
        loss = -(gain * taken).mean() - options.entropy_weight * entropy
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        norm = nn.utils.clip_grad_norm_(self.policy.parameters(), options.max_gradient_norm)
        self._optimizer.step()
        decay = options.baseline_decay
        self.baseline = decay * expected + (1 - decay) * rewards.mean().item()
        return Stats(
            mean_reward=rewards.mean().item(),
            best_reward=rewards.max().item(),
            loss=loss.item(),
            entropy=entropy.item(),
            baseline=expected,
            gradient_norm=norm.item(),
        )

    @torch.no_grad()
    @one_thread()
    def behaviour(self, trajectory: Trajectory) -> Tensor:
        """The log-probabilities of the actions by the present policy, [T, B]."""
        previous = one_hot_previous(trajectory.actions, self._actions)  # [T, B, A]
        logits = self.policy.all_logits(trajectory.observations, previous)
        log_probabilities = masked_log_probabilities(logits, trajectory.legal)
        return log_probabilities.gather(-1, trajectory.actions.unsqueeze(-1)).squeeze(-1)

    def state(self) -> dict[str, Tensor]:
        """The weights of the policy."""
        return {name: value.detach().cpu().clone() for name, value in self.policy.state_dict().items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Takes weights over; the optimiser and the baseline start afresh, as another teacher has other rewards."""
        fitting(self.policy, state)
        self.policy.load_state_dict(dict(state))
        self._optimizer = torch.optim.Adam(self.policy.parameters(), lr=self.options.learning_rate)
        self.baseline = None


def reinforce(
    features: int,
    actions: int,
    decisions: int,
    *,
    seed: int,
    policy: str | None = None,
    hidden: int = 30,
    layers: int = 2,
    learning_rate: float | None = None,
    entropy_weight: float = 0.2,
    baseline_decay: float = 0.8,
    normalise: bool = True,
    max_gradient_norm: float = 1.0,
    keep_bias: float = 0.0,
) -> ReinforceAgent:
    """N2N's learner.

    Args:
        features: F.
        actions: A.
        decisions: T; the policies do not depend on it.
        seed: of the first weights and of the draws.
        policy: "removal" or "shrinkage"; by default removal where there are two actions.
        hidden: size of each LSTM direction and layer; 30 in the paper.
        layers: LSTM layers; 2 in the paper.
        learning_rate: of Adam; by default that of the paper, 0.003 for removal and 0.01 for shrinkage.
        entropy_weight: one nat of entropy is worth this much advantage; 0 switches the bonus off. The default
            keeps looking for long; a smaller one settles sooner.
        baseline_decay: share of the old baseline that stays at an update.
        normalise: divides the advantages by their size, so that the scale of rewards does not matter.
        max_gradient_norm: longer gradients are cut to this length.
        keep_bias: added to the first logit of the last action (keep): 2.2 keeps nine of ten at two actions.

    Raises:
        ValueError: unknown policy, or an argument out of its range.
    """
    kind = policy or ("removal" if actions == 2 else "shrinkage")
    if kind not in POLICIES:
        raise ValueError(f"unknown policy {kind!r}; choose one of {', '.join(POLICIES)}")
    rate = LEARNING_RATES[kind] if learning_rate is None else learning_rate
    options = ReinforceOptions(rate, entropy_weight, baseline_decay, normalise, max_gradient_norm)
    with torch.random.fork_rng(devices=[]):  # modules draw their first weights from the global generator only
        torch.manual_seed(seed)
        network = POLICIES[kind](features, actions, hidden=hidden, layers=layers)
    last = network.head if isinstance(network.head, nn.Linear) else network.head[-1]
    if keep_bias and isinstance(last, nn.Linear):
        with torch.no_grad():
            last.bias[-1] += keep_bias
    return ReinforceAgent(network, actions, decisions, options, seed)
