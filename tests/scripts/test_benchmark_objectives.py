"""The benchmark of distillation objectives: its rows are made once, and its tables and words are what they hold."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from n2n.data import load as load_data
from n2n.data.prepare import prepare
from n2n.distill.objectives import OBJECTIVES
from n2n.distill.precision import resolve
from n2n.distill.teacher import Teacher
from n2n.evaluate.judgements import Judgement
from n2n.evaluate.rungs import parse_rung
from n2n.networks import build_teacher
from search_spaces.cifar_resnet import ResNet

T2, T5 = 4.302653, 2.570582
"""The 97.5% quantiles of Student's t with 2 and 5 degrees of freedom, from a printed table."""


@pytest.fixture
def script(load: Callable[[str], ModuleType]) -> ModuleType:
    return load("objectives")


@pytest.fixture
def table(script: ModuleType) -> ModuleType:
    return sys.modules["objectives_table"]


def test_every_objective_has_a_run_and_the_labels_are_the_baseline(script: ModuleType, table: ModuleType) -> None:
    assert sorted(table.expression_of(name).split(",")[0] for name in table.NAMES) == sorted([*OBJECTIVES, "dkd"])
    assert table.NAMES[:2] == ("none", "kd")
    assert table.expression_of("none") == "ce"


def test_runs_go_seed_by_seed(script: ModuleType) -> None:
    runs = script.planned(["a", "b"], ["x", "y"], range(2))
    assert [(one.seed, one.objective, one.student) for one in runs] == [
        (0, "x", "a"), (0, "x", "b"), (0, "y", "a"), (0, "y", "b"), (1, "x", "a"), (1, "x", "b"), (1, "y", "a"),
        (1, "y", "b"),
    ]  # fmt: skip


def test_a_row_is_made_once_and_half_a_row_again(script: ModuleType, tmp_path: Path) -> None:
    path, asked = tmp_path / "rows.csv", []

    def work(run):  # type: ignore[no-untyped-def]
        if len(asked) == 3:
            raise KeyboardInterrupt
        asked.append(run)
        failed = {"status": "failed", "accuracy": "", "seconds": "", "reason": "two\nlines, and a comma"}
        return {**vars(run), **(failed if run.objective == "y" else {**failed, "status": "ok", "reason": ""})}

    runs = script.planned(["a"], ["x", "y", "z"], range(2))
    with pytest.raises(KeyboardInterrupt):
        script.make(path, runs, work, 1, {"threads": 1})
    assert [one.objective for one in asked] == ["x", "y", "z"]
    whole = path.read_bytes()
    path.write_bytes(whole[:-4])  # a kill while the third row was written
    assert [(one.objective, one.seed) for one in script.unmade(path, runs)] == [("z", 0), ("x", 1), ("y", 1), ("z", 1)]
    asked.clear()
    with pytest.raises(KeyboardInterrupt):
        script.make(path, runs, work, 1, {"threads": 1})
    assert path.read_bytes().startswith(whole)  # the third row came out as before, behind the first two
    asked.clear()
    script.make(path, runs, work, 1, {"threads": 1})
    assert len(asked) == 1
    rows = script.rows_in(path)
    assert [(row["objective"], row["seed"]) for row in rows] == [(one.objective, str(one.seed)) for one in runs]
    assert rows[1]["reason"] == "two lines, and a comma"
    assert script.unmade(path, runs) == []


@pytest.mark.slow
def test_processes_make_the_same_rows(script: ModuleType, tmp_path: Path) -> None:
    runs = script.planned(["a"], ["x", "y"], range(2))
    found = [*script._worked(runs, asdict, 2)]  # a function that any process can import
    assert sorted(found, key=str) == sorted(map(asdict, runs), key=str)


@pytest.fixture(scope="module")
def digits():  # type: ignore[no-untyped-def]
    training = load_data("digits").training
    return training, Teacher(build_teacher("resnet20", seed=0, channels=1, width=8), training)


def narrow() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ResNet((1, 1, 1), widths=(4, 8, 16), classes=10, channels=1)


