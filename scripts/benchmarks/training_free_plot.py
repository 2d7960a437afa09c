"""The picture of `training_free.py`: how every score orders two published spaces, beside the parameter count."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

PANELS = (("s0", "DisWOT's 64 ResNets, distilled accuracy"), ("nb201", "NAS-Bench-201, CIFAR-10 accuracy"))
OURS = ("live_capacity",)


def plot(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Kendall's tau of each score as a bar, single seeds as dots, published values as crosses."""
    figure = Figure(figsize=(11, 6.5), layout="constrained")
    axes = figure.subplots(1, len(PANELS))
    for axis, (space, title) in zip(axes, PANELS, strict=True):
        _panel(axis, [row for row in rows if row["space"] == space], title)
    figure.savefig(path, dpi=110)


def _panel(axis: Axes, rows: Sequence[Mapping[str, object]], title: str) -> None:
    ordered = sorted(rows, key=lambda row: float(str(row["kendall"])))
    taus = [float(str(row["kendall"])) for row in ordered]
    names = [str(row["score"]) for row in ordered]
    colours = ["tab:red" if name in OURS else "tab:gray" if name == "params" else "tab:blue" for name in names]
    axis.barh(names, taus, color=colours, alpha=0.75)
    for place, row in enumerate(ordered):
        if row["space"] == "s0":  # of the cells these are halves of the sample
            seeds = [float(one) for one in str(row["kendall_single"]).split()]
            axis.plot(seeds, [place] * len(seeds), ".", color="black", markersize=4)
        for one in published(str(row["published_kendall"])):
            axis.plot(one, place, "x", color="black", markersize=7)
    count = dict(zip(names, taus, strict=True)).get("params")
    if count is not None:
        axis.axvline(count, color="tab:gray", linestyle=":", label="parameter count")
    axis.plot([], [], ".", color="black", label="single seeds")
    axis.plot([], [], "x", color="black", label="published")
    axis.set(title=title, xlabel="Kendall's tau")
    axis.legend(loc="lower right")


def published(text: str) -> list[float]:
    """The numbers of ".710 (authors' ranking); .55-.69 (re-runs)"."""
    return [float(one) for one in re.findall(r"(?<!\d)\.\d+", text)]
