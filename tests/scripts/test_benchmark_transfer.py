"""What the benchmark of transfer makes of its rows, worked by hand."""

from __future__ import annotations

import sys
from collections.abc import Callable
from math import inf
from pathlib import Path
from types import ModuleType

import pytest
import torch

from n2n.comparison import Side
from n2n.policies.library import Library
from search_spaces.layer_shrinkage import layer_shrinkage


def test_a_curve_becomes_its_improvements_and_back(load: Callable[[str], ModuleType]) -> None:
    script = load("policy_transfer")
    side = Side("some", "warm", ((None, 0.5, 0.5, 0.75), (None, None, None, None)))
    first, second = script.rows_of(side, "net", "digits", "20%", "some", 4)
    assert (first["bests"], first["best"], first["judged"], first["side"]) == (
        "2:0.50000 4:0.75000",
        "0.75000",
        4,
        "warm",
    )
    assert (second["bests"], second["best"]) == ("", "")
    curves = load("curves")
    assert curves.improvements(first["bests"]) == [(2, 0.5), (4, 0.75)]
    assert curves.until(first["bests"], 0.6) == 4
    assert curves.until("2:0.5", 0.6) == inf
    assert (curves.at(first["bests"], 3), curves.at(first["bests"], 1), curves.at("", 9)) == (0.5, None, None)


def test_the_table_is_measured_with_the_cold_start(load: Callable[[str], ModuleType]) -> None:
    script = load("policy_transfer")

    def row(asked: int, side: str, seed: int, bests: str) -> dict[str, str]:
        best = bests.split(":")[-1]
        return {"network": "n", "budget": "20%", "asked": str(asked), "side": side, "seed": str(seed), "best": best,
                "bests": bests}  # fmt: skip

    rows = [
        row(100, "ppo", 0, "51:0.6 80:0.75"),
        row(100, "ppo", 1, "60:0.5"),  # the mean is 0.625
        row(2, "zero-shot", 0, "2:0.59375"),
        row(2, "zero-shot", 1, "2:0.59375"),
        row(10, "warm", 0, "6:0.7"),
        row(10, "warm", 1, "6:0.5 8:0.625"),
    ]
    lines = {(line["asked"], line["side"]): line for line in script.table(rows, "ppo")}
    assert lines["2", "zero-shot"]["share_of_cold"] == "0.9500"
    assert lines["2", "zero-shot"]["until_cold"] == "never"
    assert lines["10", "warm"]["until_cold"] == "7"  # the median of 6 and 8
    assert lines["100", "ppo"]["until_cold"] == "never"  # one of two, and half of infinity is infinite
    assert script.table(rows[2:], "ppo") == []


def test_what_is_told_of_networks_and_transfer(load: Callable[[str], ModuleType]) -> None:
    script = load("policies_table")
    rows = [
        {"side": side, "seed": str(seed), "bests": bests}
        for side, curves in {
            "ppo": ("60:0.7 90:0.8", "80:0.9"),
            "warm": ("4:0.8 20:0.86", "2:0.88"),
            "zero-shot": ("2:0.5", "2:0.5"),
        }.items()
        for seed, bests in enumerate(curves)
    ]
    header, lines = script.network_lines(rows)
    assert header[-1] == "reaches `ppo` at 100 after"
    by = {line[0]: line[1:] for line in lines}
    assert by["ppo"][:2] == ("2", "")
    assert by["ppo"][-2:] == ("0.850 ± 0.635", "never")  # .85 at 90 never by the first; t = 12.706, deviation .0707
    assert by["warm"][-1] == "11"  # the median of 20 and 2
    assert by["zero-shot"][-1] == "never"
    assert script.gaps(rows, "warm", "zero-shot").startswith("`warm` against `zero-shot`: level at 10 (+0.340 ±")
    assert script.gaps(rows, "warm", "nobody") == ""
    transfer = [
        {"asked": asked, "side": side, "share_of_cold": share, "until_cold": until}
        for asked, side, share, until in (
            ("2", "zero-shot", "0.9600", "never"), ("2", "zero-shot", "0.9400", "never"),
            ("10", "warm", "1.0100", "7"), ("10", "warm", "", "never"),
        )
    ]  # fmt: skip
    assert script.transfer_lines(transfer)[1] == [
        ("2", "zero-shot", "0.950", "0.940", "1 of 2", "0 of 2"),
        ("10", "warm", "1.010", "1.010", "1 of 2", "1 of 2"),
    ]
    words = script.transfer_words(transfer)
    assert "has 95.0% of the reward that a cold start has after 100 (lowest 94.0%)" in words
    assert "met in 1 of 2 cases. `warm` reaches that reward within 10 students in 1 of 2 cases." in words
    assert script.transfer_words([]) == "Not run yet."


def test_the_aim_of_learning_is_told_with_what_is_missed(load: Callable[[str], ModuleType]) -> None:
    script = load("policies_table")

    def rows(**curves: tuple[str, ...]) -> list[dict[str, str]]:
        return [{"side": side, "bests": bests} for side, own in curves.items() for bests in own]

    met = rows(ppo=("60:0.75 90:0.875",) * 2, evolution=("70:0.75 80:0.875",) * 2, random=("60:0.5",) * 2)
    words = script.learning_aim(met, "Net")  # nobody has a student at 50
    assert words.startswith(
        "Net, 2 seeds, best reward after 100 students: `ppo` 0.875, `evolution` 0.875, `random` 0.500"
    )
    assert words.endswith("is met.")
    missed = rows(ppo=("60:0.75",) * 2, evolution=("70:0.75 80:0.875",) * 2, random=("60:0.75",) * 2)
    assert script.learning_aim(missed, "Net").endswith(
        "is missed: `ppo` is not above `random` at 75 (+0.000 ± 0.000), not above `random` at 100 (+0.000 ± 0.000),"
        " below `evolution` at 100 (-0.125 ± 0.000)."
    )
    assert script.learning_aim(met[:4], "Net") == ""


