"""Options refuse what cannot be, and know their stages."""

from __future__ import annotations

import json
from typing import Any

import pytest

from n2n.reward import SHORTFALL
from n2n.search.errors import SearchError
from n2n.search.options import SearchOptions, lines_of


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"evaluations": 0}, "evaluations=0"),
        ({"rollouts": 0}, "rollouts=0"),
        ({"seconds": 0.0}, "seconds=0.0"),
        ({"final_epochs": float("nan")}, "final_epochs"),
        ({"workers": -1}, "workers=-1"),
        ({"workers": "all"}, "workers='all' must be 0 .* or 'auto'"),
        ({"workers": True}, "workers=True must be"),
        ({"address": "10.0.0.1:6379"}, "address='10.0.0.1:6379' without workers has no effect"),
        ({"gpus_per_worker": 0.25}, "gpus_per_worker=0.25 without workers has no effect"),
        ({"workers": 2, "gpus_per_worker": 0.25}, "gpus_per_worker=0.25 with device='cpu'"),
        ({"workers": 2, "gpus_per_worker": 1.5}, "gpus_per_worker=1.5 must be a fraction"),
        ({"importance": "size"}, "choose one of l1, l2"),
        ({"granularity": "net"}, "choose one of layer, block"),
        ({"factors": (0.5, 0.25, 1.0)}, "ascend"),
        ({"factors": (0.5, 0.9)}, "end at 1.0"),
        ({"objective": "mse"}, "choose one of kd, logit_mse, ce"),
        ({"precision": "fp8"}, "choose one of auto, fp32, bf16"),
        ({"threads": 0}, "threads=0 must be a number from 1 to"),
        ({"threads": 100_000}, "threads=100000 must be a number from 1 to"),
        ({"threads": True}, "threads=True must be"),
        ({"threads": "many"}, "threads='many' must be .*'auto' to measure"),
        ({"device": "gpu"}, "device='gpu' does not exist; choose cpu, cuda"),
        ({"device": "cuda:99"}, "device='cuda:99' is not there: PyTorch finds"),
        ({"device": "meta"}, "cannot train students"),
        ({"max_latency_ms": 0.0}, "max_latency_ms: a budget must be above 0"),
        ({"max_latency_ms": float("inf")}, "max_latency_ms: .*inf"),
        ({"max_size_mb": "-1%"}, "max_size_mb: a budget must be above 0"),
        ({"max_size_mb": "small"}, "max_size_mb: budget 'small' is not a number"),
        ({"max_params": 0.2}, "max_params: .* write '20%'"),
        ({"removal": False, "shrinkage": False}, "nothing to search"),
    ],
)
def test_what_cannot_be_is_refused(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(SearchError, match=words):
        SearchOptions(**changed)


def test_stages() -> None:
    assert SearchOptions().stages == ("removal", "shrinkage")
    assert SearchOptions(shrinkage=False).stages == ("removal",)
    assert SearchOptions(agent="uniform").stages == ("shrinkage",)
    assert SearchOptions(agent="uniform", shrinkage=False).stages == ("removal",)
    assert SearchOptions(evaluations=1).stages == ("shrinkage",)
    assert SearchOptions(evaluations=1, shrinkage=False).stages == ("removal",)
    assert SearchOptions(evaluations=2).stages == ("removal", "shrinkage")


def test_the_record_is_json() -> None:
    options = SearchOptions(max_params="20%", factors=(0.5, 1.0))
    read = json.loads(json.dumps(options.to_json()))
    assert (read["max_params"], read["factors"], read["ignored_layers"]) == ("20%", [0.5, 1.0], [])


def test_promotion_without_a_ladder_is_refused():
    with pytest.raises(SearchError, match=r"promote=0\.5 without a ladder"):
        SearchOptions(promote=0.5)
    assert SearchOptions(promote=0.5, ladder=("refit:0", "refit:9")).rungs[1].recipe.steps == 9


def test_expectations_go_with_the_rungs_of_the_ladder():
    line = ("refit:0", 0.7, 0.2, 0.01)
    assert SearchOptions(ladder=("refit:0",), expects=(line,)).begins == "inherited"
    with pytest.raises(SearchError, match="the ladder is empty"):
        SearchOptions(expects=(line,))
    with pytest.raises(SearchError, match=r"one line .* for each rung"):
        SearchOptions(ladder=("refit:0", "refit:9"), expects=(line,))
    with pytest.raises(SearchError, match="finite"):
        SearchOptions(ladder=("refit:0",), expects=(("refit:0", 0.7, float("nan"), 0.01),))
    with pytest.raises(SearchError, match=r"expects\['refit:0'\]: expected \(intercept"):
        lines_of({"refit:0": (0.7, 0.2)})


def test_shortfalls_count_in_part_where_the_judgement_is_quick():
    line = (("refit:0", 0.5, 0.5, 0.01),)
    assert SearchOptions().counted_shortfall == SHORTFALL == 0.35
    assert SearchOptions(ladder=("refit:0", "refit:60")).counted_shortfall == SHORTFALL
    assert SearchOptions(ladder=("refit:0", "inherited:1e")).counted_shortfall == 1, "epochs are the end"
    assert SearchOptions(ladder=("refit:0",), expects=line).counted_shortfall == 1, "a calibration knows better"
    assert SearchOptions(ladder=("refit:0", "inherited:1e"), shortfall=0.5).counted_shortfall == 0.5
    for wrong in (0.0, 1.5, float("nan")):
        with pytest.raises(SearchError, match="shortfall="):
            SearchOptions(shortfall=wrong)
    with pytest.raises(SearchError, match=r"shortfall=0.5 would have no effect"):
        SearchOptions(evaluate="naswot", shortfall=0.5)
