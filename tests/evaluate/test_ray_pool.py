"""Ray workers: equal to one process bit for bit, and no student is lost, whatever becomes of the workers."""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
import time

import faults
import pytest
from faults import Faults, Faulty, score

from n2n.evaluate import Status, distillation, fake, ray_pool
from n2n.evaluate.pool_plan import PoolError, PoolOptions
from n2n.evaluate.ray_pool import OneRung, RayPool
from search_spaces.base import Architecture

pytestmark = pytest.mark.ray

SECONDS = 12.0
"""What every student is given here."""


@pytest.fixture(scope="module", autouse=True)
def by_value():
    """Workers cannot import test modules, so what is defined there travels whole."""
    from ray import cloudpickle

    here = [sys.modules[__name__], faults]
    for module in here:
        cloudpickle.register_pickle_by_value(module)
    yield
    for module in here:
        cloudpickle.unregister_pickle_by_value(module)


@pytest.fixture(scope="module", autouse=True)
def one_ray():
    """One Ray for the pools of this module, with a core more than the shared pool has; starting it takes seconds."""
    import ray

    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return Faults(tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="module")
def pool(world, planted, by_value, one_ray):
    """Two workers, who give a student up after two attempts; shared, as starting them takes seconds."""
    make = functools.partial(_evaluators, world, planted)
    options = PoolOptions(2, threads=1, retries=1, timeout_floor=SECONDS)
    images = {"faulty": 1.0, "distilled": 96.0}
    with RayPool(make, options, space=world.space, prepare=None, images=images) as opened:
        yield opened


def _evaluators(world, planted):
    judge = distillation(world.space, world.teacher, world.training, recipe=world.recipe, seed=3)
    return {"faulty": Faulty(world.space, planted), "distilled": judge}


@pytest.fixture
def undisturbed(world):
    return fake(world.space, score)


def test_two_workers_judge_as_one_process_does(pool, world, without_seconds):
    students = world.students(6)
    parallel = OneRung(pool, "distilled")(students)
    alone = distillation(world.space, world.teacher, world.training, recipe=world.recipe, seed=3)(students)
    assert [without_seconds(one) for one in parallel] == [without_seconds(one) for one in alone]


@pytest.mark.parametrize("fault", ["kill", "hang"])
def test_a_student_whose_worker_is_lost_is_judged_by_another(pool, world, planted, undisturbed, fault):
    students, before = world.students(7), len(planted.noted("judged"))
    planted.plant(students[3], fault, times=1)
    assert OneRung(pool, "faulty")(students) == undisturbed(students)
    judged = planted.noted("judged")[before:]
    assert sorted(judged) == sorted(one.fingerprint for one in students)  # everybody once


def test_a_poisoned_student_is_given_up_alone(pool, world, planted, undisturbed):
    students, before = world.students(5), len(planted.noted("judged"))
    poisoned = students[2]
    planted.plant(poisoned, "kill", times=2)
    found, expected = OneRung(pool, "faulty")(students), undisturbed(students)
    others = [index for index in range(5) if index != 2]
    assert [found[index] for index in others] == [expected[index] for index in others]
    assert found[2].status is Status.FAILED
    assert found[2].reason.startswith("given up after 2 attempts, each on another worker: the worker died")
    assert found[2].parameters == world.space.cost(poisoned).parameters
    assert sorted(planted.noted("judged")[before:]) == sorted(students[index].fingerprint for index in others)


@pytest.fixture
def interruptible():
    """Where tests run in the background of a shell, a process begins with Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_keeps_what_was_judged(pool, world, planted, undisturbed, interruptible):
    students, before = world.students(6), len(planted.noted("judged"))
    hanging = students[0]  # the smallest, so the last in line
    planted.plant(hanging, "hang", times=2)  # however slow the machine is, the interrupt comes before it is given up

    def interrupt():
        while len(planted.noted("judged")) < before + 5:
            time.sleep(0.05)
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    rung = OneRung(pool, "faulty")
    with pytest.raises(KeyboardInterrupt):
        rung(students)
    thread.join()
    assert rung.known(students) == undisturbed(students[1:])
    assert OneRung(pool, "other").known(students) == []
    planted.clear(hanging)
    assert rung([hanging]) == undisturbed([hanging])  # with the workers that are left, and a new one


def test_a_bug_is_raised_as_it_is(pool, world, planted, undisturbed):
    students = world.students(3)
    planted.plant(students[1], "bug", times=1)
    with pytest.raises(KeyError, match="a bug"):
        OneRung(pool, "faulty")(students)
    assert OneRung(pool, "faulty")(students) == undisturbed(students)


def test_a_fault_without_a_space_says_what_to_pass(world, planted):
    student = world.students(1)[0]
    planted.plant(student, "kill", times=1)
    make = functools.partial(Faulty, world.space, planted)
    with (
        ray_pool(make, workers=1, threads=1, retries=0) as without,
        pytest.raises(RuntimeError, match="pass space= to ray_pool"),
    ):
        without([student])


def _no_evaluator():
    raise OSError("the data are not on this machine")


def test_an_evaluator_that_cannot_be_made_is_told(world):
    with (
        ray_pool(_no_evaluator, workers=1, threads=1) as pool,
        pytest.raises(OSError, match="the data are not on this machine"),
    ):
        pool(world.students(1))


def _half(student: Architecture) -> float:
    return 0.5


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"workers": 2, "room": 10**15}, r"2 workers do not fit: each takes 1000000.50 GB"),
        ({"workers": 4, "threads": 1}, r"the cores \(3\), 1 for each worker, are enough for 3"),
        ({"workers": 1, "gpus_per_worker": 0.5}, r"the GPUs \(\d\), 0.5 for each worker"),
    ],
)
def test_workers_that_do_not_fit_are_refused_before_they_start(world, asked, message):
    if "gpus_per_worker" in asked and os.path.exists("/dev/nvidia0"):
        pytest.skip("there is a GPU")
    with (
        ray_pool(functools.partial(fake, world.space, _half), **asked) as pool,
        pytest.raises(PoolError, match=message),
    ):
        pool(world.students(1))


def test_no_workers_is_refused(world):
    with pytest.raises(ValueError, match="workers=0"):
        ray_pool(functools.partial(fake, world.space, _half), workers=0)
