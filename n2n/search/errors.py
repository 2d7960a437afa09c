"""What a search refuses, and what it warns of."""

from __future__ import annotations


class SearchError(ValueError):
    """A search cannot start as asked; the message says what to change."""


class NoDecisionError(SearchError):
    """The space of a stage has no decision, so the stage is left out."""


class ArtefactError(ValueError):
    """A file of a run or of a student is missing, damaged or of another network."""


class ExportError(ValueError):
    """A network cannot be exported as asked, or its export computes something else; no file is left."""


class WriteError(OSError):
    """A file could not be written; what stood there before is as it was."""


class ChanceLevelWarning(UserWarning):
    """The teacher is no better than guessing, so there is little to distil."""
