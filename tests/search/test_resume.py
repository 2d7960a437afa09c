"""Runs that are cut off go on as if nothing had happened."""

from __future__ import annotations

import hashlib
import json
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import n2n
from n2n.data import Data, load
from n2n.distill.precision import resolve
from n2n.evaluate.base import Evaluate, Evaluation
from n2n.evaluate.fake import fake
from n2n.evaluate.memory import CacheError
from n2n.search.errors import ArtefactError, ChanceLevelWarning, SearchError, WriteError
from n2n.search.files import read_json
from n2n.search.progress import Silent
from n2n.search.store import read_records
from search_spaces.base import Architecture, SearchSpace

OPTIONS: dict[str, Any] = {
    "agent": "reinforce",
    "max_params": "60%",
    "evaluations": 16,
    "rollouts": 3,
    "final_epochs": 0.1,
    "finalists": 2,
    "factors": (0.25, 0.5, 0.75, 1.0),
    "progress": False,
    "threads": 1,
}


class Killed(BaseException):
    """Stands for a signal that nothing can catch."""


class Judge:
    """A quick judge that counts, and dies at a given judgement."""

    def __init__(self, dies_at: int | None = None) -> None:
        self.dies_at = dies_at
        self.judged: list[str] = []

    def __call__(self, space: SearchSpace) -> Evaluate:
        inner = fake(space, worth)

        def judge(students: Sequence[Architecture]) -> list[Evaluation]:
            found = []
            for student in students:
                if len(self.judged) == self.dies_at:
                    raise Killed
                self.judged.append(student.fingerprint)
                found += inner([student])
            return found

        return judge


def worth(student: Architecture) -> float:
    """A value in [0.2, 0.9] that follows from the student alone."""
    return 0.2 + 0.7 * int(hashlib.sha256(student.fingerprint.encode()).hexdigest()[:4], 16) / 65535


@pytest.fixture(scope="module")
def digits() -> Data:
    return load("digits")


