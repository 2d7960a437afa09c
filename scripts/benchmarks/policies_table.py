"""What the rows of the benchmarks of policies say: learning on networks, transfer, ways to train, ablations."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import inf
from statistics import fmean, median

from curves import Row, difference, found_at, interval, until

COUNTS = (10, 25, 50, 75, 100)
ABLATED_AT = 100
"""Students judged when the options of PPO are compared."""
UNCHANGED = "searches, then layers to keep"
CHANGED = {
    "layers to keep, not told the goal": "the goal is not told",
    "layers to keep, encoder layers": "encoder layers in place of attention",
}
"""Of the ways of `training_ablations.py`, those that are a part changed."""
AIM_FROM = 50
"""Students judged from which on PPO should be above random choice and level with evolution."""
AIM_SHARE, AIM_COUNT = 0.95, 10
"""What the policy's first student should be worth of a cold start's best of 100, and by when it should be reached."""


def by_side(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each agent or use of a policy, in the order in which they come."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["side"], []).append(row)
    return found


def cell(rows: Sequence[Row], count: int) -> str:
    """`0.912 ± 0.004`; with how many seeds where others have no student within the budget so far."""
    values = found_at(rows, count)
    if not values:
        return ""
    told = _with_interval(values)
    return told if len(values) == len(rows) else f"{told} ({len(values)} of {len(rows)} seeds)"


def count_of(number: float) -> str:
    """A number of students, or that it was not reached."""
    return "never" if number == inf else f"{number:g}"


def network_lines(rows: Sequence[Row], cold: str = "ppo") -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and a line for each side: the best reward by counts, and when it reaches the last one of a cold start."""
    header = ("agent", "seeds", *(f"{count} students" for count in COUNTS), f"reaches `{cold}` at {COUNTS[-1]} after")
    sides = by_side(rows)
    last = found_at(sides.get(cold, []), COUNTS[-1])
    return header, [
        (
            name,
            str(len(mine)),
            *(cell(mine, count) for count in COUNTS),
            count_of(median(until(row["bests"], fmean(last)) for row in mine)) if last else "",
        )
        for name, mine in sides.items()
    ]


def gaps(rows: Sequence[Row], one: str, other: str) -> str:
    """How far one side is above or below another at each count, with Welch's 95% interval, in words."""
    sides, words = by_side(rows), []
    for count in COUNTS:
        values = [found_at(sides.get(name, []), count) for name in (one, other)]
        if min(map(len, values)) > 1:
            gap, half = difference(*values)
            side = "above" if gap > half else "below" if -gap > half else "level"
            words.append(f"{side} at {count} ({gap:+.3f} ± {half:.3f})")
    return f"`{one}` against `{other}`: {', '.join(words)}." if words else ""


def learning_aim(rows: Sequence[Row], title: str) -> str:
    """Whether PPO is above random choice and not below evolution from `AIM_FROM` students on, in words."""
    sides = by_side(rows)
    if not {"ppo", "random", "evolution"} <= sides.keys() or min(len(sides[name]) for name in ("ppo", "random")) < 2:
        return ""  # one seed tells nothing of an interval
    missed = []
    for rival, count in product(("random", "evolution"), (count for count in COUNTS if count >= AIM_FROM)):
        values = [found_at(sides[name], count) for name in ("ppo", rival)]
        if min(map(len, values)) < 2:
            continue  # as long as students are of the removal stage, few are within the budget
        gap, half = difference(*values)
        if gap <= half if rival == "random" else gap < -half:
            missed.append(
                f"{'not above' if rival == 'random' else 'below'} `{rival}` at {count} ({gap:+.3f} ± {half:.3f})"
            )
    seeds = max(map(len, sides.values()))
    last = {name: found_at(mine, COUNTS[-1]) for name, mine in sides.items()}
    best = sorted(((fmean(values), name) for name, values in last.items() if len(values) == seeds), reverse=True)
    ranks = ", ".join(f"`{name}` {value:.3f}" for value, name in best)
    aim = f"missed: `ppo` is {', '.join(missed)}" if missed else "met"
    return (
        f"{title}, {seeds} seeds, best reward after {COUNTS[-1]} students: {ranks}. The aim (`ppo` above `random` and"
        f" not below `evolution` from {AIM_FROM} students on) is {aim}."
    )


