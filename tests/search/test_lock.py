"""A folder is one search's at a time, and is free again however that search ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
from torch import nn

import n2n
from n2n.data import Data
from n2n.evaluate.base import Evaluate
from n2n.evaluate.fake import fake
from n2n.search.errors import ArtefactError
from n2n.search.lock import claimed, held_by, hold
from search_spaces.base import SearchSpace

OTHER = """
import sys, pathlib
from n2n.search.lock import hold
with hold(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def other_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A second process that holds the folder until it is killed."""
    with subprocess.Popen(
        [sys.executable, "-c", OTHER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_second_process_is_refused_by_name_until_the_first_is_killed(tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "report.md").write_text("theirs")
    with other_process(out) as process:
        holder = held_by(out)
        assert holder is not None
        assert (holder.pid, holder.host) == (process.pid, os.uname().nodename)
        assert abs((datetime.now(UTC) - datetime.fromisoformat(holder.since)).total_seconds()) < 60
        for force in (False, True):
            with pytest.raises(ArtefactError, match=rf"in use: process {process.pid} on "), claimed(out, force=force):
                pytest.fail("it is held")
        with pytest.raises(ArtefactError, match=rf"process {process.pid} on .* choose another folder"), hold(out):
            pytest.fail("it is held")
        assert (out / "report.md").read_text() == "theirs"
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (out / ".lock").exists(), "it could not clean up"
        assert held_by(out) is None
        with claimed(out, force=True):
            assert held_by(out) is not None
            assert not (out / "report.md").exists()
    assert held_by(out) is None
    assert list(out.iterdir()) == []


def test_a_folder_is_held_once_within_a_process_too_and_freed_by_an_error(tmp_path: Path) -> None:
    def fails() -> None:
        with hold(tmp_path):
            with pytest.raises(ArtefactError, match=f"process {os.getpid()}"), hold(tmp_path):
                pytest.fail("it is held")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert held_by(tmp_path) is None
    with hold(tmp_path):
        pass


def test_a_lock_that_a_killed_search_left_is_not_in_the_way_of_a_new_one(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text('{"pid": 1')
    assert held_by(tmp_path) is None
    with claimed(tmp_path, force=False):
        pass


def test_a_folder_that_was_not_there_and_stays_empty_goes(tmp_path: Path) -> None:
    for written in (False, True):
        with claimed(tmp_path / "run", force=False):
            if written:
                (tmp_path / "run" / "run.log").write_text("begun")
        assert (tmp_path / "run").exists() is written


def test_a_folder_with_other_things_is_refused_without_a_trace(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(ArtefactError, match="not empty"), claimed(tmp_path, force=False):
        pytest.fail("it holds something")
    assert [one.name for one in tmp_path.iterdir()] == ["mine.txt"]


def test_of_many_at_once_one_is_inside(tmp_path: Path) -> None:
    inside, most, times = 0, 0, 0
    guard = threading.Lock()

    def work() -> None:
        nonlocal inside, most, times
        for _ in range(5):
            try:
                with hold(tmp_path):
                    with guard:
                        inside, times = inside + 1, times + 1
                        most = max(most, inside)
                    time.sleep(0.002)
                    with guard:
                        inside -= 1
            except ArtefactError:
                pass

    workers = [threading.Thread(target=work) for _ in range(6)]
    for one in workers:
        one.start()
    for one in workers:
        one.join()
    assert most == 1
    assert times > 5
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore::n2n.search.errors.ChanceLevelWarning")
def test_a_search_holds_its_folder_from_its_claim_to_its_end(
    network: nn.Module, example: torch.Tensor, digits: Data, tmp_path: Path
) -> None:
    held: list[bool] = []

    def make_evaluate(space: SearchSpace) -> Evaluate:
        held.append(held_by(tmp_path / "run") is not None)
        return fake(space, lambda student: 0.5)

    limits = {"evaluations": 2, "rollouts": 1, "finalists": 1, "final_epochs": 0.05, "removal": False}
    search = {**limits, "out": tmp_path / "run", "force": True, "progress": False}
    with hold(tmp_path / "run"), pytest.raises(ArtefactError, match="is in use"):
        n2n.search(network, example, digits, **search)
    assert not (tmp_path / "run").exists()
    n2n.search(network, example, digits, make_evaluate=make_evaluate, **search)
    assert held == [True]
    assert held_by(tmp_path / "run") is None
    assert not (tmp_path / "run/.lock").exists()
    assert not list((tmp_path / "run").glob("evaluations.sqlite-*"))
