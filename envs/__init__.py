"""Gymnasium environments over search spaces; importing the package registers their ids."""

from envs.judge import IllegalAction
from envs.registration import register
from envs.spaces import LegalDiscrete, LegalMultiDiscrete
from envs.student import NearestLegal, StudentEnv
from envs.vector import StudentVectorEnv

__all__ = [
    "IllegalAction",
    "LegalDiscrete",
    "LegalMultiDiscrete",
    "NearestLegal",
    "StudentEnv",
    "StudentVectorEnv",
    "register",
]

register()
