"""`n2n policy` from a search's run to another network's student, as somebody would type it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

Run = Callable[..., Result]
Said = Callable[[Result], dict[str, Any]]


@pytest.fixture(autouse=True)
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("N2N_POLICIES", str(tmp_path / "library"))
    return tmp_path / "library"


def test_a_policy_is_kept_shown_handed_on_and_applied(
    n2n: Run, said: Said, run: Path, teacher: Path, tmp_path: Path, library: Path
) -> None:
    result = n2n("policy", "import", run, "--name", "first")
    assert result.exit_code == 0, result.stderr
    assert (library / "first" / "card.json").is_file()
    text = n2n("policy", "list").stdout
    assert "first" in text
    assert "reinforce" in text
    card = said(n2n("policy", "show", "first", "--json"))["card"]
    assert card["judged"] == 6
    assert card["made_by"] == "n2n search"
    page = n2n("policy", "show", "first").stdout
    assert "removal: mean reward from" in page
    assert "trained on mlp, digits" in page
    file = tmp_path / "first.zip"
    assert "first.zip" in n2n("policy", "export", "first", file).stdout
    refused = n2n("policy", "export", "first", file)
    assert refused.exit_code == 2
    assert "is there already" in refused.stderr
    assert n2n("policy", "import", file, "--name", "second").exit_code == 0
    listed = said(n2n("policy", "list", "--json"))["policies"]
    assert [one["name"] for one in listed if not one["shipped"]] == ["first", "second"]
    assert n2n("policy", "remove", "first").exit_code == 0
    listed = said(n2n("policy", "list", "--json"))["policies"]
    assert [one["name"] for one in listed if not one["shipped"]] == ["second"]
    out = tmp_path / "applied"
    applied = n2n("policy", "apply", "second", "--teacher", teacher, "--target-params", "30%", "--final-epochs", 1,
                  "--final-start", "refit", "--out", out, "--json")  # fmt: skip
    assert applied.exit_code == 0, applied.stderr
    record = said(applied)
    assert record["meets_budget"]
    assert record["evaluations"] == 2
    assert len(record["students"]) == 1
    share = record["students"][0]["figures"]["parameters"] / record["teacher"]["parameters"]
    assert 0.1 < share <= 0.3
    config = json.loads((out / "config.json").read_text())
    assert (config["policy_mode"], config["final_start"]) == ("zero-shot", "refit")
    assert ", mode `zero-shot`; a copy is in `started_from/`." in (out / "report.md").read_text()
    assert n2n("evaluate", out / "students" / "1").exit_code == 0


def test_compare_writes_into_the_card_on_request(n2n: Run, said: Said, run: Path, teacher: Path) -> None:
    assert n2n("policy", "import", run, "--name", "first").exit_code == 0
    asked = ("policy", "compare", "first", "--teacher", teacher, "--target-params", "40%", "--judged", 4, "--seeds", 1)
    plain = n2n(*asked, "--against", "random")
    assert plain.exit_code == 0, plain.stderr
    assert "budget params 40%: 4 students in each of 1 runs" in plain.stdout
    assert said(n2n("policy", "show", "first", "--json"))["card"]["compared"] == []
    record = said(n2n(*asked, "--keep", "--json"))
    assert [one["name"] for one in record["sides"]] == ["first", "random", "uniform"]
    (line,) = said(n2n("policy", "show", "first", "--json"))["card"]["compared"]
    assert (line["teacher"], line["judged"], line["held_back"]) == ("mlp", 4, False)
    best = {one["name"]: one["best"][0] for one in record["sides"]}
    assert (line["policy"], line["random"]) == (
        pytest.approx(best["first"], abs=1e-4),
        pytest.approx(best["random"], abs=1e-4),
    )
    told = n2n("policy", "show", "first").stdout
    assert "zero-shot (removal and shrinkage) on mlp, digits (trained on), budget params 40%: best reward " in told
    assert f"{line['policy']:.3f}, random {line['random']:.3f}, after 4 students" in told
    of_package = n2n("policy", "compare", "default", "--teacher", teacher, "--keep")
    assert of_package.exit_code == 2
    assert "n2n policy import NAME --name MINE" in of_package.stderr


@pytest.mark.parametrize(
    ("words", "default"),
    [
        (("search",), "[default: 60]"),
        (("policy", "apply"), "[default: 1]"),
        (("policy", "compare"), "[default: refit:0]"),
    ],
)
def test_help_names_defaults(n2n: Run, words: tuple[str, ...], default: str) -> None:
    assert default in " ".join(n2n(*words, "--help").stdout.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("apply", "nobody", "--out", "x", "--target-params", "20%"), "no policy of that name in the library"),
        (("apply", "nobody", "--out", "x"), "--target-params or --target-macs is needed"),
        (("remove", "nobody"), "there is no policy 'nobody' of yours"),
        (("compare", "nobody"), "needs a network: --teacher FOLDER"),
        (("import", "nobody", "--name", "x"), "no folder nobody"),
        (("export", "nobody", "x.zip"), "no folder nobody"),
    ],
)
def test_bad_usage_is_told(n2n: Run, arguments: tuple[str, ...], words: str) -> None:
    result = n2n("policy", *arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert "Traceback" not in result.stderr
