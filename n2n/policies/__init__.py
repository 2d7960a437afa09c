"""The policies room: a learned policy as a folder that another search can start from."""

from n2n.policies.files import Policy, PolicyError, PolicyMeta, load_policies, load_policy, save_policy, save_stage

__all__ = ["Policy", "PolicyError", "PolicyMeta", "load_policies", "load_policy", "save_policy", "save_stage"]
