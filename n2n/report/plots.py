"""The pictures of a run: every judged student with the front, the rewards over time, and a learning curve."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from n2n.evaluate.base import Evaluation, Status
from n2n.search.distilling import Row
from n2n.search.files import write_with
from n2n.search.front import front
from n2n.search.store import Record

ACCURACY = "validation accuracy (%)"


def plot_front(path: Path, records: Sequence[Record], result: Mapping[str, Any]) -> None:
    """Validation accuracy against parameters: the judged students, their front, the finished ones and the teacher."""
    fine = [one.evaluation for one in records if one.evaluation.status is Status.OK]
    judged = [one for one in fine if not one.filtered]
    scored = bool(judged) and all(one.expected is None for one in judged)
    best = front(judged)
    teacher = result["teacher"]["figures"] if result["teacher"] else None

    def draw(axes: Any) -> None:
        axes.scatter(
            [(one.parameters or 0) / 1e6 for one in judged],
            [_height(one, scored) for one in judged],
            s=12,
            color="0.6",
            label="judged",
        )
        axes.step(
            [(one.parameters or 0) / 1e6 for one in best],
            [_height(one, scored) for one in best],
            where="post",
            color="C0",
            label="front",
        )
        finished = [student["figures"] for student in result["students"]]
        measured = (
            axes.twinx() if scored and (finished or teacher is not None) else axes
        )  # accuracies have a scale of their own beside scores
        measured.scatter(
            [one["parameters"] / 1e6 for one in finished],
            [100 * one["validation_accuracy"] for one in finished],
            marker="*",
            s=90,
            color="C3",
            label="finished students",
        )
        if teacher is not None:
            measured.scatter(
                [teacher["parameters"] / 1e6],
                [100 * teacher["validation_accuracy"]],
                marker="s",
                color="k",
                label="teacher",
            )
        axes.set_xscale("log")
        axes.set_xlabel("parameters (M)")
        axes.set_ylabel("training-free score" if scored else ACCURACY)
        if scored and (finished or teacher is not None):
            measured.set_ylabel(ACCURACY)
            measured.legend(fontsize="small", loc="lower right")
        axes.legend(fontsize="small")

    figure_of(path, draw)


def _height(one: Evaluation, scored: bool) -> float:
    """How high a student is drawn: at its accuracy in %, or at its score where nobody has an accuracy."""
    return (one.score or 0.0) if scored else 100 * (one.expected or 0.0)


def plot_reward(path: Path, records: Sequence[Record]) -> None:
    """The reward of every student in the order of judging, and the best so far in each stage."""

    def draw(axes: Any) -> None:
        start = 0
        for number, stage in enumerate(dict.fromkeys(one.stage for one in records)):
            rewards = [one.reward for one in records if one.stage == stage and not one.evaluation.filtered]
            at = range(start, start + len(rewards))
            best = [max(rewards[: index + 1]) for index in range(len(rewards))]
            axes.scatter(at, rewards, s=10, color=f"C{number}", alpha=0.5)
            axes.step(at, best, where="post", color=f"C{number}", label=f"{stage}, best so far")
            start += len(rewards)
        axes.set_xlabel("students, in the order of judging")
        axes.set_ylabel("reward")
        if start:
            axes.legend(fontsize="small")

    figure_of(path, draw)


def plot_curve(path: Path, rows: Sequence[Row], *, teacher: float | None = None) -> None:
    """The learning curve of a long distillation: training loss, and validation accuracy with the teacher's (0..1)."""
    epochs = [row.epoch for row in rows]

    def draw(axes: Any) -> None:
        accuracies = [100 * row.validation_accuracy for row in rows]
        axes.plot(epochs, accuracies, color="C0", marker=".", label="student, validation")
        if teacher is not None:
            axes.axhline(100 * teacher, color="k", linestyle=":", label="teacher, validation")
        axes.set_xlabel("epoch")
        axes.set_ylabel("validation accuracy (%)")
        losses = axes.twinx()
        losses.plot(epochs, [row.loss for row in rows], color="0.6", label="training loss")
        losses.set_ylabel("training loss")
        axes.legend(fontsize="small", loc="lower right")

    figure_of(path, draw)


def figure_of(path: Path, draw: Callable[[Any], None]) -> None:
    """Draws into a file without a display; matplotlib's global state is not touched."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure.subplots())
    write_with(path, lambda temporary: figure.savefig(temporary, dpi=130, format="png"))
