"""Who takes the decisions: learners and the baselines they must beat, behind one interface.

`AGENTS[name](features, actions, decisions, seed=..., **options)` builds one.
"""

from collections.abc import Callable

from n2n.agents.base import Agent, Rollout, Stats, Trajectory, rollout
from n2n.agents.evolution import POPULATION, TOURNAMENT, evolution
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
GRADIENT = ("reinforce", "ppo")
"""Those that follow the gradient of the mean reward, so that a reward may be an estimate which is right on average."""
EVOLUTION = {"population": POPULATION, "tournament": TOURNAMENT}
"""The arguments of evolution that a search can set, with what they are where nothing is said."""

__all__ = ["AGENTS", "EVOLUTION", "GRADIENT", "PATIENT", "Agent", "Rollout", "Stats", "Trajectory", "rollout"]