@pytest.fixture(scope="module")
def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(12, 12, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(12, 12, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(48, 10),
        )


def left(out: Path) -> dict[str, Any]:
    """What a run leaves, without its seconds."""
    rows = [
        (one.stage, one.iteration, one.reward, one.cached, one.evaluation.fingerprint, one.evaluation.accuracy)
        for one in read_records(out)
    ]
    result = read_json(out / "result.json")
    students = [(one["fingerprint"], one["reward"], one["figures"]["test_accuracy"]) for one in result["students"]]
    policies = {
        str(path.relative_to(out)): {name: value.tolist() for name, value in load_file(path).items()}
        for path in sorted(out.glob("policies/*/policy.safetensors"))
    }
    weights = {
        str(path.relative_to(out)): {name: value.tolist() for name, value in load_file(path).items()}
        for path in sorted(out.glob("students/*/model.safetensors"))
    }
    return {"rows": rows, "students": students, "policies": policies, "weights": weights}


def stored(out: Path) -> list[str]:
    """The students whose judgements are on disk."""
    with closing(sqlite3.connect(out / "judged.sqlite")) as connection:
        return [row[0] for row in connection.execute("SELECT fingerprint FROM judgements")]


@pytest.mark.filterwarnings("ignore:.*chance level")
@pytest.mark.parametrize("agent", ["reinforce", pytest.param("evolution", marks=pytest.mark.slow)])
def test_killed_at_any_judgement_a_run_goes_on_as_it_would_have(
    network: nn.Module, digits: Data, tmp_path: Path, agent: str
) -> None:
    def run(out: Path, judge: Judge, **more: Any) -> None:
        n2n.search(network, None, digits, out=out, make_evaluate=judge, **{**OPTIONS, "agent": agent}, **more)

    whole = Judge()
    run(tmp_path / "whole", whole)
    wanted = left(tmp_path / "whole")
    total = len(whole.judged)
    for dies_at in sorted({0, 1, total - 1, *random.Random(0).sample(range(2, total - 1), 2)}):
        out = tmp_path / f"killed at {dies_at}"
        first, second = Judge(dies_at), Judge()
        with pytest.raises(Killed):
            run(out, first)
        known = stored(out)
        assert len(known) > dies_at - OPTIONS["rollouts"]  # at most the batch that was cut is lost
        run(out, second, resume=True)
        assert left(out) == wanted
        assert second.judged == whole.judged[len(known) :]  # nobody that was stored is judged again


@pytest.mark.filterwarnings("ignore:.*chance level")
def test_killed_twice_it_still_does(network: nn.Module, digits: Data, tmp_path: Path) -> None:
    def run(out: Path, judge: Judge, **more: Any) -> None:
        n2n.search(network, None, digits, out=out, make_evaluate=judge, **OPTIONS, **more)

    run(tmp_path / "whole", Judge())
    out = tmp_path / "killed"
    with pytest.raises(Killed):
        run(out, Judge(9))
    with pytest.raises(Killed):
        run(out, Judge(2), resume=True)
    run(out, Judge(), resume=True)
    assert left(out) == left(tmp_path / "whole")


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file grows beyond so many bytes inside: as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.filterwarnings("ignore:.*chance level", "ignore:.*cannot be written:RuntimeWarning")
@pytest.mark.parametrize("size", [36_000, 60_000])
def test_a_full_disk_stops_a_run_that_goes_on_when_there_is_space(
    network: nn.Module, digits: Data, tmp_path: Path, size: int
) -> None:
    """The store, whose log grows with every batch, is the first that does not fit."""
    n2n.search(network, None, digits, out=tmp_path / "whole", make_evaluate=Judge(), **OPTIONS)
    out = tmp_path / "full"
    with files_up_to(size), pytest.raises(WriteError, match=r"evaluations\.sqlite.*Earlier batches are safe"):
        n2n.search(network, None, digits, out=out, make_evaluate=Judge(), **OPTIONS)
    known, second = {one.evaluation.fingerprint for one in read_records(out)} & {*stored(out)}, Judge()
    assert known
    n2n.search(network, None, digits, out=out, make_evaluate=second, resume=True, **OPTIONS)
    assert left(out) == left(tmp_path / "whole")
    assert not known & {*second.judged}


@pytest.mark.filterwarnings("ignore:.*chance level")
def test_what_cannot_be_gone_on_with_is_refused(network: nn.Module, digits: Data, tmp_path: Path) -> None:
    def run(out: Path, judge: Judge, **more: Any) -> None:
        n2n.search(network, None, digits, out=out, make_evaluate=judge, **{**OPTIONS, **more})

    with pytest.raises(ArtefactError, match=r"no config\.json"):
        run(tmp_path / "nothing", Judge(), resume=True)
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "states.json").write_text("{}")
    with pytest.raises(ArtefactError, match="is a sweep, not a single run: `n2n sweep --resume"):
        run(tmp_path / "sweep", Judge(), resume=True)
    with pytest.raises(Killed):
        run(tmp_path / "cut", Judge(5))
    with pytest.raises(ArtefactError, match="seed=0, not 1"):
        run(tmp_path / "cut", Judge(), resume=True, seed=1)
    other = nn.Sequential(*[*network.children()][:-1], nn.Linear(48, 10))
    with pytest.raises(ArtefactError, match="teacher_fingerprint"):
        n2n.search(other, None, digits, out=tmp_path / "cut", make_evaluate=Judge(), resume=True, **OPTIONS)
    config = json.loads((tmp_path / "cut" / "config.json").read_text())
    del config["policy_mode"]  # as an earlier version has written it, which had none
    (tmp_path / "cut" / "config.json").write_text(json.dumps(config))
    run(tmp_path / "cut", Judge(), resume=True)
    with pytest.raises(ArtefactError, match="came to its end"):
        run(tmp_path / "cut", Judge(), resume=True)


