"""DisWOT against its definition written out, numbers worked by hand, and what must hold of teacher and student."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from n2n.networks import build_teacher
from n2n.scores import NEEDS_TEACHER, SCORES, Probe, ScoreError
from n2n.scores.before_pooling import before_pooling, classifier_of
from n2n.scores.diswot import diswot, diswot_free, diswot_relation, diswot_semantic, gram_metric, semantic_metric
from n2n.scores.fresh import draw_weights

IMAGES, LABELS = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1, 1])


def resnet(name: str = "resnet20", *, width: int = 2, classes: int = 3, seed: int = 0) -> nn.Module:
    return build_teacher(name, classes=classes, channels=1, width=width, seed=seed)


def probe(teacher: nn.Module | None, seed: int = 4) -> Probe:
    return Probe(IMAGES, LABELS, teacher, seed)


def over_norm(row: list[float]) -> list[float]:
    length = math.sqrt(sum(value**2 for value in row))
    return [value / length if length else 0.0 for value in row]


def gram(rows: list[list[float]]) -> list[list[float]]:
    return [over_norm([sum(a * b for a, b in zip(one, other, strict=True)) for other in rows]) for one in rows]


def distance(one: list[list[float]], other: list[list[float]]) -> float:
    return sum((a - b) ** 2 for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True))


def semantic_by_definition(teacher: Tensor, student: Tensor) -> float:
    """Class by class, with E_k as a matrix."""
    total = 0.0
    for one, other in zip(teacher.tolist(), student.tolist(), strict=True):
        matrices = [[over_norm([a * b for b in g]) for a in g] for g in (one, other)]
        total += distance(*matrices)
    return -total / teacher.numel()


def run(network: nn.Module, seed: int) -> tuple[Tensor, Tensor]:
    """Features [B, F] and the classifier's gradient [K, C] of a resnet drawn anew, by `backward`."""
    network = copy.deepcopy(network)
    torch.manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    maps: list[Tensor] = []
    network.stages.register_forward_hook(lambda module, inputs, output: maps.append(output.detach()))
    classifier = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    network.zero_grad()
    F.cross_entropy(network.train()(IMAGES), LABELS).backward()
    return maps[0].flatten(1).double(), classifier.weight.grad.double()


def test_relation_by_hand():
    # A = I for orthogonal images, and (1, 1)/sqrt(2) twice for equal ones.
    half = 1 / math.sqrt(2)
    expected = -(2 * (1 - half) ** 2 + 2 * half**2) / 4
    assert gram_metric(torch.eye(2), torch.ones(2, 3)) == pytest.approx(expected)
    assert gram_metric(torch.eye(2), 7 * torch.eye(2)) == 0


def test_semantic_by_hand():
    # E = diag(1, 0) and diag(0, 1): a squared distance of 2 over K C = 2.
    assert semantic_metric(torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 0.5]])) == pytest.approx(-1)
    # Rows of (1, 1) are (1, 1)/sqrt(2) twice, those of (1, -1) are (1, -1)/sqrt(2) and (-1, 1)/sqrt(2): distance 4.
    assert semantic_metric(torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0, -1.0]])) == pytest.approx(-2)
    assert semantic_metric(torch.tensor([[1.0, 1.0]]), torch.tensor([[-2.0, -2.0]])) == 0


