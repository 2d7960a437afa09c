"""How a search judges the students of a space: its ladder of quick distillations, here or in workers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

from n2n.distill.recipe import forward_passes, full_recipe
from n2n.evaluate.base import Evaluate
from n2n.evaluate.cached import Cached, cached
from n2n.evaluate.distillation import Distillation, distillation
from n2n.evaluate.flight import Flight, RememberedFlight
from n2n.evaluate.ladder import Climbs, Correction, Rank, ladder
from n2n.evaluate.memory import Memory, remembered
from n2n.evaluate.pool_plan import PoolOptions
from n2n.evaluate.ray_pool import RayPool, ray_pools
from n2n.evaluate.rungs import Rung
from n2n.evaluate.scoring import Scoring, scoring
from n2n.networks import training_bytes
from n2n.search.conclude import Finish
from search_spaces.base import SearchSpace

QUICK_VALIDATION = 2000
"""Validation images that a student is judged on in the search; a finished student is measured on all of them."""


def make_rung(rung: Rung, space: SearchSpace, finish: Finish) -> Distillation | Scoring:
    """The evaluator of one rung, as the run's options ask for it."""
    options = finish.options
    if rung.recipe is None:
        return scoring(
            space,
            finish.data.training,
            score=rung.score,
            seed=options.seed,
            device=options.device,
            teacher=finish.teacher,
        )
    return distillation(
        space,
        finish.teacher,
        finish.data.training,
        recipe=rung.recipe,
        validation_subset=QUICK_VALIDATION if rung.short else None,
        seed=options.seed,
        device=options.device,
        precision=finish.precision,
        start=rung.start,
        importance=options.importance,
        timings=finish.timings,
    )


@contextmanager
def judging(
    space: SearchSpace, finish: Finish, rank: Rank, memories: Sequence[Memory], climbs: Climbs
) -> Iterator[Cached | Flight]:
    """The judge of a space's students; workers, where there are any, end with it. A flight for asynchronous searches.

    Args:
        rank: by what students climb the ladder, where it has more than one rung.
        memories: files of judgements, the last of them asked first.
        climbs: what the students of earlier stages have shown on the rungs.
    """
    options = finish.options
    judges = {rung.name: make_rung(rung, space, finish) for rung in options.rungs}

    expects = {name: Correction(*line) for name, *line in options.expects}

    def kept(name: str, evaluate: Evaluate) -> Evaluate:
        for memory in memories:
            evaluate = remembered(evaluate, memory, recipe=key(judges[name], memory), seed=options.seed)
        return evaluate

    def climbed(rungs: Mapping[str, Evaluate], *, one_by_one: bool) -> Cached:
        if not options.ladder:
            return cached(*rungs.values(), one_by_one=one_by_one)
        each = {name: cached(evaluate, one_by_one=one_by_one) for name, evaluate in rungs.items()}
        return cached(ladder(each, promote=options.promote, rank=rank, climbs=climbs, expects=expects))

    if options.workers == 0:
        yield climbed({name: kept(name, judge) for name, judge in judges.items()}, one_by_one=True)
        return

    def prepare() -> None:
        for judge in judges.values():
            if isinstance(judge, Distillation):
                judge.prepare()

    if options.asynchronous:
        ((name, judge),) = judges.items()
        images = {name: float(judge.images_shown)}
        asked = pool_options(finish)
        with RayPool(partial(dict, judges), asked, space=space, prepare=prepare, images=images) as pool:
            flight: Flight = pool.flight(name)
            for memory in memories:
                flight = RememberedFlight(flight, memory, recipe=key(judge, memory), seed=options.seed)
            yield flight
        return
    images = {name: float(judge.images_shown) for name, judge in judges.items()}
    with ray_pools(partial(dict, judges), images, pool_options(finish), space=space, prepare=prepare) as pools:
        yield climbed({name: kept(name, pool) for name, pool in pools.items()}, one_by_one=False)


def key(judge: Distillation | Scoring, memory: Memory) -> str:
    """What a judgement is kept under: a run's own file may be gone on with on another machine, a shared one not."""
    return judge.recipe_key if memory.own else f"{judge.recipe_key} {judge.machine_key}"


def pool_options(finish: Finish) -> PoolOptions:
    """What a search asks of its workers."""
    options = finish.options
    if isinstance(options.workers, int) and options.address is None:
        threads = pool_threads(finish.threads, options.workers)
    else:  # what was measured here says nothing of workers elsewhere, nor of so many side by side
        threads = options.threads if isinstance(options.threads, int) else None
    batch = max((rung.recipe.batch_size for rung in options.rungs if rung.recipe is not None), default=1)
    room = training_bytes(finish.teacher.network, finish.example_inputs[:1], batch)
    return PoolOptions(options.workers, threads, gpus_per_worker=options.gpus_per_worker, room=room)


def pool_threads(threads: int | None, workers: int) -> int | None:
    """The threads of each worker: those of the search, at most the machine's cores over the workers."""
    return None if threads is None else min(threads, max(1, (os.cpu_count() or 1) // workers))


def finish_seconds(finish: Finish, mean_seconds: float) -> float:
    """What the long distillation will take, from the mean seconds of one judgement, by counting forward passes."""
    options, examples = finish.options, len(finish.data.train)
    full = full_recipe(epochs=options.final_epochs)
    judged, share = 0.0, 1.0
    for rung in options.rungs:
        if rung.recipe is None:
            share *= options.promote
            continue
        looked_at = len(finish.data.training.validation)
        looked_at = min(QUICK_VALIDATION, looked_at) if rung.short else looked_at
        judged += share * forward_passes(rung.recipe, examples, looked_at)
        share *= options.promote
    return options.finalists * mean_seconds * forward_passes(full, examples, 0) / judged
