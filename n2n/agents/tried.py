"""Which sequences of actions were played, so that a learner need not play one twice."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


class Tried:
    """The finished sequences, and the beginnings from which no other one leads on.

    Masking those out samples without replacement from whatever the policy is: what was played has probability 0, and
    the rest keeps its proportions at each decision (Shi et al. 2020, "Incremental Sampling Without Replacement for
    Sequence Models", whose trie keeps probabilities as well).
    """

    def __init__(self) -> None:
        self._closed: set[tuple[int, ...]] = set()

    def left(self, begun: Sequence[int], legal: Tensor) -> Tensor:
        """The legal actions [A] that lead to something new; all legal ones where there is nothing new any more."""
        closed = [action for action in legal.nonzero().flatten().tolist() if (*begun, action) in self._closed]
        if not closed:
            return legal
        mask = legal.clone()
        mask[closed] = False
        return mask if bool(mask.any()) else legal

    def add(self, actions: Sequence[int], legal: Tensor) -> None:
        """Notes a finished sequence [T], of masks [T, A]."""
        sequence = tuple(actions)
        self._closed.add(sequence)
        for step in reversed(range(len(sequence))):
            begun = sequence[:step]
            if any((*begun, action) not in self._closed for action in legal[step].nonzero().flatten().tolist()):
                return
            self._closed.add(begun)

    def __contains__(self, actions: Sequence[int]) -> bool:
        """Whether nothing new begins with these actions; of none at all: whether everything was played."""
        return tuple(actions) in self._closed
