"""Scores of a published space's students: one row each, made once, with reasons where there is no number."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from n2n.cli.main import app
from n2n.data import Data, load
from n2n.evaluate.base import evaluation_seed
from n2n.population import largest, read_codes, sampled, score_population
from n2n.scores import AGGREGATES, SCORES, Probe
from n2n.search.errors import ArtefactError, SearchError, WriteError
from search_spaces import PUBLISHED, nas_bench_201
from search_spaces.published import PublishedSpace


@pytest.fixture(scope="module")
def digits() -> Data:
    return load("digits")


@pytest.fixture
def space() -> PublishedSpace:
    return nas_bench_201(channels=1, image_size=8)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_one_row_each_with_the_published_counts(space: PublishedSpace, digits: Data, tmp_path: Path) -> None:
    out = tmp_path / "scores.csv"
    codes = ["421211", "000000", "333333"]
    missing = score_population(space, codes, digits.training, scores=("params", "naswot"), out=out, batch=8)
    found = rows(out)
    assert [row["code"] for row in found] == codes
    assert [row["parameters"] for row in found] == [row["params"].removesuffix(".0") for row in found]
    assert missing == sum(row["naswot"] == "" for row in found) == sum("naswot:" in row["failure"] for row in found)
    assert found[0]["naswot"] != ""


def test_a_score_is_that_of_the_network_and_images_of_the_seed(
    space: PublishedSpace, digits: Data, tmp_path: Path
) -> None:
    """The long way round, for two seeds."""
    out = tmp_path / "scores.csv"
    score_population(space, ["421211"], digits.training, scores=("synflow", "grad_norm"), out=out, seeds=2, seed=5,
                     batch=6)  # fmt: skip
    student = space.from_code("421211")
    expected = []
    for seed in (5, 6):
        chosen = torch.randperm(len(digits.train), generator=torch.Generator().manual_seed(seed))[:6]
        split = digits.training.train.subset(chosen)
        own = evaluation_seed(seed, student.fingerprint)
        network = space.build(student, inherit=False, seed=own)
        images = (split.images - digits.training.mean[0]) / digits.training.std[0]
        expected.append(SCORES["grad_norm"](network, Probe(images, split.labels, None, own)))
    assert float(rows(out)[0]["grad_norm"]) == pytest.approx(sum(expected) / 2, rel=1e-5)


def test_nobody_is_scored_twice_and_another_file_is_refused(
    space: PublishedSpace, digits: Data, tmp_path: Path
) -> None:
    out, told = tmp_path / "scores.csv", []

    def run(codes: list[str], *names: str) -> None:
        score_population(
            space, codes, digits.training, scores=names, out=out, progress=lambda done, all_: told.append(all_)
        )

    run(["421211", "121212"], "params")
    before = out.read_bytes()
    run(["421211", "121212", "333333", "333333"], "params")
    assert out.read_bytes().startswith(before)
    assert told == [2, 2, 1]
    with pytest.raises(ArtefactError, match="expected code, parameters, macs, seconds, failure, made_with"):
        run(["421211"], "macs")


def test_a_teacher_aware_score_compares_with_the_largest(space: PublishedSpace, digits: Data, tmp_path: Path) -> None:
    out = tmp_path / "scores.csv"
    assert largest(space).code == "333333"
    score_population(space, ["333333", "222222"], digits.training, scores=("diswot_relation",), out=out, batch=8)
    same, other = (float(row["diswot_relation"]) for row in rows(out))
    assert same == 0
    assert other < 0


def test_what_cannot_be_is_refused(space: PublishedSpace, digits: Data, tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="expected some of params"):
        score_population(space, ["421211"], digits.training, scores=("size",), out=tmp_path / "x.csv")
    with pytest.raises(SearchError, match="15,625 students; ask for fewer"):
        sampled(space, 20_000, 0)
    (tmp_path / "codes.csv").write_text("ops\n421211\n")
    with pytest.raises(ArtefactError, match="no column 'code'; it has ops"):
        read_codes(tmp_path / "codes.csv")
    assert len(set(sampled(space, 50, 0))) == 50


def test_the_command_reads_codes_as_text(tmp_path: Path) -> None:
    (tmp_path / "codes.csv").write_text("index,code\n0,000000\n1,012340\n")
    flags = {"space": "nas_bench_201", "architectures": tmp_path / "codes.csv", "scores": "params,macs"}
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    result = CliRunner().invoke(app, ["score", *words, "--out", str(tmp_path / "out.csv")])
    assert result.exit_code == 0, result.output
    assert [row["code"] for row in rows(tmp_path / "out.csv")] == ["000000", "012340"]
    both = CliRunner().invoke(app, ["score", "--space", "vit", "--scores", "params", "--out", str(tmp_path / "v.csv")])
    assert both.exit_code == 2
    assert "--architectures FILE.csv, or --sample N" in both.output + both.stderr


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_every_space_can_be_sampled_and_scored(name: str, digits: Data, tmp_path: Path) -> None:
    opened = PUBLISHED[name](classes=10, channels=1, image_size=8)
    out = tmp_path / "scores.csv"
    score_population(opened, sampled(opened, 2, 0), digits.training, scores=("params", "snip"), out=out, batch=4)
    assert len(rows(out)) == 2


def test_an_aggregate_ranks_all_rows_of_the_file(space: PublishedSpace, digits: Data, tmp_path: Path) -> None:
    out = tmp_path / "scores.csv"
    assert score_population(space, ["333333", "222222"], digits.training, scores=("az_nas",), out=out, batch=8) == 0
    score_population(space, ["313131"], digits.training, scores=("az_nas",), out=out, batch=8)
    found, parts = rows(out), AGGREGATES["az_nas"]
    assert list(found[0]) == ["code", "parameters", "macs", *parts, "az_nas", "seconds", "failure", "made_with"]
    values = {part: [float(row[part]) for row in found] for part in parts}
    ranks = {part: [1 + sum(other < one for other in column) for one in column] for part, column in values.items()}
    for index, row in enumerate(found):
        assert float(row["az_nas"]) == pytest.approx(sum(math.log(ranks[part][index] / 3) for part in parts))


def score(space: PublishedSpace, digits: Data, out: Path, *codes: str, **changed: object) -> int:
    options = {"scores": ("synflow",), "batch": 8, **changed}
    return score_population(space, codes, digits.training, out=out, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "words"),
    [({"seed": 1}, "seed 1"), ({"seeds": 2}, "seeds 0 to 1"), ({"batch": 9}, "9 images of digits")],
)
def test_rows_of_other_settings_do_not_mix(
    space: PublishedSpace, digits: Data, tmp_path: Path, changed: dict[str, int], words: str
) -> None:
    out = tmp_path / "scores.csv"
    score(space, digits, out, "421211")
    before = out.read_bytes()
    with pytest.raises(ArtefactError, match=f"made with other settings: nas_bench_201 for 1 x 8 x 8.*{words}"):
        score(space, digits, out, "121212", **changed)
    with pytest.raises(ArtefactError, match="1 x 16 x 16"):
        score(nas_bench_201(channels=1, image_size=16), digits, out, "121212")
    assert out.read_bytes() == before


def test_a_row_that_was_cut_off_is_made_again(space: PublishedSpace, digits: Data, tmp_path: Path) -> None:
    out = tmp_path / "scores.csv"
    score(space, digits, out, "421211", "121212")
    whole = rows(out)
    for lost in (1, 20, 60):
        out.write_bytes(out.read_bytes()[:-lost])
        score(space, digits, out, "421211", "121212", "333333")
        assert [row["code"] for row in rows(out)] == ["421211", "121212", "333333"]
        assert [row["synflow"] for row in rows(out)][:2] == [row["synflow"] for row in whole]
        out.write_bytes(b"".join(out.read_bytes().splitlines(keepends=True)[:3]))
    out.write_bytes(out.read_bytes()[:10])
    score(space, digits, out, "421211")
    assert [row["synflow"] for row in rows(out)] == [whole[0]["synflow"]]


def test_a_damaged_row_is_named(space: PublishedSpace, digits: Data, tmp_path: Path) -> None:
    out = tmp_path / "scores.csv"
    score(space, digits, out, "421211", "121212")
    text, number = out.read_text(), rows(out)[0]["synflow"]
    for damaged in (text.replace(number, "banana"), text.replace(f"{number},", "")):
        out.write_text(damaged)
        with pytest.raises(ArtefactError, match=r"line 2 of .* is damaged"):
            score(space, digits, out, "121212")


def test_what_is_no_file_of_scores_is_told(space: PublishedSpace, digits: Data, tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="is a folder"):
        score(space, digits, tmp_path, "421211")
    score(space, digits, tmp_path / "new" / "deep.csv", "421211")
    assert len(rows(tmp_path / "new" / "deep.csv")) == 1
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match=r"cannot write .*: (Not a directory|File exists)$"):
        score(space, digits, tmp_path / "file" / "x.csv", "421211")


def test_codes_of_a_spreadsheet_are_read(tmp_path: Path) -> None:
    (tmp_path / "codes.csv").write_text("\ufeffcode,accuracy\n421211 ,91\n 000000,10\n", encoding="utf-8")
    assert read_codes(tmp_path / "codes.csv") == ["421211", "000000"]


def test_the_count_of_a_score_stands_alone(space: PublishedSpace, digits: Data, tmp_path: Path) -> None:
    out = tmp_path / "scores.csv"
    score(space, digits, out, "421211", scores=("macs",))
    assert out.read_text().splitlines()[0] == "code,parameters,macs,seconds,failure,made_with"
