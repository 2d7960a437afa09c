"""`report.md` with its plots, from the files of a run folder alone, so that it can be written again at any time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from n2n.evaluate.base import Status
from n2n.networks.units import latency_text, mac_text, millions
from n2n.report.plots import plot_front, plot_reward
from n2n.report.tables import HEADER, figures_table, markdown
from n2n.search.files import NAMED, STARTED, read_json, write_text
from n2n.search.front import front
from n2n.search.store import Record, first_judgements, read_records

FRONT_ROWS = 12
"""Rows of the front that the page shows; `front.csv` has them all."""

CONFIG = ("seed", "agent", "data")
ENVIRONMENT = ("python", "cpu", "packages")
RESULT = ("data", "teacher", "students", "stages", "seconds", "overhead", "finish_seconds", "notes")
"""Keys without which a file is not what a run wrote; runs of earlier versions have these too."""


def write_report(run_folder: str | Path) -> Path:
    """Writes `report.md`, `front.png` and `reward.png` into a run folder and returns the page's path.

    Raises:
        ArtefactError: a file of the run is missing or damaged.
        WriteError: the file system refused.
    """
    folder = Path(run_folder)
    config, result = read_json(folder / "config.json", CONFIG), read_json(folder / "result.json", RESULT)
    environment, records = read_json(folder / "environment.json", ENVIRONMENT), read_records(folder)
    plot_front(folder / "front.png", records, result)
    plot_reward(folder / "reward.png", records)
    page, named = folder / "report.md", folder / NAMED
    began = min(read_json(named)["names"], key=len) if named.is_file() else ""
    learned = (folder / "policies").is_dir()
    write_text(page, report_text(folder.name, config, environment, result, records, learned=learned, began=began))
    return page


def report_text(
    name: str,
    config: Mapping[str, Any],
    environment: Mapping[str, Any],
    result: Mapping[str, Any],
    records: Sequence[Record],
    *,
    learned: bool,
    began: str = "",
) -> str:
    """The page as Markdown; `learned` says that the run has left a policy, `began` which one it started from."""
    parts = [
        f"# Run {name}",
        markdown(HEADER, figures_table(result)) if result["teacher"] or result["students"] else "",
        f"Began with the policy `{began}`, mode `{config['policy_mode']}`; a copy is in `{STARTED}/`." if began else "",
        _best(result),
        _reading(result, environment),
        _notes(result),
        "## Front\n\n" + _front(records) + "\n\n![front](front.png)",
        "## Search\n\n" + _stages(result, records) + "\n\n![reward](reward.png)",
        "## Configuration\n\n" + markdown(("option", "value"), [(key, f"`{value}`") for key, value in config.items()]),
        "## Environment\n\n" + markdown(("what", "value"), [(key, f"`{value}`") for key, value in environment.items()]),
        _next(
            result,
            built_in=config.get("teacher") is not None or "space" in result,
            scored=config.get("evaluate") is not None,
            learned=learned,
        ),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _reading(result: Mapping[str, Any], environment: Mapping[str, Any]) -> str:
    data = result["data"]
    text = (
        f"Data: {data['name']} ({data['train']:,} train, {data['validation']:,} validation, {data['test']:,} test "
        f"images, {data['classes']} classes). "
    )
    measured = [one["figures"] for one in (result["teacher"], *result["students"]) if one]
    if not measured:
        return text + "Scores look at train images alone; no network was trained, and the test split was not opened."
    figures = measured[0]
    device = figures.get("device") or environment["cpu"] or "this processor"  # runs of earlier versions did not say
    return (
        f"{text}The search saw train and validation; the test split was opened once, for "
        "this table. Parameters are counted, MACs are multiply-accumulates of one example; latency is of one example "
        f"on {figures['threads']} thread(s) of {device}, median with the interquartile range in "
        "brackets; size is that of parameters and buffers."
    )


def _best(result: Mapping[str, Any]) -> str:
    """The best codes of a published space; empty where a teacher's students were searched."""
    space = result.get("space")
    if not space:
        return ""
    rows = [
        (f"`{one['code']}`", f"{one['score']:.6g}", millions(one["parameters"]), mac_text(one["macs"]))
        for one in result["best"]
    ]
    table = markdown(("code", space["score"], "parameters", "MACs"), rows)
    arguments = ", ".join(f"{name}={value}" for name, value in space["kwargs"].items())
    largest = f"{millions(space['largest']['parameters'])} parameters, {mac_text(space['largest']['macs'])} MACs"
    return (
        f"## Best codes\n\n`{space['name']}({arguments})`: {space['students']:,} networks, the largest with {largest}."
        f" {result['evaluations']} of them were scored, and the first {len(result['students'])} here trained.\n\n"
        + table
    )


