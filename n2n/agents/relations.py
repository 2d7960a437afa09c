"""How two layers are related, read from the observation alone, so that a policy knows it of any network."""

from __future__ import annotations

import torch
from torch import Tensor

from search_spaces.base import FEATURES

RELATIONS = ("before", "after", "group", "skip")
"""A layer's row runs just before or after another's, one decision speaks of both, or a skip connection joins them."""
_GROUP, _START, _END = (FEATURES.index(name) for name in ("group", "skip_start", "skip_end"))


def relations(observation: Tensor) -> Tensor:
    """Which layers are related, bool [B, R, N, N] of observations [B, N, F]; the last axis is the other layer.

    The partner of a row where a skip connection starts is the first row from there on where one ends.
    """
    batch, layers, _ = observation.shape
    place = torch.arange(layers, device=observation.device)
    step = place[None, :] - place[:, None]  # [N, N], of the other layer from this one
    group = observation[..., _GROUP]  # [B, N]
    same = (group[:, :, None] == group[:, None, :]) & (group > 0)[:, :, None] & (step != 0)
    starts, ends = observation[..., _START] > 0, observation[..., _END] > 0  # [B, N]
    reachable = ends[:, None, :] & (step >= 0)  # [B, N, N]
    first = reachable & (reachable.cumsum(dim=-1) == 1)
    skip = first & starts[:, :, None] & (step != 0)
    near = [(step == side).expand(batch, -1, -1) for side in (-1, 1)]
    return torch.stack((*near, same, skip | skip.transpose(1, 2)), dim=1)
