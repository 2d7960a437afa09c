"""Trains policies on a distribution of small networks and writes them as one policy folder with its card.

    python scripts/benchmarks/train_policies.py --out runs/policies/all                         on all the networks
    python scripts/benchmarks/train_policies.py --set residual-plain --out runs/policies/some   two families held back
    python scripts/benchmarks/train_policies.py --set resnet-8,vgg-5 --out runs/policies/two    on these two

First batches of PPO judged by a training-free score, of shrinkage alone; then rounds of searches judged by closed-form
distillation (rung `refit:0`, about a tenth of a second a student), the best rollouts of which a fresh policy imitates;
then rounds of lessons about how many layers to keep for a goal; then batches of PPO judged in closed form. Teachers are
trained on scikit-learn's digits and kept in `--work`; what is learned is written there after every `--save` batches and
every round, with a row of `curve.csv` for each batch and each lesson, and the same command goes on where it was
stopped, to the same end. `--cheap 0`, `--rounds 0`, `--keeping 0` and `--dear 0` leave phases out.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, product
from pathlib import Path
from statistics import fmean

import torch
from policy_lessons import SEARCH, read, searched
from policy_lessons import write as write_lessons
from policy_networks import NETWORKS, SETS
from safetensors.torch import load_file, save_file

from envs import Goal
from n2n.agents.base import Agent
from n2n.data import Data, example_inputs, load
from n2n.distill.fit import train_teacher
from n2n.evaluate.base import Evaluation
from n2n.job import Job
from n2n.job_agents import KEEP_BIAS, space_of
from n2n.policies import PolicyMeta, save_policy
from n2n.policies.card import Card, Point, Trained, weights_hash, write_card
from n2n.policies.lessons import READINESS, Lesson, kept, teach
from n2n.policies.lessons import STAGES as STUDIED
from n2n.policies.training import Task, train, trainee
from n2n.search.judges import make_rung
from n2n.search.options import DEFAULT_FACTORS, SearchOptions

CHEAP, DEAR = "score:live_capacity", "refit:0"
REMOVAL_SHARE = {CHEAP: 0.0, DEAR: 0.5}
"""Of the batches of PPO. By the score alone half of the layers go, and searches that start there do not come back."""
COLUMNS = (
    "phase",
    "batch",
    "stage",
    "network",
    "goal_parameters",
    "goal_macs",
    "mean_reward",
    "best_reward",
    "seconds",
)
LEAST, MOST = 0.05, 0.6
"""The shares of a teacher's parameters or MACs that are asked for."""
HIDDEN, RATE = 64, 3e-3
"""Of the policies, and of PPO."""
TEACH_RATE = 5e-4
"""Of imitation: by 3e-3 the encoder loses sight of the network in the first epochs, and the loss stays where it is."""
JUDGED = {"searches": SEARCH["batches"] * SEARCH["students"], "keeping": len(READINESS)}
"""Students of a lesson."""
POINTS, STAGES = 20, ("removal", "shrinkage")


@dataclass(frozen=True)
class Phase:
    """So many batches of PPO judged by a rung, or rounds of lessons: of searches, or of how many layers to keep."""

    name: str
    rung: str
    batches: int
    lessons: str = ""


def teacher_of(name: str, data: Data, folder: Path, epochs: float) -> torch.nn.Module:
    """The trained network of a name, from the folder or trained now."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = NETWORKS[name]()
    path = folder / f"{name}.safetensors"
    if path.exists():
        network.load_state_dict(load_file(path))
        return network.eval()
    begun = time.monotonic()
    train_teacher(network, data.training, epochs=epochs)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, path)
    print(f"{name}: trained in {time.monotonic() - begun:.0f} s", flush=True)
    return network.eval()


def agreement(evaluation: Evaluation) -> float:
    """What a distilled student is worth: its agreement with the teacher's logits, at least 0."""
    return max(0.0, evaluation.agreement or 0.0)


def score(evaluation: Evaluation) -> float:
    """What a scored student is worth."""
    return evaluation.score if evaluation.score is not None else 0.0


def job_of(network: torch.nn.Module, data: Data, options: SearchOptions) -> Job:
    """What a search over the network would work with, but that quick judgements do not time students."""
    job = Job.prepare(network, example_inputs(data), data, options, None, began=None, deadline=None)
    return replace(job, finish=replace(job.finish, times_students=False))