def test_a_student_is_trained_for_so_many_steps_and_measured(script: ModuleType, digits) -> None:  # type: ignore[no-untyped-def]
    training, teacher = digits
    network = narrow()
    row = script.trained(network, teacher, training, objective="ce", steps=30, seed=0)
    assert (row["status"], row["steps"], row["reason"]) == ("ok", 30, "")
    split = training.validation
    inputs = prepare(split.images, mean=training.mean, std=training.std)
    with resolve("auto", network, "cpu").autocast():
        right = (network.eval()(inputs).argmax(1) == split.labels).float().mean().item()
    assert row["accuracy"] == pytest.approx(right, abs=1.01 / len(split))  # predicted in another batch and layout
    again = script.trained(narrow(), teacher, training, objective="ce", steps=30, seed=0)
    assert {**again, "seconds": 0, "cpu_seconds": 0} == {**row, "seconds": 0, "cpu_seconds": 0}


def test_what_cannot_be_had_or_diverges_is_a_row_with_the_reason(script: ModuleType, digits) -> None:  # type: ignore[no-untyped-def]
    training, teacher = digits
    row = script.trained(narrow(), teacher, training, objective="diswot_semantic", steps=2, seed=0)
    assert row["status"] == "failed"
    assert "as many channels" in row["reason"]
    row = script.trained(narrow(), teacher, training, objective="logit_mse:1e38", steps=20, seed=0)
    assert (row["status"], row["accuracy"]) == ("failed", "")
    assert row["reason"].startswith("the loss became")


def test_a_step_is_timed_by_both_stages(script: ModuleType, digits) -> None:  # type: ignore[no-untyped-def]
    training, teacher = digits
    took = script.step_ms(narrow(), teacher, training, "hint", torch.arange(256))
    assert took["ms"] > 0
    assert took["cpu_ms"] > 0


def run_rows(accuracies: dict[tuple[str, str], list[float]]) -> tuple[dict[str, str], ...]:
    """Rows of runs that succeeded, from percents by seed."""
    return tuple({"student": student, "objective": name, "seed": str(seed), "status": "ok", "reason": "",
                  "accuracy": str(value / 100)}
                 for (student, name), values in accuracies.items() for seed, value in enumerate(values))  # fmt: skip


FAILED = {"student": "found", "objective": "fsp", "seed": "0", "status": "failed", "accuracy": "", "reason": "too wide"}


def test_means_and_intervals_by_hand(table: ModuleType) -> None:
    rows = run_rows({("found", "none"): [80, 82, 84], ("found", "kd"): [85, 86, 90], ("resnet-8", "kd"): [70]})
    header, lines = table.accuracy_table(table.Results("fashion-mnist", (*rows, FAILED)))
    assert len(header) == 7
    # none: mean 82, standard deviation 2. kd: -2, -1 and 3 from its mean 87, so sqrt(14 / 2). Differences: 5, 4, 6.
    none, kd = (f"{T2 * spread / 3**0.5:.2f}" for spread in (2, 7**0.5))
    assert lines == [
        ("`kd`", f"87.00 ± {kd}", f"+5.00 ± {T2 / 3**0.5:.2f}", "3", "70.00", "", "1"),
        ("`none`", f"82.00 ± {none}", "", "3", "", "", ""),
        ("`fsp`", "failed", "", "", "", "", ""),
    ]


def test_only_seeds_that_both_have_are_compared(table: ModuleType) -> None:
    found = table.Results("fashion-mnist", run_rows({("found", "none"): [80, 90], ("found", "kd"): [85]}))
    assert found.differences("found", "kd", "none") == pytest.approx([5])


def test_the_interval_of_a_median_by_hand(table: ModuleType) -> None:
    # Of nine values at most one is below the median with probability 10/512 < 2.5%, at most two with 46/512 > 2.5%.
    assert table.median_interval([9, 1, 8, 2, 7, 3, 6, 4, 5]) == (5, 2, 8)
    assert table.median_interval([3, 1, 2]) == (2, 1, 3)  # too few for any
    assert table.median_interval([4]) == (4, 4, 4)


