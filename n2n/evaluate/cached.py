"""A student that was judged once is not judged again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, final, runtime_checkable

from n2n.evaluate.base import Evaluate, Evaluation
from search_spaces.base import Architecture

Refuse = Callable[[Architecture], Evaluation | None]
"""The record of a student that is not worth judging; None where it is."""


@runtime_checkable
class Keeping(Protocol):
    """An evaluator that can tell what it has judged of a batch that was interrupted."""

    def known(self, students: Sequence[Architecture]) -> list[Evaluation]:
        """The evaluations of those students that were judged."""
        ...


@runtime_checkable
class Streaming(Protocol):
    """An evaluator that judges several students at a time, and tells of each as soon as it is judged."""

    def stream(self, students: Sequence[Architecture], keep: Callable[[Evaluation], None]) -> list[Evaluation]:
        """One evaluation each, in the same order; `keep` is called with each of them once, in any order."""
        ...


@runtime_checkable
class Refusing(Protocol):
    """An evaluator that knows itself where a student that is not worth judging is to be caught."""

    def refusing(self, refuse: Refuse) -> Evaluate:
        """The evaluator that asks `refuse` before it has a student judged."""
        ...


@final
class Cached:
    """See `cached`.

    Attributes:
        hits: students answered from memory so far, repeats within a batch included.
        misses: students that were judged so far.
    """

    def __init__(self, evaluate: Evaluate, *, one_by_one: bool = False, refuse: Refuse | None = None) -> None:
        self._evaluate = evaluate
        self._refuse = refuse
        self._one_by_one = one_by_one
        self._known: dict[str, Evaluation] = {}
        self.hits = 0
        self.misses = 0

    def __call__(self, students: Sequence[Architecture]) -> list[Evaluation]:
        """One evaluation each, in the same order; the inner evaluator is called only where somebody is new.

        Raises:
            ValueError: the inner evaluator gave another number of evaluations than students.
        """
        new = {one.fingerprint: one for one in students if one.fingerprint not in self._known}
        refused = {} if self._refuse is None else {key: self._refuse(one) for key, one in new.items()}
        self._known.update({key: record for key, record in refused.items() if record is not None})
        left = {key: one for key, one in new.items() if refused.get(key) is None}
        batches = [{key: one} for key, one in left.items()] if self._one_by_one else [left]
        for batch in batches if left else []:
            judged = self._evaluate(list(batch.values()))
            self._known.update(zip(batch, judged, strict=True))
        self.misses += len(new)
        self.hits += len(students) - len(new)
        return [self._known[student.fingerprint] for student in students]

    def known(self, students: Sequence[Architecture]) -> list[Evaluation]:
        """The evaluations of those students that were judged, e.g. before an interrupt; nobody is judged for it."""
        kept = [self._known[student.fingerprint] for student in students if student.fingerprint in self._known]
        inner = self._evaluate.known if isinstance(self._evaluate, Keeping) else None
        return kept + (inner([one for one in students if one.fingerprint not in self._known]) if inner else [])

    def refusing(self, refuse: Refuse) -> Cached:
        """The same evaluator behind a memory of its own, which asks `refuse` before it has a student judged."""
        return Cached(self._evaluate, one_by_one=self._one_by_one, refuse=refuse)


def refusing(evaluate: Evaluate, refuse: Refuse) -> Evaluate:
    """An evaluator that is not asked about students which `refuse` has a record of already."""
    return evaluate.refusing(refuse) if isinstance(evaluate, Refusing) else Cached(evaluate, refuse=refuse)


def cached(evaluate: Evaluate, *, one_by_one: bool = False) -> Cached:
    """Remembers evaluations by the student's fingerprint.

    `one_by_one` hands the inner evaluator single students, each remembered at once: right for one that works through
    its batch in order, so that an interrupt costs one student and not the batch.
    """
    return Cached(evaluate, one_by_one=one_by_one)
