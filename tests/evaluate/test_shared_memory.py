"""Several processes that keep judgements in one file at the same time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from n2n.evaluate.memory import Memory

WRITER = """
import sys
from n2n.evaluate.base import Evaluation, Status
from n2n.evaluate.memory import Memory

path, who = sys.argv[1:]
for at in range(60):
    memory = Memory(path, teacher="t", data="d")
    names = [f"{who}-{at}", f"both-{at}"]
    known = memory.get("r", 0, names)
    memory.put("r", 0, [
        Evaluation(fingerprint=name, architecture="{}", status=Status.OK, reason="", accuracy=0.5, loss=1.0,
                   parameters=1, macs=1, seconds=2.0, seed=0, fidelity="x")
        for name in names if name not in known
    ])
"""


def test_two_processes_lose_nothing(tmp_path: Path) -> None:
    """Warnings are errors here, so that a judgement which could not be kept is one."""
    path = tmp_path / "judged.sqlite"
    command = [sys.executable, "-W", "error", "-c", WRITER, str(path)]
    running = [subprocess.Popen([*command, who], stderr=subprocess.PIPE, text=True) for who in ("a", "b")]
    for one in running:
        _, said = one.communicate(timeout=120)
        assert one.returncode == 0, said
    memory = Memory(path, teacher="t", data="d")
    names = [f"{who}-{at}" for who in ("a", "b", "both") for at in range(60)]
    assert set(memory.get("r", 0, names)) == set(names)
    assert memory.answered == 180
