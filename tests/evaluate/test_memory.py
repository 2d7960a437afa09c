"""Judgements across runs: one file for one teacher and its data."""

from __future__ import annotations

import sqlite3

import pytest

from n2n.evaluate import Memory, Status, cached, distillation, fake, remembered
from n2n.evaluate.base import not_ok
from n2n.evaluate.memory import CacheError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "judged.sqlite"


def opened(path, *, teacher="t1", data="d1"):
    return Memory(path, teacher=teacher, data=data)


def test_a_later_run_judges_nobody_twice(world, path):
    inner = fake(world.space, lambda student: 0.5)
    students = world.students(3)
    first = remembered(inner, opened(path), recipe="r", seed=0)(students[:2])
    later = remembered(inner, opened(path), recipe="r", seed=0)
    assert later(students)[:2] == first
    assert later.hits == 2
    assert inner.batches == [tuple(one.fingerprint for one in students[:2]), (students[2].fingerprint,)]


@pytest.mark.parametrize(("recipe", "seed"), [("other", 0), ("r", 1)])
def test_another_recipe_or_seed_is_another_judgement(world, path, recipe, seed):
    inner = fake(world.space, lambda student: 0.5)
    remembered(inner, opened(path), recipe="r", seed=0)(world.students(1))
    later = remembered(inner, opened(path), recipe=recipe, seed=seed)
    later(world.students(1))
    assert later.hits == 0


@pytest.mark.parametrize(
    ("given", "said"), [({"teacher": "t2"}, "teacher: t1, .* has t2"), ({"data": "d2"}, "d1, .* d2")]
)
def test_a_file_of_another_teacher_or_data_is_refused_by_name(path, given, said):
    opened(path)
    with pytest.raises(CacheError, match=said):
        opened(path, **given)


def test_failures_are_judged_again(world, path):
    def failing(batch):
        cost = world.space.cost
        return [not_ok(Status.FAILED, "no memory", one, cost(one), seconds=0, seed=0, fidelity="x") for one in batch]

    student = world.students(1)
    remembered(failing, opened(path), recipe="r", seed=0)(student)
    inner = fake(world.space, lambda student: 0.5)
    assert remembered(inner, opened(path), recipe="r", seed=0)(student)[0].status is Status.OK


class Interrupted:
    """Judges one student, and is interrupted over the next."""

    def __init__(self, space):
        self.inner, self.judged = fake(space, lambda student: 0.5), []

    def __call__(self, batch):
        self.judged = self.inner(batch[:1])
        raise KeyboardInterrupt

    def known(self, batch):
        asked = [one.fingerprint for one in batch]
        return [one for one in self.judged if one.fingerprint in asked]


def test_an_interrupt_keeps_what_was_judged_and_what_the_file_knew(world, path):
    a, b, c = world.students(3)
    remembered(fake(world.space, lambda student: 0.5), opened(path), recipe="r", seed=0)([c])
    judge = cached(remembered(Interrupted(world.space), opened(path), recipe="r", seed=0))
    with pytest.raises(KeyboardInterrupt):
        judge([a, b, c])
    assert [one.fingerprint for one in judge.known([a, b, c])] == [a.fingerprint, c.fingerprint]
    later = fake(world.space, lambda student: 0.5)
    remembered(later, opened(path), recipe="r", seed=0)([a, b, c])
    assert later.batches == [(b.fingerprint,)]


def test_damage_is_told_with_the_file(world, path):
    path.write_bytes(b"no database" * 100)
    with pytest.raises(CacheError, match=r"judged\.sqlite cannot be used"):
        opened(path)


def test_a_damaged_row_is_told(world, path):
    memory = opened(path)
    remembered(fake(world.space, lambda student: 0.5), memory, recipe="r", seed=0)(world.students(1))
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE judgements SET evaluation = 'x'")
    connection.close()
    with pytest.raises(CacheError, match="damaged"):
        remembered(fake(world.space, lambda student: 0.5), memory, recipe="r", seed=0)(world.students(1))


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(CacheError, match="a folder that is there"):
        opened(tmp_path / "nowhere" / "judged.sqlite")


def test_a_database_of_something_else_is_left_as_it_is(tmp_path):
    path = tmp_path / "users.sqlite"
    with sqlite3.connect(path) as others:
        others.execute("CREATE TABLE users (name TEXT)")
    before = path.read_bytes()
    with pytest.raises(CacheError, match=r"a database of something else \(it has the table users\): name another file"):
        opened(path)
    assert path.read_bytes() == before


def test_a_file_that_cannot_be_written_costs_nothing_but_the_memory(world, path):
    memory = opened(path)
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE judgements")
        connection.execute(
            "CREATE VIEW judgements AS SELECT '' AS recipe, '' AS seed, '' AS fingerprint, '' AS evaluation"
        )
    connection.close()
    with pytest.warns(RuntimeWarning, match="cannot be written"):
        found = remembered(fake(world.space, lambda student: 0.5), memory, recipe="r", seed=0)(world.students(1))
    assert found[0].accuracy == 0.5


def test_the_key_of_a_recipe_knows_all_that_matters(world):
    def key(**options):
        return distillation(world.space, world.teacher, world.training, **options).recipe_key

    same, again = key(steps=5), key(steps=5)
    changes = ({"objective": "logit_mse"}, {"start": "fresh"}, {"importance": "l2"}, {"subset": 20},
               {"validation_subset": 10})  # fmt: skip
    others = [key(steps=6), *(key(steps=5, **one) for one in changes)]
    assert same == again
    assert len({same, *others}) == 7


def test_what_is_streamed_is_in_every_file_before_the_batch_ends(world, tmp_path):
    """A process that dies within a batch loses the student at which it dies, and none before it."""
    inner = fake(world.space, lambda student: 0.5)
    a, b, c = world.students(3)

    class Dying:
        def __call__(self, students):
            return self.stream(students, lambda one: None)

        def stream(self, students, keep):
            for student in students:
                if student is c:
                    raise SystemExit
                keep(inner([student])[0])
            return []

    low, high = (opened(tmp_path / name) for name in ("low.sqlite", "high.sqlite"))
    evaluate = remembered(remembered(Dying(), low, recipe="r", seed=0), high, recipe="r", seed=0)
    with pytest.raises(SystemExit):
        evaluate([a, b, c])
    for memory in (low, high):
        assert set(memory.get("r", 0, [one.fingerprint for one in (a, b, c)])) == {a.fingerprint, b.fingerprint}