def task_of(name: str, network: torch.nn.Module, data: Data, rung: str) -> Task:
    """A network to learn on, its students judged by a rung."""
    scored = rung.startswith("score:")
    how = {"evaluate": rung.removeprefix("score:")} if scored else {"ladder": (rung,)}
    options = SearchOptions(precision="fp32", **how)  # type: ignore[arg-type]
    job = job_of(network, data, options)
    space = job.spaces.shrinkage(None, job.budget)
    return Task(
        name, "digits", job.spaces, lambda space: make_rung(options.rungs[0], space, job.finish),
        score if scored else agreement, space.teacher_cost.parameters, space.teacher_cost.macs,
        round(job.finish.teacher.accuracy, 5),
    )  # fmt: skip


def agents_of(seed: int, encoder: str, hidden: int, rate: float) -> dict[str, Agent]:
    """Untrained agents of both stages."""
    shape = {"encoder": encoder, "hidden": hidden, "learning_rate": rate, "entropy_weight": 0.02}
    return {
        "removal": trainee("removal", 2, seed=2 * seed, keep_bias=KEEP_BIAS, **shape),
        "shrinkage": trainee("shrinkage", len(DEFAULT_FACTORS), seed=2 * seed + 1, **shape),
    }


def rounds(phases: Sequence[Phase], every: int) -> Iterator[tuple[Phase, int, int]]:
    """The pieces of training between two savings: phase, first batch, number of batches."""
    for phase in phases:
        step = 1 if phase.lessons else every
        for first in range(0, phase.batches, step):
            yield phase, first, min(step, phase.batches - first)


def append(path: Path, phase: Phase, rows: Sequence[tuple[int, str, str, Goal, float, float, float]]) -> None:
    """Adds rows to the learning curve: batch, stage, network, goal, mean and best reward, seconds.

    Those of the same batches are from an attempt that was cut off before it had saved what it learned, and go.
    """
    before: list[list[str]] = []
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            before = list(csv.reader(file))[1:]
    again = {(phase.name, str(row[0])) for row in rows}
    path.parent.mkdir(parents=True, exist_ok=True)
    making = path.with_suffix(".part")
    with making.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(row for row in before if (row[0], row[1]) not in again)
        for index, stage, task, goal, mean, best, took in rows:
            writer.writerow([
                phase.name, index, stage, task, f"{goal.parameters:.4f}", f"{goal.macs:.4f}", f"{mean:.5f}",
                f"{best:.5f}", f"{took:.2f}",
            ])  # fmt: skip
    making.replace(path)


