"""What a policy that was trained on other networks is worth on one that it has not seen, against starting cold.

    python scripts/benchmarks/train_policies.py --set residual-plain --out runs/policies/some
    python scripts/benchmarks/policy_transfer.py --policy runs/policies/some
    python scripts/benchmarks/policy_transfer.py --table

For each held-back network and budget `n2n.compare_policies` lets sides judge as many students, in closed form: the
policy only acting, learning on, and as the proposal of evolution, against agents that start cold. As half of a search's
students are of the removal stage, a search of 10 is not the beginning of one of 100: `PLANS` says which searches there
are. One row of `results/policies-transfer.csv` for each network, budget, plan, side and seed; those that are there are
not made again. `bests` lists each improvement as COUNT:REWARD. The reward is the paper's, C (2 - C) A / A_T, of
students within the budget; all judged students count, also those of the removal stage, which seldom keep to it.

The table: which share of the cold start's last reward each search's last one is, and how many students each has judged
when it reaches that reward (the median over the seeds; a seed that never does counts as infinite).
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping, Sequence
from itertools import product
from math import inf
from pathlib import Path
from statistics import fmean, median

import torch
from curves import interval, until
from policy_networks import HELD_BACK
from train_policies import teacher_of

import n2n
from n2n.comparison import Side
from n2n.data import load

RESULTS = Path(__file__).parent / "results"
FILE, TABLE = RESULTS / "policies-transfer.csv", RESULTS / "policies-transfer-table.csv"
COLD = ("ppo", "evolution", "random", "uniform")
PLANS: dict[int, tuple[tuple[str, ...], tuple[str, ...]]] = {
    2: (("zero-shot",), ("random", "uniform")),
    10: (("zero-shot", "warm", "proposal"), COLD),
    100: (("warm",), ("ppo",)),
}
"""By the number of students to judge: what is done with the policy, and who starts cold."""
YARDSTICK = 100
COLUMNS = ("network", "data", "budget", "policy", "asked", "side", "seed", "judged", "best", "bests")
HEADER = ("network", "budget", "asked", "side", "seeds", "best", "interval", "share_of_cold", "until_cold")


def improvements(curve: Sequence[float | None]) -> list[tuple[int, float]]:
    """Count and reward of each improvement of a curve."""
    found: list[tuple[int, float]] = []
    for count, reward in enumerate(curve, start=1):
        if reward is not None and (not found or reward > found[-1][1]):
            found.append((count, reward))
    return found


def rows_of(side: Side, network: str, data: str, budget: str, policy: str, asked: int) -> list[dict[str, object]]:
    """The rows of a side, of which those of cold starts have no policy."""
    found = []
    for seed, curve in enumerate(side.curves):
        bests = improvements(curve)
        found.append({
            "network": network, "data": data, "budget": budget, "policy": policy if side.mode else "", "asked": asked,
            "side": side.mode or side.name, "seed": seed, "judged": len(curve),
            "best": f"{bests[-1][1]:.5f}" if bests else "",
            "bests": " ".join(f"{count}:{best:.5f}" for count, best in bests),
        })  # fmt: skip
    return found


def read(path: Path) -> list[dict[str, str]]:
    """The rows so far."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def table(rows: Sequence[Mapping[str, str]], cold: str) -> list[dict[str, str]]:
    """One line for each network, budget, plan and side, measured with the mean last reward of the agent `cold`."""
    lines = []
    for network, budget in dict.fromkeys((row["network"], row["budget"]) for row in rows):
        here = [row for row in rows if (row["network"], row["budget"]) == (network, budget)]
        last = [float(row["best"]) for row in here
                if (row["side"], int(row["asked"])) == (cold, YARDSTICK) and row["best"]]  # fmt: skip
        if not last:
            continue
        yardstick = fmean(last)
        for plan, side in dict.fromkeys((row["asked"], row["side"]) for row in here):
            own = [row for row in here if (row["asked"], row["side"]) == (plan, side)]
            bests = [float(row["best"]) for row in own if row["best"]]
            reached = median(until(row["bests"], yardstick) for row in own)
            lines.append({
                "network": network, "budget": budget, "asked": plan, "side": side, "seeds": str(len(own)),
                "best": f"{fmean(bests):.4f}" if bests else "",
                "interval": f"{interval(bests)[1]:.4f}" if len(bests) > 1 else "",
                "share_of_cold": f"{fmean(bests) / yardstick:.4f}" if bests else "",
                "until_cold": "never" if reached == inf else f"{reached:g}",
            })  # fmt: skip
    return lines


def main() -> None:
    """Makes the rows that are missing, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", type=Path, help="trained without the networks that it is tried on")
    parser.add_argument("--networks", nargs="+", default=list(HELD_BACK))
    parser.add_argument("--budgets", nargs="+", default=["10%", "20%"], help="of the parameters")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cold", default="ppo", help="the agent whose last reward is the yardstick")
    parser.add_argument("--work", type=Path, default=Path("runs/policies"), help="where teachers are kept")
    parser.add_argument("--epochs", type=float, default=30, help="that a teacher is trained for")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="nothing is judged")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    if not asked.table:
        if asked.policy is None:
            parser.error("--policy FOLDER is needed, or --table")
        compare(asked)
    lines = table(read(FILE), asked.cold)
    with TABLE.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, HEADER, lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    for line in lines:
        print("  ".join(f"{value:>12}" for value in line.values()))


def compare(asked: argparse.Namespace) -> None:
    """Adds the rows of each network and budget that has none."""
    data = load("digits")
    have = {(row["network"], row["budget"], int(row["asked"])) for row in read(FILE)}
    for name, budget, plan in product(asked.networks, asked.budgets, PLANS):
        if (name, budget, plan) in have:
            continue
        network = teacher_of(name, data, asked.work / f"teachers-{asked.epochs:g}", asked.epochs)
        modes, against = PLANS[plan]
        found = n2n.compare_policies(
            [asked.policy], network, None, data, max_params=budget, judged=plan, seeds=asked.seeds, against=against,
            policy_modes=modes, teacher_name=name, progress=False,
        )  # fmt: skip
        fresh = not FILE.exists()
        with FILE.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            if fresh:
                writer.writeheader()
            for side in found.sides:
                writer.writerows(rows_of(side, name, found.data, budget, asked.policy.name, plan))
        print(f"{name}, {budget}, {plan} students: done", flush=True)


if __name__ == "__main__":
    main()