@pytest.mark.filterwarnings("ignore:.*chance level")
def test_another_way_than_before_is_noticed(network: nn.Module, digits: Data, tmp_path: Path) -> None:
    def run(judge: Judge, **more: Any) -> None:
        n2n.search(network, None, digits, out=tmp_path / "cut", make_evaluate=judge, **OPTIONS, **more)

    with pytest.raises(Killed):
        run(Judge(8))
    (tmp_path / "cut" / "judged.sqlite").unlink()

    def changed(space: SearchSpace) -> Evaluate:
        return fake(space, lambda student: 1 - worth(student))

    with pytest.raises(SearchError, match="goes another way"):
        n2n.search(network, None, digits, out=tmp_path / "cut", make_evaluate=changed, resume=True, **OPTIONS)


@pytest.mark.filterwarnings("ignore:.*chance level")
def test_students_that_were_finished_are_not_distilled_again(network: nn.Module, digits: Data, tmp_path: Path) -> None:
    """The end is cut off behind the first student: what is missing is made, what is there stays as it is."""
    out = tmp_path / "run"
    n2n.search(network, None, digits, out=out, make_evaluate=Judge(), **OPTIONS)
    wanted = left(out)
    finished = read_json(out / "finished.json")
    assert len(finished["students"]) == 2
    (out / "finished.json").write_text(json.dumps({"students": finished["students"][:1]}))
    (out / "result.json").unlink()
    shutil.rmtree(out / "students" / "2")
    before = (out / "students" / "1" / "card.json").stat().st_mtime_ns
    judge = Judge()
    n2n.search(network, None, digits, out=out, make_evaluate=judge, resume=True, **OPTIONS)
    assert left(out) == wanted
    assert judge.judged == []
    assert (out / "students" / "1" / "card.json").stat().st_mtime_ns == before


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from n2n.cli.main import main; main()", *arguments]


