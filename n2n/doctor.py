"""What this machine has for a search, and what to do about what it lacks.

`look` finds out, `checks` judges what was found; only the first touches the machine. This module puts rooms together.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch

from n2n.distill.probe import Probed, probe
from n2n.networks import build_teacher
from n2n.networks.latency import processor
from n2n.search.environment import package_version

LEAST_PYTHON: Final = "3.11"
BUSY: Final = 1.5
"""Programs at work for each core from which on a machine counts as busy."""
LEAST_DISK: Final = 200_000_000
"""Bytes: a run with a few finished students of a ResNet takes less."""
LEAST_MEMORY: Final = 1_000_000_000
"""Bytes: PyTorch, images such as CIFAR's and a teacher's outputs on them take about as much."""
PROBE_SHAPE: Final = (16, 3, 32, 32)
"""Of the images that the built-in network is trained on for a moment, as CIFAR's."""
RAY: Final = "ray at work"
RAY_SECONDS: Final = 60.0
"""How long Ray may take to start or to answer."""


@dataclass(frozen=True)
class Package:
    """A package that N2N uses: the least version, what for, and the extra that installs it; "" where all do."""

    name: str
    least: str
    purpose: str
    extra: str = ""
    needed: bool = True


PACKAGES: Final = (
    Package("torch", "2.6", "networks and their training"),
    Package("numpy", "1.26", "arrays"),
    Package("gymnasium", "1.1", "environments"),
    Package("networkx", "3.2", "the graph of a network"),
    Package("scipy", "1.11", "channels that go together"),
    Package("safetensors", "0.4.3", "files of weights"),
    Package("rich", "13.7", "the progress of a search"),
    Package("typer", "0.15", "the command line"),
    Package("pydantic", "2.7", "settings"),
    Package("matplotlib", "3.8", "the plots of a report"),
    Package("scikit-learn", "1.4", "the digits, the data where no other is named"),
    Package("pillow", "10", "image folders as data"),
    Package("ray", "2.43", "--workers: judging in several processes", needed=False),
    Package("stable-baselines3", "2.4", "--agent sb3_ppo", "sb3", needed=False),
    Package("sb3-contrib", "2.4", "--agent sb3_ppo", "sb3", needed=False),
    Package("onnx", "1.17", "n2n export --format onnx", "export", needed=False),
    Package("onnxscript", "0.2", "n2n export --format onnx", "export", needed=False),
    Package("onnxruntime", "1.20", "n2n export --format onnx", "export", needed=False),
)