def points_of(rows: Sequence[dict[str, str]], phases: Sequence[Phase], students: int) -> tuple[Point, ...]:
    """The curve of each phase and stage in some twenty points; a batch has so many students."""
    found = []
    for phase, stage in product(phases, STAGES):
        own = [row for row in rows if (row["phase"], row["stage"]) == (phase.name, stage)]
        each = JUDGED.get(phase.lessons, students)
        width = -(-len(own) // POINTS) or 1
        for begin in range(0, len(own), width):
            some = own[begin : begin + width]
            mean = fmean(float(row["mean_reward"]) for row in some)
            found.append(Point(f"{stage}, {phase.name}", each * (begin + len(some)), round(mean, 5)))
    return tuple(found)


def main() -> None:
    """Trains, saving as it goes, and writes the policy folder at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the policy folder")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/policies"), help="teachers, curve and what is half done"
    )
    parser.add_argument("--set", default="all", help=f"{', '.join(SETS)}, or names of networks with commas")
    parser.add_argument("--cheap", type=int, default=200, help="batches of PPO judged by the score")
    parser.add_argument("--rounds", type=int, default=2, help="of searches judged by closed-form distillation")
    parser.add_argument("--each", type=int, default=8, help="searches of a network and stage in a round")
    parser.add_argument("--teach", type=int, default=40, help="epochs of imitation in a round")
    parser.add_argument("--teach-rate", type=float, default=TEACH_RATE, help="of imitation")
    parser.add_argument("--dear", type=int, default=0, help="batches of PPO judged by closed-form distillation")
    parser.add_argument("--keeping", type=int, default=3, help="rounds of lessons about how many layers to keep")
    parser.add_argument("--keeping-each", type=int, default=5, help="goals of a network in such a round")
    parser.add_argument("--students", type=int, default=8, help="of a batch")
    parser.add_argument("--save", type=int, default=50, help="batches between two savings")
    parser.add_argument("--encoder", default="attention")
    parser.add_argument("--hidden", type=int, default=HIDDEN)
    parser.add_argument("--rate", type=float, default=RATE, help="of PPO")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=float, default=30, help="that a teacher is trained for")
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    shape = ("set", "encoder", "hidden", "rate", "students", "save", "epochs", "seed", "cheap", "each", "teach",
             "teach_rate")  # fmt: skip
    work = asked.work / "-".join(str(getattr(asked, name)) for name in shape)
    data = load("digits")
    names, teachers = SETS.get(asked.set, tuple(asked.set.split(","))), asked.work / f"teachers-{asked.epochs:g}"
    networks = {name: teacher_of(name, data, teachers, asked.epochs) for name in names}
    phases = [
        Phase("score", CHEAP, asked.cheap),
        Phase("searches", DEAR, asked.rounds, lessons="searches"),
        Phase("layers to keep", DEAR, asked.keeping, lessons="keeping"),
        Phase(f"closed form after {asked.rounds} rounds", DEAR, asked.dear),
    ]
    agents = agents_of(asked.seed, asked.encoder, asked.hidden, asked.rate)
    tasks: dict[str, list[Task]] = {}
    for index, (phase, first, many) in enumerate(rounds(phases, asked.save)):
        kept = {stage: work / f"{phase.name}, {first + many}, {stage}.safetensors" for stage in agents}
        if all(path.exists() for path in kept.values()):
            for stage, path in kept.items():
                agents[stage].load(load_file(path))
            continue
        if phase.rung not in tasks:
            tasks = {phase.rung: [task_of(name, network, data, phase.rung) for name, network in networks.items()]}
        learned, agents = agents, agents_of(1000 * asked.seed + index, asked.encoder, asked.hidden, asked.rate)
        for stage, agent in learned.items() if index else ():
            agents[stage].load(agent.state())
        begun = time.monotonic()
        if phase.lessons == "searches":
            agents, rows = taught(asked, agents, tasks[phase.rung], work, first)
        elif phase.lessons:
            learner = agents_of(asked.seed, asked.encoder, asked.hidden, asked.teach_rate)["removal"]
            earlier = read(work / f"keeping, {first - 1}.lessons") if first else []
            known = kept_layers(agents, learner, tasks[phase.rung], earlier, each=asked.keeping_each,
                                epochs=asked.teach // 2, seed=10_000 * asked.seed + 5000 + first)  # fmt: skip
            write_lessons(work / f"keeping, {first}.lessons", known)
            taken = (time.monotonic() - begun) / (len(known) - len(earlier))
            rows = [(first, one.stage, one.task, one.goal, one.at_once, one.best, taken)
                    for one in known[len(earlier):]]  # fmt: skip
        else:
            rows = reinforced(asked, agents, tasks[phase.rung], phase, first, many, 1000 * asked.seed + index)
        append(work / "curve.csv", phase, rows)
        for stage, path in kept.items():
            save_file({key: value.contiguous() for key, value in agents[stage].state().items()}, path)
        print(f"{phase.name} {first + many}/{phase.batches}: {time.monotonic() - begun:.0f} s", flush=True)
    with (work / "curve.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    write(asked, agents, networks, data, rows, points_of(rows, phases, asked.students))


def reinforced(asked: argparse.Namespace, agents: dict[str, Agent], tasks: Sequence[Task], phase: Phase, first: int,
               many: int, seed: int) -> list[tuple[int, str, str, Goal, float, float, float]]:  # fmt: skip
    """Batches of PPO from number `first` on; the rows of the learning curve."""
    rows, last = [], time.monotonic()
    for one in train(agents, tasks, batches=many, students=asked.students, seed=seed, least=LEAST, most=MOST,
                     removal_share=REMOVAL_SHARE[phase.rung]):  # fmt: skip
        took, last = time.monotonic() - last, time.monotonic()
        rows.append((first + one.index, one.stage, one.task, one.goal, one.mean, max(one.rewards), took))
    return rows


def taught(asked: argparse.Namespace, agents: dict[str, Agent], tasks: Sequence[Task], work: Path, number: int
           ) -> tuple[dict[str, Agent], list[tuple[int, str, str, Goal, float, float, float]]]:  # fmt: skip
    """A round of searches from the agents as they are, and fresh ones that imitate what all rounds have found."""
    rows: list[tuple[int, str, str, Goal, float, float, float]] = []
    fresh = agents_of(1000 * asked.seed + 500 + number, asked.encoder, asked.hidden, asked.teach_rate)
    for stage in STUDIED:
        begun, known = time.monotonic(), []
        for earlier in range(number + 1):
            path, seed = work / f"{stage}, {earlier}.lessons.safetensors", 10_000 * asked.seed + 10 * earlier
            known += searched(path, agents, tasks, stage, each=asked.each, seed=seed, least=LEAST, most=MOST)
        taken = (time.monotonic() - begun) / max(1, len(known))
        new = known[-len(tasks) * asked.each :]
        rows += [(number, one.stage, one.task, one.goal, one.at_once, one.best, taken) for one in new]
        losses = teach(fresh, known, epochs=asked.teach, seed=number)
        at_once, best = fmean(one.at_once for one in new), fmean(one.best for one in new)
        print(f"{stage}: {at_once:.3f} at once, {best:.3f} found, loss {losses[0]:.2f} to {losses[-1]:.2f} by"
              f" {len(known)} lessons", flush=True)  # fmt: skip
        agents = {**agents, stage: fresh[stage]}
    return fresh, rows


def kept_layers(agents: dict[str, Agent], learner: Agent, tasks: Sequence[Task], earlier: Sequence[Lesson], *,
                each: int, epochs: int, seed: int) -> list[Lesson]:  # fmt: skip
    """A round of lessons about how many layers to keep: of all so far, the `earlier` ones first.

    `learner` goes on from the policy of removal, then is it.
    """
    learner.load(agents["removal"].state())
    new = list(kept(agents, tasks, each=each, seed=seed, least=LEAST, most=MOST))
    known = [*earlier, *new]
    losses = teach({"removal": learner}, known, epochs=epochs, seed=seed, averaged=True)
    agents["removal"].load(learner.state())
    at_once, best = fmean(one.at_once for one in new), fmean(one.best for one in new)
    print(f"layers to keep: {at_once:.3f} at once, {best:.3f} found, loss {losses[0]:.2f} to {losses[-1]:.2f} by"
          f" {len(known)} lessons", flush=True)  # fmt: skip
    return known


def write(
    asked: argparse.Namespace,
    agents: dict[str, Agent],
    networks: dict[str, torch.nn.Module],
    data: Data,
    rows: Sequence[dict[str, str]],
    curve: tuple[Point, ...],
) -> None:
    """The policy folder with its card."""
    shape, usual = {"encoder": asked.encoder, "hidden": asked.hidden}, SearchOptions(precision="fp32")
    for stage, agent in agents.items():
        actions = 2 if stage == "removal" else len(DEFAULT_FACTORS)
        learned = sum(row["stage"] == stage for row in rows)
        meta = PolicyMeta("ppo", stage, actions, 0, asked.seed, learned, f"{len(networks)} networks",
                          options=shape, space=space_of(usual, stage))  # fmt: skip
        save_policy(asked.out / stage, agent.state(), meta)
    jobs = {name: job_of(network, data, usual) for name, network in networks.items()}
    trained = tuple(
        Trained(name, "digits", job.finish.teacher.parameters, round(job.finish.teacher.accuracy, 5), job.spaces.key)
        for name, job in jobs.items()
    )
    searches = len(STAGES) * asked.rounds * asked.each * len(networks)
    keeping = asked.keeping * asked.keeping_each * len(networks)
    total = (asked.cheap + asked.dear) * asked.students + searches * JUDGED["searches"]
    total += keeping * JUDGED["keeping"]
    card = Card(
        trained=trained,
        space={
            "stages": list(agents),
            "round_to": usual.round_to,
            **space_of(usual, "removal"),
            **space_of(usual, "shrinkage"),
        },
        reward=f"rank within the batch by {CHEAP} ({asked.cheap} batches), then imitation of the best of {searches} "
        f"searches by agreement with the teacher after closed-form distillation, and of how many layers the best of "
        f"{keeping} rows of students keep, then rank by that ({asked.dear} batches)",
        budget=f"{LEAST:.0%} to {MOST:.0%} of the parameters or of the MACs",
        judged=total,
        curve=curve,
        weights={stage: weights_hash(agent.state()) for stage, agent in agents.items()},
        made_by=f"scripts/benchmarks/train_policies.py --set {asked.set} --rounds {asked.rounds} --each {asked.each}"
        f" --keeping {asked.keeping} --keeping-each {asked.keeping_each} --seed {asked.seed}",
    )
    write_card(asked.out, card)
    size = sum(path.stat().st_size for path in chain(asked.out.rglob("*.safetensors"), asked.out.rglob("*.json")))
    print(json.dumps({"out": str(asked.out), "bytes": size, "students": total}))


if __name__ == "__main__":
    main()
