"""How a search judges the students of a space: its ladder of quick distillations, here or in workers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

from n2n.agents import GRADIENT
from n2n.distill.recipe import forward_passes, full_recipe
from n2n.evaluate.base import PREFILTER, Evaluate
from n2n.evaluate.cached import Cached, cached
from n2n.evaluate.distillation import Distillation, distillation
from n2n.evaluate.flight import Flight, RememberedFlight
from n2n.evaluate.ladder import Climbs, Correction, Rank, ladder
from n2n.evaluate.memory import Memory, remembered
from n2n.evaluate.pool_plan import PoolOptions
from n2n.evaluate.prefilter import Prefilter, prefilter
from n2n.evaluate.ray_pool import RayPool, ray_pools
from n2n.evaluate.rungs import Rung, parse_rung
from n2n.evaluate.scoring import Scoring, scoring
from n2n.evaluate.timed import Timed, timed
from n2n.networks import training_bytes
from n2n.search.conclude import Finish
from n2n.search.options import PREFILTER_RATIO, SearchOptions
from search_spaces.base import SearchSpace

Judge = Distillation | Scoring | Timed
SCORED_PASSES = 3 * 64
"""What scoring a student takes, in forward passes of one image: one pass and a backward one over a batch."""
EXPLORED = 5
"""Of so many students that are judged behind a prefilter, one is drawn by chance."""
QUICK_VALIDATION = 2000
"""Validation images that a student is judged on in the search; a finished student is measured on all of them."""


def make_rung(rung: Rung, space: SearchSpace, finish: Finish) -> Judge:
    """The evaluator of one rung, as the run's options ask for it."""
    options = finish.options
    if rung.recipe is None:
        scores = scoring(
            space,
            finish.data.training,
            score=rung.score,
            seed=options.seed,
            device=options.device,
            teacher=finish.teacher,
            importance=options.importance,
        )
        return scores if options.max_latency_ms is None else timed(scores, finish.timings)
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
        timings=finish.timings if finish.times_students else None,
    )


@contextmanager
def judging(
    space: SearchSpace, finish: Finish, rank: Rank, memories: Sequence[Memory], climbs: Climbs, filtered: Climbs
) -> Iterator[Cached | Prefilter | Flight]:
    """The judge of a space's students; workers, where there are any, end with it. A flight for asynchronous searches.

    Args:
        rank: by what students climb the ladder, where it has more than one rung.
        memories: files of judgements, the last of them asked first.
        climbs: what the students of earlier stages have shown on the rungs.
        filtered: what they have shown by the score of the prefilter, and as they were judged after it.
    """
    options = finish.options
    judges = {rung.name: make_rung(rung, space, finish) for rung in options.rungs}
    rungs = tuple(judges)
    sieve = "" if options.prefilter is None else f"{PREFILTER}{options.prefilter}"
    if options.prefilter is not None:
        judges[sieve] = make_rung(parse_rung(f"score:{options.prefilter}"), space, finish)
    expects = {name: Correction(*line) for name, *line in options.expects}

    def kept(name: str, evaluate: Evaluate) -> Evaluate:
        return _remembered(evaluate, judges[name], memories, options.seed)

    def climbed(found: Mapping[str, Evaluate], *, one_by_one: bool) -> Cached:
        if not options.ladder:
            return cached(found[rungs[0]], one_by_one=one_by_one)
        each = {name: cached(found[name], one_by_one=one_by_one) for name in rungs}
        return cached(ladder(each, promote=options.promote, rank=rank, climbs=climbs, expects=expects))

    def composed(found: Mapping[str, Evaluate], *, one_by_one: bool) -> Cached | Prefilter:
        judge = climbed(found, one_by_one=one_by_one)
        if options.prefilter is None:
            return judge
        return prefilter(
            cached(found[sieve], one_by_one=one_by_one),
            judge,
            name=options.prefilter,
            rank=rank,
            ratio=options.prefilter_ratio or PREFILTER_RATIO,
            explore=explored(options),
            seed=options.seed,
            climbs=filtered,
        )

    if options.workers == 0:
        yield composed({name: kept(name, judge) for name, judge in judges.items()}, one_by_one=True)
        return

    def prepare() -> None:
        for judge in judges.values():
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
        yield composed({name: kept(name, pool) for name, pool in pools.items()}, one_by_one=False)


def remembering(space: SearchSpace, *, finish: Finish, memories: Sequence[Memory]) -> Evaluate:
    """The judge of a space's students on the first rung, in this process, behind the files of judgements."""
    judge = make_rung(finish.options.rungs[0], space, finish)
    return _remembered(judge, judge, memories, finish.options.seed)


def _remembered(evaluate: Evaluate, judge: Judge, memories: Sequence[Memory], seed: int) -> Evaluate:
    for memory in memories:
        evaluate = remembered(evaluate, memory, recipe=key(judge, memory), seed=seed)
    return evaluate


def explored(options: SearchOptions) -> int:
    """How many of a batch are judged that a prefilter did not choose: one in five, where a gradient is followed."""
    return max(1, options.rollouts // EXPLORED) if options.agent in GRADIENT else 0


def key(judge: Judge, memory: Memory) -> str:
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
            judged += share * SCORED_PASSES
            share *= options.promote
            continue
        looked_at = len(finish.data.training.validation)
        looked_at = min(QUICK_VALIDATION, looked_at) if rung.short else looked_at
        judged += share * forward_passes(rung.recipe, examples, looked_at)
        share *= options.promote
    return options.finalists * mean_seconds * forward_passes(full, examples, 0) / judged
