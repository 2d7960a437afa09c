"""What searches found for `train_policies.py`, kept on disk, so that no search is made twice."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file

from envs import Goal
from n2n.agents.base import Agent, Trajectory
from n2n.policies.lessons import Lesson, lessons
from n2n.policies.training import Task

SEARCH = {"batches": 4, "students": 16, "keep": 4}
"""One search judges 64 students and shows the best four; more networks and goals teach more than longer searches."""
PARTS = ("observations", "legal", "actions", "rewards")


def searched(
    path: Path, agents: Mapping[str, Agent], tasks: Sequence[Task], stage: str, *, each: int, seed: int, least: float,
    most: float,
) -> list[Lesson]:  # fmt: skip
    """The lessons in a file; where there is none, they are searched for and written to it."""
    if not path.exists():
        found = []
        for one in lessons(agents, tasks, stage, each=each, seed=seed, least=least, most=most, **SEARCH):
            found.append(one)
            print(f"{one.stage} {one.task} {one.goal}: {one.at_once:.3f}, {one.best:.3f} found", flush=True)
        write(path, found)
    return read(path)


def write(path: Path, found: Sequence[Lesson]) -> None:
    """Tensors by number and part, what else there is as JSON."""
    tensors = {f"{index}.{part}": getattr(one.rollouts, part).contiguous()
               for index, one in enumerate(found) for part in PARTS}  # fmt: skip
    about = [{"stage": one.stage, "task": one.task, "goal": asdict(one.goal), "at_once": one.at_once} for one in found]
    path.parent.mkdir(parents=True, exist_ok=True)
    making = path.with_suffix(".part")
    save_file(tensors, making, {"lessons": json.dumps(about)})
    making.replace(path)


def read(path: Path) -> list[Lesson]:
    """What `write` wrote."""
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["lessons"])
        return [
            Lesson(one["stage"], one["task"], Goal(**one["goal"]), one["at_once"],
                   Trajectory(*(file.get_tensor(f"{index}.{part}") for part in PARTS)))
            for index, one in enumerate(about)
        ]  # fmt: skip
