"""Quantities in print, against texts written by hand."""

from __future__ import annotations

import pytest

from n2n.networks.units import compression_text, latency_text, mac_text, millions, significant, size_text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.272474, "0.272"), (9.41, "9.41"), (11.17, "11.2"), (1234.5, "1234"), (0.00062, "0.000620"), (0, "0")],
)
def test_three_significant_digits(value: float, text: str) -> None:
    assert significant(value) == text


def test_units() -> None:
    assert millions(9_410_000) == "9.41 M"
    assert mac_text(40_813_184) == "40.8 M"
    assert mac_text(1_820_000_000) == "1.82 G"
    assert compression_text(830, 100) == "8.3x"
    assert compression_text(830, 0) == "-"
    assert latency_text(1.25, 0.05) == "1.250 ms (0.050)"
    assert latency_text(1.25, None) == "1.250 ms"
    assert size_text(0.0018) == "0.00180 MB"


def test_small_counts_are_printed_as_they_are() -> None:
    assert [millions(count) for count in (0, 466, 9_999, 10_000)] == ["0", "466", "9,999", "0.0100 M"]
    assert [mac_text(count) for count in (2_240, 10_000)] == ["2,240", "0.0100 M"]
