"""Kendall's tau of the scores of `training_free.py` against the published accuracies, beside published taus."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau, spearmanr
from training_free_plot import plot

from n2n.scores import AGGREGATES, SCORES, aggregate
from search_spaces import nas_bench_201
from search_spaces.nas_bench_201 import CELLS, EDGES, WIDTHS

SAMPLE, SAMPLE_SEED = 1000, 0
SEEDS = 5
SEEDLESS = ("params", "macs", "az_complexity", "live_params", "path_length", "live_capacity")
"""They look at no weights: another seed says the same."""
PUBLISHED = {
    ("s0", "params"): ".873 (the table itself)",
    ("s0", "macs"): ".657 (the table itself)",
    ("s0", "diswot"): ".710 (authors' ranking); .55-.69 (re-runs)",
    ("s0", "diswot_semantic"): ".55-.62 (re-runs, one seed)",
    ("s0", "diswot_relation"): "about 0 (re-runs)",
    ("s0", "fisher"): ".63",
    ("s0", "naswot"): ".32",
    ("s0", "snip"): ".67",
    ("nb201", "naswot"): ".61",
    ("nb201", "synflow"): ".58",
    ("nb201", "diswot"): ".47 (authors' figure)",
    ("nb201", "az_nas"): ".71-.74",
}
"""Kendall's tau where one is known; of S0 on CIFAR-100 images."""

Column = dict[str, float]
"""The score of each student, by its code; NaN where there is none."""


