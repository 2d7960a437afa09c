"""What every search space owes its callers: `check_space(space, rng)` fails at the first broken promise.

Whoever writes a space calls it from a test, with a teacher that is small enough to be built a dozen times.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from search_spaces.base import (
    CURSOR,
    FEATURES,
    Architecture,
    Cost,
    Draft,
    SearchSpace,
    SpaceError,
    random_actions,
    replay,
)

STUDENTS = 4


def check_space(space: SearchSpace, rng: np.random.Generator) -> None:
    """Runs every check below."""
    assert isinstance(space.name, str)
    assert space.name
    assert space.num_decisions >= 1
    assert space.num_actions >= 2
    check_decisions(space, rng)
    check_illegal_actions(space, rng)
    check_observations(space, rng)
    check_keep_all_is_the_teacher(space)
    check_students(space, rng)
    check_json(space, rng)
    check_mutation(space, rng)
    check_description(space)
    check_changes(space, rng)


def check_decisions(space: SearchSpace, rng: np.random.Generator) -> None:
    """Masks are bool [A] with the last action in them; `apply` gives a new draft and leaves the old one alone."""
    draft = space.initial()
    assert draft.actions == ()
    for decision in range(space.num_decisions):
        assert draft.cursor == decision
        assert space.decision_name(decision)
        mask = space.legal(draft)
        assert mask.shape == (space.num_actions,)
        assert mask.dtype == np.bool_
        assert mask[-1], f"the last action is not legal for {space.decision_name(decision)}"
        before = draft.actions
        action = int(rng.choice(np.flatnonzero(mask)))
        after = space.apply(draft, action)
        assert draft.actions == before
        assert after.actions == (*before, action)
        np.testing.assert_array_equal(space.legal(draft), mask)
        draft = after
    with pytest.raises(SpaceError):
        space.legal(draft)
    with pytest.raises(SpaceError):
        space.apply(draft, space.num_actions - 1)
    with pytest.raises(SpaceError):
        space.student(space.initial())


def check_illegal_actions(space: SearchSpace, rng: np.random.Generator) -> None:
    """An action out of range or not legal raises an error that names the layer and lists the legal actions."""
    draft = space.initial()
    for decision in range(space.num_decisions):
        mask = space.legal(draft)
        for action in (-1, space.num_actions, *np.flatnonzero(~mask).tolist()):
            with pytest.raises(SpaceError) as caught:
                space.apply(draft, action)
            message = str(caught.value)
            assert space.decision_name(decision) in message, message
            assert str(np.flatnonzero(mask).tolist()).strip("[]") in message, message
        draft = space.apply(draft, int(rng.choice(np.flatnonzero(mask))))


def check_observations(space: SearchSpace, rng: np.random.Generator) -> None:
    """float32 [N, F] in [0, 1], N fixed; a cursor while there is a decision; deterministic, and the caller's own."""
    draft = space.initial()
    layers = len(space.observe(draft))
    while True:
        seen = space.observe(draft)
        assert seen.shape == (layers, len(FEATURES))
        assert seen.dtype == np.float32
        assert np.isfinite(seen).all()
        outside = [FEATURES[column] for column in np.flatnonzero(((seen < 0) | (seen > 1)).any(axis=0))]
        assert not outside, f"columns outside [0, 1] after {draft.actions}: {outside}"
        assert set(np.unique(seen[:, CURSOR])) <= {0.0, 1.0}
        assert bool(seen[:, CURSOR].any()) == (draft.cursor < space.num_decisions)
        seen_again = space.observe(draft)
        np.testing.assert_array_equal(seen, seen_again)
        seen[:] = 0.5  # a caller may write into what it was given
        np.testing.assert_array_equal(space.observe(draft), seen_again)
        if draft.cursor == space.num_decisions:
            break
        draft = space.apply(draft, int(rng.choice(np.flatnonzero(space.legal(draft)))))
    kinds = space.observe(draft)[:, : sum(name.startswith("is_") for name in FEATURES)]
    np.testing.assert_array_equal(kinds.sum(axis=1), 1.0)


def check_keep_all_is_the_teacher(space: SearchSpace) -> None:
    """The draft of last actions costs what the teacher costs."""
    teacher = space.student(replay(space, (space.num_actions - 1,) * space.num_decisions))
    assert space.cost(teacher) == space.teacher_cost
    assert parameters(space.build(teacher)) == space.teacher_cost.parameters