def started(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.mark.slow
@pytest.mark.parametrize("ladder", [[], ["--rung", "refit:0", "--rung", "inherited:20"]])
def test_kill_minus_nine_at_any_moment(tmp_path: Path, ladder: list[str]) -> None:
    """The command, killed a few times wherever it is, ends like one that was left alone."""
    asked = ["search", "--evaluations", "10", "--steps", "20", "--final-epochs", "1", "--threads", "1", *ladder]
    if ladder:
        asked = [one for one in asked if one not in ("--steps", "20")]
    run: Callable[[list[str]], Any] = lambda words: subprocess.run(words, check=True, capture_output=True)  # noqa: E731
    run(command("train-teacher", "resnet20", "--network-arg", "width=4", "--epochs", "2", "--out", str(tmp_path / "t")))
    asked += ["--teacher", str(tmp_path / "t")]
    run(command(*asked, "--out", str(tmp_path / "whole")))
    killed = tmp_path / "killed"
    process = started(*asked, "--out", str(killed))
    deadline = time.monotonic() + 120
    while not (killed / "judged.sqlite").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    draw = random.Random(1)
    for _ in range(4):
        time.sleep(draw.uniform(0.0, 8.0))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process = started("search", "--resume", str(killed))
    assert process.wait(timeout=300) in (0, 2)  # 2: it had come to its end before the last kill
    assert left(killed) == left(tmp_path / "whole")


@pytest.mark.filterwarnings("ignore:.*chance level")
def test_a_run_on_another_machine_is_gone_on_with(network: nn.Module, digits: Data, tmp_path: Path) -> None:
    """What a run stored is found again whatever the processor; a shared file keeps judgements of machines apart."""
    n2n.search(network, None, digits, out=tmp_path / "run", cache=tmp_path / "shared.sqlite",
               **{**OPTIONS, "evaluations": 2, "steps": 2, "rollouts": 2, "removal": False})  # fmt: skip
    with closing(sqlite3.connect(tmp_path / "run" / "judged.sqlite")) as own:
        kept = {row[0] for row in own.execute("SELECT recipe FROM judgements")}
    with closing(sqlite3.connect(tmp_path / "shared.sqlite")) as shared:
        apart = {row[0] for row in shared.execute("SELECT recipe FROM judgements")}
    (recipe,), (longer,) = kept, apart
    assert longer.startswith(f"{recipe} cpu {resolve('auto', network, 'cpu').name}")


@pytest.mark.filterwarnings("ignore:.*chance level")
def test_a_cache_knows_data_by_normalisation_and_teachers_by_what_they_compute(
    network: nn.Module, digits: Data, tmp_path: Path
) -> None:
    options = {**OPTIONS, "evaluations": 2, "steps": 2, "rollouts": 2, "removal": False}
    n2n.search(network, None, digits, out=tmp_path / "one", cache=tmp_path / "shared.sqlite", **options)
    other = replace(digits, training=replace(digits.training, mean=(0.25,)))
    with pytest.raises(CacheError, match="another data"):
        n2n.search(network, None, other, out=tmp_path / "two", cache=tmp_path / "shared.sqlite", **options)
    curved = nn.Sequential(*[nn.GELU() if isinstance(one, nn.ReLU) else one for one in network.children()])
    with pytest.raises(CacheError, match="another teacher"):
        n2n.search(curved, None, digits, out=tmp_path / "two", cache=tmp_path / "shared.sqlite", **options)
    assert not (tmp_path / "two").exists()


@pytest.mark.filterwarnings("ignore:.*chance level")
def test_an_interrupt_of_the_long_distillation_is_gone_on_with(
    network: nn.Module, digits: Data, tmp_path: Path
) -> None:
    """Its result says that it was interrupted, and the student that was cut short is distilled again."""

    class Interrupting(Silent):
        def begin(self, name: str, total: int) -> None:
            if name.startswith("student"):
                raise KeyboardInterrupt

    n2n.search(network, None, digits, out=tmp_path / "whole", make_evaluate=Judge(), **OPTIONS)
    out = tmp_path / "cut"
    options = {**OPTIONS, "progress": Interrupting()}
    result = n2n.search(network, None, digits, out=out, make_evaluate=Judge(), **options)
    assert result.stopped == read_json(out / "result.json")["stopped"] == "interrupted"
    n2n.search(network, None, digits, out=out, make_evaluate=Judge(), resume=True, **OPTIONS)
    assert left(out) == left(tmp_path / "whole")


def test_time_that_was_spent_is_not_spent_again(network: nn.Module, digits: Data, tmp_path: Path) -> None:
    """A stage that went on goes on in the replay, though its stored judgements say that they took for ever."""

    class Slow(Judge):
        def __call__(self, space: SearchSpace) -> Evaluate:
            inner = super().__call__(space)
            return lambda students: [replace(one, seconds=1000.0) for one in inner(students)]

    options = {**OPTIONS, "seconds": 600.0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ChanceLevelWarning)
        with pytest.raises(Killed):
            n2n.search(network, None, digits, out=tmp_path / "cut", make_evaluate=Slow(10), **options)
        found = n2n.search(network, None, digits, out=tmp_path / "cut", make_evaluate=Slow(), resume=True, **options)
    assert (found.stopped, found.evaluations) == ("evaluations", 16)


@pytest.mark.filterwarnings("ignore:.*chance level")
def test_another_policy_to_start_from_is_refused(network: nn.Module, digits: Data, tmp_path: Path) -> None:
    options = {**OPTIONS, "evaluations": 6}
    for name, seed in (("a", 0), ("b", 1)):
        n2n.search(network, None, digits, out=tmp_path / name, make_evaluate=Judge(), **options, seed=seed)
    with pytest.raises(Killed):
        n2n.search(
            network, None, digits, out=tmp_path / "cut", make_evaluate=Judge(3), policy=tmp_path / "a", **options
        )
    with pytest.raises(ArtefactError, match="policy_key"):
        n2n.search(network, None, digits, out=tmp_path / "cut", make_evaluate=Judge(), policy=tmp_path / "b",
                   resume=True, **options)  # fmt: skip
