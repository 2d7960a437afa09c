"""Writes into a policy's card how it compares with random choice, from the rows of the benchmarks.

    python scripts/benchmarks/policy_cards.py n2n/policies/shipped/default --rows learning-resnet20-fashion-mnist
    python scripts/benchmarks/policy_cards.py n2n/policies/shipped/residual-plain --rows policies-transfer

For each network, budget and number of students of those rows, every use of the policy beside random choice: the best
reward, the mean over the seeds. A comparison of the same kind that the card has already is replaced.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

from curves import Row
from rows import rows_of

from n2n.policies.card import Comparison, write_card
from n2n.policies.library import read_entry

RANDOM = "random"


def comparisons(rows: Sequence[Row], policy: str) -> Iterator[Comparison]:
    """One for each network, budget, number of students and use of the policy, where both have all their seeds."""
    for network, budget, asked in dict.fromkeys((row["network"], row["budget"], row["asked"]) for row in rows):
        here = [row for row in rows if (row["network"], row["budget"], row["asked"]) == (network, budget, asked)]
        for mode in dict.fromkeys(row["side"] for row in here if row["policy"] == policy):
            own, other = ([row["best"] for row in here if row["side"] == side] for side in (mode, RANDOM))
            if own and len(own) == len(other) and all(own) and all(other) and mode != RANDOM:
                yield Comparison(
                    mode=mode, stages="removal and shrinkage", teacher=network, data=here[0]["data"],
                    budget=f"params {budget}", judged=int(asked), policy=round(fmean(map(float, own)), 5),
                    random=round(fmean(map(float, other)), 5), seeds=len(own), held_back=True,
                )  # fmt: skip


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policy", type=Path, help="its folder")
    parser.add_argument("--rows", nargs="+", required=True, help="names of files in results/, without .csv")
    asked = parser.parse_args()
    card = read_entry(asked.policy, asked.policy.name).card
    if card is None:
        parser.error(f"{asked.policy} has no card")
    for name in asked.rows:
        for one in comparisons(rows_of(name), asked.policy.name):
            card = card.compared_with(one)
            print(one)
    write_card(asked.policy, card)


if __name__ == "__main__":
    main()
