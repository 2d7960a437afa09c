"""The policies room: a learned policy as a folder that another search can start from, or that acts at once."""

from n2n.policies.files import (
    Policy,
    PolicyError,
    PolicyMeta,
    chosen_agent,
    load_policies,
    load_policy,
    own_options,
    save_policy,
    save_stage,
)

__all__ = [
    "Policy",
    "PolicyError",
    "PolicyMeta",
    "chosen_agent",
    "load_policies",
    "load_policy",
    "own_options",
    "save_policy",
    "save_stage",
]
