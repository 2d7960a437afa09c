"""A Ray to run in: one that runs already, a cluster to join, or one of our own that ends with us."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from n2n.evaluate.pool_plan import Node, PoolError, check_processes


@contextmanager
def ray_running(workers: int | str, *, threads: int | None = None, address: str | None = None) -> Iterator[None]:
    """A Ray for that many workers, shared by all pools inside; nothing for 0 workers, or where Ray runs already.

    Starting Ray takes seconds, so whoever opens several pools in a row wraps them in this.

    Args:
        workers: how many there will be, or "auto".
        threads: of each; None where the pool decides by the cores.
        address: of a running cluster to join, e.g. "auto" or "10.0.0.1:6379"; None starts one here.

    Raises:
        PoolError: so many processes do not fit into this machine's memory, Ray does not start here, or nobody answers
            at the address.
    """
    if workers == 0:
        yield
        return
    import ray

    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is None:
        _start(workers, threads)
    else:
        try:
            _knock(address)
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, ValueError, RuntimeError) as error:
            raise PoolError(
                f"address={address!r}: expected a running Ray cluster, found none ({error}); start one with"
                " `ray start --head`, or leave the address out to use this machine"
            ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _start(workers: int | str, threads: int | None) -> None:
    """A Ray of our own on this machine."""
    import ray

    if isinstance(workers, int):
        check_processes(workers, _memory())
    # As many as asked for, even beyond the cores: that only slows them down.
    cores = max(os.cpu_count() or 1, workers * (threads or 1) if isinstance(workers, int) else 1)
    try:
        # "local": without it Ray would join whatever another program of this machine has started.
        ray.init("local", num_cpus=cores, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:
        # Where one of its processes is not up in time Ray raises a plain Exception; a bug of another kind stays one.
        if type(error) is not Exception and not isinstance(error, RuntimeError | OSError | ray.exceptions.RayError):
            raise
        ray.shutdown()
        raise PoolError(
            f"workers={workers}: Ray does not start on this machine ({error}){_load()}; try again when it is less busy,"
            " look into the newest folder of /tmp/ray for what it says, or judge in this process: workers=0"
        ) from error


def _memory() -> int | None:
    """Bytes of this machine's memory, where it says so."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not on Windows
        return None


def _load() -> str:
    """How busy the machine is, in words, where it says so."""
    if not hasattr(os, "getloadavg"):
        return ""
    return f"; {os.getloadavg()[0]:.0f} programs run on its {os.cpu_count() or 1} cores just now"


def _knock(address: str, seconds: float = 10.0) -> None:
    """Opens and closes a connection to HOST:PORT: where nobody answers, Ray itself tries for minutes.

    Raises:
        OSError: nobody answers.
    """
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=seconds).close()


def nodes() -> list[Node]:
    """What the machines of the running Ray have, those that are alive."""
    import ray

    everything: Any = ray
    found = [one["Resources"] for one in everything.nodes() if one["Alive"]]
    return [Node(one.get("CPU", 0.0), one.get("memory", 0.0), one.get("GPU", 0.0)) for one in found]
