"""What the rows of `objectives.py` say: accuracies with intervals, the cost of a step, ranks of quick judgements."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

from curves import interval

from n2n.distill.objectives import OBJECTIVES
from n2n.evaluate.fidelity import FEWEST, Fidelity, fidelities, truth_of
from n2n.evaluate.judgements import Judgement, read_judgements

Row = dict[str, str]
BASELINE, DEFAULT = "none", "kd"
AT_ONCE = "dkd,warmup_epochs=0"
"""`dkd` warms up over 20 epochs, so that in a short distillation it is hardly more than the labels."""
NAMES = (BASELINE, *(name for name in OBJECTIVES if name != "ce"), AT_ONCE)
STUDENTS = ("found", "resnet-8")
TITLES = {"fashion-mnist": "Fashion-MNIST", "cifar-10": "CIFAR-10"}
SEEDS = 3
TRUTH = "inherited:3e"
QUICK_STEPS = 60
STARTS = ("inherited", "refit")
FEWEST_PAIRS = 3
"""Differences between two objectives that a default is said by."""
AIM = 0.05
"""What a step by `kd` may take more than one by the labels."""
BEST = 5
"""Objectives in the summary, beside the default."""
SHOWN = 6
"""Names that a sentence lists at most."""


def expression_of(name: str) -> str:
    """What is trained on: what `--objective NAME` takes, the labels alone for `none`, and `fsp` with its adapter."""
    return {BASELINE: "ce", "fsp": "fsp,adapter=true"}.get(name, name)


def rung_of(start: str, name: str) -> str:
    """The rung of 60 steps by an objective, as `n2n.evaluate.rungs` names it; that of `kd` needs no objective."""
    return f"{start}:{QUICK_STEPS}" + ("" if name == DEFAULT else f":{expression_of(name)}")


@dataclass(frozen=True)
class Results:
    """What there is of one bench: the runs, the rounds of `--seconds`, and the judgements of the panel."""

    bench: str
    runs: tuple[Row, ...]
    rounds: tuple[Row, ...] = ()
    judgements: tuple[Judgement, ...] = ()

    @property
    def title(self) -> str:
        """As one prints it."""
        return TITLES[self.bench]

    def accuracies(self, student: str, objective: str) -> dict[int, float]:
        """Validation accuracies in percent by seed, of the runs that succeeded."""
        mine = (row for row in self.runs if (row["student"], row["objective"]) == (student, objective))
        return {int(row["seed"]): 100 * float(row["accuracy"]) for row in mine if row["status"] == "ok"}

    def failed(self, student: str, objective: str) -> bool:
        """Whether any run of it failed."""
        return any((r["student"], r["objective"]) == (student, objective) and r["status"] != "ok" for r in self.runs)

    def differences(self, student: str, objective: str, other: str) -> list[float]:
        """Points that an objective is above another, one for each seed that both have."""
        one, two = (self.accuracies(student, name) for name in (objective, other))
        return [one[seed] - two[seed] for seed in one if seed in two]


def read(bench: str, folder: Path) -> Results:
    """All that there is of a bench; the judgements are those of `evaluation.py` and of `--quick`."""
    judgements = [one for name in (bench, f"objectives-{bench}") for one in
                  read_judgements(folder / f"{name}-evaluators.csv")]  # fmt: skip
    runs, rounds = (rows_in(folder / f"objectives-{bench}{what}.csv") for what in ("", "-seconds"))
    return Results(bench, runs, rounds, tuple(judgements))


def rows_in(path: Path) -> tuple[Row, ...]:
    """The rows of a file; none where there is no file. What stands behind its last line end was cut off by a kill."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return tuple(csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1], newline="")))


