"""How fast agents learn on real networks: the reward of the best student against the number of judged ones.

    python scripts/benchmarks/learning_networks.py resnet20-fashion-mnist --data-dir DIR --teachers DIR
    python scripts/benchmarks/learning_networks.py resnet20-fashion-mnist ... --policy default    # beside cold starts

As `policies.py learning`, but for a trained teacher and both stages of a search: `n2n.compare_policies` lets every
agent judge 100 students in closed form (rung `refit:0`) under a budget of a fifth of the parameters. One row of
`results/learning-TEACHER.csv` for each agent and seed; those that are there are not made again. `bests` lists each
improvement as COUNT:REWARD, rewards of students within the budget; those of the removal stage seldom are, so that the
first half of a curve may be empty. With `--policy` the three uses of a learned policy are sides, too.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import torch
from policy_transfer import COLUMNS, read, rows_of
from rows import RESULTS

import n2n
from n2n.data import load
from n2n.search.teachers import load_teacher

AGENTS = ("ppo", "reinforce", "evolution", "random", "uniform")
MODES = ("zero-shot", "warm", "proposal")
BUDGET, JUDGED = "20%", 100


def main() -> None:
    """Makes the rows that are missing, seed by seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", help="a folder of --teachers, as `teachers.py` writes them")
    parser.add_argument("--data-dir", default="../shared/data")
    parser.add_argument("--teachers", type=Path, default=Path("teachers"))
    parser.add_argument("--agents", nargs="*", default=list(AGENTS), help="that start cold")
    parser.add_argument("--policy", help="a folder or a name of the library, which was not trained on the teacher")
    parser.add_argument("--modes", nargs="+", default=list(MODES), help="what is done with --policy")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    network, card = load_teacher(asked.teachers / asked.teacher)
    data = load(card.data, data_dir=asked.data_dir, validation=card.validation, seed=card.split_seed or 0)
    path = RESULTS / f"learning-{asked.teacher}.csv"
    for seed in range(asked.seeds):
        have = {(row["side"], int(row["seed"])) for row in read(path)}
        agents = [name for name in asked.agents if (name, seed) not in have]
        modes = [mode for mode in asked.modes if (mode, seed) not in have] if asked.policy else []
        if not agents and not modes:
            continue
        found = n2n.compare_policies(
            [asked.policy] if modes else [], network, None, data, max_params=BUDGET, judged=JUDGED, seeds=1,
            first_seed=seed, against=agents, policy_modes=modes or MODES, teacher_name=card.name, progress=False,
        )  # fmt: skip
        fresh = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            if fresh:
                writer.writeheader()
            for side in found.sides:
                rows = rows_of(side, card.name, card.data, BUDGET, side.name, JUDGED)
                writer.writerows({**row, "seed": seed} for row in rows)
        print(f"{asked.teacher}, seed {seed}: {', '.join((*modes, *agents))}", flush=True)


if __name__ == "__main__":
    main()
