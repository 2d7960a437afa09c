"""What the doctor says of machines: this one, and ones that lack something."""

from __future__ import annotations

import re
import socket
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from n2n.distill.precision import Precision
from n2n.distill.probe import Probed, Setting, Timing
from n2n.doctor import PACKAGES, Check, Found, Ray, at_least, checks, free_memory, healthy, look

STEP = Timing(Setting(2, Precision("cpu", bf16=False, channels_last=False)), 12.0, 9)
WELL = Found(
    python="3.12.1",
    system="Linux x86_64",
    packages={"n2n": "0.1.0", **{one.name: one.least for one in PACKAGES}},
    processor="Abacus",
    cores=4,
    usable=4,
    threads=2,
    load=1.0,
    cuda=("Big GPU",),
    driver=True,
    mps=False,
    probed=Probed("fp32", False, 2, "fp32", 16, (STEP,)),
    ray=Ray(),
    out="runs",
    occupied=False,
    writable=True,
    disk=5_000_000_000,
    memory=8_000_000_000,
)


def problems(found: Found) -> list[Check]:
    return [one for one in checks(found) if one.problem]


def without(name: str, version: str | None = None) -> Found:
    return replace(WELL, packages={**WELL.packages, name: version})


def test_a_machine_that_has_everything_has_no_problem() -> None:
    assert problems(WELL) == []
    assert healthy(checks(WELL))
    values = {one.what: one.value for one in checks(WELL)}
    assert values["devices"] == "cpu, cuda:0 (Big GPU)"
    assert values["training"] == "2 threads, fp32, contiguous: 12 ms a step"
    assert values["disk"] == "runs: 5.0 GB free"
    assert not any(one.advice for one in checks(WELL))


@pytest.mark.parametrize(
    ("found", "what", "problem", "advice", "needed"),
    [
        (replace(WELL, python="3.10.14"), "python", "needs Python 3.11", "python3.11 -m venv", True),
        (without("torch", "2.5.1+cu121"), "torch", "is older than 2.6", "pip install 'torch>=2.6'", True),
        (without("scipy"), "scipy", "is not installed", "pip install 'scipy>=1.11'", True),
        (without("sb3-contrib"), "sb3-contrib", "is not installed", "pip install 'n2n[sb3]'", False),
        (without("onnx", "1.9"), "onnx", "is older than 1.17", "pip install 'n2n[export]'", False),
        (replace(WELL, threads=8), "cores", "more threads than there are cores", "--threads 4", False),
        (replace(WELL, cuda=()), "devices", "this PyTorch sees no GPU", "pytorch.org/get-started", False),
        (
            replace(WELL, probed=replace(WELL.probed, timings=(replace(STEP, failure="RuntimeError: no kernel"),))),
            "training",
            "no training step works: RuntimeError: no kernel",
            "reinstall PyTorch",
            True,
        ),
        (replace(WELL, ray=Ray("", "ImportError: x")), "ray at work", "ImportError: x", "--workers 0", False),
        (replace(WELL, ray=Ray("start", "no answer")), "ray at work", "no answer", "/tmp/ray", True),
        (replace(WELL, ray=Ray("h:1", "refused")), "ray at work", "refused", "ray start --head", True),
        (replace(WELL, load=7.0), "load", "7 at work on 4", "--threads 1", False),
        (replace(WELL, occupied=True), "disk", "a file of this name", "another place", True),
        (replace(WELL, writable=False), "disk", "nothing can be written", "permissions", True),
        (replace(WELL, disk=199_999_999), "disk", "less than 0.2 GB is free", "free some space", True),
        (replace(WELL, memory=999_999_999), "memory", "less than 1.0 GB is free", "end other programs", True),
    ],
)
def test_each_problem_is_told_with_what_to_do(found: Found, what: str, problem: str, advice: str, needed: bool) -> None:
    (one,) = problems(found)
    assert (one.what, one.needed) == (what, needed)
    assert problem in one.problem
    assert advice in one.advice
    assert healthy(checks(found)) is not needed


def test_what_is_not_known_is_no_problem() -> None:
    assert problems(replace(WELL, disk=None, memory=None, load=None, processor="", cuda=(), driver=False)) == []


def test_the_packages_are_those_that_the_project_declares() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    declared = [("", line) for line in project["dependencies"]]
    declared += [(extra, line) for extra in ("sb3", "export") for line in project["optional-dependencies"][extra]]
    parsed = {(extra, re.sub(r"\[.*\]", "", line)) for extra, line in declared}
    assert parsed == {(one.extra, f"{one.name}>={one.least}") for one in PACKAGES}


@pytest.mark.parametrize(
    ("version", "least", "expected"),
    [
        ("2.13.0+cpu", "2.6", True),
        ("2.6", "2.6.0", True),
        ("2.6.0", "2.6", True),
        ("2.5.9", "2.6", False),
        ("10", "9.5", True),
        ("0.4.3rc1", "0.4.3", True),
        ("unknown", "1", False),
    ],
)
def test_versions_compare_by_their_numbers(version: str, least: str, expected: bool) -> None:
    assert at_least(version, least) is expected


def test_free_memory_is_what_both_the_machine_and_the_control_group_leave() -> None:
    meminfo = "MemTotal:  16 kB\nMemAvailable:       1000 kB\n"
    assert free_memory(meminfo) == 1_024_000
    assert free_memory(meminfo, "max\n", "5\n", "file 1\n") == 1_024_000
    assert free_memory(meminfo, "900000\n", "700000\n", "anon 300000\nfile 400000\n") == 900_000 - 700_000 + 400_000
    assert free_memory(meminfo, "100", "200", "") == 0
    assert free_memory("", "100", "40", "") == 60
    assert free_memory("MemFree: 3 kB") is None


def test_this_machine_is_looked_at_without_a_trace(tmp_path: Path) -> None:
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        found = look(tmp_path / "not/yet", address=address, seconds=0.05)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), state)
    assert list(tmp_path.iterdir()) == []
    assert found.python == ".".join(map(str, sys.version_info[:3]))
    assert found.packages["torch"] == torch.__version__
    assert found.writable
    assert not found.occupied
    assert [one.what for one in problems(found) if one.needed and one.what not in ("disk", "memory")] == ["ray at work"]
    assert found.ray.failure.startswith("nobody listens there")
    assert found.to_json()["probed"]["precision"] in ("fp32", "bf16")


@pytest.mark.slow
@pytest.mark.ray
def test_a_local_ray_is_started_and_ended(tmp_path: Path) -> None:
    found = look(tmp_path, start_ray=True, seconds=0.05)
    assert found.ray.failure == ""
    assert found.ray.resources is not None
    assert found.ray.resources["CPU"] == 1
    assert next(one.value for one in checks(found) if one.what == "ray at work").startswith("started here in ")
