"""Who takes the decisions: learners and the baselines they must beat, behind one interface.

`AGENTS[name](features, actions, decisions, seed=..., **options)` builds one.
"""

from collections.abc import Callable

from n2n.agents.actor_critic import actor_critic
from n2n.agents.base import Agent, Rollout, Stats, Trajectory, rollout
from n2n.agents.evolution import evolution
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

__all__ = ["AGENTS", "BIASED", "PATIENT", "Agent", "Rollout", "Stats", "Trajectory", "rollout"]
