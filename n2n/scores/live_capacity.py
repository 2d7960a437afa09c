"""Our own score: the capacity between images and outputs, resolution by resolution, and how clear the way is."""

from __future__ import annotations

import math
from collections import defaultdict

from torch import nn

from n2n.scores.base import Probe
from n2n.scores.paths import Paths, paths_of


def live_capacity(network: nn.Module, probe: Probe) -> float:
    """What the live layers can learn, times the share of a path that learns; ours, not published.

        s = (sum_r sqrt(P_r)) L / (L + B)

    `P_r` are the live weights of layers that work at r places (the resolutions of a network), L the mean number of
    layers on a path from the images to the outputs, and B that of poolings which keep the resolution; see
    `n2n.scores.paths`. Why this form: dead operations learn nothing, so only live ones count. What more weights add at
    one resolution diminishes, and a network needs some at each, which the plain number of parameters does not see, as
    nearly all of them are at the lowest resolution; a square root is linear in the width and a root in the depth. And a
    pooling that keeps the resolution blurs what later layers see, so that of L + B steps only L are of use.

    Nothing is drawn and no constant is fitted: the form was chosen among some forty on DisWOT's 64 networks and on half
    of a sample of 1,000 cells of NAS-Bench-201 (`docs/scores.md`). In (0, inf). Of the probe only the
    images' shape matters.

    Raises:
        ScoreError: no layer is live, or the outputs are no tensor.
        RuntimeError, ValueError: the network does not run on the probe's images.
    """
    return capacity(paths_of(network, probe, "live_capacity"))


def capacity(paths: Paths) -> float:
    """`(sum_r sqrt(P_r)) L / (L + B)` of a network's paths."""
    weights: dict[int, int] = defaultdict(int)
    for layer in paths.layers:
        weights[layer.places] += layer.new
    total = math.fsum(math.sqrt(one) for one in weights.values())
    value = total * paths.mean_length / (paths.mean_length + paths.blurs)
    return float(f"{value:.12g}")  # networks that are alike have the same score, in whatever order their layers come
