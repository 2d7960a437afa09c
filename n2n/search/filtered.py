"""What an agent learns from a batch of which a prefilter had only some students judged.

Let `x_1 ... x_n` be the rollouts of the policy pi, `s` their scores, and S those that are judged, which tells their
reward R. REINFORCE wants `g = 1/n sum_i R(x_i) grad log pi(x_i)`, whose mean over rollouts is the gradient of the mean
reward. The mean over S alone is no such thing: S is drawn by score, so that it estimates the gradient for the students
that the score likes, and dividing by the probability to be among the best of n does not help, for that probability is
unknown, and 0 for the worst. So the draw is made one of known chances: the best by score are judged for certain, and
some of the others by chance, each with `p_i > 0` (`n2n.evaluate.prefilter`). Then

    y_i = r_i + [i in S] / p_i (R(x_i) - r_i),     r_i: the reward to expect by the score

is a reward that is right on average over the draw, `E[y_i | x_1 ... x_n] = R(x_i)`, whatever r_i is, as long as r_i
does not depend on this draw: it is learned from the batches before. Hence `1/n sum_i y_i grad log pi(x_i)` has the mean
of g and is unbiased (the difference estimator of survey sampling, Cassel, Sarndal, Wretman 1976; "doubly robust" in
Dudik, Langford, Li 2011). What r_i misses costs variance only: a student drawn by chance stands for 1/p_i of them.

What stays as it was without a prefilter: advantages are divided by their size in the batch, the entropy bonus, Adam and
the clipping of gradients, and of PPO's ratios. One thing is new: students that cannot be scored have the reward -1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from n2n.agents.base import Trajectory
from n2n.evaluate.base import Evaluation
from n2n.evaluate.prefilter import Draw


def corrected(
    trajectory: Trajectory, evaluations: Sequence[Evaluation], draws: Mapping[str, Draw], expected: Sequence[float]
) -> Trajectory:
    """All B rollouts, with the rewards y [B] that are right on average; for agents that follow a gradient.

    Args:
        trajectory: its rewards are those of the judged, and those expected of the others.
        evaluations: [B], of its students.
        draws: of `Prefilter`, by student; whoever is not in it has a reward that is no estimate.
        expected: [B], the rewards r that were expected; read for those that a draw chose by chance.
    """
    rewards = trajectory.rewards.tolist()
    for at, one in enumerate(evaluations):
        draw = draws.get(one.fingerprint)
        if draw is not None and draw.chance < 1 and not one.filtered:
            rewards[at] = expected[at] + (rewards[at] - expected[at]) / draw.chance
    return replace(trajectory, rewards=torch.tensor(rewards, dtype=trajectory.rewards.dtype))


def only_judged(trajectory: Trajectory, evaluations: Sequence[Evaluation]) -> Trajectory:
    """The rollouts of students that were judged or refused; for agents that only compare students, as evolution does.

    There is no gradient to be wrong about: a population that breeds from those that were judged may be told by a score
    whom to judge.
    """
    kept = torch.tensor([at for at, one in enumerate(evaluations) if not one.filtered])
    return Trajectory(
        observations=trajectory.observations[:, kept],
        legal=trajectory.legal[:, kept],
        actions=trajectory.actions[:, kept],
        rewards=trajectory.rewards[kept],
        behaviour=None if trajectory.behaviour is None else trajectory.behaviour[:, kept],
    )
