"""Students of published spaces: named by the space and their code, so that no teacher is needed to build them again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from n2n.search.errors import ArtefactError
from search_spaces import PUBLISHED
from search_spaces.base import SpaceError
from search_spaces.published import PublishedArchitecture, PublishedSpace


@dataclass(frozen=True)
class SpaceName:
    """A student of a published space: the name of the space, its arguments, and the student's short form."""

    name: str
    code: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, space: PublishedSpace, student: PublishedArchitecture) -> SpaceName:
        """How a student of an open space is named."""
        return cls(space.name, student.code, asdict(space.family.images))

    @classmethod
    def read(cls, value: object, path: Path) -> SpaceName | None:
        """What a card holds under `space`; None where it holds nothing.

        Raises:
            ArtefactError: other keys, or other kinds of values.
        """
        if value is None:
            return None
        kinds = {"name": str, "code": str, "kwargs": dict}
        found = value if isinstance(value, dict) else {}
        if set(found) != set(kinds) or not all(isinstance(found[key], kind) for key, kind in kinds.items()):
            raise ArtefactError(f"{path}: 'space' is {value!r}, expected name, code, kwargs; restore it or run again")
        return cls(**found)

    def __str__(self) -> str:
        """As it is called: `nas_bench_201(classes=10, channels=3, image_size=32) 421211`."""
        return f"{self.name}({', '.join(f'{key}={value!r}' for key, value in self.kwargs.items())}) {self.code}"


def published_student(
    student: SpaceName, architecture: str, fingerprint: str, folder: Path
) -> tuple[PublishedSpace, PublishedArchitecture]:
    """The student of a folder, with its space open.

    Args:
        architecture: the JSON form that the folder holds.
        fingerprint: the one in its card.

    Raises:
        ArtefactError: no such space, or the files are not of one and the same student.
    """
    if student.name not in PUBLISHED:
        raise ArtefactError(
            f"{folder} is a student of the space {student.name!r}, which this version does not have; it has"
            f" {', '.join(PUBLISHED)}"
        )
    try:
        space = PUBLISHED[student.name](**student.kwargs)
        known, named = space.from_json(architecture), space.from_code(student.code)
    except (SpaceError, TypeError) as error:
        raise ArtefactError(f"{folder} is damaged: {error}; restore it or run again") from error
    if not known.fingerprint == named.fingerprint == fingerprint:
        raise ArtefactError(
            f"{folder}: the architecture is {known.code}, the card is of {student.code} ({fingerprint}): the files are"
            " of different students; restore them or run again"
        )
    return space, known
