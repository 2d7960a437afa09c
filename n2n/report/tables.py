"""Teacher against students, as rows and as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from n2n.networks.units import compression_text, latency_text, mac_text, millions, size_text

HEADER = (
    "network",
    "test accuracy",
    "validation accuracy",
    "parameters",
    "compression",
    "MACs",
    "latency (median, IQR)",
    "size",
)


def figures_table(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The rows under `HEADER`, the teacher first where there is one, from what `result.json` holds."""
    teacher = result["teacher"]["figures"] if result["teacher"] else None
    rows = [_row(f"teacher ({result['teacher']['name']})", teacher, teacher)] if teacher else []
    for student in result["students"]:
        missed = "" if not student["violations"] else " (over budget)"
        rows.append(_row(f"student {student['rank']}{missed}", student["figures"], teacher))
    return rows


def _row(name: str, figures: Mapping[str, Any], teacher: Mapping[str, Any] | None) -> tuple[str, ...]:
    return (
        name,
        f"{figures['test_accuracy']:.2%}",
        f"{figures['validation_accuracy']:.2%}",
        millions(figures["parameters"]),
        "" if teacher is None else compression_text(teacher["parameters"], figures["parameters"]),
        mac_text(figures["macs"]),
        latency_text(figures["latency_ms"], figures["latency_iqr_ms"]),
        size_text(figures["size_mb"]),
    )


def markdown(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in plain text: columns as wide as their widest cell, whatever the terminal."""
    widths = [max(len(row[at]) for row in (header, *rows)) for at in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (header, *rows)]
    return "\n".join(line.rstrip() for line in (lines[0], "-" * len(lines[0]), *lines[1:]))
