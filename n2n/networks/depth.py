"""Which maps of two networks belong together: stages by spatial size or depth, matched by relative depth or by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches

from n2n.networks.stages import Stage, StageError
from n2n.networks.tracing import Given, Trace

TOKEN_STAGES = 4
"""Into how many parts of equal depth a network on tokens of one size is cut, at most."""

Layers = tuple[tuple[str, str], ...]
"""Pairs of module names, of the student's and the teacher's."""


@dataclass(frozen=True)
class Part:
    """A stage of a network: its first and its last maps, and what enters its last activation, where it has one."""

    first: Stage
    last: Stage
    before: Stage | None


def parts(trace: Trace, *, instead: str) -> tuple[Part, ...]:
    """The stages of a network, in the order of their last maps.

    A stage is all maps of one spatial size; the last map is that which the innermost last module gives, the first one
    is that behind the first activation, where there is one. Maps on another number of axes than the last ones do not
    count (the patches of a network on tokens). Tokens that keep one size are cut by depth instead: into the blocks of
    the shallowest list of blocks, or up to four groups of these.

    Raises:
        StageError: there are no maps; `instead` says what to do.
    """
    if not trace.given:
        raise StageError(
            f"{trace.name} has no feature maps: expected a module that gives [B, C, *spatial] with several places,"
            f" found none; {instead}"
        )
    end = trace.given[-1]
    alike = [one for one in trace.given if len(one.size) == len(end.size) and one.tokens == end.tokens]
    sizes = list(dict.fromkeys(one.size for one in reversed(alike)))[::-1]  # by their last maps
    if end.tokens and len(sizes) == 1:
        return _by_depth(alike)
    return tuple(_part([one for one in alike if one.size == size]) for size in sizes)


def _part(given: Sequence[Given]) -> Part:
    active = [one for one in given if one.activation]
    return Part((active or given)[0].stage, given[-1].stage, _before(given))


def _before(given: Sequence[Given]) -> Stage | None:
    active = [one.stage for one in given if one.activation]
    return replace(active[-1], entering=True) if active else None


def _by_depth(given: Sequence[Given]) -> tuple[Part, ...]:
    """Token maps of one size, by depth."""
    ends = _blocks(given)
    groups = min(TOKEN_STAGES, len(ends))
    cuts = [ends[(number + 1) * len(ends) // groups - 1] for number in range(groups)]
    found, start = [], 0
    for cut in cuts:
        inside = given[start : cut + 1]
        alike = [one.stage for one in inside if one.stage.shape == given[cut].stage.shape]
        first = given[start - 1].stage if start else alike[0]
        found.append(Part(first, given[cut].stage, _before(inside)))
        start = cut + 1
    return tuple(found)


def _blocks(given: Sequence[Given]) -> list[int]:
    """Positions of the outputs of a network's blocks: of the shallowest siblings that give the residual stream.

    Where there are no siblings, of everything that gives maps of the last maps' shape.
    """
    shape = given[-1].stage.shape
    stream = [at for at, one in enumerate(given) if one.stage.shape == shape]
    siblings: dict[str, list[int]] = {}
    for at in stream:
        own = (given[at].stage.module,) if given[at].container else ()
        for path in (*own, *given[at].handed_on):
            parent, _, name = path.rpartition(".")
            if name.isdecimal():
                siblings.setdefault(parent, []).append(at)
    several = [parent for parent, positions in siblings.items() if len(positions) > 1]
    return siblings[min(several, key=lambda one: one.count(".") + bool(one))] if several else stream


def places(trace: Trace, kind: str, *, before_activation: bool = False, instead: str) -> tuple[Stage, ...]:
    """Where a network alone gives what is asked for; two networks' are matched by `matched`.

    Args:
        kind: "stages": the last maps of every stage; "middle": of the stage in the middle, the earlier of two; "last":
            of the last one; "stage_ends": first and last of every stage that has two different; "penultimate": what
            enters the classifier.
        before_activation: what enters the last activation of the stage instead of its last maps.
        instead: what to do where there is none, for errors.

    Raises:
        StageError: there are no such maps.
    """
    if kind == "penultimate":
        if trace.classifier is None:
            raise StageError(
                f"{trace.name} has no layer with weights that gives the logits, so that it cannot be told what enters"
                f" its classifier; {instead}"
            )
        return (trace.classifier,)
    found = parts(trace, instead=instead)
    if kind == "middle":
        found = (found[(len(found) - 1) // 2],)
    if kind == "last":
        found = found[-1:]
    if kind != "stage_ends":
        return tuple(_last(one, trace, before_activation, instead) for one in found)
    pairs = [(one.first, _last(one, trace, before_activation, instead)) for one in found if one.first != one.last]
    if not pairs:
        raise StageError(f"{trace.name} has no stage of two maps, a first one and a last one; {instead}")
    return tuple(stage for pair in pairs for stage in pair)


def own_places(trace: Trace, *, layers: Layers = (), instead: str) -> tuple[Stage, ...]:
    """The last maps of every stage of a student alone, or of its modules that `layers` name.

    Raises:
        StageError: there are no such maps, or a name is not that of a module that gives maps.
    """
    if layers:
        return tuple(_of_name(trace, ours, before_activation=False) for ours, _ in layers)
    return places(trace, "stages", instead=instead)


def _last(part: Part, trace: Trace, before_activation: bool, instead: str) -> Stage:
    if not before_activation:
        return part.last
    if part.before is None:
        raise StageError(
            f"{trace.name}: no activation is a module of its own in the stage that ends with {part.last.module!r}, so"
            f" that maps before it cannot be read; name layers instead (--layer STUDENT=TEACHER), or {instead}"
        )
    return part.before


def matched(
    student: Trace,
    teacher: Trace,
    kind: str,
    *,
    before_activation: bool = False,
    layers: Layers = (),
    instead: str = "name the layers: --layer STUDENT=TEACHER",
) -> tuple[tuple[Stage, ...], tuple[Stage, ...]]:
    """The places of both networks, paired by position.

    Where one has fewer stages, each of them is paired with that of the other at the nearest relative depth, the last
    with the last. Named `layers` come before all this: "stages" takes all pairs, "middle" the middle one, "last" the
    last one, "stage_ends" takes them in twos; "penultimate" is what enters the classifier whatever is named.

    Raises:
        StageError: there are no such maps, or a name is not that of a module that gives maps.
    """
    if layers and kind != "penultimate":
        return _named(student, teacher, kind, before_activation, layers)
    ours, theirs = (
        places(one, kind, before_activation=before_activation, instead=instead) for one in (student, teacher)
    )
    each = 2 if kind == "stage_ends" else 1
    fewer, more = sorted((len(ours) // each, len(theirs) // each))
    chosen = [int((rank + 1) * more / fewer + 0.5) - 1 for rank in range(fewer)]

    def thinned(stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
        if len(stages) // each == fewer:
            return stages
        return tuple(stages[each * at + one] for at in chosen for one in range(each))

    return thinned(ours), thinned(theirs)


def _named(
    student: Trace, teacher: Trace, kind: str, before_activation: bool, layers: Layers
) -> tuple[tuple[Stage, ...], tuple[Stage, ...]]:
    if kind == "stage_ends" and len(layers) % 2:
        raise StageError(
            f"layers: expected pairs in twos, those of the first and those of the last maps of a stage, found"
            f" {len(layers)}; name another"
        )
    pairs = {"middle": layers[(len(layers) - 1) // 2 :][:1], "last": layers[-1:]}.get(kind, layers)
    ours = tuple(_of_name(student, one, before_activation) for one, _ in pairs)
    theirs = tuple(_of_name(teacher, one, before_activation) for _, one in pairs)
    return ours, theirs


def _of_name(trace: Trace, name: str, before_activation: bool) -> Stage:
    if name not in trace.named:
        close = get_close_matches(name, trace.named, n=3, cutoff=0.3) or list(trace.named)[:3]
        raise StageError(
            f"{trace.name}: module {name!r} gives no maps [B, C, *spatial] with several places, or does not exist;"
            f" name one that does, such as {', '.join(close)}"
        )
    found = trace.named[name]
    if before_activation:  # of a module that ends with an activation, what enters that
        found = next((one for one in trace.given if one.activation and name in one.handed_on), found)
    return replace(found.stage, entering=before_activation and found.activation)
