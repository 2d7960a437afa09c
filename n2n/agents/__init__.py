"""Who takes the decisions: learners and the baselines they must beat, behind one interface.

`AGENTS[name](features, actions, decisions, seed=..., **options)` builds one.
"""

from collections.abc import Callable

from n2n.agents.base import Agent, Rollout, Stats, Trajectory, rollout
from n2n.agents.evolution import evolution
from n2n.agents.ppo import ppo
from n2n.agents.random import random
from n2n.agents.reinforce import reinforce
from n2n.agents.uniform import uniform

AGENTS: dict[str, Callable[..., Agent]] = {
    "reinforce": reinforce,
    "random": random,
    "uniform": uniform,
    "evolution": evolution,
    "ppo": ppo,
}
PATIENT = ("reinforce", "random", "evolution")
"""Those that may learn from rollouts which they made before their last updates (`n2n.agents.base.Patient`)."""

__all__ = ["AGENTS", "PATIENT", "Agent", "Rollout", "Stats", "Trajectory", "rollout"]