def told(values: Sequence[float], sign: str = "") -> str:
    """`91.20 ± 0.40`: the mean and its 95% t-interval, the mean alone of one value."""
    if not values:
        return ""
    middle, half = interval(values)
    return f"{middle:{sign}.2f}" + ("" if math.isnan(half) else f" ± {half:.2f}")


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The median, and its 95% interval between two order statistics; from lowest to highest where there are few.

    Between the k-th lowest and the k-th highest of n values the median lies with probability 1 - 2 P(X < k), X binomial
    with n and 1/2 (David & Nagaraja: "Order Statistics", 2003, section 7.1); k is the largest for which that is 95%.
    """
    ordered, below, k = sorted(values), 0.0, 0
    while (below := below + math.comb(len(ordered), k) / 2 ** len(ordered)) <= 0.025:
        k += 1
    k = max(k, 1)
    return median(ordered), ordered[k - 1], ordered[-k]


def ratios(found: Results, student: str, objective: str) -> list[float]:
    """Processor time of a step over that by the labels alone in the same round."""
    by = {(r["objective"], r["round"]): float(r["cpu_ms"]) for r in found.rounds if r["student"] == student}
    return [ms / by[BASELINE, number] for (name, number), ms in by.items()
            if name == objective and (BASELINE, number) in by]  # fmt: skip


def taus(found: Results, start: str) -> dict[str, dict[str, Fidelity]]:
    """By objective and measure, how 60 steps rank the students that all of the objectives have judged.

    Objectives that have judged fewer than eight students are left out; so is all, where there is no other than `kd`.
    """
    truth = truth_of(found.judgements, TRUTH)
    rungs = {rung_of(start, name): name for name in NAMES}
    judged: dict[str, dict[str, Judgement]] = {}
    for one in found.judgements:
        if one.rung in rungs and one.seed == 0 and one.ok and one.fingerprint in truth:
            judged.setdefault(one.rung, {})[one.fingerprint] = one
    judged = {rung: mine for rung, mine in judged.items() if len(mine) >= FEWEST}
    common = set(truth).intersection(*judged.values())
    if len(judged) < 2 or len(common) < FEWEST:
        return {}
    long = [one for one in found.judgements if one.rung == TRUTH and one.fingerprint in common]
    lines = fidelities([*long, *(mine[key] for mine in judged.values() for key in sorted(common))], TRUTH)
    table: dict[str, dict[str, Fidelity]] = {}
    for line in lines:
        if line.measure:
            table.setdefault(rungs[line.rung], {})[line.measure] = line
    return table


def accuracy_table(found: Results) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and a line for each objective that has a row: both students, best gain over no teacher first."""
    header = ("objective", *(text for name in STUDENTS for text in
              (f"`{name}`: accuracy", "points above no teacher", "seeds")))  # fmt: skip

    def gain(name: str) -> float:
        every = [mean(each) for one in STUDENTS if (each := found.differences(one, name, BASELINE))]
        return mean(every) if every else -math.inf

    lines = []
    for name in sorted({row["objective"] for row in found.runs}, key=lambda name: (-gain(name), name)):
        cells: list[str] = []
        for student in STUDENTS:
            values = found.accuracies(student, name)
            missing = "failed" if found.failed(student, name) else ""
            above = "" if name == BASELINE else told(found.differences(student, name, BASELINE), "+")
            cells += (told([*values.values()]) or missing, above, str(len(values)) if values else "")
        lines.append((f"`{name}`", *cells))
    return header, lines


