"""Fidelities in print, against text written by hand."""

from __future__ import annotations

import tomllib
from pathlib import Path

from n2n.evaluate.fidelity import Fidelity
from n2n.evaluate.ladder import Correction
from n2n.evaluate.ranking import Ranking
from n2n.report.fidelity import CSV_COLUMNS, csv_rows, ladder_toml, markdown_table, plain_table, plot_fidelity

SIZE = Fidelity("parameter count", "", Ranking(0.5, 0.25, 0.75, 8), None, 0.0, None)
REFIT = Fidelity("refit:0", "agreement", Ranking(0.875, 0.5, 1.0, 8), Ranking(0.375, -0.125, 0.5, 8), 0.25, 39.96)


def test_tables() -> None:
    header, rule, size, refit = markdown_table([SIZE, REFIT]).splitlines()
    assert header.startswith(
        "| rung | ranks by | Kendall tau (95%) | better than size by | seconds a student | cheaper"
    )
    assert rule == "|" + "---|" * 7
    assert size == "| parameter count | itself | 0.50 (0.25 to 0.75) |  |  |  | 8 |"
    assert refit == "| refit:0 | agreement | 0.88 (0.50 to 1.00) | +0.38 (-0.12 to +0.50) | 0.25 | 40x | 8 |"
    plain = plain_table([SIZE, REFIT]).splitlines()
    assert plain[3].split("  ")[0] == "refit:0"
    assert plain[0].index("ranks by") == plain[3].index("agreement") == plain[2].index("itself")


def test_csv_rows() -> None:
    rows = [dict(zip(CSV_COLUMNS, row, strict=True)) for row in csv_rows([SIZE, REFIT])]
    assert [rows[0][name] for name in ("gain", "gain_low", "gain_high", "seconds", "cheaper")] == ["", "", "", 0.0, ""]
    assert list(rows[1].values()) == ["refit:0", "agreement", 8, 0.875, 0.5, 1.0, 0.375, -0.125, 0.5, 0.25, 40.0]


def test_a_picture_even_of_a_rung_that_ranks_perfectly(tmp_path: Path) -> None:
    """Rounding, or the bootstrap itself, may leave the estimate a little outside of its interval."""
    perfect = Ranking(1 - 2**-53, 1.0, 1.0, 8)
    lines = [SIZE, REFIT, Fidelity("inherited:60", "agreement", perfect, perfect, 0.0, None)]
    for name, ceiling in (("with.png", perfect), ("without.png", None)):
        plot_fidelity(tmp_path / name, lines, ceiling)
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_the_ladder_is_toml() -> None:
    ladder = ("score:naswot", "refit:0")
    text = ladder_toml(ladder, "inherited:3e", 24, {"refit:0": Correction(0.75, 0.2, 0.01)}, {"objective": "kd"})
    assert tomllib.loads(text) == {"ladder": ["score:naswot", "refit:0"], "objective": "kd"}, (
        "a line is missing, so there is none"
    )
    lines = {"refit:0": Correction(0.75, 0.2, 0.01), "score:naswot": Correction(-1.5, 1e-3, 0.02)}
    known = tomllib.loads(ladder_toml(ladder, "inherited:3e", 24, lines, {}))["expects"]
    assert known == {"refit:0": [0.75, 0.2, 0.01], "score:naswot": [-1.5, 0.001, 0.02]}
    assert "24 students against inherited:3e" in text.splitlines()[0]
