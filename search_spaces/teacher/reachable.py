"""Which removals some legal draft makes: decisions are taken in order, and each must fit when all later ones keep."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from search_spaces.teacher.analysis import CONNECTED, Reading

Layers = tuple[str, ...]
Fits = Callable[[frozenset[str]], bool]

SETS = 64
"""Sets of earlier removals that are tried for one decision before it counts as reachable."""


def reachable(reading: Reading, decisions: Sequence[Layers], fits: Fits) -> list[bool]:
    """For each decision, whether some legal draft removes its layers.

    Alone, or else on top of earlier removals that can matter here: of as many as can go together, then of every legal
    set of them, small sets first. That is exact, but for one thing: where `SETS` of them are not all, the decision
    stays, so that none is lost that a draft could take.

    Args:
        decisions: the layers that each one removes, in the order in which they are taken.
        fits: whether what remains without some layers fits together.
    """
    found = [fits(frozenset(layers)) for layers in decisions]
    if all(found):
        return found
    near = _Neighbours(reading)
    for index, layers in enumerate(decisions):
        if not found[index]:
            earlier = [one for one, possible in zip(decisions[:index], found, strict=False) if possible]
            found[index] = _on_top(layers, near.of(layers, earlier), fits)
    return found


def _on_top(layers: Layers, earlier: Sequence[Layers], fits: Fits) -> bool:
    """Whether the layers can go on top of some legal set of earlier removals."""
    most = frozenset[str]()
    for one in earlier:
        most = more if fits(more := most.union(one)) else most
    if earlier and fits(most.union(layers)):
        return True
    waiting, tried = deque([(frozenset[str](), 0)]), 0
    while waiting:
        removed, start = waiting.popleft()
        for at in range(start, len(earlier)):
            more = removed.union(earlier[at])
            if not fits(more):
                continue
            tried += 1
            if tried > SETS or fits(more.union(layers)):
                return True
            waiting.append((more, at + 1))
    return False


class _Neighbours:
    """Which earlier removals can matter to a later one.

    Widths travel along the graph, both ways, as far as a conv or linear that stays: it takes any width, and gives its
    own. Where nothing so near changes a width, only branches that lose all their weights make a difference.
    """

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.layers = {layer.name: layer for layer in reading.layers}
        self.around: list[set[int]] = [set(node.inputs) for node in reading.nodes]
        for node in reading.nodes:
            for source in node.inputs:
                self.around[source].add(node.index)

    def of(self, layers: Layers, earlier: Sequence[Layers]) -> list[Layers]:
        """Those of the earlier removals, in their order."""
        names = frozenset[str]().union(*earlier)
        near = self._near(layers, names)
        beside = [one for one in earlier if not near.isdisjoint(one)]
        if any(self._changes_width(name) for one in beside for name in one):
            # Norms that insist on a width come after whatever changes it there: it had to fit while they stayed.
            matter = frozenset(name for name in near if self.layers[name].kind in CONNECTED or self._ties_calls(name))
        else:
            matter = self._emptying(layers, names).union(filter(self._ties_calls, near))
        return [one for one in beside if not matter.isdisjoint(one)]

    def _near(self, layers: Layers, removable: frozenset[str]) -> frozenset[str]:
        open_, waiting = removable.union(layers), [index for name in layers for index in self.reading.calls[name]]
        seen = set(waiting)
        while waiting:
            for index in self.around[waiting.pop()] - seen:
                layer = self.layers.get(self.reading.nodes[index].layer)
                if layer is None or layer.kind not in {"conv", "linear"} or layer.name in open_:
                    seen.add(index)
                    waiting.append(index)
        return removable.intersection(self.reading.nodes[index].layer for index in seen)

    def _emptying(self, layers: Layers, removable: frozenset[str]) -> frozenset[str]:
        """The weights of branches that can be emptied: around the layers, or where nobody knows the channels of the
        add, for without the branch somebody may."""
        calls = {index for name in layers for index in self.reading.calls[name]}
        values = self.reading.full.values
        return frozenset(
            name
            for branch in self.reading.branches
            if not branch.reason and removable.union(layers).issuperset(branch.weights)
            if not branch.nodes.isdisjoint(calls) or values.get(branch.add) is None
            for name in branch.weights
        )

    def _changes_width(self, name: str) -> bool:
        layer = self.layers[name]
        return layer.kind in CONNECTED and layer.width_in != layer.width_out

    def _ties_calls(self, name: str) -> bool:
        """Whether a norm ties the channels of places before and behind a later layer."""
        return len(self.reading.calls[name]) > 1 and name in self.reading.full.ends