@dataclass(frozen=True)
class Ray:
    """What came of Ray: `asked` is "" where only its import was tried, "start", or the address of a cluster.

    `failure` says why it cannot be imported, started or reached; `resources` are the cluster's, by name.
    """

    asked: str = ""
    failure: str = ""
    resources: Mapping[str, float] | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Found:
    """What `look` found.

    Attributes:
        packages: versions of `PACKAGES` and of n2n by name, None where one is not installed.
        usable: cores that this process may run on, of `cores`.
        threads: of torch at present.
        load: how many programs ran in the last minute, on average; None where the system does not say.
        cuda: names of the GPUs that torch sees; `driver` is whether NVIDIA's is there, whatever torch sees.
        probed: what a moment's training found to be fastest.
        out: where runs are to be written; `occupied` where there is a file, `writable` where a run can be made.
        disk: free bytes there, memory: free bytes; None where that is not known.
    """

    python: str
    system: str
    packages: Mapping[str, str | None]
    processor: str
    cores: int
    usable: int
    threads: int
    load: float | None
    cuda: Sequence[str]
    driver: bool
    mps: bool
    probed: Probed
    ray: Ray
    out: str
    occupied: bool
    writable: bool
    disk: int | None
    memory: int | None

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        kept = {name: value for name, value in vars(self).items() if name not in ("probed", "ray")}
        return {**kept, "cuda": list(self.cuda), "probed": self.probed.to_json(), "ray": asdict(self.ray)}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: its value in words, and where something is wrong, what and what to do.

    `needed` is whether a search does not work without it.
    """

    what: str
    value: str
    problem: str = ""
    advice: str = ""
    needed: bool = False


def healthy(found: Sequence[Check]) -> bool:
    """Whether everything that a search needs is there."""
    return not any(one.problem and one.needed for one in found)


def checks(found: Found) -> tuple[Check, ...]:
    """What was found, in words, each with its problem where it has one."""
    return (
        _python(found),
        Check("n2n", found.packages.get("n2n") or "not installed: run from its source", needed=True),
        *(_package(one, found.packages.get(one.name)) for one in PACKAGES),
        Check("processor", found.processor or "unknown"),
        _threads(found),
        _busy(found),
        _gpu(found),
        _probe(found.probed),
        _ray(found.ray),
        _place(found),
        _memory(found.memory),
    )


def _python(found: Found) -> Check:
    old = not at_least(found.python, LEAST_PYTHON)
    problem = f"N2N needs Python {LEAST_PYTHON} or newer" if old else ""
    advice = "make an environment with a newer one: python3.11 -m venv .venv" if old else ""
    return Check("python", f"{found.python} ({found.system})", problem, advice, needed=True)


def _package(one: Package, version: str | None) -> Check:
    value = f"{version or 'not installed'} ({one.purpose})"
    if version is not None and at_least(version, one.least):
        return Check(one.name, value, needed=one.needed)
    problem = "is not installed" if version is None else f"is older than {one.least}"
    install = f"'n2n[{one.extra}]'" if one.extra else f"'{one.name}>={one.least}'"
    return Check(one.name, value, problem, f"pip install {install}", needed=one.needed)


def _threads(found: Found) -> Check:
    value = f"{found.cores}, {found.usable} of them for this process; torch uses {found.threads}"
    if found.threads <= found.usable:
        return Check("cores", value)
    problem = f"torch uses more threads than there are cores for it ({found.threads} > {found.usable})"
    return Check("cores", value, problem, f"say --threads {found.usable}, or set OMP_NUM_THREADS={found.usable}")


def _busy(found: Found) -> Check:
    if found.load is None:
        return Check("load", "unknown")
    value = f"{found.load:.1f} programs at work"
    if found.load <= BUSY * found.usable:
        return Check("load", value)
    problem = f"other programs take the cores ({found.load:.0f} at work on {found.usable})"
    return Check(
        "load", value, problem, "wait until they are done, or say --threads 1; the timings below are theirs, too"
    )


def _gpu(found: Found) -> Check:
    names = [*(f"cuda:{at} ({name})" for at, name in enumerate(found.cuda)), *(["mps"] if found.mps else [])]
    if names:
        return Check("devices", ", ".join(["cpu", *names]))
    if not found.driver:
        return Check("devices", "cpu")
    problem = "there is an NVIDIA driver, but this PyTorch sees no GPU"
    return Check("devices", "cpu", problem, "install a PyTorch for your CUDA, see https://pytorch.org/get-started")


def _probe(probed: Probed) -> Check:
    fails = bool(probed.timings) and all(one.failure for one in probed.timings)
    problem = f"no training step works: {probed.timings[0].failure}" if fails else ""
    advice = "reinstall PyTorch: pip install --force-reinstall torch" if fails else ""
    return Check("training", str(probed), problem, advice, needed=True)


def _ray(ray: Ray) -> Check:
    if ray.failure:
        what = {"": "cannot be imported", "start": "does not start"}.get(ray.asked, f"is not reached at {ray.asked}")
        advice = {
            "": "pip install 'ray[tune]>=2.43', or judge in one process: --workers 0",
            "start": "look into the newest folder of /tmp/ray for its logs, or judge in one process: --workers 0",
        }.get(ray.asked, "start it there by `ray start --head`, and name the address that it prints")
        return Check(RAY, what, ray.failure, advice, needed=bool(ray.asked))
    if not ray.asked:
        return Check(RAY, "can be imported; --ray tries to start it, --address to reach it")
    has = ", ".join(f"{count:g} {name}" for name, count in (ray.resources or {}).items() if name in ("CPU", "GPU"))
    where = "started here" if ray.asked == "start" else f"reached at {ray.asked}"
    return Check(RAY, f"{where} in {ray.seconds:.1f} s: {has or 'no CPU'}", needed=True)


def _place(found: Found) -> Check:
    value = f"{found.out}: {_gigabytes(found.disk)} free"
    problem, advice = "", "choose another place for --out"
    if found.occupied:
        problem = "there is a file of this name, where a folder is expected"
    elif not found.writable:
        problem, advice = "nothing can be written there", f"{advice}, or change the permissions"
    elif found.disk is not None and found.disk < LEAST_DISK:
        problem, advice = f"less than {_gigabytes(LEAST_DISK)} is free", f"free some space, or {advice}"
    return Check("disk", value, problem, advice if problem else "", needed=True)


def _memory(free: int | None) -> Check:
    if free is None or free >= LEAST_MEMORY:
        return Check("memory", f"{_gigabytes(free)} free", needed=True)
    problem = f"less than {_gigabytes(LEAST_MEMORY)} is free"
    return Check(
        "memory", f"{_gigabytes(free)} free", problem, "end other programs, or use another machine", needed=True
    )


def _gigabytes(count: int | None) -> str:
    return "an unknown amount" if count is None else f"{count / 1e9:.1f} GB"


def at_least(version: str, least: str) -> bool:
    """Whether a version is that one or later, by its leading numbers: "2.13.0+cpu" is, of "2.6"."""
    return _numbers(version) >= _numbers(least)


def _numbers(version: str) -> tuple[int, ...]:
    leading = re.match(r"\d+(\.\d+)*", version)
    numbers = [int(part) for part in leading.group().split(".")] if leading else []
    while numbers and not numbers[-1]:
        numbers.pop()  # 2.6.0 is 2.6
    return tuple(numbers)


def free_memory(meminfo: str, limit: str = "", used: str = "", stat: str = "") -> int | None:
    """Bytes that a process can still have, from the texts of Linux; None where they do not say.

    Args:
        meminfo: of /proc/meminfo; its MemAvailable, in kB, counts caches that can be dropped as free.
        limit, used, stat: memory.max, memory.current and memory.stat of the control group (cgroup v2); of what is used
            its cached files (`file`) can be dropped.
    """
    available = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo, flags=re.MULTILINE)
    free = [int(available.group(1)) * 1024] if available else []
    if limit.strip().isdecimal() and used.strip().isdecimal():
        cached = re.search(r"^file (\d+)$", stat, flags=re.MULTILINE)
        free.append(max(0, int(limit) - int(used) + (int(cached.group(1)) if cached else 0)))
    return min(free, default=None)


def look(out: Path, *, start_ray: bool = False, address: str | None = None, seconds: float = 0.5) -> Found:
    """Looks at this machine; nothing is written, and torch is left as it was.

    Args:
        out: where runs are to be written; it need not be there yet.
        start_ray: whether a local Ray is started and stopped, which takes seconds.
        address: of a Ray cluster to reach.
        seconds: for the training steps that are timed.
    """
    there = next(one for one in (out.absolute(), *out.absolute().parents) if one.exists())
    network = build_teacher("resnet20", width=8, seed=0)
    cores = os.cpu_count() or 1
    return Found(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        packages={name: package_version(name) for name in ("n2n", *(one.name for one in PACKAGES))},
        processor=processor(),
        cores=cores,
        usable=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores,
        threads=torch.get_num_threads(),
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        cuda=[torch.cuda.get_device_name(at) for at in range(torch.cuda.device_count())],
        driver=shutil.which("nvidia-smi") is not None,
        mps=torch.backends.mps.is_available(),
        probed=probe(network, torch.zeros(PROBE_SHAPE), device="cpu", seconds=seconds),  # [B, C, H, W]
        ray=_try_ray(address or ("start" if start_ray else "")),
        out=str(out),
        occupied=there.is_file(),
        writable=os.access(there, os.W_OK | os.X_OK),
        disk=shutil.disk_usage(there).free,
        memory=free_memory(
            _text("/proc/meminfo"),
            *(_text(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current", "stat")),
        ),
    )


def _text(path: str) -> str:
    """A file of the system; "" where there is none, or it is not for us."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