def test_steps_are_compared_within_a_round(table: ModuleType) -> None:
    times = {("none", 0): 10, ("kd", 0): 11, ("none", 1): 20, ("kd", 1): 20, ("kd", 2): 5}
    rounds = tuple({"student": "found", "objective": name, "round": str(number), "cpu_ms": str(ms), "ms": "0"}
                   for (name, number), ms in times.items())  # fmt: skip
    found = table.Results("fashion-mnist", (), rounds)
    assert table.ratios(found, "found", "kd") == pytest.approx([1.1, 1.0])
    header, lines = table.cost_table([found])
    assert header == ("objective", "a step, Fashion-MNIST, `found`")
    assert lines == [("`none`", "1.00 (1.00 to 1.00)"), ("`kd`", "1.05 (1.00 to 1.10)")]
    said = "against one by the labels: +5.0% (+0.0% to +10.0%) for `found` on Fashion-MNIST; not surely within 5%"
    assert said in table.reading([found])
    assert "; surely within 5%" in table.reading([replace(found, rounds=rounds[2:])])  # the round of 20 and 20 ms


def judged(rung: str, values: list[float]) -> list[Judgement]:
    """Students 0, 1, ... with these accuracies."""
    return [Judgement(rung, 0, str(key), 100, 10, 0.5, 0.0, "ok", value, None, None, None, 1.0)
            for key, value in enumerate(values)]  # fmt: skip


def test_quick_judgements_are_ranked_on_the_students_that_all_have_judged(table: ModuleType) -> None:
    truth = [0.1 * key for key in range(10)]
    swapped = [truth[1], truth[0], *truth[2:8], 0.0, 0.0]  # the last two are of students that `nst` has not judged
    rows = (*judged("inherited:3e", truth), *judged("inherited:60", swapped),
            *judged("inherited:60:nst", truth[:8]), *judged("inherited:60:rkd", truth[:7]))  # fmt: skip
    found = table.Results("fashion-mnist", (), (), rows)
    taus = table.taus(found, "inherited")
    assert sorted(taus) == ["kd", "nst"]  # seven students are too few
    assert taus["nst"]["accuracy"].ranking.tau == 1
    assert taus["kd"]["accuracy"].ranking.tau == pytest.approx(1 - 2 / 28)  # one pair of 28 is the wrong way round
    assert taus["kd"]["accuracy"].ranking.students == 8
    assert table.taus(replace(found, judgements=rows[:20]), "inherited") == {}  # nobody to compare with


def test_the_summary_has_the_best_and_the_default(table: ModuleType) -> None:
    each = {"none": [80.0, 80.0], "dkd": [81.0, 81.0], "dist": [82.0, 82.0], "nst": [83.0, 83.0], "rkd": [84.0, 84.0],
            "pkt": [85.0, 85.0], "crd": [80.8, 80.8], "kd": [80.5, 80.5]}  # fmt: skip
    rows = run_rows({(student, name): values for student in ("found", "resnet-8") for name, values in each.items()})
    half = run_rows({("found", "hint"): [99.0, 99.0]})  # not of the other student
    some = run_rows({(student, "fsp"): [98.0] for student in ("found", "resnet-8")})  # and one that failed
    header, lines = table.summary_table([table.Results("fashion-mnist", (*rows, *half, *some, FAILED))])
    assert header[2:] == ("Fashion-MNIST, `found`", "Fashion-MNIST, `resnet-8`")
    assert [line[0] for line in lines] == ["`pkt`", "`rkd`", "`nst`", "`dist`", "`dkd`", "`kd`"]
    assert lines[-1][1:] == ("+0.50 ± 0.00", "+0.50 ± 0.00", "+0.50 ± 0.00")
    assert table.summary_table([])[1] == []


def test_rungs_are_those_that_users_name(table: ModuleType) -> None:
    assert table.rung_of("refit", "kd") == "refit:60"
    for name in ("none", "kd", "nst", "dkd,warmup_epochs=0"):
        rung = parse_rung(table.rung_of("inherited", name))
        assert rung.recipe is not None
        assert (rung.recipe.objective, rung.recipe.steps) == (table.expression_of(name), 60)


