"""Writes the tables of the README and of the pages in `docs/` from the CSV files of the benchmarks.

python scripts/benchmarks/tables.py           rewrites what stands between the markers of the pages
python scripts/benchmarks/tables.py --check   exits with 1 where a page says something else than the CSV files
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import mean

import curves
import objectives_table
import policies_table
from catalogue import catalogue
from evaluation_tables import beside_paper, evaluators, headline, ladder_rewards, starts
from rows import markdown, rows_of

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results"
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
AGENTS = ("reinforce", "evolution", "random", "uniform")


def one_job(name: str) -> str:
    """Teacher against student of single searches."""
    header = (
        "network", "test accuracy", "parameters", "MACs", "latency", "search", "long distillation", "in all",
        "overhead",
    )  # fmt: skip
    lines: list[tuple[str, ...]] = []
    for row in rows_of(name):
        teacher, student = float(row["teacher_test_accuracy"]), float(row["student_test_accuracy"])
        if not lines:
            sizes = (millions(row["teacher_parameters"]), millions(row["teacher_macs"]))
            lines.append(("teacher", f"{teacher:.2%}", *sizes, milliseconds(row["teacher_latency_ms"]), *[""] * 4))
        lines.append(
            (
                f"student ({row['agent']}, seed {row['seed']})",
                f"{student:.2%} ({100 * (student - teacher):+.2f} points)",
                f"{millions(row['student_parameters'])} ({float(row['compression']):.1f}x)",
                millions(row["student_macs"]),
                milliseconds(row["student_latency_ms"]),
                f"{float(row['search_seconds']):.0f} s for {row['evaluations']} students",
                f"{float(row['finish_seconds']):.0f} s",
                f"{float(row['total_seconds']) / 60:.1f} min",
                f"{float(row['overhead_share']):.1%}",
            )
        )
    return markdown(header, lines)


def agents(name: str) -> str:
    """The agents side by side."""
    header = (
        "agent", "best reward", "quick accuracy of the chosen", "its parameters", "its test accuracy after one epoch",
        "overhead",
    )  # fmt: skip
    lines = []
    for agent in AGENTS:
        rows = [row for row in rows_of(name) if row["agent"] == agent]
        if rows:
            lines.append(
                (
                    f"{agent} ({len(rows)} seeds)",
                    spread(rows, "best_reward", lambda x: f"{x:.3f}"),
                    spread(rows, "quick_accuracy", lambda x: f"{x:.1%}"),
                    spread(rows, "student_parameters", lambda x: f"{x / 1e3:.1f}k"),
                    finished(rows),
                    f"{mean(float(r['overhead_share']) for r in rows):.1%}",
                )
            )
    return markdown(header, lines)


def spread(rows: list[dict[str, str]], column: str, text: Callable[[float], str]) -> str:
    """Mean, and lowest to highest."""
    values = [float(row[column]) for row in rows]
    return f"{text(mean(values))} ({text(min(values))} to {text(max(values))})"


def finished(rows: list[dict[str, str]]) -> str:
    """Test accuracies of the searches that finished their student."""
    seeds = [row for row in rows if row["student_test_accuracy"]]
    return ", ".join(f"{float(row['student_test_accuracy']):.1%} (seed {row['seed']})" for row in seeds)


def reading(name: str) -> str:
    """Which agent is ahead, in words, from the same rows."""
    means = {
        agent: mean(float(row["best_reward"]) for row in rows_of(name) if row["agent"] == agent)
        for agent in AGENTS
        if any(row["agent"] == agent for row in rows_of(name))
    }
    if not means:
        return ""
    order = sorted(means, key=lambda agent: -means[agent])
    ranks = ", ".join(f"{agent} {means[agent]:.3f}" for agent in order)
    verdict = (
        "REINFORCE is ahead of the other agents here"
        if order[0] == "reinforce"
        else f"REINFORCE does not win here: {order[0]} finds better students on the same budget"
    )
    replaced = "".join(
        f" One row was replaced: with evolution's earlier default (20 founders, so that it never bred in 20 students, "
        f"which is random search) seed {row['seed']} reached {float(row['best_reward']):.3f}, more than now."
        for row in rows_of(f"{name}_replaced")
    )
    advice = "Three seeds are few: compare the spreads before the means."
    return f"{verdict} (mean best reward: {ranks}). {advice}{replaced}"


def coverage(name: str) -> str:
    """What can be decided in other people's networks, and how many random students were sound."""
    header = ("network", "parameters", "removable", "shrinkable", "either", "drafts passed", "opens in", "failure")
    spaces = ("layer", "block", "shrinkage")
    lines = []
    for row in rows_of(name):
        tried, passed = (sum(int(row[f"{space}_{what}"] or 0) for space in spaces) for what in ("tried", "passed"))
        shares = (f"{float(row[what]):.0%}" if row[what] else "" for what in ("removable", "shrinkable", "either"))
        opens = f"{float(row['open_seconds']):.1f} s" if row["open_seconds"] else ""
        size = millions(row["parameters"]) if row["parameters"] else ""
        failure = row["failure"].replace("|", "/")[:120]
        lines.append((row["network"], size, *shares, f"{passed} of {tried}", opens, failure))
    return markdown(header, lines)


