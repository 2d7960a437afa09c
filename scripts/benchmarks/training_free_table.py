"""Kendall's tau of the scores of `training_free.py` against the published accuracies, beside published taus."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau, spearmanr

from n2n.scores import AGGREGATES, SCORES, aggregate

SAMPLE, SAMPLE_SEED = 1000, 0
SEEDS = 5
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


def columns_of(raw: Path, part: str) -> dict[str, Column]:
    """The scores of a part that were taken, and the aggregates of them, over the students that have all their parts."""
    found = {name: raw / f"{part}-{name}.csv" for name in SCORES}
    columns = {
        name: {row["code"]: float(row[name] or math.nan) for row in table_of(path)}
        for name, path in found.items()
        if path.exists()
    }
    for name, parts in AGGREGATES.items():
        if all(part in columns for part in parts):
            codes = [code for code in columns[parts[0]] if all(code in columns[part] for part in parts)]
            values = aggregate({part: [columns[part][code] for code in codes] for part in parts})
            columns[name] = dict(zip(codes, values, strict=True))
    return columns


def correlation(column: Column, truth: Mapping[str, float], codes: Sequence[str]) -> tuple[float, float, int]:
    """Kendall's tau-b, Spearman's rho and the number of students; one without a score is below all others."""
    known = [code for code in codes if code in column]
    scores = [-math.inf if math.isnan(column[code]) else column[code] for code in known]
    wanted = [truth[code] for code in known]
    if len(set(scores)) < 2:
        return 0.0, 0.0, len(known)
    return float(kendalltau(scores, wanted).statistic), float(spearmanr(scores, wanted).statistic), len(known)


def write_tables(results: Path, raw: Path, data_dir: Path) -> None:
    """Taus of both spaces as a CSV file and on the screen."""
    rows = [*s0_rows(raw, data_dir), *nb201_rows(raw, data_dir)]
    with (results / "training-free.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    for row in rows:
        print(*row.values(), sep="\t")


def s0_rows(raw: Path, data_dir: Path) -> list[dict[str, object]]:
    """A row for each score: the tau of the mean over seeds, and mean and spread of the taus of single seeds."""
    truth, seeds = s0_truth(data_dir), [columns_of(raw, f"s0-{seed}") for seed in range(SEEDS)]
    rows = []
    for name in [*SCORES, *AGGREGATES]:
        columns = [one[name] for one in seeds if name in one and len(one[name]) == len(truth)]
        if not columns:
            continue
        single = [correlation(column, truth, list(truth))[0] for column in columns]
        mean = {code: sum(column[code] for column in columns) / len(columns) for code in truth}
        rows.append(row_of("s0", name, correlation(mean, truth, list(truth)), single))
    return rows


def nb201_rows(raw: Path, data_dir: Path) -> list[dict[str, object]]:
    """A row for each score; the halves are those that our own score was chosen on and was not."""
    truth, codes, columns = nb201_truth(data_dir), nb201_codes(data_dir), columns_of(raw, "nb201")
    rows = []
    for name, column in columns.items():
        halves = [correlation(column, truth, half)[0] for half in (codes[: SAMPLE // 2], codes[SAMPLE // 2 :])]
        rows.append(row_of("nb201", name, correlation(column, truth, codes), halves))
    return rows


def row_of(part: str, name: str, found: tuple[float, float, int], single: Sequence[float]) -> dict[str, object]:
    """One row of the table."""
    tau, rho, students = found
    return {"space": part, "score": name, "students": students, "kendall": round(tau, 3), "spearman": round(rho, 3),
            "kendall_single": " ".join(f"{one:.3f}" for one in single),
            "published_kendall": PUBLISHED.get((part, name), "")}  # fmt: skip
