"""What an actor-critic reads observations with: an LSTM over the decisions, one over the layers, or attention.

All three answer in two ways that agree: `step` for one decision while acting, `all_steps` for whole rollouts while
learning. None holds anything that depends on the number of layers or decisions, so weights fit other teachers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from n2n.agents.policies import Memory, cursor_weight, under_cursor
from n2n.agents.relations import RELATIONS, relations

HEADS = 2


class Encoder(Protocol):
    """From observations to one code [H] for each decision."""

    def step(self, observation: Tensor, previous: Tensor, memory: Memory | None) -> tuple[Tensor, Memory]:
        """Codes [B, H] from [B, N, F] and one-hot previous actions [B, A]; no memory means the first decision."""
        ...

    def all_steps(self, observations: Tensor, previous: Tensor) -> Tensor:
        """Codes [T, B, H] from [T, B, N, F] and [T, B, A]."""
        ...


class DecisionEncoder(nn.Module):
    """An LSTM over the decisions: the mean row under the cursor and the previous action go in."""

    def __init__(self, features: int, actions: int, *, hidden: int, layers: int) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(features + actions, hidden, num_layers=layers)

    def step(self, observation: Tensor, previous: Tensor, memory: Memory | None) -> tuple[Tensor, Memory]:
        """See `Encoder.step`."""
        rows = self._rows(observation, previous)
        known = None
        if memory is not None and memory.hidden is not None and memory.cell is not None:
            known = (memory.hidden, memory.cell)
        output, (hidden, cell) = self.recurrent(rows.unsqueeze(0), known)
        return output[0], Memory(hidden=hidden, cell=cell)

    def all_steps(self, observations: Tensor, previous: Tensor) -> Tensor:
        """See `Encoder.all_steps`."""
        codes: Tensor = self.recurrent(self._rows(observations, previous))[0]
        return codes

    def _rows(self, observation: Tensor, previous: Tensor) -> Tensor:
        return torch.cat((under_cursor(observation, cursor_weight(observation)), previous), dim=-1)  # [..., F + A]


class LayerEncoder(nn.Module):
    """A bidirectional LSTM reads all layers once; a perceptron adds what the draft made of those under the cursor."""

    def __init__(self, features: int, actions: int, *, hidden: int, layers: int) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(features, hidden, num_layers=layers, bidirectional=True, batch_first=True)
        self.mix = nn.Linear(2 * hidden + features + actions, hidden)

    def step(self, observation: Tensor, previous: Tensor, memory: Memory | None) -> tuple[Tensor, Memory]:
        """See `Encoder.step`."""
        table = self._table(observation) if memory is None or memory.embedding is None else memory.embedding
        return self._decide(table, observation, previous), Memory(embedding=table)

    def all_steps(self, observations: Tensor, previous: Tensor) -> Tensor:
        """See `Encoder.all_steps`."""
        return self._decide(self._table(observations[0]), observations, previous)

    def _table(self, first: Tensor) -> Tensor:
        embedding: Tensor = self.recurrent(once(first))[0]
        return embedding  # [B or 1, N, 2H]

    def _decide(self, table: Tensor, observation: Tensor, previous: Tensor) -> Tensor:
        weight = cursor_weight(observation)  # [..., B, N]
        read = torch.einsum("...bn,bnh->...bh", weight, table.expand(weight.shape[-2], -1, -1))  # [..., B, 2H]
        return torch.tanh(self.mix(torch.cat((read, under_cursor(observation, weight), previous), dim=-1)))


class AttentionEncoder(nn.Module):
    """Self-attention over the layer table, biased by how layers are related; the cursor then asks the whole draft.

    The table is read once, from the first observation, by pre-norm blocks (Vaswani et al. 2017; Xiong et al. 2020)
    whose attention logits get a learned number for each relation between two layers, as graph transformers do (Ying et
    al. 2021, Graphormer). At each decision a query made of the layers under the cursor attends to the table, and what
    it brings back are the rows of the draft as it stands, earlier decisions among them.
    """

    def __init__(self, features: int, actions: int, *, hidden: int, layers: int) -> None:
        super().__init__()
        if hidden % HEADS:
            raise ValueError(f"encoder 'attention': hidden must be a multiple of {HEADS}, found {hidden}")
        self.embed = nn.Linear(features, hidden)
        self.blocks = nn.ModuleList(_Block(hidden) for _ in range(layers))
        self.key = nn.Linear(hidden, hidden)
        self.query = nn.Linear(hidden + features + actions, hidden)
        self.mix = nn.Linear(hidden + features + actions + HEADS * features, hidden)

    def step(self, observation: Tensor, previous: Tensor, memory: Memory | None) -> tuple[Tensor, Memory]:
        """See `Encoder.step`."""
        table = self._table(observation) if memory is None or memory.embedding is None else memory.embedding
        return self._decide(table, observation, previous), Memory(embedding=table)

    def all_steps(self, observations: Tensor, previous: Tensor) -> Tensor:
        """See `Encoder.all_steps`."""
        return self._decide(self._table(observations[0]), observations, previous)

    def _table(self, first: Tensor) -> Tensor:
        rows = once(first)
        related = relations(rows).float()  # [B or 1, R, N, N]
        embedding: Tensor = self.embed(rows)
        for block in self.blocks:
            embedding = block(embedding, related)
        return embedding  # [B or 1, N, H]

    def _decide(self, table: Tensor, observation: Tensor, previous: Tensor) -> Tensor:
        batch, size = observation.shape[-3], table.shape[-1] // HEADS
        weight = cursor_weight(observation)  # [..., B, N]
        read = torch.einsum("...bn,bnh->...bh", weight, table.expand(batch, -1, -1))  # [..., B, H]
        current = torch.cat((read, under_cursor(observation, weight), previous), dim=-1)  # [..., B, H + F + A]
        keys = self.key(table).unflatten(-1, (HEADS, size)).expand(batch, -1, -1, -1)  # [B, N, heads, d]
        query = self.query(current).unflatten(-1, (HEADS, size))  # [..., B, heads, d]
        heed = torch.softmax(torch.einsum("...bkd,bnkd->...bkn", query, keys) / size**0.5, dim=-1)
        seen = (heed @ observation).flatten(-2)  # [..., B, heads * F]
        return torch.tanh(self.mix(torch.cat((current, seen), dim=-1)))


class _Block(nn.Module):
    """One block of self-attention over [B, N, H], with a learned bias for each head and relation."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(HEADS, len(RELATIONS)))
        self.norms = nn.ModuleList((nn.LayerNorm(hidden), nn.LayerNorm(hidden)))
        self.parts = nn.Linear(hidden, 3 * hidden)
        self.out = nn.Linear(hidden, hidden)
        self.mlp = nn.Sequential(nn.Linear(hidden, 2 * hidden), nn.GELU(), nn.Linear(2 * hidden, hidden))

    def forward(self, table: Tensor, related: Tensor) -> Tensor:
        """[B, N, H] and [B, R, N, N] to [B, N, H]."""
        parts = self.parts(self.norms[0](table)).unflatten(-1, (3, HEADS, -1))  # [B, N, 3, heads, d]
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # each [B, heads, N, d]
        bias = torch.einsum("kr,brnm->bknm", self.bias, related)  # [B, heads, N, N]
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        table = table + self.out(found.transpose(1, 2).flatten(-2))
        rest: Tensor = self.mlp(self.norms[1](table))
        return table + rest


AnyEncoder: TypeAlias = DecisionEncoder | LayerEncoder | AttentionEncoder
ENCODERS: dict[str, Callable[..., AnyEncoder]] = {
    "decisions": DecisionEncoder,
    "layers": LayerEncoder,
    "attention": AttentionEncoder,
}


def once(first: Tensor) -> Tensor:
    """The first observations [B, N, F], or [1, N, F] where all B are equal, as they are at a reset."""
    return first[:1] if bool((first == first[:1]).all()) else first
