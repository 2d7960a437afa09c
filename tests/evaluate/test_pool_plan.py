"""The arithmetic of pools, by hand: what fits, what is refused, and how long a student may take."""

from __future__ import annotations

import itertools

import pytest

from n2n.evaluate.pool_plan import (
    PROCESS_BYTES,
    Need,
    Node,
    Pace,
    Plan,
    PoolError,
    PoolOptions,
    check_processes,
    plan,
    threads_for,
)
from n2n.evaluate.ray_cluster import ray_running

GB = 10**9


def test_threads_share_the_cores_out() -> None:
    assert threads_for([8], 2) == 4
    assert threads_for([8], 3) == 2
    assert threads_for([8, 4], 3) == 4  # two on the first node, one on the second
    assert threads_for([2], 5) == 1  # more than fit; the plan refuses them
    for cores, workers in itertools.product([(2,), (16,), (3, 5), (1, 9, 4)], range(1, 8)):
        fitting = [t for t in range(1, 17) if sum(one // t for one in cores) >= workers]
        assert threads_for(cores, workers) == max(fitting, default=1)


def test_auto_takes_what_is_least_on_every_node() -> None:
    need = Need(payload=GB // 2)  # 1 GB each
    nodes = [Node(cores=4, memory=2.5 * GB), Node(cores=1, memory=9 * GB)]
    assert plan(PoolOptions("auto"), nodes, need) == Plan(workers=2 + 1, threads=1)
    assert plan(PoolOptions("auto", threads=2), nodes, need) == Plan(workers=2, threads=2)


@pytest.mark.parametrize(("share", "workers"), [(0.25, 8), (0.1, 20), (1, 2), (2, 1)])
def test_fractions_of_gpus_add_up(share: float, workers: int) -> None:
    node = Node(cores=64, memory=640 * GB, gpus=2)
    assert plan(PoolOptions("auto", gpus_per_worker=share), [node], Need(gpus=share)).workers == workers


@pytest.mark.parametrize(
    ("options", "node", "message"),
    [
        (
            PoolOptions(4),
            Node(4, 2 * GB),
            r"each takes 0.80 GB \(0.50 GB for Python, PyTorch and Ray \+ 0.20 GB of teacher and data \+ 0.10 GB to"
            r" train a student\) of memory, 3.20 GB in all, and the memory for workers \(2.00 GB\) is enough for 2."
            r" Do: use 2 workers",
        ),
        (PoolOptions(3, threads=2), Node(4, 9 * GB), r"the cores \(4\), 2 for each worker, are enough for 2"),
        (PoolOptions("auto"), Node(4, GB // 2), r"1 workers do not fit.*use a larger machine, or workers=0"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_arithmetic(options: PoolOptions, node: Node, message: str) -> None:
    with pytest.raises(PoolError, match=message):
        plan(options, [node], Need(payload=GB // 5, room=GB // 10))


def test_processes_beyond_the_memory_are_refused_before_ray_starts() -> None:
    with pytest.raises(PoolError, match=r"9 workers do not fit: .* 4\.50 GB in all, .* has 4\.00 GB.* and 8 at most"):
        check_processes(9, 4_000_000_000)
    check_processes(8, 4_000_000_000)
    check_processes(9, None)
    with pytest.raises(PoolError, match="1000000 workers do not fit"), ray_running(1_000_000):
        pytest.fail("no machine has that memory")


def test_missing_gpus_are_named() -> None:
    with pytest.raises(PoolError, match=r"the GPUs \(0\), 0.5 for each worker, are enough for 0"):
        plan(PoolOptions(1), [Node(4, 9 * GB)], Need(gpus=0.5))


def test_room_on_different_nodes_is_no_room() -> None:
    nodes = [Node(cores=4, memory=0.1 * GB), Node(cores=0, memory=9 * GB)]
    with pytest.raises(PoolError, match="no node has room"):
        plan(PoolOptions(2), nodes, Need())


@pytest.mark.parametrize(
    "wrong",
    [{"workers": 0}, {"workers": "all"}, {"workers": True}, {"workers": 1, "threads": 0}, {"workers": 1, "retries": -1},
     {"workers": 1, "gpus_per_worker": 1.5}, {"workers": 1, "gpus_per_worker": -0.5},
     {"workers": 1, "timeout_floor": float("nan")}],
)  # fmt: skip
def test_options_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(PoolError, match="|".join(f"{name}=" for name in wrong)):
        PoolOptions(**wrong)  # type: ignore[arg-type]


def test_a_worker_needs_its_process_the_payload_and_room() -> None:
    assert Need(payload=7, room=5).memory == PROCESS_BYTES + 12


def test_the_time_of_a_student_is_predicted_from_the_others() -> None:
    pace = Pace(factor=10, floor=1)
    assert pace.limit("a", 1e6) == 1  # 0.01 s at 1e8 MACs per second
    assert pace.limit("a", 3e10) == 300
    pace.enter("a", work=100, seconds=1)
    pace.enter("a", work=300, seconds=7)
    assert pace.limit("a", 1000) == pytest.approx(10 * 1000 * 8 / 400)
    assert pace.limit("a", 1) == 1
    assert pace.limit("b", 3e10) == 300  # another fidelity is another pace
