"""Going on with a run that was cut off.

The run is played again from its seed, and every judgement that it stored is taken from its own file instead of being
made: the agent meets the same rewards, learns the same, and goes on exactly as it would have. So whatever is committed
with a judgement is the whole state of the search, and no separate checkpoint can disagree with it.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from n2n.distill.fit import FitResult
from n2n.distill.probe import Probed
from n2n.networks import Latency
from n2n.search.budgets import TEACHER
from n2n.search.conclude import StudentResult
from n2n.search.errors import ArtefactError
from n2n.search.files import read_json, write_csv
from n2n.search.finish import Figures
from n2n.search.stage import Stored
from n2n.search.store import FILE, Record, read_records

JOURNAL = "judged.sqlite"
"""The run's own judgements by rung, seed and student, each on disk as soon as it is made."""
CONFIG, ENVIRONMENT, RESULT, FINISHED = "config.json", "environment.json", "result.json", "finished.json"
CURVE, EARLIER_CURVE = "learning_curve.csv", "learning_curve.earlier.csv"
RESUMABLE = ("interrupted", "full disk")
"""What a result may have been stopped by that is gone on with."""
FREE = frozenset({"workers", "address", "gpus_per_worker", "seconds", "cache", "command", "teacher_latency"})
"""Keys of the configuration that may differ between a run and its resumption: they do not change what is found."""


@dataclass(frozen=True)
class Earlier:
    """What the run left before it was cut off."""

    folder: Path
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    records: tuple[Record, ...]

    @classmethod
    def read(cls, folder: Path) -> Earlier:
        """Reads a run folder.

        Raises:
            ArtefactError: it is not one, is damaged, or the run came to its end.
        """
        if (folder / "states.json").is_file():
            raise ArtefactError(f"{folder} is a sweep, not a single run: `n2n sweep --resume {folder}` goes on with it")
        if not (folder / CONFIG).is_file():
            raise ArtefactError(f"{folder} has no {CONFIG}: there is no run to go on with; start one without resume")
        if (folder / RESULT).is_file():
            stopped = read_json(folder / RESULT, ("stopped",))["stopped"]
            if stopped not in RESUMABLE:
                raise ArtefactError(f"the run in {folder} came to its end (by: {stopped}); there is nothing to resume")
        config = read_json(folder / CONFIG)
        if config.get("asynchronous"):
            raise ArtefactError(
                f"the run in {folder} was asynchronous: what it did next was up to the clock, so it cannot go on as it"
                f" would have; start another with cache={str(folder / JOURNAL)!r} and nobody is judged twice"
            )
        records = tuple(read_records(folder)) if (folder / FILE).is_file() else ()
        environment = read_json(folder / ENVIRONMENT) if (folder / ENVIRONMENT).is_file() else {}
        return cls(folder, config, environment, records)

    def probed(self, device: str) -> Probed | None:
        """What the run measured to be fastest; it is not measured again, for other settings round otherwise."""
        found = self.environment.get("probe")
        return None if not found else Probed.from_json(found, device)

    @property
    def threads(self) -> int | None:
        """The threads that the run was computed with."""
        found = self.environment.get("threads")
        return found if isinstance(found, int) else None

    @property
    def latencies(self) -> dict[str, Latency]:
        """What the run has timed: the teacher, of which budgets are shares, and its students by fingerprint."""
        found = {}
        for one in (record.evaluation for record in self.records):
            if one.latency_ms is not None and one.latency_iqr_ms is not None and one.latency_device is not None:
                found[one.fingerprint] = Latency(one.latency_ms, one.latency_iqr_ms, 1, one.latency_device)
        teacher = self.config.get("teacher_latency")
        return found if not teacher else {**found, TEACHER: Latency(**teacher)}

    def check(self, config: Mapping[str, Any]) -> None:
        """Refuses to go on with another configuration, teacher or data.

        Raises:
            ArtefactError: a key differs; its name and both values are told.
        """
        for name, value in json.loads(json.dumps(config)).items():  # as it is read back: tuples are lists
            known = self.config.get(name, value)  # what an earlier version did not know, it did not do otherwise
            if name not in FREE and known != value:
                raise ArtefactError(
                    f"the run in {self.folder} was made with {name}={known!r}, not {value!r}; resume it with the same,"
                    " or start another"
                )

    def replay(self, stage: str, iteration: int) -> Stored:
        """What the run stored of a batch; see `n2n.search.stage.Replay`."""
        stored = self._batches.get((stage, iteration), ())
        seconds, judging = self._drawn.get((stage, iteration), (None, None))
        followed = (stage, iteration + 1) in self._batches
        ended = any(self._order[other] > self._order[stage] for other, _ in self._batches) if stored else False
        return Stored(stored, seconds, judging, False if followed else True if ended else None)

    @cached_property
    def _batches(self) -> dict[tuple[str, int], tuple[Record, ...]]:
        found: dict[tuple[str, int], tuple[Record, ...]] = {}
        for one in self.records:
            found[one.stage, one.iteration] = (*found.get((one.stage, one.iteration), ()), one)
        return found

    @cached_property
    def _order(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(dict.fromkeys(one.stage for one in self.records))}

    @cached_property
    def _drawn(self) -> dict[tuple[str, int], tuple[float, float]]:
        """By batch, the stage's seconds, and those of them inside the evaluator, from the learning curves."""
        return {
            (row["stage"], int(row["iteration"])): (float(row["seconds"]), float(row["judging"]))
            for row in self._curve_rows()
            if row.get("seconds") and row.get("judging")
        }

    def _curve_rows(self) -> list[dict[str, str]]:
        """The rows of the attempts before the last one, which may have been cut off in its replay, then its own."""
        rows: dict[tuple[str, str], dict[str, str]] = {}
        for name in (EARLIER_CURVE, CURVE):
            if (self.folder / name).is_file():
                with (self.folder / name).open(newline="", encoding="utf-8") as file:
                    rows.update({(row["stage"], row["iteration"]): row for row in csv.DictReader(file)})
        return list(rows.values())

    def take_curve(self) -> None:
        """Puts the learning curve aside, for the replay draws it again."""
        rows = self._curve_rows()
        if rows:
            write_csv(self.folder / EARLIER_CURVE, tuple(rows[0]), [tuple(row.values()) for row in rows])
        (self.folder / CURVE).unlink(missing_ok=True)

    def finished(self) -> dict[tuple[int, str], tuple[StudentResult, FitResult]]:
        """The students that were distilled at length and written, by rank and fingerprint."""
        path = self.folder / FINISHED
        if not path.is_file():
            return {}
        found = {}
        for value in read_json(path, ("students",))["students"]:
            student = _student(value["student"])
            if (self.folder / student.folder).is_dir():
                found[student.rank, student.fingerprint] = (student, FitResult(**value["fitted"]))
        return found


def _student(value: Mapping[str, Any]) -> StudentResult:
    made = StudentResult(**{**value, "figures": Figures(**value["figures"])})
    return replace(made, violations=tuple(made.violations))
