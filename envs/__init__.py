"""Gymnasium environments over search spaces; importing the package registers their ids."""

from envs.goals import Goal, GoalVectorEnv, drawn_goals
from envs.judge import IllegalAction
from envs.registration import register
from envs.spaces import LegalDiscrete, LegalMultiDiscrete
from envs.student import NearestLegal, StudentEnv
from envs.vector import StudentVectorEnv

__all__ = [
    "Goal",
    "GoalVectorEnv",
    "IllegalAction",
    "LegalDiscrete",
    "LegalMultiDiscrete",
    "NearestLegal",
    "StudentEnv",
    "StudentVectorEnv",
    "drawn_goals",
    "register",
]

register()
