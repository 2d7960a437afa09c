"""The door: a network is read, and what its code may or may not do is tried before any search."""

from __future__ import annotations

import time
from dataclasses import replace

from torch import nn

from search_spaces.teacher.analysis import Reading, analyse
from search_spaces.teacher.architecture import TeacherArchitecture, architecture_from_json
from search_spaces.teacher.capture import ExampleInputs, ForwardFn
from search_spaces.teacher.channels import plan
from search_spaces.teacher.removal import shape_of
from search_spaces.teacher.student_builder import build
from search_spaces.teacher.trace import Node
from search_spaces.teacher.verify import misfit

SECONDS = 60.0
"""How long a network may be read: its graph has to be captured, and what has not been tried by then is frozen."""


def read(
    network: nn.Module,
    example_inputs: ExampleInputs,
    *,
    forward_fn: ForwardFn | None = None,
    seconds: float = SECONDS,
) -> Reading:
    """Read a teacher. The network itself is left as it was.

    Where channels pass a place whose sizes may be constants of the user's code (a view, equal parts of a tensor), a
    narrower student is built and run; where it does not run as expected, or `seconds` after the start, those channels
    are frozen.

    Raises:
        SpaceError: it does not run on the example inputs, or its graph cannot be captured (in time).
    """
    deadline = time.monotonic() + seconds
    return settled(analyse(network, example_inputs, forward_fn=forward_fn, seconds=seconds), deadline)


def settled(reading: Reading, deadline: float) -> Reading:
    """A reading in which every width that may change was tried; those untried at `deadline` (monotonic) are frozen."""
    while suspects := _suspects(reading):
        held = _try(reading, suspects, deadline)
        if not held:
            return reading
        distrusted = {**reading.distrusted, **held}
        reading = replace(
            reading, distrusted=distrusted, full=plan(reading.nodes, reading.widths, distrusted=distrusted)
        )
    return reading


def rebuild(
    network: nn.Module, example_inputs: ExampleInputs, architecture_json: str, *, forward_fn: ForwardFn | None = None
) -> nn.Module:
    """The student of a stored architecture, built on the network that it came from.

    Raises:
        SpaceError: the text is damaged, or belongs to a teacher of another structure.
    """
    return build(read(network, example_inputs, forward_fn=forward_fn), architecture_from_json(architecture_json))


def _suspects(reading: Reading) -> list[int]:
    """The groups that may change and reach a place that may not follow."""
    reached = frozenset[int]().union(*reading.full.suspects.values())
    return [index for index in sorted(reached) if _narrower(reading, index) is not None]


def _narrower(reading: Reading, index: int) -> tuple[str, int] | None:
    """A group's name and about two thirds of its width, where it can shrink at all."""
    group = reading.full.groups[index]
    blocks = len(group.classes) // group.blocks
    if group.frozen or blocks < 2:
        return None
    return group.name, max(1, min(blocks - 1, 2 * blocks // 3)) * group.unit


def _try(reading: Reading, groups: list[int], deadline: float) -> dict[int, str]:
    """The nodes that do not follow, with the reason: all groups at once first, then by halves."""
    wrong = _fault(reading, groups, deadline)
    if not wrong:
        return {}
    if len(groups) == 1:
        nodes = [node for node, reached in reading.full.suspects.items() if groups[0] in reached]
        place = reading.nodes[nodes[0]]
        reason = (
            f"reaches {place.target} at {place.line or 'an unknown line'}, whose sizes do not follow"
            f"{_stored_sizes(reading, place)} ({wrong})"
        )
        return dict.fromkeys(nodes, reason)
    half = len(groups) // 2
    return {**_try(reading, groups[:half], deadline), **_try(reading, groups[half:], deadline)}


def _stored_sizes(reading: Reading, place: Node) -> str:
    """The whole numbers that modules around a node store and that are sizes there, as a hint; empty where none is."""
    sizes = set(place.shape[1:]) - {0, 1}
    found = [
        f"{path}.{name} = {value}" if path else f"{name} = {value}"
        for path in ("", *place.modules)
        for name, value in vars(reading.network.get_submodule(path)).items()
        if type(value) is int and value in sizes
    ]
    return f": they may come from {' or '.join(found[-3:])}" if found else ""


def _fault(reading: Reading, groups: list[int], deadline: float) -> str:
    if time.monotonic() > deadline:
        return "there was no time left to try"
    widths = dict(found for index in groups if (found := _narrower(reading, index)) is not None)
    architecture = TeacherArchitecture(reading.fingerprint, widths=tuple(sorted(widths.items())))
    return misfit(reading, shape_of(reading, architecture), build(reading, architecture))
