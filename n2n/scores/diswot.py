"""DisWOT: how like its teacher a student sees classes and images, both of them with random weights.

P. Dong, L. Li, Z. Wei, *DisWOT: Student Architecture Search for Distillation WithOut Training*, CVPR 2023,
arXiv:2303.15678. Teacher and student are drawn anew from N(0, 1) by the probe's seed (biases 0, norms 1 and 0) and run
with the statistics of the batch, everything else as in evaluation. A network that equals its teacher has 0, others
less.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from n2n.distill.objectives.diswot_semantic import semantic_distance
from n2n.distill.objectives.similarity import gram_distance
from n2n.scores.base import Probe, ScoreError, batch_statistics, borrowed, finite
from n2n.scores.before_pooling import before_pooling, classifier_of
from n2n.scores.fresh import draw_weights
from n2n.scores.loss import cross_entropy, gradients
from n2n.scores.teacher_memory import TeacherMemory


def diswot(network: nn.Module, probe: Probe, *, seeds: int = 1) -> float:
    """The semantic and the relation metric, summed as published: `s = M_s + M_r`; see those.

    M_s is several hundred times as large as M_r where there are many channels, so that the sum is mostly M_s. The paper
    takes 64 or 128 images.

    Args:
        network: the student.
        probe: with labels and a teacher.
        seeds: over how many draws of both networks (`probe.seed`, `probe.seed + 1`, ...) the mean is taken.

    Raises:
        ScoreError: no teacher, other classes or another width before the classifier than the teacher's, or no finite
            value.
        RuntimeError, ValueError: student or teacher does not run on the probe's images.
    """
    return _mean(network, probe, "diswot", seeds, lambda t, s: _semantic(t, s, "diswot") + _relation(t, s))


def diswot_semantic(network: nn.Module, probe: Probe, *, seeds: int = 1) -> float:
    """How alike the classifiers' gradients are, class by class.

        M_s = -1/(K C) sum_k ||E_k(T) - E_k(S)||_F^2,   E_k = g_k g_k^T [C, C], each row over its L2 norm

    g [K, C] is the gradient of the mean cross-entropy by the classifier's weight. A row of zeros stays one. In [-4, 0];
    the mean over images is divided out: the same images twice have the same score. Arguments and errors: `diswot`.
    """
    return _mean(network, probe, "diswot_semantic", seeds, lambda t, s: _semantic(t, s, "diswot_semantic"))


def diswot_relation(network: nn.Module, probe: Probe, *, seeds: int = 1) -> float:
    """How alike the images lie to each other.

        M_r = -1/B^2 sum (A(T) - A(S))^2,   A = f f^T [B, B], each row over its L2 norm

    f [B, C H W] are the features before global pooling; any widths compare. In [-4/B, 0]: it shrinks with the batch,
    the same images twice have half the score. Arguments as for `diswot`.

    Raises:
        ScoreError: no teacher, or no finite value.
        RuntimeError, ValueError: student or teacher does not run on the probe's images.
    """
    return _mean(network, probe, "diswot_relation", seeds, _relation)


def diswot_free(network: nn.Module, probe: Probe, *, seeds: int = 1) -> float:
    """DisWOT without the widths: our adaptation for spaces whose students are narrower than the teacher; not published.

        s = M_f + M_r,   M_f = -1/K^2 sum (G(T) - G(S))^2,   G = g g^T [K, K], each row over its L2 norm

    The classes' gradients g [K, C] are compared with each other, where `diswot_semantic` compares channels, so that C
    may differ. M_f is in [-4/K, 0], and M_r that of `diswot_relation`. Arguments as for `diswot`.

    Raises:
        ScoreError: no teacher, other classes than the teacher's, or no finite value.
        RuntimeError, ValueError: student or teacher does not run on the probe's images.
    """
    return _mean(network, probe, "diswot_free", seeds, lambda t, s: _free(t, s) + _relation(t, s))


@dataclass(frozen=True)
class _Signals:
    """What one network says of the batch, in float64: features [B, F] before pooling, and the gradient [K, C]."""

    features: Tensor
    gradient: Tensor


_TEACHERS: TeacherMemory[_Signals] = TeacherMemory()


def _signals(network: nn.Module, probe: Probe, name: str) -> _Signals:
    """One pass forth and back of the network with random weights of the probe's seed."""
    few = probe.images[:2]
    with borrowed(network, probe.seed), torch.enable_grad():
        draw_weights(network)
        weight = classifier_of(network, few, name).weight.requires_grad_()
        with before_pooling(network, few, name) as features:
            batch_statistics(network)
            logits = network(probe.images)
            seen = features().detach().double()
        found = gradients(cross_entropy(logits, probe.labels, name), [weight])
    gradient = found[0][1].flatten(1).double() if found else torch.zeros_like(weight).flatten(1).double()
    if not bool(torch.isfinite(seen).all()) or not bool(torch.isfinite(gradient).all()):
        raise ScoreError(
            f"{name}: expected finite features and gradients, found others in {type(network).__name__} with weights"
            f" from N(0, 1); a deep network needs norms for that: take another score"
        )
    return _Signals(seen, gradient)


def _mean(
    network: nn.Module, probe: Probe, name: str, seeds: int, metric: Callable[[_Signals, _Signals], float]
) -> float:
    """The metric of teacher and student, its mean over seeds."""
    if seeds < 1:
        raise ValueError(f"{name}: seeds must be 1 or more; got {seeds}")
    if probe.teacher is None:
        raise ScoreError(f"{name}: expected a teacher to compare with, found none; give the probe one: Probe(teacher=)")
    values = []
    for index in range(seeds):
        seeded = replace(probe, seed=(probe.seed + index) % 2**32)
        teacher = _TEACHERS.take(probe.teacher, seeded, partial(_signals, probe.teacher, seeded, name), redrawn=True)
        values.append(metric(teacher, _signals(network, seeded, name)))
    return finite(math.fsum(values) / seeds, name, "take another score")


def _semantic(teacher: _Signals, student: _Signals, name: str) -> float:
    if teacher.gradient.shape != student.gradient.shape:
        raise ScoreError(
            f"{name}: expected as many classes and channels before the classifier as the teacher has,"
            f" {list(teacher.gradient.shape)}, found {list(student.gradient.shape)}; take 'diswot_free', which compares"
            f" any widths, or 'diswot_relation'"
        )
    return semantic_metric(teacher.gradient, student.gradient)


def _relation(teacher: _Signals, student: _Signals) -> float:
    return gram_metric(teacher.features, student.features)


def _free(teacher: _Signals, student: _Signals) -> float:
    if len(teacher.gradient) != len(student.gradient):
        raise ScoreError(
            f"diswot_free: expected the teacher's {len(teacher.gradient)} classes, found {len(student.gradient)};"
            f" take 'diswot_relation', which looks at no classes"
        )
    return gram_metric(teacher.gradient, student.gradient)


def gram_metric(teacher: Tensor, student: Tensor) -> float:
    """`-1/n^2 sum (A_T - A_S)^2`, A = x x^T with each row over its L2 norm, of rows x [n, F_T] and [n, F_S].

    M_r of DisWOT for features, and M_f of our adaptation for gradients. In [-4/n, 0].
    """
    return 0.0 - float(gram_distance(student, teacher))


def semantic_metric(teacher: Tensor, student: Tensor) -> float:
    """M_s of DisWOT for the classes' gradients g [K, C], the negative of `semantic_distance`. In [-4, 0]."""
    return 0.0 - float(semantic_distance(student, teacher))