def summary_table(benches: Sequence[Results]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and a line for the best objectives and the default: points above no teacher, in all and by student.

    Objectives of which a run failed are left out: what the others reached says nothing of them.
    """
    cells = [(one, student) for one in benches for student in STUDENTS if one.accuracies(student, BASELINE)]
    header = (
        "objective",
        "points above no teacher, all pairs of runs",
        *(f"{one.title}, `{who}`" for one, who in cells),
    )
    gains = {name: [one.differences(student, name, BASELINE) for one, student in cells] for name in NAMES}
    gains = {name: each for name, each in gains.items() if name != BASELINE and each and all(each)
             and not any(one.failed(who, name) for one, who in cells)}  # fmt: skip
    pooled = {name: [value for some in each for value in some] for name, each in gains.items()}
    ranked = sorted(pooled, key=lambda name: -mean(pooled[name]))
    shown = [name for name in ranked if name in ranked[:BEST] or name == DEFAULT]
    return header, [(f"`{name}`", told(pooled[name], "+"), *(told(some, "+") for some in gains[name]))
                    for name in shown]  # fmt: skip


def cost_table(benches: Sequence[Results]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and a line for each objective that was timed or ranks: a step over plain cross-entropy, Kendall's taus."""
    timed = [(one, student) for one in benches for student in STUDENTS if ratios(one, student, BASELINE)]
    ranked = [(one, start, by) for one in benches for start in STARTS if (by := taus(one, start))]
    header = (
        "objective",
        *(f"a step, {one.title}, `{student}`" for one, student in timed),
        *(f"tau by {what}, {one.title}, {start}" for one, start, _ in ranked for what in ("agreement", "accuracy")),
    )
    lines = []
    for name in NAMES:
        cells = [_ratio(ratios(one, student, name)) for one, student in timed]
        cells += [_tau(by.get(name, {}).get(what)) for *_, by in ranked for what in ("agreement", "accuracy")]
        if any(cells):
            lines.append((f"`{name}`", *cells))
    return header, lines


def _ratio(values: Sequence[float]) -> str:
    return "{:.2f} ({:.2f} to {:.2f})".format(*median_interval(values)) if values else ""


def _tau(line: Fidelity | None) -> str:
    return "" if line is None else f"{line.ranking.tau:.2f} ({line.ranking.low:.2f} to {line.ranking.high:.2f})"


def reading(benches: Sequence[Results]) -> str:
    """What the tables say in words: the best, whether `kd` is beaten, the default, what it costs, what is missing."""
    cells = [(one, student) for one in benches for student in STUDENTS]
    words = [best(one, student) for one, student in cells]
    return " ".join(filter(None, (*words, default(benches), overhead(benches), failures(benches), missing(benches))))


def best(found: Results, student: str) -> str:
    """Which objective is highest for a student, whose intervals reach into its own, and which are above `kd`."""
    values = {name: [*some.values()] for name in NAMES if (some := found.accuracies(student, name))}
    where = f"On {found.title} `{student}`"
    sure = {name: interval(some) for name, some in values.items() if len(some) > 1}
    if not values:
        return ""
    if len(sure) < 2:
        first = max(values, key=lambda name: mean(values[name]))
        return f"{where} has one seed so far, which says little: highest is `{first}` ({told(values[first])})."
    first = max(sure, key=lambda name: sure[name][0])
    reach = sure[first][0] - sure[first][1]
    close = [name for name, (middle, half) in sure.items() if name != first and middle + half >= reach]
    text = f"{where} is best by `{first}` ({told(values[first])}%)"
    text += f"; the intervals of {len(close)} of {len(sure) - 1} others reach into its own{_named(close)}"
    if DEFAULT not in sure:
        return f"{text}."
    above = [(name, *interval(found.differences(student, name, DEFAULT))) for name in sure if name != DEFAULT]
    beaten = [f"`{name}` ({gap:+.2f} ± {half:.2f})" for name, gap, half in above if gap > half]
    return f"{text}. Above `{DEFAULT}` by more than the interval of the difference: {', '.join(beaten) or 'none'}."


def _named(names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f" ({', '.join(f'`{name}`' for name in names[:SHOWN])}{more})"


def default(benches: Sequence[Results]) -> str:
    """Which default the numbers support, by the differences to `kd` over all students and seeds.

    The highest of many means is high by luck, too: its interval holds for all comparisons together (Bonferroni).
    """
    cells = [(one, student) for one in benches for student in STUDENTS if one.accuracies(student, DEFAULT)]
    pairs: dict[str, list[float]] = {}
    for name in NAMES:
        each = [one.differences(student, name, DEFAULT) for one, student in cells]
        sound = all(each) and not any(one.failed(student, name) for one, student in cells)
        if name != DEFAULT and sound and sum(map(len, each)) >= FEWEST_PAIRS:
            pairs[name] = [value for some in each for value in some]
    if not pairs:
        return f"These are too few rows to say which default they support; it stays `{DEFAULT}`."
    first = max(pairs, key=lambda name: mean(pairs[name]))
    gap, half = interval(pairs[first], 1 - 0.05 / len(pairs))
    seen = f"over {len(pairs[first])} pairs of runs `{first}` is {gap:+.2f} ± {half:.2f} points from it on average"
    seen += f" (95% for all {len(pairs)} comparisons together)"
    if gap > half:
        return f"As default the numbers support `{first}` rather than `{DEFAULT}`: {seen}."
    if gap > 0:
        return f"As default the numbers support `{DEFAULT}`: {seen}, which the best of so many may be by chance."
    return f"As default the numbers support `{DEFAULT}`: nothing is above it; {seen}."


def overhead(benches: Sequence[Results]) -> str:
    """What a step by `kd` takes more than one by the labels, where the teacher's logits are kept."""
    words, most = [], 0.0
    for found, student in ((one, student) for one in benches for student in STUDENTS):
        if each := ratios(found, student, DEFAULT):
            middle, low, high = (value - 1 for value in median_interval(each))
            words.append(f"{middle:+.1%} ({low:+.1%} to {high:+.1%}) for `{student}` on {found.title}")
            most = max(most, high)
    if not words:
        return ""
    sure = "surely" if most <= AIM else "not surely"
    what = f"Processor time of a step by `{DEFAULT}` against one by the labels: {', '.join(words)};"
    return f"{what} {sure} within {AIM:.0%} everywhere."


def failures(benches: Sequence[Results]) -> str:
    """The runs that failed, by their reason."""
    reasons: dict[str, list[str]] = {}
    for one in benches:
        for row in one.runs:
            if row["status"] != "ok":
                which = f"`{row['objective']}` of `{row['student']}` on {one.title}"
                reasons.setdefault(row["reason"], []).append(which)
    return " ".join(f"Failed: {', '.join(dict.fromkeys(which))} ({reason})." for reason, which in reasons.items())


def missing(benches: Iterable[Results]) -> str:
    """How many runs of three seeds there are not yet."""
    counts = []
    for one in benches:
        made = {(row["student"], row["objective"], int(row["seed"])) for row in one.runs}
        wanted = {(student, name, seed) for student in STUDENTS for name in NAMES for seed in range(SEEDS)}
        if left := len(wanted - made):
            counts.append(f"{left} of {len(wanted)} on {one.title}")
    return f"Not run yet: {', '.join(counts)}." if counts else ""


def plot(found: Results, path: Path) -> None:
    """Accuracies with their intervals, a panel for each student, each sorted; nothing where there are no rows."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [student for student in STUDENTS if any(found.accuracies(student, name) for name in NAMES)]
    if not shown:
        return
    figure = Figure(figsize=(5 * len(shown), 6), layout="constrained")
    FigureCanvasAgg(figure)
    panels: Any = figure.subplots(1, len(shown), squeeze=False)[0]
    for axes, student in zip(panels, shown, strict=True):
        values = {name: [*some.values()] for name in NAMES if (some := found.accuracies(student, name))}
        order = sorted(values, key=lambda name: mean(values[name]))
        for height, name in enumerate(order):
            middle, half = interval(values[name])
            colour = {BASELINE: "0.5", DEFAULT: "C3"}.get(name, "C0")
            axes.errorbar(
                [middle], [height], xerr=None if math.isnan(half) else [half], fmt="o", capsize=3, color=colour
            )
            axes.scatter(values[name], [height] * len(values[name]), s=6, color=colour, alpha=0.5)
            if name in (BASELINE, DEFAULT):
                axes.axvline(middle, color=colour, linestyle=":", linewidth=1)
        axes.set_yticks(range(len(order)), [f"{name} ({len(values[name])})" for name in order], fontsize=7)
        axes.set(title=f"{found.title}, {student}", xlabel="validation accuracy (%), 95% intervals (seeds)")
        axes.grid(True, axis="x", alpha=0.3)
    figure.savefig(path, dpi=110, format="png")
