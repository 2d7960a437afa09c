"""Which maps the terms of an expression look at, in a student and its teacher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from torch import Tensor, nn

from n2n.distill.features import INSTEAD
from n2n.distill.objectives.base import Needs
from n2n.distill.objectives.expression import Expression
from n2n.networks.depth import Layers, matched, own_places, places
from n2n.networks.stages import Stage, last_stage
from n2n.networks.tracing import trace

if TYPE_CHECKING:
    from n2n.distill.teacher import Teacher

Kind = tuple[str, bool]
"""What an objective asks for: `Needs.features` and `Needs.before_activation`."""
Pair = tuple[tuple[Stage, ...], tuple[Stage, ...]]
"""Places in the student and in the teacher, paired by position."""


def kind_of(needs: Needs) -> Kind:
    """Which maps an objective asks for."""
    return needs.features, needs.before_activation


def reads_layers(expression: Expression) -> bool:
    """Whether a term looks at maps that can be named: any but those which enter the classifier."""
    return any(features != "penultimate" for features, _ in kinds_of(expression))


def kinds_of(expression: Expression) -> tuple[Kind, ...]:
    """All kinds of maps that an expression asks for, each once; class means are of what enters the classifier."""
    needs = [term.objective.needs for term in expression.all]
    asked = [kind_of(one) for one in needs if one.features != "none"]
    asked += [("penultimate", False) for one in needs if one.class_means]
    return tuple(dict.fromkeys(asked))


@dataclass(frozen=True)
class Looks:
    """Where to look in both networks.

    Attributes:
        pairs: the places of each kind of maps.
        student: all places in the student, each once.
        teacher: all places in the teacher, each once.
    """

    pairs: Mapping[Kind, Pair]
    student: tuple[Stage, ...]
    teacher: tuple[Stage, ...]

    def of_student(self, needs: Needs, maps: Mapping[Stage, Tensor]) -> tuple[Tensor, ...]:
        """The student's maps that an objective asks for, from those of all places."""
        return tuple(maps[place] for place in self.pairs.get(kind_of(needs), ((), ()))[0])

    def of_teacher(self, needs: Needs, maps: Mapping[Stage, Tensor]) -> tuple[Tensor, ...]:
        """The teacher's, in the same order."""
        return tuple(maps[place] for place in self.pairs.get(kind_of(needs), ((), ()))[1])


def looks(expression: Expression, student: nn.Module, inputs: Tensor, teacher: Teacher, layers: Layers = ()) -> Looks:
    """Finds the places of all maps that an expression asks for.

    Args:
        student: handed back as it was.
        inputs: prepared images [B, C, *spatial], two or more, as the student takes them.
        layers: pairs of module names, of the student's and the teacher's, that are looked at instead.

    Raises:
        StageError: a network has no such maps, or no such module.
    """
    read = cache(lambda: trace(student, inputs, name="the student"))  # one pass, and none for the last stage alone

    def pair(kind: Kind) -> Pair:
        features, before = kind
        if features == "own_stages":
            return own_places(read(), layers=layers, instead=INSTEAD), ()
        if kind == ("last", False) and not layers:
            return (last_stage(student, inputs, name="the student", instead=INSTEAD),), (teacher.last_stage,)
        return matched(read(), teacher.trace, features, before_activation=before, layers=layers, instead=INSTEAD)

    pairs = {kind: pair(kind) for kind in kinds_of(expression)}
    ours, theirs = (tuple(dict.fromkeys(one for pair in pairs.values() for one in pair[side])) for side in (0, 1))
    return Looks(pairs, ours, theirs)


def places_in(teacher: Teacher, expression: Expression, layers: Layers = ()) -> tuple[Stage, ...]:
    """All places in a teacher at which an expression may look, whatever the student.

    Raises:
        StageError: the teacher has no such maps.
    """
    found: list[Stage] = []
    for kind in kinds_of(expression):
        if kind[0] == "own_stages":
            continue
        if kind == ("last", False) and not layers:
            found.append(teacher.last_stage)
        elif layers:
            both = tuple((name, name) for _, name in layers)
            found += matched(teacher.trace, teacher.trace, kind[0], before_activation=kind[1], layers=both)[1]
        else:
            found += places(teacher.trace, kind[0], before_activation=kind[1], instead=INSTEAD)
    return tuple(dict.fromkeys(found))
