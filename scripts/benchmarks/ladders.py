"""Which rewards a ladder should give: those of one rung that all students share, or corrected ones of several.

    python scripts/benchmarks/ladders.py fashion-mnist --rungs refit:0 refit:60

Nothing is trained: the judgements are those of `evaluation.py`. The panel is handed to the ladder in random order,
batch by batch, as a search would, and the rewards that come out are compared with the rewards by the long distillation:

    common      every student is rewarded by the first rung; the dear rung only serves the choice at the end
    raw         each is rewarded by the accuracy of the rung that it reached, as it stands
    corrected   that of the last rung, measured or predicted by the line that was learned so far (what `ladder` does)
    part        corrected, and of what it lacks to the teacher's accuracy only the part `SHORTFALL` counts (what
                searches do unasked)
    expected    that of the long distillation, by a line from the rung that the student reached, fitted to all students
                but itself (what `ladder` does with the lines of a calibration)

One row for each in `results/<name>-ladders.csv`: Kendall's tau of the rewards over the whole panel (mean over the
orders, with the 2.5% and 97.5% quantiles), the regret of the best student by reward among those measured highest (its
true reward below the panel's best), and seconds a student.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from evaluation import BENCHES
from scipy.stats import kendalltau

from n2n.evaluate.base import Evaluation, Status
from n2n.evaluate.fidelity import truth_of
from n2n.evaluate.judgements import Judgement, read_judgements
from n2n.evaluate.ladder import correction, ladder, signal
from n2n.reward import SHORTFALL, make_reward

RESULTS = Path(__file__).parent / "results"
ORDERS, BATCH = 200, 5


@dataclass(frozen=True)
class Known:
    """A student by its fingerprint alone: all that a ladder needs of one."""

    fingerprint: str

    def to_json(self) -> str:
        """Nothing else is known."""
        return "{}"


def evaluation(one: Judgement) -> Evaluation:
    """The evaluation that a judgement was."""
    return Evaluation(one.fingerprint, "{}", Status(one.status), one.reason, one.accuracy, one.loss, one.parameters,
                      one.macs, one.seconds, 0, one.rung, agreement=one.agreement, score=one.score)  # fmt: skip


def looked_up(rows: Mapping[str, Judgement], spent: list[float]) -> Callable[[Sequence[Known]], list[Evaluation]]:
    """An evaluator that answers from judgements, and adds up their seconds."""

    def judge(students: Sequence[Known]) -> list[Evaluation]:
        spent[0] += sum(rows[student.fingerprint].seconds for student in students)
        return [evaluation(rows[student.fingerprint]) for student in students]

    return judge


def predicted(rows: Mapping[str, Judgement], truth: Mapping[str, float]) -> dict[str, float]:
    """The accuracies to expect from a rung, each by the line through all other students."""
    signals = {key: value for key, one in rows.items() if key in truth and (value := signal(one)) is not None}
    found = {}
    for key, value in signals.items():
        others = [other for other in signals if other != key]
        line = correction([signals[other] for other in others], [truth[other] for other in others])
        found[key] = line(value) if line is not None else value
    return found


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench")
    parser.add_argument("--rungs", nargs="+", default=["refit:0", "refit:60"])
    parser.add_argument("--against", default="inherited:3e")
    parser.add_argument("--promote", type=float, default=0.4)
    asked = parser.parse_args()
    judgements = read_judgements(RESULTS / f"{asked.bench}-evaluators.csv")
    truth = {key: float(np.mean(values)) for key, values in truth_of(judgements, asked.against).items()}
    rows = {r: {j.fingerprint: j for j in judgements if j.rung == r and j.seed == 0} for r in asked.rungs}
    students = [Known(key) for key in sorted(truth) if all(key in known for known in rows.values())]
    first = rows[asked.rungs[0]]
    whole = next(iter(first.values()))
    accuracy, size = BENCHES[asked.bench].accuracy, round(whole.parameters / whole.share)
    reward = make_reward(teacher_accuracy=accuracy, teacher_parameters=size)
    part = make_reward(teacher_accuracy=accuracy, teacher_parameters=size, shortfall=SHORTFALL, chance=0.1)
    wanted = {s.fingerprint: reward(replace(evaluation(first[s.fingerprint]), accuracy=truth[s.fingerprint]))
              for s in students}  # fmt: skip
    kinds = ("common", "raw", "corrected", "part", "expected")
    found: dict[str, list[tuple[float, float, float]]] = {kind: [] for kind in kinds}
    foretold = {(r, key): accuracy for r, known in rows.items() for key, accuracy in predicted(known, truth).items()}
    for order in range(ORDERS):
        shuffled = [students[i] for i in np.random.default_rng(order).permutation(len(students))]
        spent = [0.0]
        climb = ladder({r: looked_up(known, spent) for r, known in rows.items()}, promote=asked.promote, rank=reward)
        judged = [one for at in range(0, len(shuffled), BATCH) for one in climb(shuffled[at : at + BATCH])]
        best = max((one for one in judged if one.settled), key=reward)
        regret = max(wanted.values()) - wanted[best.fingerprint]
        variants = {
            "common": [reward(evaluation(first[one.fingerprint])) for one in judged],
            "raw": [reward(replace(one, estimate=None)) for one in judged],
            "corrected": [reward(one) for one in judged],
            "part": [part(one) for one in judged],
            "expected": [reward(replace(one, estimate=foretold[one.rung, one.fingerprint])) for one in judged],
        }
        goal = [wanted[one.fingerprint] for one in judged]
        for name, rewards in variants.items():
            found[name].append((float(kendalltau(rewards, goal).statistic), regret, spent[0] / len(judged)))
    path = RESULTS / f"{asked.bench}-ladders.csv"
    with path.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("rewards", "rungs", "promote", "students", "tau", "low", "high", "regret", "seconds"))
        for name, values in found.items():
            taus, regrets, seconds = (np.asarray(column) for column in zip(*values, strict=True))
            row = (name, " ".join(asked.rungs), asked.promote, len(students), *(round(float(v), 4) for v in
                   (taus.mean(), *np.quantile(taus, (0.025, 0.975)), regrets.mean(), seconds.mean())))  # fmt: skip
            table.writerow(row)
            print(*row, sep="\t")


if __name__ == "__main__":
    main()
