"""Drawing the actions of B rollouts from masked logits, with or without replacement."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor, nn

from n2n.agents.masks import masked_log_probabilities
from n2n.agents.tried import Tried
from search_spaces.base import GOALS


class Draws:
    """The actions of the rollouts under way, and, without `repeats`, what was played under each goal before.

    Args:
        actions: A.
        decisions: T, at which a rollout is known to end.
        repeats: whether the same sequence may be played twice. Otherwise what leads to nothing new is masked out;
            drafts of one batch can then meet only below a beginning that has no other end left.
        generator: of the draws.
    """

    def __init__(self, actions: int, decisions: int, *, repeats: bool, generator: torch.Generator) -> None:
        self.repeats = repeats
        self._actions, self._decisions = actions, decisions
        self._generator = generator
        self._tried: dict[tuple[float, ...], Tried] = defaultdict(Tried)  # by goal: what is asked makes another task
        self.reset(0)

    def reset(self, batch_size: int) -> None:
        """A new rollout begins."""
        self.previous = torch.zeros(batch_size, self._actions)  # [B, A], the actions before as one-hot
        self.taken: list[Tensor] = []  # actions [B] of each decision
        self.open: list[Tensor] = []  # masks [B, A] that they were drawn under
        self._goals: list[tuple[float, ...]] = []  # of each draft

    def draw(self, observation: Tensor, logits: Tensor, legal: Tensor, *, greedy: int = 0) -> Tensor:
        """The next action of each draft, [B], of observations [B, N, F], logits [B, A] and masks [B, A].

        The first `greedy` drafts take the likeliest action, the others a random one.
        """
        if not self.taken:
            self._goals = [tuple(goal) for goal in observation[:, 0, list(GOALS)].tolist()]
        masks = legal.clone() if self.repeats else self._new(legal)
        if self.repeats or len(self.taken) + 1 < self._decisions:
            actions = self._chosen(logits, masks, greedy)
        else:
            actions = self._last(logits, legal, masks, greedy)
        self.taken.append(actions)
        self.open.append(masks)
        self.previous = nn.functional.one_hot(actions, self._actions).float()
        return actions

    def _new(self, legal: Tensor) -> Tensor:
        """The masks [B, A] less what was played."""
        parts = zip(self._goals, self._begun(), legal, strict=True)
        return torch.stack([self._tried[goal].left(begun, mask) for goal, begun, mask in parts])

    def _begun(self) -> list[list[int]]:
        """The actions of each draft so far."""
        return torch.stack(self.taken, dim=1).tolist() if self.taken else [[] for _ in self._goals]

    def _last(self, logits: Tensor, legal: Tensor, masks: Tensor, greedy: int) -> Tensor:
        """The last actions [B], one draft after the other, so that no two of a batch become the same; edits `masks`."""
        chosen = []
        for index, (goal, begun) in enumerate(zip(self._goals, self._begun(), strict=True)):
            tried, one = self._tried[goal], slice(index, index + 1)
            masks[index] = tried.left(begun, legal[index])
            action = self._chosen(logits[one], masks[one], greedy - index)
            # What was masked out earlier on the way is closed already, so these masks tell as much as the legal ones.
            tried.add([*begun, int(action)], torch.stack([*(mask[index] for mask in self.open), legal[index]]))
            chosen.append(action)
        return torch.cat(chosen)

    def _chosen(self, logits: Tensor, masks: Tensor, greedy: int) -> Tensor:
        probabilities = masked_log_probabilities(logits, masks).exp() * masks  # [B, A]
        many = min(max(greedy, 0), len(probabilities))
        likeliest = probabilities[:many].argmax(1)
        if many == len(probabilities):
            return likeliest
        drawn = torch.multinomial(probabilities[many:], 1, generator=self._generator).squeeze(1)
        return torch.cat((likeliest, drawn)) if many else drawn
