"""How counts, latencies and sizes are printed, everywhere: parameters in M, MACs in M or G, ms and MB."""

from __future__ import annotations

SMALL = 10_000
"""Counts below this are printed as they are: 0.000466 M says less than 466."""


def millions(count: int) -> str:
    """A number of parameters in M, three significant digits: 272474 is "0.272 M", and 3466 is "3,466"."""
    return f"{count:,}" if count < SMALL else f"{significant(count / 1e6)} M"


def mac_text(count: int) -> str:
    """MACs in M, or in G from a thousand M: 40813184 is "40.8 M", and 2240 is "2,240"."""
    if count < SMALL:
        return f"{count:,}"
    return f"{significant(count / 1e9)} G" if count >= 1e9 else f"{significant(count / 1e6)} M"


def size_text(megabytes: float) -> str:
    """A size of 10^6 bytes a unit: "1.09 MB"."""
    return f"{significant(megabytes)} MB"


def latency_text(median_ms: float, iqr_ms: float | None) -> str:
    """Median and interquartile range: "1.234 ms (0.010)"; the range may be missing."""
    return f"{median_ms:.3f} ms" + ("" if iqr_ms is None else f" ({iqr_ms:.3f})")


def compression_text(teacher: int, student: int) -> str:
    """How many times fewer, T / S, as "8.3x"."""
    return f"{teacher / student:.1f}x" if student else "-"


def significant(value: float) -> str:
    """Three significant digits without an exponent, for values of 0 and more."""
    if value == 0:
        return "0"
    digits = 0
    while value * 10**digits < 100 and digits < 9:
        digits += 1
    return f"{value:.{digits}f}"
