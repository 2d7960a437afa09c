"""What a search refuses, and what it warns of."""

from __future__ import annotations

from pathlib import Path


class SearchError(ValueError):
    """A search cannot start as asked; the message says what to change."""


class NoDecisionError(SearchError):
    """The space of a stage has no decision, so the stage is left out."""


class ArtefactError(ValueError):
    """A file of a run or of a student is missing, damaged or of another network."""


class ExportError(ValueError):
    """A network cannot be exported as asked, or its export computes something else; no file is left."""


class TakenError(ExportError):
    """Something stands where an export is to be written."""

    def __init__(self, path: Path, what: str, *, replaceable: bool) -> None:
        super().__init__()
        self.path, self.what, self.replaceable = path, what, replaceable

    def __str__(self) -> str:
        return self.words("out=", "force=True")

    def words(self, out: str, force: str) -> str:
        """The message for those who name another place by `out` and replace what is there by `force`."""
        replacing = f", or say {force} to replace it" if self.replaceable else ""
        return f"{self.path} {self.what}: name another place with {out}{replacing}"


class WriteError(OSError):
    """A file could not be written; what stood there before is as it was."""


class ChanceLevelWarning(UserWarning):
    """The teacher is no better than guessing, so there is little to distil."""
