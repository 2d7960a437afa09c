"""What runs inside a Ray actor: the evaluators, opened once, and one student after another."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import final

import numpy as np
import numpy.typing as npt
import torch

from n2n.evaluate.base import Evaluate, Evaluation
from search_spaces.base import Architecture


@final
class Worker:
    """One process with its own threads and its own copy of teacher, data and cached outputs."""

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        self._evaluates: Mapping[str, Evaluate] = {}

    def open(self, payload: npt.NDArray[np.uint8]) -> None:
        """Takes over what students are judged by: a pickled function that makes the evaluators, by fidelity."""
        self._evaluates = pickle.loads(payload.data)()

    def judge(self, student: Architecture, fidelity: str) -> Evaluation:
        """The evaluation of one student; its seed derives from the evaluator's and the fingerprint."""
        return self._evaluates[fidelity]([student])[0]
