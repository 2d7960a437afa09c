"""Teacher against students, as rows and as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

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


def millions(count: int) -> str:
    """A number of parameters in M, three significant digits: 272474 is "0.272 M"."""
    return f"{significant(count / 1e6)} M"


def mac_text(count: int) -> str:
    """MACs in M, or in G from a thousand M: 40813184 is "40.8 M"."""
    return f"{significant(count / 1e9)} G" if count >= 1e9 else f"{significant(count / 1e6)} M"


def significant(value: float) -> str:
    """Three significant digits without an exponent, for values of 0 and more."""
    if value == 0:
        return "0"
    digits = 0
    while value * 10**digits < 100 and digits < 9:
        digits += 1
    return f"{value:.{digits}f}"


def latency_text(median_ms: float, iqr_ms: float | None) -> str:
    """Median and interquartile range: "1.234 ms (0.010)"; the range may be missing."""
    return f"{median_ms:.3f} ms" + ("" if iqr_ms is None else f" ({iqr_ms:.3f})")


def compression_text(teacher: int, student: int) -> str:
    """How many times fewer, T / S, as "8.3x"."""
    return f"{teacher / student:.1f}x" if student else "-"


def figures_table(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The rows under `HEADER`, the teacher first, from what `result.json` holds."""
    teacher = result["teacher"]["figures"]
    rows = [_row(f"teacher ({result['teacher']['name']})", teacher, teacher)]
    for student in result["students"]:
        missed = "" if not student["violations"] else " (over budget)"
        rows.append(_row(f"student {student['rank']}{missed}", student["figures"], teacher))
    return rows


def _row(name: str, figures: Mapping[str, Any], teacher: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        name,
        f"{figures['test_accuracy']:.2%}",
        f"{figures['validation_accuracy']:.2%}",
        millions(figures["parameters"]),
        compression_text(teacher["parameters"], figures["parameters"]),
        mac_text(figures["macs"]),
        latency_text(figures["latency_ms"], figures["latency_iqr_ms"]),
        f"{significant(figures['size_mb'])} MB",
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