def test_semantic_is_its_definition():
    generator = torch.Generator().manual_seed(0)
    teacher, student = (torch.randn(4, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    teacher[1], student[2, 3] = 0, 0
    assert semantic_metric(teacher, student) == pytest.approx(semantic_by_definition(teacher, student))


def test_the_scores_of_two_networks_written_out():
    teacher, student = resnet("resnet32", seed=1), resnet()
    (f_t, g_t), (f_s, g_s) = run(teacher, 4), run(student, 4)
    semantic = semantic_by_definition(g_t, g_s)
    relation = -distance(gram(f_t.tolist()), gram(f_s.tolist())) / 36
    free = -distance(gram(g_t.tolist()), gram(g_s.tolist())) / 9
    assert semantic < -0.01
    assert relation < -1e-4
    assert free < -1e-4
    given = probe(teacher)
    assert diswot_semantic(student, given) == pytest.approx(semantic, rel=1e-4)
    assert diswot_relation(student, given) == pytest.approx(relation, rel=1e-4)
    assert diswot(student, given) == pytest.approx(semantic + relation, rel=1e-4)
    assert diswot_free(student, given) == pytest.approx(free + relation, rel=1e-4)


@pytest.mark.parametrize("name", sorted(name for name in NEEDS_TEACHER if name.startswith("diswot")))
def test_a_network_that_equals_its_teacher_has_zero(name):
    for make in (lambda seed: resnet(seed=seed), mlp):
        given = probe(make(1))
        assert SCORES[name](make(2), given) == 0  # other weights, which are drawn anew
        assert SCORES[name](given.teacher, given) == 0


def mlp(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.ReLU(), nn.Linear(5, 3))


@pytest.mark.parametrize("name", sorted(name for name in NEEDS_TEACHER if name.startswith("diswot")))
def test_gradients_of_the_teacher_do_not_pile_up(name):
    given, students = probe(resnet("resnet32")), [resnet(seed=seed) for seed in range(2)]
    given.teacher(IMAGES).sum().backward()
    alone = [SCORES[name](student, probe(resnet("resnet32"))) for student in students]
    assert [SCORES[name](student, given) for student in (*students, *students)] == alone * 2


def test_seeds_are_averaged():
    given = probe(resnet("resnet32"))
    each = [diswot(resnet(), replace(given, seed=seed)) for seed in (4, 5, 6)]
    assert len(set(each)) == 3
    assert diswot(resnet(), given, seeds=3) == pytest.approx(sum(each) / 3)
    with pytest.raises(ValueError, match="seeds must be 1 or more"):
        diswot(resnet(), given, seeds=0)


def test_the_same_images_twice():
    given = probe(resnet("resnet32"))
    twice = replace(given, images=IMAGES.repeat(2, 1, 1, 1), labels=LABELS.repeat(2))
    assert diswot_semantic(resnet(), twice) == pytest.approx(diswot_semantic(resnet(), given), rel=1e-4)
    assert diswot_relation(resnet(), twice) == pytest.approx(diswot_relation(resnet(), given) / 2, rel=1e-4)


@pytest.mark.parametrize("name", sorted(name for name in NEEDS_TEACHER if name.startswith("diswot")))
def test_without_a_teacher_there_is_none(name):
    with pytest.raises(ScoreError, match=f"{name}: expected a teacher to compare with, found none"):
        SCORES[name](resnet(), probe(None))


@pytest.mark.parametrize("name", sorted(set(SCORES) - NEEDS_TEACHER))
def test_no_other_score_needs_a_teacher(name):
    assert math.isfinite(SCORES[name](resnet(), probe(None)))


def test_other_widths_have_the_free_form():
    given = probe(resnet(width=4))
    for score in (diswot, diswot_semantic):
        with pytest.raises(ScoreError, match=r"the teacher has, \[3, 16\], found \[3, 8\]; take 'diswot_free'"):
            score(resnet(), given)
    assert diswot_free(resnet(), given) < diswot_relation(resnet(), given) < 0


def test_other_classes_have_the_relation():
    given = probe(resnet(classes=4))
    with pytest.raises(ScoreError, match="the teacher's 4 classes, found 3; take 'diswot_relation'"):
        diswot_free(resnet(), given)
    assert diswot_relation(resnet(), given) == 0  # the networks differ behind the features only


def test_the_classifier_may_be_a_convolution():
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert classifier_of(network, IMAGES, "test") is network[2]
    assert diswot(network, probe(copy.deepcopy(network))) == 0
    with pytest.raises(ScoreError, match=r"found none for outputs of shape \[6, 192\] among 1 layers that ran"):
        classifier_of(nn.Sequential(nn.Conv2d(1, 3, 1), nn.Flatten()), IMAGES, "test")


def test_a_deep_network_without_norms_leaves_the_numbers():
    network = nn.Sequential(nn.Flatten(), *(nn.Linear(64, 64) for _ in range(60)), nn.Linear(64, 3))
    with pytest.raises(ScoreError, match="a deep network needs norms"):
        diswot(network, probe(network))


def test_features_are_the_maps_before_pooling_or_what_the_classifier_takes():
    maps = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3))
    for network, expected in ((maps, maps[:2]), (mlp(0), mlp(0)[:3])):
        with before_pooling(network, IMAGES[:1], "test") as features:
            network(IMAGES)
            assert torch.equal(features(), expected(IMAGES).flatten(1))
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_weights_are_drawn_biases_and_norms_are_set():
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.full((3,), 0.1))
            self.attention, self.norm, self.layer = nn.MultiheadAttention(8, 2), nn.LayerNorm(8), nn.Linear(8, 99)

    network = Scaled()
    for vector in (network.norm.weight, network.norm.bias, network.layer.bias, network.attention.in_proj_bias):
        nn.init.constant_(vector, 7)
    torch.manual_seed(0)
    draw_weights(network)
    assert network.norm.weight.tolist() == [1] * 8
    for vector in (network.norm.bias, network.layer.bias, network.attention.in_proj_bias):
        assert not vector.any()
    assert network.scale.tolist() == pytest.approx([0.1] * 3)
    for weight in (network.layer.weight, network.attention.in_proj_weight):
        assert float(weight.detach().std()) == pytest.approx(1, abs=0.1)