def check_students(space: SearchSpace, rng: np.random.Generator) -> None:
    """Students are values; `cost` says what building then gives; networks are new and in train mode."""
    for _ in range(STUDENTS):
        draft = random_actions(space, rng)
        student = space.student(draft)
        assert isinstance(student, Architecture)
        assert space.student(Draft(draft.actions)) == student
        assert hash(student) == hash(space.student(draft))
        int(student.fingerprint, 16)
        cost = space.cost(student)
        assert isinstance(cost, Cost)
        assert cost.parameters > 0  # not always below the teacher's: what a removed layer narrowed stays wide
        assert cost.macs > 0
        network = space.build(student)
        assert parameters(network) == cost.parameters
        assert stored_bytes(network) == cost.bytes
        assert all(module.training for module in network.modules())
        again = space.build(student)
        shared = {id(value) for value in network.parameters()} & {id(value) for value in again.parameters()}
        assert not shared
        assert_same_weights(network, again)
        fresh = space.build(student, inherit=False, seed=1)
        assert_same_weights(fresh, space.build(student, inherit=False, seed=1))
        assert parameters(fresh) == cost.parameters
        before = torch.get_rng_state()
        space.build(student, inherit=False, seed=2)
        assert torch.equal(torch.get_rng_state(), before), "build left the global random generator changed"


def check_json(space: SearchSpace, rng: np.random.Generator) -> None:
    """JSON is canonical and reads back to an equal value; anything else is a SpaceError."""
    for _ in range(STUDENTS):
        student = space.random(rng)
        text = student.to_json()
        assert isinstance(json.loads(text), dict)
        twin = space.from_json(text)
        assert twin == student
        assert twin.fingerprint == student.fingerprint
        assert twin.to_json() == text
        assert space.cost(twin) == space.cost(student)
    for damaged in ("", "{", "null", "[]", "{}", '{"kind": "nothing known"}', text[:-1]):
        with pytest.raises(SpaceError):
            space.from_json(damaged)


def check_mutation(space: SearchSpace, rng: np.random.Generator) -> None:
    """`random` and `mutate` follow their generator; a mutant is another student, and different ones turn up."""
    seed = int(rng.integers(2**31))
    parent = space.random(np.random.default_rng(seed))
    assert space.random(np.random.default_rng(seed)) == parent
    assert space.mutate(parent, np.random.default_rng(seed)) == space.mutate(parent, np.random.default_rng(seed))
    text = parent.to_json()
    mutants = [space.mutate(parent, rng) for _ in range(STUDENTS)]
    assert parent.to_json() == text
    for mutant in mutants:
        assert mutant.fingerprint != parent.fingerprint
        assert space.from_json(mutant.to_json()) == mutant
        assert parameters(space.build(mutant)) == space.cost(mutant).parameters


def check_description(space: SearchSpace) -> None:
    """One row per layer with a known status; a reason where frozen and only there; the parameters add up."""
    rows = space.describe()
    assert rows
    for row in rows:
        assert row.status in ("removable", "shrinkable", "frozen"), row
        groups = {name for other in rows if other.status == "shrinkable" for name in other.group.split(", ")}
        assert not row.reads or groups.issuperset(row.reads.split(", ")), row
        assert bool(row.reason) == (row.status == "frozen"), row
        assert row.parameters >= 0, row
        assert row.macs >= 0, row
    assert any(row.status != "frozen" for row in rows)
    assert sum(row.parameters for row in rows) == space.teacher_cost.parameters


def check_changes(space: SearchSpace, rng: np.random.Generator) -> None:
    """The teacher changes nothing; a student's layers have the parameters and widths that are said."""
    teacher = space.student(replay(space, (space.num_actions - 1,) * space.num_decisions))
    assert not any(layer.changed for layer in space.changes(teacher))
    for _ in range(STUDENTS):
        student = space.random(rng)
        changes = space.changes(student)
        assert [layer.name for layer in changes] == [layer.name for layer in space.changes(teacher)]
        outside = space.teacher_cost.parameters - sum(layer.parameters[0] for layer in changes)
        assert outside + sum(layer.parameters[1] for layer in changes) == space.cost(student).parameters
        modules = dict(space.build(student).named_modules())
        for layer in changes:
            assert not (layer.removed and layer.parameters[1]), layer
            module = modules.get(layer.name)
            width = getattr(module, "out_channels", getattr(module, "out_features", None))
            assert layer.removed or width is None or width == layer.width_out[1], layer


def parameters(network: nn.Module) -> int:
    """Counted here, so that a space's own counting is compared with something else."""
    return sum(value.numel() for value in network.parameters())


def stored_bytes(network: nn.Module) -> int:
    """Of all that a state dict holds, which is all parameters and buffers of networks without temporary buffers."""
    return sum(value.numel() * value.element_size() for value in network.state_dict().values())


def assert_same_weights(one: nn.Module, other: nn.Module) -> None:
    """Equal names and values."""
    mine, theirs = one.state_dict(), other.state_dict()
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        assert torch.equal(value, theirs[name]), name
