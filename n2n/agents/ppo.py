"""Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347) on N2N's masked policies.

Stable-Baselines3's PPO on a summary of the observation is the agent `sb3_ppo`.
"""

from __future__ import annotations

from n2n.agents.actor_critic import ActorCriticAgent, ActorCriticOptions, build


def ppo(
    features: int,
    actions: int,
    decisions: int,
    *,
    seed: int,
    encoder: str = "decisions",
    hidden: int = 32,
    layers: int = 1,
    learning_rate: float = 1e-2,
    epochs: int = 4,
    clip_range: float = 0.2,
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
    """PPO, undiscounted, since a student is worth as much after many decisions as after few.

    Args:
        features: F.
        actions: A.
        decisions: T, at which a rollout is known to end; the weights do not depend on it.
        seed: of the first weights and of the draws.
        encoder: "decisions" (an LSTM over the decisions), "layers" (a bidirectional LSTM over the layers) or
            "attention" (over the layers, with their groups and skip partners).
        hidden: size of an LSTM direction, or of the attention's table (then even).
        layers: LSTM layers or attention blocks.
        learning_rate: of Adam.
        epochs: gradient steps for each batch of rollouts.
        clip_range: how far the ratio of new to old probability is followed.
        gae_decay: bias against variance of the advantages; only with baseline "value".
        baseline: what a rollout is compared with: "value" (what the value head expects of each decision), "average" (a
            moving average of the rewards) or "leave_one_out" (the mean of the others in its batch).
        scale: rewards as "rank" among the last ones, or "standard": less their mean, over their deviation.
        history: how many of the last rewards these are taken of.
        entropy_weight: one nat of entropy is worth this much scaled reward.
        value_weight: weight of the value head's squared error.
        imitation_weight: of self-imitation, learning again from the best rollouts so far; 0 switches it off.
        elite: how many of them are kept.
        baseline_decay: share of the moving average that stays at an update.
        max_gradient_norm: longer gradients are cut to this length.
        repeats: whether the same sequence of actions may be played twice. Otherwise the draws are without replacement,
            but that drafts of one batch may meet in the last student below a beginning that has no other left.
        keep_bias: added to the first logit of the last action (keep): 2.2 keeps nine of ten at two actions.

    Raises:
        ValueError: an argument is out of its range; says which.
    """
    return build(
        features, actions, decisions, seed=seed, encoder=encoder, hidden=hidden, layers=layers, keep_bias=keep_bias,
        options=ActorCriticOptions(
            learning_rate=learning_rate, epochs=epochs, clip_range=clip_range, gae_decay=gae_decay, baseline=baseline,
            scale=scale, history=history, entropy_weight=entropy_weight, value_weight=value_weight,
            imitation_weight=imitation_weight, elite=elite, baseline_decay=baseline_decay,
            max_gradient_norm=max_gradient_norm, repeats=repeats,
        ),
    )  # fmt: skip
