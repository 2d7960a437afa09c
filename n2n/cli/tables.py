"""The table that a search ends with: the teacher against its students."""

from __future__ import annotations

from collections.abc import Sequence

from n2n.search.finish import Figures

COLUMNS = ("", "test accuracy", "parameters", "", "MACs", "latency, 1 image", "weights")


def comparison(teacher: Figures, students: Sequence[tuple[str, Figures]]) -> str:
    """One line for the teacher and one for each named student; the columns are aligned with spaces."""
    rows = [COLUMNS, _row("teacher", teacher, teacher), *(_row(name, one, teacher) for name, one in students)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * max(len(line) for line in lines), *lines[1:]])


def _row(name: str, one: Figures, teacher: Figures) -> tuple[str, ...]:
    return (
        name,
        f"{one.test_accuracy:.2%}",
        millions(one.parameters),
        f"{teacher.parameters / max(1, one.parameters):.1f}x",
        millions(one.macs),
        f"{one.latency_ms:.2f} ms (IQR {one.latency_iqr_ms:.2f})",
        f"{one.size_mb:.3f} MB",
    )


def millions(count: int) -> str:
    """A count in M, or in G from a thousand M on."""
    return f"{count / 1e9:.3f} G" if count >= 1e9 else f"{count / 1e6:.4f} M"