def covered(name: str) -> str:
    """The coverage table in words: how much of it holds what was aimed at, and what does not."""
    rows = rows_of(name)
    read = [row for row in rows if row["either"]]
    counts = [
        sum(int(row[f"{space}_{what}"] or 0) for row in rows for space in ("layer", "block", "shrinkage"))
        for what in ("passed", "tried")
    ]
    aim = {"cnn": 0.8, "transformer": 0.6}
    below = [
        f"{row['network']} ({float(row['either']):.0%})" for row in read if float(row["either"]) < aim[row["kind"]]
    ]
    refused = [row["network"] for row in rows if not row["either"]]
    words = [
        f"{len(read)} networks are read, and {counts[0]:,} of {counts[1]:,} drafts are sound.",
        "Of these convolutional networks at least 80% of the parameters are under some decision, of the transformers"
        f" 60%{', but for ' + ', '.join(below) if below else ''}.",
    ]
    return " ".join([*words, *([f"Not read: {', '.join(refused)}."] if refused else [])])


def speed(name: str) -> str:
    """How long reading, building and deciding take."""
    header = ("network", "space", "decisions", "opens in", "builds in", "a decision takes", "first and last quarter")
    lines = [
        (
            row["network"],
            row["space"],
            row["decisions"],
            f"{float(row['open_seconds']):.1f} s",
            f"{float(row['build_seconds']):.2f} s",
            f"{float(row['decision_ms']):.2f} ms",
            f"{float(row['first_quarter_ms']):.2f} and {float(row['last_quarter_ms']):.2f} ms",
        )
        for row in rows_of(name)
    ]
    return markdown(header, lines)


NAS_BENCH_201 = (50, 100, 200, 500)


def learning(name: str, budgets: tuple[int, ...]) -> str:
    """The best student of each agent within each budget."""
    header = ("agent", "seeds", *(f"{budget} students" for budget in budgets), "played for each", "processor time")
    return markdown(header, curves.lines(rows_of(name), budgets))


def learned(name: str, budgets: tuple[int, ...]) -> str:
    """PPO against its rivals, in words."""
    rivals = ("random", "reinforce", "evolution")
    return " ".join(filter(None, (curves.verdict(rows_of(name), "ppo", rival, budgets) for rival in rivals)))


def table_of(header: tuple[str, ...], lines: list[tuple[str, ...]]) -> str:
    """A table, or that there is none yet."""
    return markdown(header, lines) if lines else "Not run yet."


NETWORKS = {"resnet20": "ResNet-20 on Fashion-MNIST", "vgg11": "VGG-11 on Fashion-MNIST"}


def at_once(name: str) -> str:
    """What a policy is worth on networks that it has not seen, and whether the aims are met."""
    rows = rows_of(name)
    return f"{table_of(*policies_table.transfer_lines(rows))}\n\n{policies_table.transfer_words(rows)}"


def on_network(network: str) -> str:
    """How fast agents and uses of a policy learn on a real network."""
    rows = rows_of(f"learning-{network}-fashion-mnist")
    pairs = (("ppo", "random"), ("ppo", "evolution"), ("ppo", "uniform"), ("warm", "ppo"), ("zero-shot", "uniform"))
    words = (policies_table.gaps(rows, *pair) for pair in pairs)
    return "\n\n".join(filter(None, (table_of(*policies_table.network_lines(rows)), " ".join(filter(None, words)))))


def policy_aims() -> str:
    """Which aims of learned policies are met, and by how much not."""
    words = [f"NAS-Bench-201, best accuracy: {learned('policies-learning-nas_bench_201', NAS_BENCH_201)}"]
    words += [policies_table.learning_aim(rows_of(f"learning-{name}-fashion-mnist"), title)
              for name, title in NETWORKS.items()]  # fmt: skip
    words.append(f"Networks held back: {policies_table.transfer_words(rows_of('policies-transfer-table'))}")
    return "\n".join(f"- {one}" for one in words if one)