def table_of(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def s0_truth(data_dir: Path) -> Column:
    """The distilled accuracy of each of DisWOT's 64 networks."""
    rows = table_of(data_dir / "diswot-s0" / "s0.csv")
    return {f"{row['depth1']}-{row['depth2']}-{row['depth3']}": float(row["distilled_acc"]) for row in rows}


def nb201_truth(data_dir: Path) -> Column:
    """The CIFAR-10 test accuracy of each cell of NAS-Bench-201."""
    rows = table_of(data_dir / "nas-bench-201" / "cifar10.csv")
    return {row["ops"]: float(row["cifar10_test_acc"]) for row in rows}


def s0_codes(data_dir: Path) -> list[str]:
    """All 64."""
    return list(s0_truth(data_dir))


def nb201_codes(data_dir: Path) -> list[str]:
    """A fixed random sample of 1,000 cells."""
    codes = sorted(nb201_truth(data_dir))
    return [codes[index] for index in np.random.default_rng(SAMPLE_SEED).permutation(len(codes))[:SAMPLE]]


WAYS = tuple(tuple(EDGES.index(edge) for edge in way) for way in (
    ((3, 0),), ((1, 0), (3, 1)), ((2, 0), (3, 2)), ((1, 0), (2, 1), (3, 2))))  # fmt: skip
"""The four ways from the input of a cell to its output, by the places of their edges in a code."""


def cell_scores(code: str) -> dict[str, float]:
    """`live_params`, `path_length` and `live_capacity` of a cell's network at 10 classes, by hand from its code."""
    ways = [way for way in WAYS if all(code[edge] != "0" for edge in way)]
    if not ways:
        return dict.fromkeys(("live_params", "path_length", "live_capacity"), math.nan)
    weights = sum({"2": 1, "3": 9}.get(code[edge], 0) for edge in {edge for way in ways for edge in way})
    first = [3 * 16 * 9, *(width**2 // 2 * 10 + 9 * width**2 for width in WIDTHS[1:])]  # stem and reductions
    places = [CELLS * weights * width**2 + fixed for width, fixed in zip(WIDTHS, first, strict=True)] + [
        10 * WIDTHS[-1]
    ]
    layers = 2 + 2 * 1.5 + 3 * CELLS * sum(code[edge] in "23" for way in ways for edge in way) / len(ways)
    blurs = 3 * CELLS * sum(code[edge] == "4" for way in ways for edge in way) / len(ways)
    capacity = sum(math.sqrt(one) for one in places) * layers / (layers + blurs)
    return {"live_params": sum(places), "path_length": layers, "live_capacity": capacity}


def columns_of(raw: Path, part: str) -> dict[str, Column]:
    """The scores of a part that were taken."""
    found = {name: raw / f"{part}-{name}.csv" for name in SCORES}
    return {
        name: {row["code"]: float(row[name] or math.nan) for row in table_of(path)}
        for name, path in found.items()
        if path.exists()
    }


def with_aggregates(columns: Mapping[str, Column], more: Mapping[str, Column]) -> dict[str, Column]:
    """The columns, and the aggregates of them and of `more`, over the students that have all their parts."""
    found, known = dict(columns), {**more, **columns}
    for name, parts in AGGREGATES.items():
        if all(part in known for part in parts):
            codes = [code for code in known[parts[0]] if all(code in known[part] for part in parts)]
            values = aggregate({part: [known[part][code] for code in codes] for part in parts})
            found[name] = dict(zip(codes, values, strict=True))
    return found


def correlation(column: Column, truth: Mapping[str, float], codes: Sequence[str]) -> tuple[float, float, int]:
    """Kendall's tau-b, Spearman's rho and the number of students; one without a score is below all others."""
    known = [code for code in codes if code in column]
    scores = [-math.inf if math.isnan(column[code]) else column[code] for code in known]
    wanted = [truth[code] for code in known]
    if len(known) < 3 or len(set(scores)) < 2:
        return 0.0, 0.0, len(known)
    return float(kendalltau(scores, wanted).statistic), float(spearmanr(scores, wanted).statistic), len(known)


def write_tables(results: Path, raw: Path, data_dir: Path) -> None:
    """Taus of both spaces, and what they are of, as CSV files and a picture."""
    small, cells = s0_truth(data_dir), nb201_truth(data_dir)
    alike = {name: column for name, column in columns_of(raw, "s0-0").items() if name in SEEDLESS}
    seeds = [with_aggregates(columns_of(raw, f"s0-{seed}"), alike) for seed in range(SEEDS)]
    columns = with_aggregates(columns_of(raw, "nb201") | closed_forms(cells), {})
    rows = [*s0_rows(seeds, small), *nb201_rows(columns, cells, nb201_codes(data_dir))]
    write(results / "training-free.csv", rows)
    write(results / "training-free-nb201.csv", scored_rows(columns, cells, nb201_codes(data_dir)))
    every = [
        {"seed": seed, **row} for seed, one in enumerate(seeds) if one for row in scored_rows(one, small, [*small])
    ]
    if every:
        write(results / "training-free-s0.csv", every)
    plot(results / "training-free.png", rows)
    for row in rows:
        print(*row.values(), sep="\t")


def write(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """A CSV file of rows; a column that a row lacks is empty in it."""
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def closed_forms(cells: Column) -> dict[str, Column]:
    """The scores of all cells that follow from their code."""
    space, columns = nas_bench_201(), dict[str, Column]()
    for code in cells:
        cost = space.cost(space.from_code(code))
        sizes = {"params": cost.parameters, "macs": cost.macs, "az_complexity": 2 * cost.macs}
        for name, value in (sizes | cell_scores(code)).items():
            columns.setdefault(name, {})[code] = value
    return columns


def scored_rows(columns: Mapping[str, Column], truth: Column, codes: Sequence[str]) -> list[dict[str, object]]:
    """A row for each student with its accuracy and its scores, to six digits."""
    return [
        {"code": code, "accuracy": truth[code],
         **{name: f"{column[code]:.6g}" for name, column in columns.items() if code in column}}
        for code in codes
    ]  # fmt: skip


def s0_rows(seeds: Sequence[Mapping[str, Column]], truth: Column) -> list[dict[str, object]]:
    """A row for each score: the tau of its mean over seeds, and those of single seeds."""
    rows, codes = [], list(truth)
    for name in [*SCORES, *AGGREGATES]:
        columns = [one[name] for one in seeds if name in one and len(one[name]) == len(truth)]
        if columns:
            mean = {code: sum(column[code] for column in columns) / len(columns) for code in codes}
            single = [correlation(column, truth, codes)[0] for column in columns]
            rows.append(row_of("s0", name, correlation(mean, truth, codes), single))
    return rows


def nb201_rows(columns: Mapping[str, Column], truth: Column, codes: Sequence[str]) -> list[dict[str, object]]:
    """Rows over the sample, whose halves are those that our own score was chosen on and was not; and over all cells."""
    halves = (codes[: SAMPLE // 2], codes[SAMPLE // 2 :])
    rows = []
    for name, column in columns.items():
        single = [correlation(column, truth, half)[0] for half in halves]
        rows.append(row_of("nb201", name, correlation(column, truth, codes), single))
    for name, column in columns.items():
        if len(column) == len(truth):
            rows.append(row_of("nb201-all", name, correlation(column, truth, [*truth]), []))
    return rows


def row_of(space: str, name: str, found: tuple[float, float, int], single: Sequence[float]) -> dict[str, object]:
    """One row of the table; `single` are the taus of single seeds (S0) or of the halves of the sample."""
    tau, rho, students = found
    return {"space": space, "score": name, "students": students, "kendall": round(tau, 3), "spearman": round(rho, 3),
            "kendall_single": " ".join(f"{one:.3f}" for one in single),
            "published_kendall": PUBLISHED.get((space.removesuffix("-all"), name), "")}  # fmt: skip
