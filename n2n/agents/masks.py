"""Probabilities under masks of legal actions."""

from __future__ import annotations

import torch
from torch import Tensor


def masked_log_probabilities(logits: Tensor, legal: Tensor) -> Tensor:
    """Log-probabilities [..., A] with (all but) nothing on illegal actions; finite everywhere, so 0 * log 0 is 0."""
    return torch.log_softmax(logits.masked_fill(~legal, torch.finfo(logits.dtype).min / 2), dim=-1)