def test_cards_are_told_of_the_policy_beside_random_choice(load: Callable[[str], ModuleType]) -> None:
    script = load("policy_cards")

    def row(side: str, seed: int, best: str) -> dict[str, str]:
        policy = "mine" if side in ("zero-shot", "warm") else ""
        return {"network": "net", "data": "digits", "budget": "20%", "policy": policy, "asked": "10", "side": side,
                "seed": str(seed), "best": best}  # fmt: skip

    rows = [row("zero-shot", 0, "0.9"), row("zero-shot", 1, "0.8"), row("random", 0, "0.5"), row("random", 1, "0.75"),
            row("warm", 0, "0.9"), row("warm", 1, "")]  # fmt: skip
    (found,) = script.comparisons(rows, "mine")  # a mean without the seed that found nothing would flatter
    assert (found.mode, found.policy, found.random, found.seeds, found.judged) == ("zero-shot", 0.85, 0.625, 2, 10)
    assert list(script.comparisons(rows, "other")) == []


def test_ways_to_train_and_ablations_are_told_with_their_spread_over_seeds(load: Callable[[str], ModuleType]) -> None:
    script = load("policies_table")
    whole = "searches, then layers to keep"
    rows = [
        {"way": way, "seed": str(seed), "network": network, "share": share, "agreement": agreement, "minutes": "1.5"}
        for way, seed, network, share, agreement in (
            (whole, 0, "a", "0.1", "0.8"), (whole, 0, "b", "0.1", "0.6"), (whole, 0, "a", "0.4", "0.9"),
            (whole, 1, "a", "0.1", "0.9"), (whole, 1, "b", "0.1", "0.9"), (whole, 1, "a", "0.4", "0.9"),
            ("layers to keep, not told the goal", 0, "a", "0.1", "0.5"),
            ("layers to keep, not told the goal", 1, "a", "0.1", "0.5"),
        )
    ]  # fmt: skip
    header, lines = script.training_lines(rows)
    assert header[-2:] == ("agreement at 10%", "agreement at 40%")
    # seeds have .7 and .9: a mean of .8 and t = 12.706 times a deviation of .1414 over the root of 2
    assert lines[0] == (whole, "2", "1.5", "0.800 ± 1.271", "0.900 ± 0.000")
    learning = [
        {"agent": agent, "seed": str(seed), "bests": bests}
        for agent, curves in {"ppo": ("9:93 80:94 400:95", "2:94"), "entropy 0": ("3:93.5", "4:93.5")}.items()
        for seed, bests in enumerate(curves)
    ]
    header, lines = script.ablation_lines(learning, rows)
    assert header[-1] == "difference"
    assert lines[0][0] == "entropy 0"
    assert lines[0][3:] == ("94.00", "93.50", "-0.50 ± 0.00")
    # means of a seed over networks and shares: (.8 + .6 + .9) / 3 and .9, against .5 twice
    assert lines[1][3:5] == ("0.833", "0.500")
    assert lines[1][5].startswith("-0.333 ± 0.847")
    assert len(script.ablation_lines(learning, [])[1]) == 1


def test_the_networks_take_the_digits_and_have_something_to_decide(load: Callable[[str], ModuleType]) -> None:
    script = load("policy_networks")
    assert set(script.HELD_BACK).isdisjoint(script.SETS["residual-plain"])
    assert set(script.SETS["all"]) == set(script.NETWORKS)
    for name in script.NETWORKS:
        network = script.NETWORKS[name]().eval()
        images = torch.rand(2, 1, 8, 8)
        assert network(images).shape == (2, 10), name
        space = layer_shrinkage(network, images)
        assert 10_000 < space.teacher_cost.parameters < 200_000, name
        assert space.num_decisions > 2, name


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*chance level")
def test_training_that_was_cut_off_ends_as_it_would_have(
    load: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = load("train_policies")
    flags = "--set vgg-5 --epochs 1 --cheap 2 --rounds 1 --each 1 --teach 2 --students 2 --save 1 --encoder decisions"
    flags += " --keeping 1 --keeping-each 2"
    monkeypatch.setitem(script.SEARCH, "students", 3)  # of each of 4 batches
    monkeypatch.setitem(script.JUDGED, "searches", 12)

    def weights(out: str, dear: int) -> list[bytes]:
        words = ["train_policies.py", *flags.split(), "--hidden", "8", "--dear", str(dear)]
        folders = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / out)]
        monkeypatch.setattr(sys, "argv", [*words, *folders])
        script.main()
        card = Library(tmp_path).find(out).card
        assert card is not None
        assert card.judged == 2 * (2 + dear) + 2 * 4 * 3 + 2 * 14  # the last are of the biases that are tried
        assert {point.stage for point in card.curve} >= {"shrinkage, searches", "removal, searches"}
        return [path.read_bytes() for path in sorted((tmp_path / out).rglob("*.safetensors"))]

    weights("half", 0)
    whole = weights("whole", 2)
    (work,) = (tmp_path / "work").glob("vgg-5-*")
    for pattern in ("searches, 1, *", "closed form after 1 rounds, *"):
        for path in work.glob(pattern):
            path.unlink()
    assert weights("again", 2) == whole
    assert len(whole) == 2
