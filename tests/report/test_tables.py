"""Numbers in print, against numbers written by hand."""

from __future__ import annotations

from n2n.report.tables import figures_table, markdown


def figures(**changed: float) -> dict[str, float]:
    plain = {
        "validation_accuracy": 0.9,
        "test_accuracy": 0.875,
        "parameters": 1_000_000,
        "macs": 2_000_000,
        "latency_ms": 1.25,
        "latency_iqr_ms": 0.05,
        "threads": 1,
        "size_mb": 4.0,
    }
    return {**plain, **changed}


RESULT = {
    "teacher": {"name": "net", "figures": figures()},
    "students": [
        {"rank": 1, "violations": [], "figures": figures(parameters=125_000, test_accuracy=0.86)},
        {"rank": 2, "violations": ["x"], "figures": figures()},
    ],
}


def test_teacher_against_students() -> None:
    rows = figures_table(RESULT)
    assert rows[0] == ("teacher (net)", "87.50%", "90.00%", "1.00 M", "1.0x", "2.00 M", "1.250 ms (0.050)", "4.00 MB")
    assert rows[1][:5] == ("student 1", "86.00%", "90.00%", "0.125 M", "8.0x")
    assert rows[2][0] == "student 2 (over budget)"
    assert len(rows) == 3


def test_markdown() -> None:
    assert markdown(("a", "b"), [(1, "x")]) == "| a | b |\n|---|---|\n| 1 | x |"
