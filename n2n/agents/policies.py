"""The two policy networks of N2N (Ashok et al., ICLR 2018): which layers go, and how narrow the others get.

Both answer in two ways that agree: `step` for one decision while acting, `all_logits` for a whole trajectory at once
while learning. Neither holds anything that depends on the number of layers or decisions, so weights fit other teachers.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search_spaces.base import CURSOR


class Memory(NamedTuple):
    """What a policy carries from decision to decision; a policy leaves the parts empty that it does not use."""

    embedding: Tensor | None = None  # [B or 1, N, H], the layers as first seen
    hidden: Tensor | None = None  # [L, B, H]
    cell: Tensor | None = None  # [L, B, H]


class Stepping(Protocol):
    """A policy that decides step by step; all that acting without learning needs."""

    def step(self, observation: Tensor, previous: Tensor, memory: Memory | None) -> tuple[Tensor, Memory]:
        """Logits [B, A] from observations [B, N, F] and one-hot previous actions [B, A]; no memory at the first."""
        ...


class RemovalPolicy(nn.Module):
    """A bidirectional LSTM reads all layers of the teacher once; a head decides about those under the cursor.

    The head sees their mean embedding, their mean features as the draft stands, and the previous action.
    """

    def __init__(self, features: int, actions: int, *, hidden: int, layers: int) -> None:
        super().__init__()
        self.encoder = nn.LSTM(features, hidden, num_layers=layers, bidirectional=True, batch_first=True)
        self.head = nn.Sequential(
            nn.Linear(2 * hidden + features + actions, hidden), nn.Tanh(), nn.Linear(hidden, actions)
        )

    def encode(self, first: Tensor) -> Tensor:
        """Embeddings [B, N, 2H] of the first observation [B, N, F]; [1, N, 2H] where all B are equal, as at a reset."""
        same = bool((first == first[:1]).all())
        embedding: Tensor = self.encoder(first[:1] if same else first)[0]
        return embedding

    def step(self, observation: Tensor, previous: Tensor, memory: Memory | None) -> tuple[Tensor, Memory]:
        """Logits [B, A] from [B, N, F] and one-hot previous actions [B, A]; without a memory it encodes the layers."""
        embedding = self.encode(observation) if memory is None else memory.embedding
        if embedding is None:
            raise ValueError("the memory given is not one of this policy: it holds no embedding of the layers")
        return self._decide(embedding, observation, previous), Memory(embedding=embedding)

    def all_logits(self, observations: Tensor, previous: Tensor) -> Tensor:
        """Logits [T, B, A] from [T, B, N, F] and one-hot previous actions [T, B, A]."""
        return self._decide(self.encode(observations[0]), observations, previous)

    def _decide(self, embedding: Tensor, observation: Tensor, previous: Tensor) -> Tensor:
        """Logits [..., B, A] from [B or 1, N, 2H], [..., B, N, F] and [..., B, A]."""
        weight = cursor_weight(observation)  # [..., B, N]
        read = torch.einsum("...bn,bnh->...bh", weight, embedding.expand(weight.shape[-2], -1, -1))  # [..., B, 2H]
        logits: Tensor = self.head(torch.cat((read, under_cursor(observation, weight), previous), dim=-1))
        return logits


class ShrinkagePolicy(nn.Module):
    """An autoregressive LSTM: the layers under the cursor and the previous action go in, the next action comes out."""

    def __init__(self, features: int, actions: int, *, hidden: int, layers: int) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(features + actions, hidden, num_layers=layers)
        self.head = nn.Linear(hidden, actions)

    def step(self, observation: Tensor, previous: Tensor, memory: Memory | None) -> tuple[Tensor, Memory]:
        """Logits [B, A] and the state of the LSTM."""
        rows = torch.cat((under_cursor(observation, cursor_weight(observation)), previous), dim=-1)  # [B, F + A]
        known = None
        if memory is not None and memory.hidden is not None and memory.cell is not None:
            known = (memory.hidden, memory.cell)
        output, (hidden, cell) = self.recurrent(rows.unsqueeze(0), known)
        return self.head(output[0]), Memory(hidden=hidden, cell=cell)

    def all_logits(self, observations: Tensor, previous: Tensor) -> Tensor:
        """Logits [T, B, A] in one pass over the sequence."""
        rows = torch.cat((under_cursor(observations, cursor_weight(observations)), previous), dim=-1)  # [T, B, F + A]
        logits: Tensor = self.head(self.recurrent(rows)[0])
        return logits


Policy: TypeAlias = RemovalPolicy | ShrinkagePolicy


def cursor_weight(observation: Tensor) -> Tensor:
    """Weights [..., N] that average over the rows under the cursor, of observations [..., N, F]."""
    cursor = observation[..., CURSOR]
    return cursor / cursor.sum(dim=-1, keepdim=True).clamp_min(1.0)


def under_cursor(observation: Tensor, weight: Tensor) -> Tensor:
    """The mean row [..., F] under the cursor."""
    return (weight.unsqueeze(-2) @ observation).squeeze(-2)


def one_hot_previous(actions: Tensor, count: int) -> Tensor:
    """What each decision knows of the one before: [T, B, A] from actions [T, B], zeros for the first decision."""
    taken = F.one_hot(actions[:-1], count).float()
    return torch.cat((taken.new_zeros(1, actions.shape[1], count), taken))
