"""A student that was judged once is not judged again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import final

from n2n.evaluate.base import Evaluate, Evaluation
from search_spaces.base import Architecture


@final
class Cached:
    """See `cached`.

    Attributes:
        hits: students answered from memory so far, repeats within a batch included.
        misses: students that were judged so far.
    """

    def __init__(self, evaluate: Evaluate, known: Iterable[Evaluation] = ()) -> None:
        self._evaluate = evaluate
        self._known = {one.fingerprint: one for one in known}
        self.hits = 0
        self.misses = 0

    def __call__(self, students: Sequence[Architecture]) -> list[Evaluation]:
        """One evaluation each, in the same order; the inner evaluator is called only where somebody is new.

        Raises:
            ValueError: the inner evaluator gave another number of evaluations than students.
        """
        new = {one.fingerprint: one for one in students if one.fingerprint not in self._known}
        if new:
            judged = self._evaluate(list(new.values()))
            self._known.update(zip(new, judged, strict=True))
        self.misses += len(new)
        self.hits += len(students) - len(new)
        return [self._known[student.fingerprint] for student in students]


def cached(evaluate: Evaluate, known: Iterable[Evaluation] = ()) -> Cached:
    """Remembers evaluations by the student's fingerprint; `known` are some from before, e.g. of a resumed run."""
    return Cached(evaluate, known)
