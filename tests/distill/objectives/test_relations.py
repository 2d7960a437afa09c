"""Objectives on relations of examples against numbers worked by hand, what must not matter to them, and definitions."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from objective_contract import batch_of
from scipy.spatial.distance import pdist, squareform
from torch import Tensor, nn

from n2n.distill.objectives import Seen
from n2n.distill.objectives.correlation import correlation, gaussian_kernel
from n2n.distill.objectives.crd import Memory, crd, log_odds, open_crd, other_examples
from n2n.distill.objectives.diswot_relation import diswot_relation
from n2n.distill.objectives.diswot_semantic import classifier_gradient, diswot_semantic, semantic_distance
from n2n.distill.objectives.fsp import flow, fsp, open_fsp
from n2n.distill.objectives.pkt import neighbours, pkt
from n2n.distill.objectives.rkd import angle_loss, distance_loss, rkd
from n2n.distill.objectives.similarity import gram_distance, similarity
from n2n.scores.diswot import gram_metric, semantic_metric


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def seen(*maps: Tensor) -> Seen:
    return Seen(torch.zeros(len(maps[0]), 2, dtype=torch.float64), maps)


def rows(*values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


FEATURES = (draw(6, 3), draw(6, 4, seed=1))
MAPS = (draw(5, 2, 3, 3), draw(5, 4, 2, 2, seed=1))


def huber(one: float, other: float) -> float:
    difference = abs(one - other)
    return 0.5 * difference**2 if difference < 1 else difference - 0.5


def unit(row: np.ndarray) -> np.ndarray:
    return row / np.linalg.norm(row)


def test_similarity_by_hand():
    # Orthogonal images have G = I; equal ones have rows (1, 1)/sqrt(2).
    half = 1 / math.sqrt(2)
    student, teacher = seen(rows([1, 1], [1, 1])[:, :, None]), seen(rows([3, 0], [0, 3])[:, :, None])
    expected = (2 * (1 - half) ** 2 + 2 * half**2) / 4
    assert similarity(student, teacher, batch_of()).item() == pytest.approx(expected)
    assert diswot_relation(student, teacher, batch_of()).item() == pytest.approx(expected)


def test_similarity_is_its_definition():
    total = 0.0
    flat = [maps.numpy().reshape(5, -1) for maps in MAPS]
    for i in range(5):
        lines = [unit(np.array([np.dot(one[i], one[j]) for j in range(5)])) for one in flat]
        total += float(((lines[0] - lines[1]) ** 2).sum()) / 25
    assert similarity(seen(MAPS[0]), seen(MAPS[1]), batch_of()).item() == pytest.approx(total)


def test_the_score_and_the_loss_are_one_number():
    ours, theirs = (maps.flatten(1) for maps in MAPS)
    assert gram_metric(theirs, ours) == -diswot_relation(seen(MAPS[0]), seen(MAPS[1]), batch_of()).item()
    assert gram_metric(theirs, ours) == -gram_distance(ours, theirs).item()
    gradients = draw(4, 5), draw(4, 5, seed=2)
    assert semantic_metric(*gradients) == -semantic_distance(gradients[1], gradients[0]).item()


def test_semantic_distance_by_hand():
    # E is diag(1, 0) and diag(0, 1): a squared distance of 2 over K C = 2.
    assert semantic_distance(rows([3, 0]), rows([0, 0.5])).item() == pytest.approx(1)
    assert semantic_distance(rows([1, 1]), rows([1, -1])).item() == pytest.approx(2)


def test_diswot_semantic_is_its_definition():
    labels, features, weights = [0, 2, 1, 1], draw(4, 3), draw(3, 3, seed=1)
    others, other_weights = draw(4, 3, seed=2), draw(3, 3, seed=3)
    matrices = []
    for inputs, weight in ((features, weights), (others, other_weights)):
        layer = nn.Linear(3, 3, bias=False).double()
        layer.weight.data = weight.clone()
        F.cross_entropy(layer(inputs), torch.tensor(labels)).backward()
        found = classifier_gradient(inputs @ weight.T, inputs, torch.tensor(labels))
        torch.testing.assert_close(found, layer.weight.grad)
        outer = torch.einsum("ki,kj->kij", layer.weight.grad, layer.weight.grad).numpy()
        matrices.append(outer / np.linalg.norm(outer, axis=2, keepdims=True))
    expected = float(((matrices[0] - matrices[1]) ** 2).sum()) / 9
    student, teacher = Seen(features @ weights.T, (features,)), Seen(others @ other_weights.T, (others,))
    assert diswot_semantic(student, teacher, batch_of(labels)).item() == pytest.approx(expected)


def test_diswot_semantic_refuses_other_widths():
    with pytest.raises(ValueError, match=r"has, 4, found 3; use 'diswot_relation' or 'similarity'"):
        diswot_semantic(seen(FEATURES[0]), seen(FEATURES[1]), batch_of([0] * 6))


def test_rkd_distances_by_hand():
    # Over their means the distances are 1/2, 3/2, 1 and 3/4, 3/2, 3/4; each counts twice among nine pairs.
    found = distance_loss(rows([0], [1], [3]), rows([0], [1], [2]))
    assert found.item() == pytest.approx(2 * (0.5 * 0.25**2 * 2) / 9)


def test_rkd_angles_by_hand():
    # The teacher's are equal sides: cosines 1/2. The student's are right-angled at the first: 0, and 1/sqrt(2) twice.
    student, teacher = rows([0, 0], [1, 0], [0, 1]), rows([0, 0], [1, 0], [0.5, math.sqrt(3) / 2])
    expected = 2 * (huber(0, 0.5) + 2 * huber(1 / math.sqrt(2), 0.5)) / 27
    assert angle_loss(student, teacher).item() == pytest.approx(expected)


def test_rkd_is_its_definition():
    ours, theirs = (one.numpy() for one in FEATURES)
    ours[1] *= 8  # so that the linear branch of the Huber loss counts, too
    tables = [squareform(pdist(one)) / pdist(one).mean() for one in (ours, theirs)]
    distances = sum(huber(tables[0][i, j], tables[1][i, j]) for i in range(6) for j in range(6)) / 36
    assert abs(tables[0] - tables[1]).max() > 1

    def cosine(points: np.ndarray, i: int, j: int, k: int) -> float:
        return float(unit(points[i] - points[j]) @ unit(points[k] - points[j])) if j not in (i, k) else 0.0

    triples = itertools.product(range(6), repeat=3)
    angles = sum(huber(cosine(ours, *ijk), cosine(theirs, *ijk)) for ijk in triples) / 216
    student, teacher = seen(torch.tensor(ours)), seen(torch.tensor(theirs))
    assert rkd(student, teacher, batch_of()).item() == pytest.approx(25 * distances + 50 * angles)
    assert rkd(student, teacher, batch_of(), distance_weight=2, angle_weight=0).item() == pytest.approx(2 * distances)


def test_rkd_does_not_see_scale_rotation_and_shift():
    turn = torch.linalg.qr(draw(4, 4, seed=5))[0]
    moved = 3.7 * FEATURES[1] @ turn + 2
    torch.testing.assert_close(
        rkd(seen(FEATURES[0]), seen(moved), batch_of()), rkd(seen(FEATURES[0]), seen(FEATURES[1]), batch_of())
    )
    assert rkd(seen(moved), seen(FEATURES[1]), batch_of()).item() == pytest.approx(0, abs=1e-10)


def test_rkd_angles_by_parts_are_the_same_value_and_gradient():
    found = []
    for chunk in (1, 80, 2**22):
        student = FEATURES[0].clone().requires_grad_()
        value = angle_loss(student, FEATURES[1], chunk=chunk)
        found.append((value.detach(), *torch.autograd.grad(value, student)))
    for value, gradient in found[1:]:
        torch.testing.assert_close(value, found[0][0])
        torch.testing.assert_close(gradient, found[0][1])


def test_correlation_by_hand():
    # Off the diagonal the kernels are e^-0.8 (1 + 0.8 + 0.32) for equal examples and e^-0.8 for orthogonal ones.
    student, teacher = seen(rows([2, 2], [1, 1])), seen(rows([0, 3], [1, 0]))
    expected = 2 * (math.exp(-0.8) * 1.12) ** 2 / 4
    assert correlation(student, teacher, batch_of()).item() == pytest.approx(expected)
    assert correlation(student, teacher, batch_of(), kernel="bilinear").item() == pytest.approx(2 / 4)


def test_the_taylor_series_tends_to_the_gaussian_kernel():
    units = F.normalize(FEATURES[0], dim=1)
    squared = squareform(pdist(units.numpy())) ** 2
    np.testing.assert_allclose(gaussian_kernel(units @ units.T, 0.4, 20).numpy(), np.exp(-0.4 * squared), rtol=1e-10)


def test_pkt_by_hand():
    # Orthogonal examples are neighbours by 1/2 each; of two equal ones and a third, by 2/3 and 1/3.
    student, teacher = seen(rows([1, 0], [2, 0], [0, 1])), seen(torch.eye(3, dtype=torch.float64))
    expected = 2 * 0.5 * (math.log(0.5 / (2 / 3)) + math.log(0.5 / (1 / 3))) / 9
    assert pkt(student, teacher, batch_of()).item() == pytest.approx(expected, rel=1e-5)


def test_pkt_is_its_definition():
    total, found = 0.0, [neighbours(one).numpy() for one in FEATURES]
    tables = []
    for points, table in zip(FEATURES, found, strict=True):
        kernel = (1 - squareform(pdist(points.numpy(), "cosine")) + 1) / 2
        for i in range(6):
            others = [j for j in range(6) if j != i]
            np.testing.assert_allclose(table[i, others], kernel[i, others] / kernel[i, others].sum())
            assert table[i, i] == 0
        tables.append(table)
    for i, j in itertools.permutations(range(6), 2):
        total += tables[1][i, j] * math.log(tables[1][i, j] / tables[0][i, j]) / 36
    assert pkt(seen(FEATURES[0]), seen(FEATURES[1]), batch_of()).item() == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("objective", [similarity, diswot_relation, rkd, correlation, pkt])
def test_it_is_nothing_for_features_that_are_the_same_or_wider_by_zeros(objective):
    wider = torch.cat([FEATURES[0], torch.zeros(6, 2, dtype=torch.float64)], dim=1)
    assert objective(seen(FEATURES[0]), seen(FEATURES[0].clone()), batch_of()).item() == pytest.approx(0, abs=1e-12)
    assert objective(seen(FEATURES[0]), seen(wider), batch_of()).item() == pytest.approx(0, abs=1e-12)
    assert objective(seen(FEATURES[0]), seen(FEATURES[1]), batch_of()).item() > 1e-4


def test_fsp_by_hand():
    # G is (1 3 + 2 4)/2 = 5.5 for the student and 1 for the teacher.
    student = seen(torch.tensor([[[1.0, 2]]]), torch.tensor([[[3.0, 4]]]))
    teacher = seen(torch.ones(1, 1, 2), torch.ones(1, 1, 2))
    side = open_fsp(student, teacher, examples=1, classes=2, seed=0)
    assert fsp(student, teacher, batch_of(), side=side).item() == pytest.approx(4.5**2)


def test_fsp_is_its_definition_and_takes_other_sizes():
    first, last = draw(2, 3, 4, 4), draw(2, 5, 4, 4, seed=1)
    matrix = flow(first, last)
    for b, i, j in itertools.product(range(2), range(3), range(5)):
        expected = sum(first[b, i, y, x] * last[b, j, y, x] for y in range(4) for x in range(4)) / 16
        torch.testing.assert_close(matrix[b, i, j], expected)
    pooled = flow(draw(2, 3, 8, 8), last)
    torch.testing.assert_close(pooled, flow(F.avg_pool2d(draw(2, 3, 8, 8), 2), last))
    student, teacher = seen(first, last, first, first), seen(*(draw(2, c, 3, 3, seed=c) for c in (3, 5)), first, first)
    side = open_fsp(student, teacher, examples=1, classes=2, seed=0)
    expected = (flow(*teacher.maps[:2]) - matrix).square().mean()  # the second stage is the same
    torch.testing.assert_close(fsp(student, teacher, batch_of(), side=side), expected)


def test_fsp_of_other_widths_asks_for_an_adapter():
    student, teacher = seen(draw(2, 3, 4, 4), draw(2, 5, 4, 4)), seen(draw(2, 3, 4, 4), draw(2, 6, 4, 4))
    given = {"examples": 1, "classes": 2, "seed": 0}
    with pytest.raises(
        ValueError, match=r"found 5 channels in the student and 6 in the teacher; use 'fsp,adapter=true'"
    ):
        open_fsp(student, teacher, **given)
    side = open_fsp(student, teacher, adapter=True, **given).double()
    assert [type(one) for one in side] == [nn.Identity, nn.Conv2d]
    maps = torch.einsum("oi,bihw->bohw", side[1].weight[:, :, 0, 0], student.maps[1]) + side[1].bias[:, None, None]
    expected = (flow(*teacher.maps) - flow(student.maps[0], maps)).square().mean()
    torch.testing.assert_close(fsp(student, teacher, batch_of(), side=side), expected)


def straight(memory: Memory) -> Memory:
    """With embeddings that only shorten."""
    for layer in (memory.embed_s, memory.embed_t):
        nn.init.eye_(layer.weight)
        nn.init.zeros_(layer.bias)
    return memory


def test_crd_by_hand():
    # h is e/(e + 1/2) for the pair and 1/(1 + 1/2) for the other example, which is orthogonal; T = 1, N/M = 1/2.
    memory = straight(Memory(2, 2, 2, 2))
    memory.students[:], memory.teachers[:] = torch.tensor([0.0, 1.0]), torch.tensor([0.0, -1.0])
    given = batch_of(indices=torch.tensor([1]), examples=2)
    ones = Seen(torch.zeros(1, 2), (torch.tensor([[5.0, 0.0]]),))
    found = crd(ones, ones, given, side=memory, negatives=1, temperature=1.0, partition=False)
    agreed = math.e / (math.e + 0.5)
    assert found.item() == pytest.approx(2 * (-math.log(agreed) - math.log(1 / 3)), rel=1e-6)
    half = 1 / math.sqrt(2)
    torch.testing.assert_close(memory.students, torch.tensor([[0, 1], [half, half]]))
    torch.testing.assert_close(memory.teachers, torch.tensor([[0, -1], [half, -half]]))


@pytest.mark.parametrize("partition", [False, True])
def test_crd_is_its_definition(partition):
    examples, count = 7, 4
    memory = open_crd(seen(FEATURES[0]), seen(FEATURES[1]), examples=examples, classes=2, seed=1, dim=5).double()
    index = torch.tensor([3, 0, 6, 1, 2, 5])
    drawn = other_examples(index, count, examples, torch.Generator().manual_seed(3)).numpy()
    embedded = []
    for layer, features in ((memory.embed_s, FEATURES[0]), (memory.embed_t, FEATURES[1])):
        weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
        embedded.append([unit(weight @ row + bias) for row in features.numpy()])
    banks = [memory.teachers.clone().numpy(), memory.students.clone().numpy()]

    def power(one: np.ndarray, other: np.ndarray) -> float:
        return math.exp(float(one @ other) / 0.2)

    total = 0.0
    for anchor, bank in zip(embedded, banks, strict=True):
        pairs = [power(embedded[0][b], embedded[1][b]) for b in range(6)]
        others = [[power(anchor[b], bank[other]) for other in drawn[b]] for b in range(6)]
        constant = (
            examples * np.mean([[pair, *row] for pair, row in zip(pairs, others, strict=True)]) if partition else 1
        )

        def h(value: float, z: float = constant) -> float:
            found = value / z / (value / z + count / examples)
            assert 0 < found < 1
            return found

        for pair, row in zip(pairs, others, strict=True):
            total -= (math.log(h(pair)) + sum(math.log(1 - h(value)) for value in row)) / 6
    given = batch_of(indices=index, examples=examples)
    options = {"negatives": count, "temperature": 0.2, "partition": partition}
    found = crd(seen(FEATURES[0]), seen(FEATURES[1]), given, side=memory, **options)
    assert found.item() == pytest.approx(total)


def test_crds_partition_is_that_of_the_first_batch_and_makes_the_loss_a_small_one():
    memory = open_crd(seen(draw(8, 6)), seen(draw(8, 5)), examples=3000, classes=2, seed=1)
    assert memory.log_z.isnan().all()
    given = batch_of(indices=torch.arange(8), examples=3000)
    first = crd(
        Seen(torch.zeros(8, 2), (torch.randn(8, 6),)), Seen(torch.zeros(8, 2), (torch.randn(8, 5),)), given, side=memory
    )
    kept = memory.log_z.clone()
    assert first.item() < 2 * (math.log(16384) + 3)  # odds of 1 to N: log(1 + N) for the pair, about 1 for the others
    crd(
        Seen(torch.zeros(8, 2), (torch.randn(8, 6),)), Seen(torch.zeros(8, 2), (torch.randn(8, 5),)), given, side=memory
    )
    assert torch.equal(memory.log_z, kept)
    assert kept.isfinite().all()


def test_crd_remembers_with_momentum_and_keeps_the_rest():
    memory = open_crd(seen(FEATURES[0]), seen(FEATURES[1]), examples=9, classes=2, seed=1, dim=5).double()
    old = memory.students.clone()
    ours, _ = memory(*FEATURES)
    index = torch.arange(6)
    given = batch_of(indices=index, examples=9)
    crd(seen(FEATURES[0]), seen(FEATURES[1]), given, side=memory, momentum=0.8, negatives=3).backward()
    torch.testing.assert_close(memory.students[:6], F.normalize(0.8 * old[:6] + 0.2 * ours.detach(), dim=1))
    assert torch.equal(memory.students[6:], old[6:])
    assert set(dict(memory.named_buffers())) == {"students", "teachers", "log_z"} <= set(memory.state_dict())


def test_crds_negatives_are_all_other_examples_alike():
    drawn = other_examples(torch.tensor([0, 2, 4]), 8000, 5, torch.Generator().manual_seed(0))
    for own, row in zip((0, 2, 4), drawn, strict=True):
        counts = torch.bincount(row, minlength=5)
        assert counts[own] == 0
        others = [counts[one].item() for one in range(5) if one != own]
        assert min(others) > 1800
        assert max(others) < 2200


def test_crds_odds_are_those_of_its_critic():
    for x in (-1.0, 0.3, 1.0):
        h = math.exp(x / 0.5) / (math.exp(x / 0.5) + 0.33)
        assert log_odds(torch.tensor(x), 0.5, 0.33).item() == pytest.approx(math.log(h / (1 - h)), rel=1e-5)


def test_crd_refuses_what_it_cannot_do():
    memory = straight(Memory(2, 2, 2, 2))
    ones = Seen(torch.zeros(1, 2), (torch.ones(1, 2),))
    with pytest.raises(ValueError, match="expected a training split of 2 examples or more, found 1; use 'kd'"):
        crd(ones, ones, batch_of(indices=torch.tensor([0]), examples=1), side=memory)
    with pytest.raises(ValueError, match="crd: expected each example's index in the training split, found none"):
        crd(ones, ones, batch_of(), side=memory)