def workers(name: str) -> str:
    """What workers bring and cost: the three parts of `scaling.py`."""
    header = ("workers", "students per hour", "efficiency", "ms per student of the pool, nothing to judge")
    empty = {row["workers"]: row for row in rows_of(f"{name}-overhead")}
    lines = [
        (
            row["workers"] if row["workers"] != "0" else "0 (no Ray)",
            f"{float(row['per_hour']):.0f}",
            f"{float(row['efficiency']):.2f}" if row["efficiency"] else "",
            f"{float(empty[row['workers']]['ms_per_evaluation']):.2f}" if row["workers"] in empty else "",
        )
        for row in rows_of(f"{name}-throughput")
    ]
    return markdown(header, lines)


def cluster(name: str) -> str:
    """Workers on several simulated nodes."""
    header = ("workers on 4 simulated nodes", "ms per student on the driver", "ms per student in all")
    lines = [
        (row["workers"], f"{float(row['driver_ms_per_evaluation']):.2f}", f"{float(row['ms_per_evaluation']):.2f}")
        for row in rows_of(f"{name}-nodes")
    ]
    return markdown(header, lines)


def training_free(name: str) -> str:
    """Kendall's tau and Spearman's rho of the scores beside published taus; a score is a row."""
    header = (
        "score",
        "S0",
        "of single seeds",
        "published",
        "1,000 cells",
        "chosen on, other half",
        "all 15,625",
        "published",
    )
    found = {(row["space"], row["score"]): row for row in rows_of(name)}
    lines = []
    for score in dict.fromkeys(score for _, score in found):
        small, cells, every = (found.get((space, score), {}) for space in ("s0", "nb201", "nb201-all"))
        single = [float(one) for one in small.get("kendall_single", "").split()]
        spread = f"{mean(single):.2f} ({min(single):.2f} to {max(single):.2f})" if len(single) > 1 else ""
        count = int(cells.get("students", 0))
        some = f" ({count} cells)" if 0 < count < 1000 else ""
        halves = "" if some else cells.get("kendall_single", "").replace(" ", ", ")
        lines.append((f"`{score}`", both(small), spread, small.get("published_kendall", ""), both(cells) + some, halves,
                      both(every), cells.get("published_kendall", "")))  # fmt: skip
    return markdown(header, lines)


def score_headline(name: str) -> str:
    """Our score beside the parameter count and the best published one, in a sentence."""
    tau = {(row["space"], row["score"]): float(row["kendall"]) for row in rows_of(name)}
    spaces = (("s0", "DisWOT's 64 ResNets"), ("nb201", "1,000 cells of NAS-Bench-201"))
    words = [f"{where} {tau[key, 'live_capacity']:.2f} (parameter count {tau[key, 'params']:.2f}, NASWOT"
             f" {tau[key, 'naswot']:.2f}, SynFlow {tau[key, 'synflow']:.2f})" for key, where in spaces]  # fmt: skip
    return f"Kendall's tau of `live_capacity` with published accuracies: on {' and on '.join(words)}."


def both(row: dict[str, str]) -> str:
    """tau and rho."""
    return f"{float(row['kendall']):.3f} / {float(row['spearman']):.3f}" if row else ""


def evolved(name: str) -> str:
    """What searches by a score find in NAS-Bench-201."""
    header = ("score", "agent", "seed", "cells scored", "minutes", "found", "its accuracy", "place of 15,625",
              "best scored", "best of all", "a random cell", "best of 1,000 random cells, all trained")  # fmt: skip
    columns = ("agent", "seed", "scored", "minutes", "cell", "accuracy", "place", "best_of_scored", "table_best",
               "random_mean", "random_best_if_trained")  # fmt: skip
    return markdown(header, [(f"`{row['score']}`", *(row[column] for column in columns)) for row in rows_of(name)])


def costs(name: str) -> str:
    """CPU seconds of each score for a network, cheapest first."""
    rows = sorted(rows_of(name), key=lambda row: float(row["median_cpu_seconds"]))
    lines = [(f"`{row['score']}`", f"{float(row['median_cpu_seconds']):.3f}", row["batch"]) for row in rows]
    return markdown(("score", "CPU seconds a network", "images"), lines)


def objectives(bench: str) -> str:
    """What each distillation objective brings two students."""
    header, lines = objectives_table.accuracy_table(objectives_table.read(bench, RESULTS))
    picture = RESULTS / f"objectives-{bench}.png"
    shown = f"\n\n![accuracies by objective]({picture.relative_to(ROOT)})" if picture.exists() else ""
    return markdown(header, lines) + shown if lines else "Not run yet."