def transfer_lines(rows: Sequence[Row]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and a line for each number of students and side, over all networks and budgets."""
    header = ("students", "side", "share of a cold start's best of 100: mean", "lowest", f"cases at {AIM_SHARE:.0%}",
              "cases that reach it")  # fmt: skip
    lines = []
    for asked, side in dict.fromkeys((row["asked"], row["side"]) for row in rows):
        mine = [row for row in rows if (row["asked"], row["side"]) == (asked, side)]
        shares = [float(row["share_of_cold"]) for row in mine if row["share_of_cold"]]
        enough = sum(share >= AIM_SHARE for share in shares)
        there = sum(row["until_cold"] != "never" for row in mine)
        lines.append((asked, side, f"{fmean(shares):.3f}" if shares else "", f"{min(shares):.3f}" if shares else "",
                      f"{enough} of {len(mine)}", f"{there} of {len(mine)}"))  # fmt: skip
    return header, lines


def transfer_words(rows: Sequence[Row]) -> str:
    """Whether the two aims of transfer are met, and by how much not."""
    at_once = [row for row in rows if row["side"] == "zero-shot" and row["share_of_cold"]]
    if not at_once:
        return "Not run yet."
    fewest = min(int(row["asked"]) for row in at_once)
    shares = [float(row["share_of_cold"]) for row in at_once if int(row["asked"]) == fewest]
    enough = sum(share >= AIM_SHARE for share in shares)
    words = [
        f"Acting alone, with {fewest} students judged, the policy has {fmean(shares):.1%} of the reward that a cold"
        f" start has after 100 (lowest {min(shares):.1%}); the aim of {AIM_SHARE:.0%} is met in {enough} of"
        f" {len(shares)} cases."
    ]
    for side in ("zero-shot", "warm", "proposal", "uniform"):
        mine = [row for row in rows if row["side"] == side and int(row["asked"]) == AIM_COUNT]
        if mine:
            there = sum(row["until_cold"] != "never" for row in mine)
            words.append(f"`{side}` reaches that reward within {AIM_COUNT} students in {there} of {len(mine)} cases.")
    return " ".join(words)


def training_lines(rows: Sequence[Row]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and a line for each way to train: mean agreement at each share over networks, with that over seeds."""
    shares = list(dict.fromkeys(row["share"] for row in rows))
    header = ("trained on", "seeds", "minutes of training", *(f"agreement at {float(share):.0%}" for share in shares))
    lines = []
    for way in dict.fromkeys(row["way"] for row in rows):
        mine = [row for row in rows if row["way"] == way]
        cells = (_with_interval(_by_seed([row for row in mine if row["share"] == share])) for share in shares)
        minutes = fmean(float(row["minutes"]) for row in mine)
        lines.append((way, str(len({row["seed"] for row in mine})), f"{minutes:.1f}" if minutes else "", *cells))
    return header, lines


def ablation_lines(learning: Sequence[Row], training: Sequence[Row]
                   ) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:  # fmt: skip
    """One table of all ablations: what was changed, by what it is measured, both figures, and their difference."""
    header = ("changed", "seeds", "measured by", "unchanged", "changed to", "difference")
    accuracy = f"best accuracy after {ABLATED_AT} students, NAS-Bench-201, percent"
    lines, usual = [], [row for row in learning if row["agent"] == "ppo"]
    for name in dict.fromkeys(row["agent"] for row in learning):
        mine = [row for row in learning if row["agent"] == name]
        if name != "ppo":
            lines.append(_ablation(name, accuracy, found_at(usual, ABLATED_AT), found_at(mine, ABLATED_AT), 2))
    for way, name in CHANGED.items():
        told, other = (_by_seed([row for row in training if row["way"] == one]) for one in (UNCHANGED, way))
        if len(told) > 1 and len(other) > 1:
            lines.append(_ablation(name, "agreement at once, networks held back", told, other, 3))
    return header, lines


def _ablation(name: str, measure: str, usual: Sequence[float], changed: Sequence[float], digits: int
              ) -> tuple[str, ...]:  # fmt: skip
    gap, half = difference(changed, usual)
    figures = (f"{fmean(values):.{digits}f}" for values in (usual, changed))
    return name, str(len(changed)), measure, *figures, f"{gap:+.{digits}f} ± {half:.{digits}f}"


def _by_seed(rows: Sequence[Row]) -> list[float]:
    """The mean agreement of each seed."""
    return [fmean(float(row["agreement"]) for row in rows if row["seed"] == seed)
            for seed in dict.fromkeys(row["seed"] for row in rows)]  # fmt: skip


def _with_interval(values: Sequence[float]) -> str:
    if not values:
        return ""
    middle, half = interval(values)
    return f"{middle:.3f}" + (f" ± {half:.3f}" if len(values) > 1 else "")