_RAY = """
import json, logging, sys
import ray
asked = sys.argv[1]
if asked:
    where = {"num_cpus": 1, "include_dashboard": False} if asked == "start" else {"address": asked}
    ray.init(**where, log_to_driver=False, logging_level=logging.ERROR)
    assert ray.get(ray.remote(num_cpus=1)(lambda: 1).remote()) == 1
print("\\n" + json.dumps(ray.cluster_resources() if asked else {}))
"""
"""Runs in a process of its own: a cluster that does not answer keeps Ray busy for minutes, or makes it abort."""


def _try_ray(asked: str, *, seconds: float = RAY_SECONDS) -> Ray:
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    begun = time.perf_counter()
    if refused := _refused(asked):
        return Ray(asked, refused)
    try:
        done = subprocess.run(
            [sys.executable, "-c", _RAY, asked],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            env={**os.environ, **quiet},
        )
    except subprocess.TimeoutExpired:
        return Ray(asked, f"no answer within {seconds:g} s")
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        return Ray(asked, lines[-1].strip() if lines else f"its process ended with code {done.returncode}")
    return Ray(asked, "", json.loads(done.stdout.splitlines()[-1]), time.perf_counter() - begun)


def _refused(address: str, *, seconds: float = 5.0) -> str:
    """Why nobody listens at HOST:PORT, which is told sooner than Ray does; "" where somebody does, or it is a name."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        return ""
    try:
        socket.create_connection((host.strip("[]"), int(port)), seconds).close()
    except (OSError, OverflowError) as error:
        return f"nobody listens there ({error})"
    return ""