def _notes(result: Mapping[str, Any]) -> str:
    notes = [*result["notes"], *result["data"]["notes"]]
    return "## Notes\n\n" + "\n".join(f"- {note}" for note in notes) if notes else ""


def _front(records: Sequence[Record]) -> str:
    judged = [one.evaluation for one in records if one.evaluation.status is Status.OK]
    best = front(judged)
    if not best:
        return "No student could be judged."
    step = max(1, -(-len(best) // FRONT_ROWS))
    scored = best[0].expected is None
    rows = [
        (
            one.fingerprint[:12],
            f"{one.score:.6g}" if scored else f"{one.expected or 0:.2%}",
            millions(one.parameters or 0),
            mac_text(one.macs or 0),
            "" if one.latency_ms is None else latency_text(one.latency_ms, one.latency_iqr_ms),
        )
        for one in best[::-1][::step]
    ]
    worth = "training-free score" if scored else "quick validation accuracy"
    table = markdown(("student", worth, "parameters", "MACs", "latency (median, IQR)"), rows)
    what = "score" if scored else "accuracy"
    return f"{len(best)} students on the front of {what} against parameters (all in `front.csv`):\n\n{table}"


def _stages(result: Mapping[str, Any], records: Sequence[Record]) -> str:
    rows = []
    for stage in result["stages"]:
        mine = [one for one in records if one.stage == stage["name"]]
        failed = [one for one in first_judgements(mine) if one.evaluation.status is not Status.OK]
        rows.append(
            (
                stage["name"],
                stage["num_decisions"],
                stage["evaluations"],
                stage["hits"],
                len(failed),
                f"{max((one.reward for one in mine), default=float('nan')):.3f}",
                f"{stage['seconds']:.1f} s",
                stage["stopped"],
            )
        )
    header = ("stage", "decisions", "judged", "repeats", "failed", "best reward", "wall time", "stopped by")
    reasons = [one for one in records if one.evaluation.status is not Status.OK and not one.cached]
    text = markdown(header, rows)
    text += (
        f"\n\nThe loop took {result['seconds']:.1f} s, of which {result['overhead']:.1%} was not evaluation; "
        f"the long distillation and the measuring took {result['finish_seconds']:.1f} s."
    )
    held = sum(stage.get("filtered", 0) for stage in result["stages"])  # runs of earlier versions do not say
    if held:
        text += f"\n\n{held} more students were scored and held back by the prefilter; nobody judged them."
    if reasons:
        text += "\n\nStudents that could not be judged, the first five:\n\n"
        text += "\n".join(f"- `{one.evaluation.fingerprint[:12]}`: {one.evaluation.reason}" for one in reasons[:5])
    return text


def _next(result: Mapping[str, Any], *, built_in: bool, scored: bool, learned: bool) -> str:
    number = "score" if scored else "accuracy"
    lines = ["## What to look at next", "", "```sh"]
    if result["students"]:
        best = result["students"][0]["folder"]
        own = "" if built_in else " --network module:function --data module:function"
        lines.append(f"n2n evaluate {best}{own}      # from this folder: the best student, measured again")
    lines.append("n2n report .                 # this page again, from the files here")
    if learned:
        lines.append("n2n policy show policies     # what the agent learned; `n2n search --policy` starts from it")
    lines += [
        f"n2n query . 'select stage, {number}, parameters, reward from evaluations order by reward desc limit 10'",
        "```",
    ]
    return "\n".join(lines)