def words(table: ModuleType, accuracies: dict[tuple[str, str], list[float]], *more: dict[str, str]) -> str:
    text: str = table.reading([table.Results("fashion-mnist", (*run_rows(accuracies), *more))])
    return text


def test_kd_stays_the_default_where_nothing_is_surely_above_it(table: ModuleType) -> None:
    text = words(
        table, {("found", "none"): [80, 81, 79], ("found", "kd"): [90, 91, 92], ("found", "rkd"): [91, 90, 93]}
    )
    assert "On Fashion-MNIST `found` is best by `rkd` (91.33 ±" in text
    assert "the intervals of 1 of 2 others reach into its own (`kd`)" in text
    assert "Above `kd` by more than the interval of the difference: none." in text
    assert "As default the numbers support `kd`: over 3 pairs of runs `rkd` is +0.33 ±" in text
    assert "may be by chance" in text
    assert "Not run yet: 147 of 156 on Fashion-MNIST." in text  # 2 students, 26 objectives, 3 seeds


def test_a_default_has_to_win_over_both_students_and_in_spite_of_the_choice(table: ModuleType) -> None:
    kd = {("found", "kd"): [90.0, 91.0, 92.0], ("resnet-8", "kd"): [80.0, 81.0, 82.0]}
    text = words(table, {**kd, ("found", "dkd"): [90.9, 92.0, 93.1], ("resnet-8", "dkd"): [80.9, 82.0, 83.1]})
    spread = (4 * 0.1**2 / 5) ** 0.5  # differences .9, 1, 1.1 twice; one comparison, so that 95% are 95%
    seen = f"`dkd` is +1.00 ± {T5 * spread / 6**0.5:.2f} points"
    assert f"As default the numbers support `dkd` rather than `kd`: over 6 pairs of runs {seen}" in text
    assert "difference: `dkd` (+1.00 ± 0.25)." in text  # of one student: t is 4.30, standard deviation .1
    half = {**kd, ("found", "dkd"): [90.9, 92.0, 93.1]}
    assert "too few rows to say which default" in words(table, half)  # it has no row of the other student
    below = {**kd, ("found", "dkd"): [89.0, 90.5, 91.0], ("resnet-8", "dkd"): [79.0, 80.0, 81.5]}
    assert "`kd`: nothing is above it; over 6 pairs of runs `dkd` is -0.83 ±" in words(table, below)


def test_many_comparisons_widen_the_interval(table: ModuleType) -> None:
    values = {("found", "kd"): [90.0, 91.0, 92.0], ("found", "dkd"): [90.6, 92.0, 93.4]}  # +.6, +1, +1.4: ± .99
    assert "rather than `kd`" in words(table, values)
    others = {("found", name): [80.0, 81.0, 82.0] for name in ("rkd", "pkt", "vid")}
    assert "may be by chance" in words(table, {**values, **others})


def test_few_rows_and_failures_are_told(table: ModuleType) -> None:
    assert "Not run yet: 156 of 156 on CIFAR-10." in table.reading([table.Results("cifar-10", ())])
    text = words(table, {("found", "none"): [80], ("found", "kd"): [81]}, FAILED)
    assert "`found` has one seed so far, which says little: highest is `kd` (81.00)" in text
    assert "too few rows to say which default" in text
    assert "Failed: `fsp` of `found` on Fashion-MNIST (too wide)." in text


def test_files_are_read_and_drawn_where_they_have_only_begun(table: ModuleType, tmp_path: Path) -> None:
    assert table.read("cifar-10", tmp_path) == table.Results("cifar-10", ())
    table.plot(table.read("cifar-10", tmp_path), tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
    rows = (*run_rows({("found", "none"): [80], ("found", "kd"): [81, 83]}), FAILED)
    with (tmp_path / "objectives-cifar-10.csv").open("w", newline="") as file:
        sheet = csv.DictWriter(file, list(FAILED))
        sheet.writeheader()
        sheet.writerows(rows)
    found = table.read("cifar-10", tmp_path)
    assert found.accuracies("found", "kd") == pytest.approx({0: 81, 1: 83})
    table.plot(found, tmp_path / "some.png")
    assert (tmp_path / "some.png").read_bytes().startswith(b"\x89PNG")