def objectives_summary() -> str:
    """The best objectives and the default, over both benches, and which default the numbers support."""
    header, lines = objectives_table.summary_table(benches())
    return f"{markdown(header, lines)}\n\n{objectives_table.default(benches())}" if lines else "Not run yet."


def objective_costs() -> str:
    """What a step by each objective takes, and how quick judgements by it rank."""
    header, lines = objectives_table.cost_table(benches())
    return markdown(header, lines) if lines else "Not measured yet."


def benches() -> list[objectives_table.Results]:
    """The benches of the objectives."""
    return [objectives_table.read(bench, RESULTS) for bench in objectives_table.TITLES]


def millions(value: str) -> str:
    """12345 → 0.0123 M."""
    return f"{float(value) / 1e6:.3g} M"


def milliseconds(value: str) -> str:
    """A latency in ms."""
    return f"{float(value):.2f} ms"


PARTS: dict[str, Callable[[], str]] = {
    "table: fashion-mnist-long": lambda: one_job("fashion-mnist-long"),
    "table: fashion-mnist": lambda: agents("fashion-mnist"),
    "reading: fashion-mnist": lambda: reading("fashion-mnist"),
    "table: mnist": lambda: one_job("mnist"),
    "table: reading": lambda: speed("reading"),
    "table: fashion-mnist-8x": lambda: one_job("fashion-mnist-8x"),
    "table: workers": lambda: workers("scaling"),
    "table: cluster": lambda: cluster("scaling"),
    "table: evaluators": lambda: evaluators("fashion-mnist"),
    "table: evaluators-cifar-10": lambda: evaluators("cifar-10") if rows_of("cifar-10-ranking") else "Not run yet.",
    "table: evaluators-paper": beside_paper,
    "reading: judging": headline,
    "reading: starts": starts,
    "reading: scores": lambda: score_headline("training-free"),
    "reading: ladders": lambda: ladder_rewards("fashion-mnist-ladders"),
    "table: training-free": lambda: training_free("training-free"),
    "table: training-free-evolution": lambda: evolved("training-free-evolution"),
    "table: training-free-cost": lambda: costs("training-free-cost"),
    "reading: coverage": lambda: covered("coverage"),
    "table: learning": lambda: learning("policies-learning-nas_bench_201", NAS_BENCH_201),
    "reading: learning": lambda: learned("policies-learning-nas_bench_201", NAS_BENCH_201),
    "reading: policies": policy_aims,
    "table: learning-resnet20": lambda: on_network("resnet20"),
    "table: learning-vgg11": lambda: on_network("vgg11"),
    "table: transfer": lambda: at_once("policies-transfer-table"),
    "table: training": lambda: table_of(*policies_table.training_lines(rows_of("policies-training"))),
    "table: ablations": lambda: table_of(
        *policies_table.ablation_lines(rows_of("policies-ablations-nas_bench_201"), rows_of("policies-training"))
    ),
    "table: coverage": lambda: coverage("coverage"),
    "table: objectives-fashion-mnist": lambda: objectives("fashion-mnist"),
    "table: objectives-cifar-10": lambda: objectives("cifar-10"),
    "table: objectives-cost": objective_costs,
    "table: objectives-summary": objectives_summary,
    "table: catalogue": catalogue,
    "reading: objectives": lambda: objectives_table.reading(benches()),
}


def written(page: Path) -> str:
    """A page with every marked part as the CSV files have it; pictures are found from where the page is."""
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"^<!-- ((?:table|reading): .*) -->$", text, flags=re.MULTILINE):
        start = f"<!-- {name} -->\n"
        before, _, rest = text.partition(start)
        _, end, after = rest.partition("<!-- end -->")
        made = PARTS[name]() if page.parent == ROOT else PARTS[name]().replace("](scripts/", "](../scripts/")
        text = f"{before}{start}\n{made}\n\n{end}{after}"
    return text


def missing() -> list[str]:
    """Parts that are not on exactly one page."""
    every = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    return [name for name in PARTS if every.count(f"<!-- {name} -->") != 1]


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args()
    if missing():
        sys.exit(f"not on exactly one page: {', '.join(missing())}")
    for page in PAGES:
        text = written(page)
        if asked.check and text != page.read_text(encoding="utf-8"):
            sys.exit(f"{page.relative_to(ROOT)} differs from the CSV files; run this without --check")
        if not asked.check:
            page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
