"""Reads networks that no one here wrote and tries random students of each.

    python scripts/benchmarks/coverage.py                      every network, 20 drafts of each space
    python scripts/benchmarks/coverage.py hf-vit ghostnet --drafts 4
    python scripts/benchmarks/coverage.py --again              only those whose row is missing or holds a failure

Needs the packages of the extra `dev`. Every network has a process of its own, with a time limit, and a row in
`results/coverage.csv`; what a draft has to fulfil stands in `tests/contracts/draft_contract.py`.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from search_spaces import layer_removal, layer_shrinkage
from search_spaces.base import Draft, SearchSpace, SpaceError, random_actions, replay
from search_spaces.teacher.verify import FAULTS

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "contracts"))

from draft_contract import Expected, check_draft, check_teacher, expected_of
from third_party import NETWORKS, Inputs, ThirdParty

RESULTS = Path(__file__).parent / "results" / "coverage.csv"
SPACES: dict[str, Callable[[nn.Module, Inputs], SearchSpace]] = {
    "layer": lambda teacher, inputs: layer_removal(teacher, inputs),
    "block": lambda teacher, inputs: layer_removal(teacher, inputs, granularity="block"),
    "shrinkage": lambda teacher, inputs: layer_shrinkage(teacher, inputs),
}
COLUMNS = (
    "network", "kind", "parameters", "removable", "shrinkable", "either", "open_seconds",
    *(f"{space}_{what}" for space in SPACES for what in ("decisions", "tried", "passed")), "seconds", "failure",
)  # fmt: skip


def examine(network: ThirdParty, drafts: int) -> dict[str, Any]:
    """The row of one network."""
    began = time.perf_counter()
    row: dict[str, Any] = dict.fromkeys(COLUMNS, "") | {"network": network.name, "kind": network.kind, "failure": ""}
    teacher, inputs = network.open()
    row["parameters"] = sum(value.numel() for value in teacher.parameters())
    expected = expected_of(teacher, inputs)
    torch.export.export(nn.ReLU(), (torch.ones(1),))  # imports what every export needs, so that it is not timed below
    removable: set[str] = set()
    shrinkable: set[str] = set()
    for name, make in SPACES.items():
        opened = time.perf_counter()
        try:
            space = make(teacher, inputs)
        except SpaceError as error:
            if "can be removed" not in str(error) and "can shrink" not in str(error):
                return row | {"failure": f"{name}: does not open: {error}", "seconds": seconds_since(began)}
            row |= {f"{name}_decisions": 0, f"{name}_tried": 0, f"{name}_passed": 0}
            continue
        row["open_seconds"] = max(row["open_seconds"] or 0.0, seconds_since(opened))
        failure, passed = try_drafts(space, inputs, expected, drafts)
        row |= {f"{name}_decisions": space.num_decisions, f"{name}_tried": drafts, f"{name}_passed": passed}
        row["failure"] = row["failure"] or (failure and f"{name}: {failure}")
        if name == "shrinkage":
            shrinkable = narrowed(space, teacher)
        else:
            removable |= {line.name for line in space.describe() if line.status == "removable"}
    try:
        check_teacher(teacher, expected)
    except AssertionError as error:
        row["failure"] = row["failure"] or str(error)
    sizes = sizes_of(teacher)
    for column, names in (("removable", removable), ("shrinkable", shrinkable), ("either", removable | shrinkable)):
        row[column] = round(sum(sizes[name] for name in names) / row["parameters"], 4)
    return row | {"seconds": seconds_since(began)}


def try_drafts(space: SearchSpace, inputs: Inputs, expected: Expected, drafts: int) -> tuple[str, int]:
    """The first failure in words (empty: none), and how many of the seeded random drafts pass.

    A draft's own failure must not hide the others': that is what is measured here. Whatever a network cannot raise for
    its sizes is a bug and ends the run of this network, with its last line in the row.
    """
    failure, passed = "", 0
    for seed in range(drafts):
        try:
            draft: Draft = random_actions(space, np.random.default_rng(seed))
            torch.manual_seed(seed)
            check_draft(space, space.student(draft), inputs, expected)
        except (AssertionError, SpaceError, *FAULTS) as error:
            failure = failure or f"draft {seed}: {type(error).__name__}: {first_line(error)}"
        else:
            passed += 1
    return failure, passed


def narrowed(space: SearchSpace, teacher: nn.Module) -> set[str]:
    """The layers that have fewer parameters where every decision takes its smallest choice."""
    smallest = space.build(space.student(replay(space, (0,) * space.num_decisions)))
    before, after = sizes_of(teacher), sizes_of(smallest)
    return {name for name in before if after[name] < before[name]}


def sizes_of(network: nn.Module) -> dict[str, int]:
    """Parameters that each module holds itself."""
    return {name: sum(v.numel() for v in m.parameters(recurse=False)) for name, m in network.named_modules()}


def first_line(error: Exception) -> str:
    """The start of an error's message."""
    return next((line for line in str(error).splitlines() if line.strip()), "")[:300]


def seconds_since(start: float) -> float:
    """To a hundredth."""
    return round(time.perf_counter() - start, 2)


def in_a_process(name: str, drafts: int, limit: float) -> dict[str, Any]:
    """The row of one network, made by a process of its own."""
    command = [sys.executable, __file__, "--one", name, "--drafts", str(drafts)]
    blank = dict.fromkeys(COLUMNS, "") | {"network": name}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return blank | {"failure": f"took more than {limit:.0f} s", "seconds": limit}
    if done.returncode:
        return blank | {"failure": (done.stderr.strip().splitlines() or ["no message"])[-1][:300]}
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def written_rows() -> dict[str, dict[str, Any]]:
    """What earlier runs left."""
    if not RESULTS.exists():
        return {}
    with RESULTS.open(newline="") as file:
        return {row["network"]: dict(row) for row in csv.DictReader(file)}


def write(rows: dict[str, dict[str, Any]]) -> None:
    """The rows in the order of the list."""
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(rows[network.name] for network in NETWORKS if network.name in rows)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", help="names; all where none is given")
    parser.add_argument("--drafts", type=int, default=20)
    parser.add_argument("--limit", type=float, default=1800, help="seconds for one network")
    parser.add_argument("--again", action="store_true", help="leave out the networks whose row shows no failure")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    known = {network.name: network for network in NETWORKS}
    stray = [name for name in (*asked.networks, *filter(None, [asked.one])) if name not in known]
    if stray:
        parser.error(f"{stray[0]!r} is not in the list: {', '.join(known)}")
    if asked.one:
        print(json.dumps(examine(known[asked.one], asked.drafts)))
        return
    rows = written_rows()
    for name in asked.networks or known:
        if asked.again and name in rows and not rows[name]["failure"]:
            continue
        rows[name] = in_a_process(name, asked.drafts, asked.limit)
        write(rows)
        print(name, {key: value for key, value in rows[name].items() if value != "" and key != "network"}, flush=True)


if __name__ == "__main__":
    main()
