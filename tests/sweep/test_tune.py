"""Trials under Ray Tune with a search that is made up: some are better, some die, some fail."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from n2n.search.progress import Display
from n2n.sweep.rows import Ending
from n2n.sweep.shown import Line
from n2n.sweep.trials import Trial
from n2n.sweep.tune import Plan, TrialError, Watch, run_trials

STUDENTS = 8


def made_up(settings: Mapping[str, Any], *, out: Path, shared: Path, resume: bool, display: Display) -> None:
    """Judges as many students, two in a batch, each worth what the settings say."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / "begun").open("a") as file:
        file.write("x")
    display.begin("removal", STUDENTS)
    for done in range(2, STUDENTS + 1, 2):
        display.update(done, best=settings["worth"])
        if done == 4 and settings["does"] == "die" and (out / "begun").read_text() == "x":
            os._exit(1)
        if settings["does"] == "raise":
            raise RuntimeError("bad luck")
        if settings["does"] == "refuse":
            raise TrialError("this cannot be")


class Board:
    """Shows nothing, and cannot be pickled, like the live table."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.lines: Sequence[Line] = ()

    def show(self, lines: Sequence[Line]) -> None:
        with self.lock:
            self.lines = lines

    def close(self) -> None:
        """Nothing to do."""


@pytest.fixture
def by_value() -> Iterator[None]:
    """Workers cannot import test modules, so what is defined here travels whole."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures("by_value")
def test_the_better_go_on_the_dead_are_tried_again_and_nobody_else_suffers(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    does = {"good": (0.9, ""), "bad": (0.1, ""), "dies": (0.95, "die"), "raises": (0.96, "raise"),
            "refuses": (0.97, "refuse")}  # fmt: skip
    trials = [Trial(name, {"worth": worth, "does": what}, {"worth": worth}) for name, (worth, what) in does.items()]
    saved: list[Mapping[str, Ending]] = []
    board = Board()
    watch = Watch([Line(name, STUDENTS) for name in does], board, lambda now: saved.append({**now}))
    plan = Plan(
        trials_at_once=1,
        cpus_per_trial=1,
        gpus_per_trial=0.0,
        scheduler="asha",
        retries=1,
        storage=str(tmp_path / "ray"),
        kept=True,
    )
    run_trials(trials, made_up, folder=tmp_path / "trials", shared=tmp_path, name="sweep-1", plan=plan,
               most_students=STUDENTS, watch=watch)  # fmt: skip
    endings = saved[-1]
    assert {name: one.state for name, one in endings.items()} == {
        "good": "finished",
        "bad": "stopped",
        "dies": "finished",
        "raises": "failed",
        "refuses": "failed",
    }
    assert [one.state for one in board.lines] == [one.state for one in endings.values()]
    assert endings["bad"].reason == "ended by the scheduler after 2 students: others are better"
    assert "bad luck" in endings["raises"].reason
    assert endings["refuses"].reason == "this cannot be"
    attempts = {name: len((tmp_path / "trials" / name / "begun").read_text()) for name in does}
    assert attempts == {"good": 1, "bad": 1, "dies": 2, "raises": 2, "refuses": 1}
    # With a storage of its own, a finished run folder goes there, too.
    assert [*(tmp_path / "ray" / "sweep-1" / "good").glob("checkpoint_*/begun")]
    assert not [*(tmp_path / "ray" / "sweep-1" / "bad").glob("checkpoint_*")]
    said = "".join(capfd.readouterr())
    assert "trial" not in said.casefold()  # Tune keeps silent; Ray itself tells of a worker that died
