"""A student of a teacher as a value: what was removed, which widths and kernels changed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from search_spaces.base import SpaceError


@dataclass(frozen=True)
class TeacherArchitecture:
    """A student derived from one teacher.

    `teacher` is the fingerprint of the teacher's structure (not of its weights). `removed` names layers in graph order.
    `widths` (channel group → channels) and `kernels` (layer → kernel size) hold only what differs from the teacher, so
    that equal networks are equal values.
    """

    teacher: str
    removed: tuple[str, ...] = ()
    widths: tuple[tuple[str, int], ...] = ()
    kernels: tuple[tuple[str, int], ...] = ()

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON, first 16 hexadecimal digits."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces."""
        value = {
            "kind": "teacher",
            "teacher": self.teacher,
            "removed": list(self.removed),
            "widths": dict(self.widths),
            "kernels": dict(self.kernels),
        }
        return json.dumps(value, sort_keys=True, separators=(",", ":"))


def architecture_from_json(text: str) -> TeacherArchitecture:
    """What `TeacherArchitecture.to_json` wrote, in the order of the text; a space puts it into canonical order.

    Raises:
        SpaceError: the text is no JSON, or not the JSON of such an architecture.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise SpaceError(f"architecture: expected JSON, found {text[:60]!r} ({error})") from error
    if not isinstance(value, dict) or value.get("kind") != "teacher":
        found = value.get("kind") if isinstance(value, dict) else type(value).__name__
        raise SpaceError(f"architecture: expected the kind 'teacher', found {found!r}; open the space that wrote it")
    expected = {"kind", "teacher", "removed", "widths", "kernels"}
    if set(value) != expected:
        raise SpaceError(f"architecture: expected the keys {sorted(expected)}, found {sorted(value)}")
    removed, widths, kernels = value["removed"], value["widths"], value["kernels"]
    if (
        not isinstance(value["teacher"], str)
        or not (isinstance(removed, list) and all(isinstance(name, str) for name in removed))
        or not all(isinstance(sizes, dict) for sizes in (widths, kernels))
        or not all(type(size) is int for sizes in (widths, kernels) for size in sizes.values())
    ):
        raise SpaceError("architecture: expected a list of layer names and two maps from names to whole numbers")
    return TeacherArchitecture(value["teacher"], tuple(removed), tuple(widths.items()), tuple(kernels.items()))
