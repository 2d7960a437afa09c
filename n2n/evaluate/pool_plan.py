"""How many workers a pool has, with how many threads, and whether that fits: the arithmetic, without Ray."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

PROCESS_BYTES: Final = 500_000_000
"""Of a worker before it holds anything: Python, PyTorch and Ray (352 MB without Ray, measured; rounded up)."""
RETRIES: Final = 2
"""How often a student whose worker was lost is tried again."""
TIMEOUT_FACTOR: Final = 20.0
TIMEOUT_FLOOR: Final = 120.0
"""Seconds that every student is given, however small it is."""
SLOWEST: Final = 1e8
"""MACs per second that are expected at least of a worker as long as none has been timed; one core makes some 5e9."""
START_SECONDS: Final = 300.0
"""How long a pool without any worker waits for one to start."""


class PoolError(ValueError):
    """Workers cannot be had as asked; the message says what is there and what to change."""


@dataclass(frozen=True)
class PoolOptions:
    """What is asked of a pool.

    Attributes:
        workers: how many; "auto" for as many as the cluster, or this machine, has room for.
        threads: of torch in each; None shares the cores out evenly ("auto" workers have one each).
        gpus_per_worker: may be a fraction, e.g. 0.25 for four workers on one GPU; above 1 it is whole.
        retries: how often a student whose worker was lost is tried again on another one.
        timeout_factor: how many times longer than predicted a student may take.
        timeout_floor: seconds that every student may take.
        room: bytes that a worker needs to train one student.
        start_seconds: how long a pool without any worker waits for one to start.

    Raises:
        PoolError: a value out of its range.
    """

    workers: int | str
    threads: int | None = None
    gpus_per_worker: float = 0.0
    retries: int = RETRIES
    timeout_factor: float = TIMEOUT_FACTOR
    timeout_floor: float = TIMEOUT_FLOOR
    room: int = 0
    start_seconds: float = START_SECONDS

    def __post_init__(self) -> None:
        number = isinstance(self.workers, int) and not isinstance(self.workers, bool) and self.workers >= 1
        if not (number or self.workers == "auto") or (self.threads is not None and self.threads < 1):
            raise PoolError(
                "a pool needs 'auto' or one worker at least, and None or one thread at least; got"
                f" workers={self.workers!r}, threads={self.threads!r}"
            )
        gpus = self.gpus_per_worker
        if not (math.isfinite(gpus) and gpus >= 0) or (gpus > 1 and gpus != int(gpus)):
            raise PoolError(f"gpus_per_worker={gpus} must be a fraction in [0, 1] or a whole number")
        for name in ("retries", "timeout_factor", "timeout_floor", "room", "start_seconds"):
            if not getattr(self, name) >= 0:
                raise PoolError(f"{name}={getattr(self, name)} must be 0 or more")


@dataclass(frozen=True)
class Node:
    """What one machine of the cluster has: cores, bytes of memory, GPUs."""

    cores: float
    memory: float
    gpus: float = 0.0


@dataclass(frozen=True)
class Need:
    """What one worker takes.

    `payload` is the size in bytes of teacher, data and cached outputs, of which it keeps a copy, `room` that of
    training a student.
    """

    payload: int = 0
    room: int = 0
    gpus: float = 0.0

    @property
    def memory(self) -> int:
        """Bytes in all."""
        return PROCESS_BYTES + self.payload + self.room

    def __str__(self) -> str:
        parts = [(PROCESS_BYTES, "for Python, PyTorch and Ray"), (self.payload, "of teacher and data")]
        said = [f"{_gb(size)} {what}" for size, what in [*parts, (self.room, "to train a student")] if size]
        return f"{_gb(self.memory)} ({' + '.join(said)})"


@dataclass(frozen=True)
class Plan:
    """How many workers, and how many threads each."""

    workers: int
    threads: int


def threads_for(cores: Sequence[float], workers: int) -> int:
    """The most threads per worker with which so many workers fit on nodes of so many cores; 1 where nothing fits.

    It is the largest t with `sum(floor(c / t) for c in cores) >= workers`.
    """
    most = max((int(one) for one in cores), default=1)
    return next((t for t in range(most, 1, -1) if sum(int(one // t) for one in cores) >= workers), 1)


def capacity(node: Node, need: Need, threads: int) -> int:
    """How many workers a node has room for: by its cores, by its memory and by its GPUs, whichever is least."""
    return min(_by_cores(node, threads), _by_memory(node, need), _by_gpus(node, need))


def plan(options: PoolOptions, nodes: Sequence[Node], need: Need) -> Plan:
    """The workers and threads on these nodes.

    Raises:
        PoolError: they do not fit; with the arithmetic.
    """
    if isinstance(options.workers, int):
        workers = options.workers
        threads = options.threads or threads_for([one.cores for one in nodes], workers)
        if sum(capacity(one, need, threads) for one in nodes) < workers:
            raise PoolError(_refusal(workers, threads, nodes, need))
        return Plan(workers, threads)
    threads = options.threads or 1
    workers = sum(capacity(one, need, threads) for one in nodes)
    if workers < 1:
        raise PoolError(_refusal(1, threads, nodes, need))
    return Plan(workers, threads)


def check_processes(workers: int, memory: int | None) -> None:
    """Refuses more workers than a machine with so many bytes of memory (None: not known) can have empty, unasked.

    Raises:
        PoolError: as said, with the arithmetic.
    """
    if memory is not None and workers * PROCESS_BYTES > memory:
        raise PoolError(
            f"{workers} workers do not fit: each takes {_gb(PROCESS_BYTES)} for Python, PyTorch and Ray alone,"
            f" {_gb(workers * PROCESS_BYTES)} in all, and this machine has {_gb(memory)}. Do: use as"
            f" many workers as there are cores, and {memory // PROCESS_BYTES} at most"
        )


def _refusal(workers: int, threads: int, nodes: Sequence[Node], need: Need) -> str:
    """Why so many workers do not fit, with the arithmetic of whatever is short."""
    short = []
    cores = sum(_by_cores(one, threads) for one in nodes)
    if cores < workers:
        have = " + ".join(f"{one.cores:g}" for one in nodes)
        short.append(f"the cores ({have or 0}), {threads} for each worker, are enough for {cores}")
    memory = sum(_by_memory(one, need) for one in nodes)
    if memory < workers:
        have = " + ".join(_gb(one.memory) for one in nodes)
        short.append(
            f"each takes {need} of memory, {_gb(workers * need.memory)} in all, and the memory for workers"
            f" ({have or 0}) is enough for {memory}"
        )
    gpus = sum(_by_gpus(one, need) for one in nodes)
    if gpus < workers:
        have = " + ".join(f"{one.gpus:g}" for one in nodes)
        short.append(f"the GPUs ({have or 0}), {need.gpus:g} for each worker, are enough for {gpus}")
    fitting = sum(capacity(one, need, threads) for one in nodes)
    if not short:  # each thing alone is enough, but on different nodes
        short.append(f"no node has room for more of cores, memory and GPUs together: {fitting} in all")
    todo = f"use {fitting} workers or fewer" if fitting else "use a larger machine, or workers=0"
    return f"{workers} workers do not fit: {'; '.join(short)}. Do: {todo}, or threads=1"


def _by_cores(node: Node, threads: int) -> int:
    return int(node.cores // threads)


def _by_memory(node: Node, need: Need) -> int:
    return int(node.memory // need.memory)


def _by_gpus(node: Node, need: Need) -> int:
    # a fraction such as 0.1 is not exact: ten of them must fit on one
    return int(node.gpus / need.gpus + 1e-9) if need.gpus else _by_cores(node, 1)


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f} GB"


class Pace:
    """How long students may take: predicted from those that were judged so far, times a factor, at least a floor.

    A student's work is its MACs times the images that are shown to it (`n2n.distill.recipe.forward_passes`). Of each
    fidelity the seconds per work are `sum(seconds) / sum(work)`, so that many small students, whose time is mostly
    building and starting, do not stretch what a large one is given. Before the first is judged, `SLOWEST` is assumed.
    """

    def __init__(self, *, factor: float, floor: float) -> None:
        self._factor, self._floor = factor, floor
        self._sums: dict[str, tuple[float, float]] = {}

    def enter(self, fidelity: str, work: float, seconds: float) -> None:
        """Learns from a student that was judged."""
        before = self._sums.get(fidelity, (0.0, 0.0))
        self._sums[fidelity] = (before[0] + seconds, before[1] + work)

    def limit(self, fidelity: str, work: float) -> float:
        """The seconds that a student may take."""
        seconds, done = self._sums.get(fidelity, (0.0, 0.0))
        if done == 0:
            return max(self._floor, work / SLOWEST)
        return max(self._floor, self._factor * work * seconds / done)
