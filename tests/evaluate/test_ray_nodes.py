"""A cluster of several nodes, simulated on this machine: joined by its address, and one of them goes."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import faults
import pytest
from faults import Faults, score

from n2n.evaluate import Evaluation, fake, ray_pool
from n2n.evaluate.pool_plan import PoolError
from n2n.evaluate.ray_cluster import nodes, ray_running
from search_spaces.base import Architecture, SearchSpace

pytestmark = pytest.mark.ray

HEALTH = {"health_check_initial_delay_ms": 500, "health_check_period_ms": 500, "health_check_failure_threshold": 2}
STORE = 80 * 2**20


@dataclass(frozen=True)
class OnNodes:
    """Judges at once on one node, and never ends on the others; writes down who was where."""

    space: SearchSpace
    faults: Faults
    safe: str

    def __call__(self, students: Sequence[Architecture]) -> list[Evaluation]:
        import ray

        here = ray.get_runtime_context().get_node_id()
        if here != self.safe:
            self.faults.note("doomed", students[0])
            time.sleep(600)
        self.faults.note("judged", students[0])
        return fake(self.space, score)(students)


@pytest.fixture
def by_value():
    import sys

    from ray import cloudpickle

    for module in (faults, sys.modules[__name__]):
        cloudpickle.register_pickle_by_value(module)
    yield
    for module in (faults, sys.modules[__name__]):
        cloudpickle.unregister_pickle_by_value(module)


def test_an_address_where_nobody_answers_is_told_at_once() -> None:
    for address in ("127.0.0.1:1", "nonsense"):
        with pytest.raises(PoolError, match=f"address='{address}'.*ray start --head"), ray_running(1, address=address):
            pass


@pytest.mark.slow
@pytest.mark.usefixtures("by_value")
def test_the_students_of_a_node_that_goes_are_judged_elsewhere(world, tmp_path: Path) -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(True, head_node_args={
        "num_cpus": 1, "object_store_memory": STORE, "include_dashboard": False, "_system_config": HEALTH
    })  # fmt: skip
    try:
        other = cluster.add_node(num_cpus=1, object_store_memory=STORE)
        planted, students = Faults(tmp_path), world.students(6)

        def remove() -> None:
            while not planted.noted("doomed"):
                time.sleep(0.05)
            cluster.remove_node(other, allow_graceful=False)

        thread = threading.Thread(target=remove)
        with ray_running("auto", address=cluster.address):
            import ray

            assert [one.cores for one in nodes()] == [1, 1]
            make = functools.partial(OnNodes, world.space, planted, ray.get_runtime_context().get_node_id())
            with ray_pool(make, workers="auto", space=world.space) as pool:
                thread.start()
                found = []
                while not planted.noted("doomed"):  # the other node's worker may be late
                    found = pool(students)
                thread.join()
                assert found == fake(world.space, score)(students)
                (doomed,) = planted.noted("doomed")
                assert planted.noted("judged").count(doomed) == planted.noted("judged").count(students[0].fingerprint)
                assert [one.cores for one in nodes()] == [1]
                assert pool(students[:2]) == found[:2]  # with the worker that is left
    finally:
        cluster.shutdown()
