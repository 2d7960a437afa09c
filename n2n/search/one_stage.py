"""The search loop where there is one space and no teacher to cut: a single stage, named after the space."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from n2n.agents.base import Agent
from n2n.evaluate.base import Evaluate
from n2n.search.limits import Limits
from n2n.search.progress import Display
from n2n.search.stage import Replay, StageReward, nothing_stored, run_stage
from n2n.search.store import Store
from n2n.search.two_stage import Found
from search_spaces.base import SearchSpace


def one_stage(
    space: SearchSpace,
    evaluate: Evaluate,
    reward: StageReward,
    agent: Agent,
    *,
    rollouts: int,
    limits: Limits,
    out: Path,
    display: Display,
    reserve: Callable[[float], float] = lambda mean_seconds: 0.0,
    replay: Replay = nothing_stored,
) -> Found:
    """Runs the stage and leaves `evaluations.sqlite` and `learning_curve.csv` in `out`; arguments as of `run_stage`.

    Raises:
        SearchError: all the first students failed for the same reason.
    """
    begun = time.perf_counter()
    with Store(out / "evaluations.sqlite") as store:
        stage = run_stage(
            space.name,
            space,
            evaluate,
            reward,
            agent,
            rollouts=rollouts,
            limits=limits,
            store=store,
            curve=out / "learning_curve.csv",
            display=display,
            reserve=reserve,
            replay=replay,
        )
    seconds = max(time.perf_counter() - begun, stage.seconds)  # those of an earlier attempt included
    return Found((stage,), {space.name: space}, seconds, stage.stopped)
