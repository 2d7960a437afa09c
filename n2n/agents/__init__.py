"""Who takes the decisions: learners and the baselines they must beat, behind one interface.

`AGENTS[name](features, actions, decisions, seed=..., **options)` builds one.
"""

from collections.abc import Callable

from n2n.agents.actor_critic import actor_critic
from n2n.agents.base import Agent, Rollout, Stats, Trajectory, rollout
from n2n.agents.evolution import POPULATION, TOURNAMENT, evolution
from n2n.agents.ppo import ppo
from n2n.agents.random import random
from n2n.agents.reinforce import reinforce
from n2n.agents.sb3_ppo import sb3_ppo
from n2n.agents.uniform import uniform

AGENTS: dict[str, Callable[..., Agent]] = {
    "reinforce": reinforce,
    "ppo": ppo,
    "actor_critic": actor_critic,
    "random": random,
    "uniform": uniform,
    "evolution": evolution,
    "sb3_ppo": sb3_ppo,
}
PATIENT = ("reinforce", "random", "evolution")
"""Those that may learn from rollouts which they made before their last updates (`n2n.agents.base.Patient`)."""
BIASED = ("reinforce", "ppo", "actor_critic")
"""Those with the option `keep_bias`: how much likelier than the others it is, at first, that a layer is kept."""
GRADIENT = ("reinforce", "sb3_ppo")
"""Those that follow the gradient of the mean reward, so that a reward may be an estimate which is right on average.

`ppo` and `actor_critic` do not: they learn from the ranks of rewards, which are not those of estimates on average.
"""
PROPOSING = ("reinforce", "ppo", "actor_critic")
"""Those whose policy others can act with (`n2n.agents.base.Learned`)."""
EVOLUTION = {"population": POPULATION, "tournament": TOURNAMENT}
"""The arguments of evolution that a search can set, with what they are where nothing is said."""

__all__ = [
    "AGENTS",
    "BIASED",
    "EVOLUTION",
    "GRADIENT",
    "PATIENT",
    "PROPOSING",
    "Agent",
    "Rollout",
    "Stats",
    "Trajectory",
    "rollout",
]
