"""Objectives on logits against numbers worked by hand, the identities between them, and their definitions in loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
import torch.nn.functional as F
from objective_contract import batch_of
from torch import nn

from n2n.distill.objectives import Seen
from n2n.distill.objectives.dist import correlation, dist
from n2n.distill.objectives.dkd import dkd, other_classes, other_divergence, target_divergence
from n2n.distill.objectives.kd import divergence, kd
from n2n.distill.objectives.logit_mse import logit_mse
from n2n.distill.objectives.logit_std import logit_std, standardised
from n2n.distill.objectives.noisy_teacher import noisy_teacher
from n2n.distill.objectives.ofa import Exits, ofa, open_ofa, target_enhanced
from n2n.distill.objectives.soft_targets import soft_targets
from n2n.distill.objectives.wttm import wttm

LN2, LN3, LN4 = math.log(2), math.log(3), math.log(4)
LABELS = [1, 0, 3, 3, 2]


def logits(seed: int, rows: int = 5, classes: int = 4) -> torch.Tensor:
    return 2 * torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def seen(*rows: list[float]) -> Seen:
    return Seen(torch.tensor(rows, dtype=torch.float64))


def probabilities(values: torch.Tensor, temperature: float = 1.0) -> np.ndarray:
    return scipy.special.softmax(values.numpy() / temperature, axis=1)


def cross_entropy(values: torch.Tensor) -> float:
    return float(np.mean([-math.log(row[y]) for row, y in zip(probabilities(values), LABELS, strict=True)]))


STUDENT, TEACHER = Seen(logits(0)), Seen(logits(1))
P_S, P_T = probabilities(STUDENT.logits), probabilities(TEACHER.logits)


def test_soft_targets_by_hand():
    uniform, teacher = seen([0, 0]), seen([LN3, 0])
    assert soft_targets(uniform, teacher, batch_of()).item() == pytest.approx(LN2)
    assert soft_targets(uniform, teacher, batch_of(), temperature=2).item() == pytest.approx(4 * LN2)
    assert soft_targets(teacher, teacher, batch_of()).item() == pytest.approx(LN4 - 0.75 * LN3)  # the entropy


def test_soft_targets_are_the_divergence_and_the_teachers_entropy():
    for temperature in (1.0, 3.0):
        entropy = float(scipy.stats.entropy(probabilities(TEACHER.logits, temperature), axis=1).mean())
        expected = temperature**2 * (divergence(STUDENT.logits, TEACHER.logits, temperature).item() + entropy)
        found = soft_targets(STUDENT, TEACHER, batch_of(), temperature=temperature)
        assert found.item() == pytest.approx(expected)


def test_the_divergence_sums_over_classes_and_shifts_do_not_matter():
    found = divergence(STUDENT.logits, TEACHER.logits)
    assert found.item() == pytest.approx(float(scipy.stats.entropy(P_T, P_S, axis=1).mean()))
    mean = F.kl_div(torch.tensor(P_S).log(), torch.tensor(P_T), reduction="none").mean()
    assert 4 * mean.item() == pytest.approx(found.item())
    shifts = torch.arange(5.0, dtype=torch.float64)[:, None]
    torch.testing.assert_close(divergence(STUDENT.logits + shifts, TEACHER.logits - shifts), found)
    assert logit_mse(Seen(STUDENT.logits + shifts), TEACHER, batch_of()) != logit_mse(STUDENT, TEACHER, batch_of())


def test_dkd_by_hand():
    # The student says 1/3 each; the teacher 2/6, 1/6 and 3/6, of which 1/4 and 3/4 remain without class 0.
    student, teacher = seen([0, 0, 0]), seen([LN2, 0, LN3])
    target = 0.0  # 2/6 and 4/6 are the student's
    others = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    found = dkd(student, teacher, batch_of([0]), temperature=1.0)
    assert found.item() == pytest.approx(LN3 + target + 8 * others)
    # For class 2 the teacher says 1/2 and not 1/3, and 2/3 and 1/3 of the rest.
    target = 0.5 * math.log(0.5 / (1 / 3)) + 0.5 * math.log(0.5 / (2 / 3))
    others = 2 / 3 * math.log(4 / 3) + 1 / 3 * math.log(2 / 3)
    found = dkd(student, teacher, batch_of([2]), alpha=3, beta=2, temperature=1.0)
    assert found.item() == pytest.approx(LN3 + 3 * target + 2 * others)


def test_dkd_warms_up_over_its_epochs():
    def at(epoch: float, **options: float) -> float:
        return dkd(STUDENT, TEACHER, batch_of(LABELS, epoch=epoch), **options).item()

    hard, whole = at(0), at(20)
    assert hard == pytest.approx(cross_entropy(STUDENT.logits))
    assert at(5) == pytest.approx(hard + (whole - hard) / 4)
    assert at(50) == at(0, warmup_epochs=0) == whole


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_dkd_adds_up_to_kd(temperature):
    label = torch.tensor(LABELS)
    sure = probabilities(TEACHER.logits, temperature)
    for row, y in enumerate(LABELS):
        only = slice(row, row + 1)
        given = (STUDENT.logits[only], TEACHER.logits[only])
        together = target_divergence(*given, label[only], temperature)
        together = together + (1 - sure[row, y]) * other_divergence(*given, label[only], temperature)
        torch.testing.assert_close(together, divergence(*given, temperature))


def test_other_classes_keep_their_order():
    values = torch.arange(12.0).view(3, 4)
    expected = torch.tensor([[1.0, 2, 3], [4, 5, 7], [8, 9, 10]])
    assert torch.equal(other_classes(values, torch.tensor([0, 2, 3])), expected)


def test_dkd_of_two_classes_has_no_others():
    assert other_divergence(logits(0, 3, 2), logits(1, 3, 2), torch.tensor([0, 1, 1])) == 0


def test_logit_std_by_hand():
    # Standardised, the rows are (-1, 1) and (1, -1): logits 1 apart at T = 2, whose divergence is 2 s(1) - 1.
    student, teacher = seen([-3, 5]), seen([2, 1])
    soft = 2 / (1 + math.exp(-1)) - 1
    expected = 0.1 * math.log(1 + math.exp(8)) + 9 * 4 * soft
    assert logit_std(student, teacher, batch_of([0])).item() == pytest.approx(expected, rel=1e-6)


def test_logit_std_does_not_see_scale_and_shift_of_a_row():
    scale = torch.tensor([[0.5], [1.0], [2.0], [7.0], [30.0]], dtype=torch.float64)
    plain = logit_std(STUDENT, TEACHER, batch_of(LABELS), ce_weight=0)
    changed = logit_std(
        Seen(scale * STUDENT.logits - 3), Seen(4 + TEACHER.logits / scale), batch_of(LABELS), ce_weight=0
    )
    torch.testing.assert_close(changed, plain, rtol=1e-5, atol=0)
    assert logit_std(Seen(-STUDENT.logits), TEACHER, batch_of(LABELS), ce_weight=0) != pytest.approx(plain.item())


def test_standardised_is_the_z_score():
    expected = scipy.stats.zscore(STUDENT.logits.numpy(), axis=1)
    np.testing.assert_allclose(standardised(STUDENT.logits).numpy(), expected, rtol=1e-6)


def test_dist_by_hand():
    # The teacher says the opposite in each row and in each column: both correlations are -1.
    student, teacher = seen([LN3, 0], [0, LN3]), seen([0, LN3], [LN3, 0])
    assert dist(student, teacher, batch_of([0, 1])).item() == pytest.approx(math.log(4 / 3) + 2 + 2)
    found = dist(student, teacher, batch_of([0, 1]), beta=3, gamma=0.5, temperature=2)
    assert found.item() == pytest.approx(math.log(4 / 3) + 4 * (3 * 2 + 0.5 * 2))
    assert dist(student, student, batch_of([0, 1])).item() == pytest.approx(math.log(4 / 3))


def test_dist_is_pearsons_correlation():
    within_rows = np.mean([1 - scipy.stats.pearsonr(*pair)[0] for pair in zip(P_S, P_T, strict=True)])
    within_columns = np.mean([1 - scipy.stats.pearsonr(*pair)[0] for pair in zip(P_S.T, P_T.T, strict=True)])
    found = dist(STUDENT, TEACHER, batch_of(LABELS), beta=2, gamma=3)
    assert found.item() == pytest.approx(cross_entropy(STUDENT.logits) + 2 * within_rows + 3 * within_columns)


def test_what_rounding_leaves_of_a_constant_row_is_no_direction():
    even = torch.zeros(4, 10, requires_grad=True)  # as the logits of a classifier that begins at zero
    teacher = Seen(logits(0, rows=4, classes=10).float())
    assert correlation(F.softmax(even, dim=1), F.softmax(teacher.logits, dim=1)).tolist() == [0, 0, 0, 0]
    dist(Seen(even), teacher, batch_of(labels=[0, 1, 2, 3])).backward()
    assert even.grad.abs().max() < 10
    small = torch.tensor([[1.0, 1.001, 1.002]])
    assert correlation(small, small).item() == pytest.approx(1)


def test_one_class_leaves_dkd_nothing_to_tell_apart():
    one = Seen(torch.ones(3, 1, requires_grad=True))
    assert dkd(one, Seen(torch.zeros(3, 1)), batch_of(labels=[0, 0, 0])).item() == 0


def test_a_constant_row_correlates_with_nothing():
    assert correlation(torch.tensor([[2.0, 2.0]]), torch.tensor([[1.0, 3.0]])).tolist() == [0]


def test_wttm_by_hand():
    # p_t is 4/5 and 1/5; the roots are 2/sqrt(5) and 1/sqrt(5), their sum 3/sqrt(5), and q is 2/3 and 1/3.
    expected = 3 / math.sqrt(5) * (2 / 3 * math.log(4 / 3) + 1 / 3 * math.log(2 / 3))
    assert wttm(seen([0, 0]), seen([LN4, 0]), batch_of(), gamma=0.5).item() == pytest.approx(expected)


def test_wttm_is_its_definition_and_kl_at_one():
    powers = P_T**0.3
    sums = powers.sum(axis=1)
    expected = np.mean(sums * scipy.stats.entropy(powers / sums[:, None], P_S, axis=1))
    assert wttm(STUDENT, TEACHER, batch_of(), gamma=0.3).item() == pytest.approx(expected)
    found = wttm(STUDENT, TEACHER, batch_of(), gamma=1.0)
    torch.testing.assert_close(found, divergence(STUDENT.logits, TEACHER.logits))


def test_target_enhanced_by_hand():
    # The teacher says 1/2 each: (3/2)^2 - 1 = 5/4 for the label's class and 1/4 for the other.
    found = target_enhanced(torch.zeros(1, 2), torch.zeros(1, 2), torch.tensor([0]), 2.0)
    assert found.item() == pytest.approx(1.5 * LN2)


def test_target_enhanced_at_one_is_soft_targets():
    found = target_enhanced(STUDENT.logits, TEACHER.logits, torch.tensor(LABELS), 1.0)
    torch.testing.assert_close(found, soft_targets(STUDENT, TEACHER, batch_of()))


def test_target_enhanced_is_its_definition():
    total = 0.0
    for row, y in enumerate(LABELS):
        for c in range(4):
            label = float(c == y)
            total -= ((P_T[row, c] + label) ** 1.4 - label) * math.log(P_S[row, c]) / 5
    found = target_enhanced(STUDENT.logits, TEACHER.logits, torch.tensor(LABELS), 1.4)
    assert found.item() == pytest.approx(total)


def test_ofa_adds_head_exits_and_labels():
    maps = tuple(torch.randn(5, width, 3, 2, dtype=torch.float64) for width in (2, 3))
    student = Seen(STUDENT.logits, maps)
    side = open_ofa(student, TEACHER, examples=9, classes=4, seed=0).double()
    label = torch.tensor(LABELS)
    expected = 2 * F.cross_entropy(student.logits, label)
    expected = expected + 3 * target_enhanced(student.logits, TEACHER.logits, label, 1.2)
    for layer, one in zip(side.layers, maps, strict=True):
        means = torch.einsum("bchw->bc", one) / 6
        exit_logits = means @ layer.weight.T + layer.bias
        expected = expected + 5 * target_enhanced(exit_logits, TEACHER.logits, label, 1.2)
    options = {"gamma": 1.2, "ce_weight": 2, "head_weight": 3, "exit_weight": 5}
    torch.testing.assert_close(ofa(student, TEACHER, batch_of(LABELS), side=side, **options), expected)


def test_ofa_by_hand():
    # All say 1/2: the labels, the head and the one exit are ln 2 each.
    student = Seen(torch.zeros(1, 2), (torch.ones(1, 3, 2, 2),))
    side = Exits([3], 2)
    for parameter in side.parameters():
        nn.init.zeros_(parameter)
    found = ofa(student, Seen(torch.zeros(1, 2)), batch_of([1], classes=2), side=side)
    assert found.item() == pytest.approx(3 * LN2)


def test_noisy_teacher_without_noise_is_logit_mse():
    plain = logit_mse(STUDENT, TEACHER, batch_of())
    assert torch.equal(noisy_teacher(STUDENT, TEACHER, batch_of(), sigma=0), plain)
    assert torch.equal(noisy_teacher(STUDENT, TEACHER, batch_of(), share=0), plain)
    assert noisy_teacher(STUDENT, TEACHER, batch_of(), share=1) != plain


def test_noisy_teacher_multiplies_as_it_says_and_anew_at_every_step():
    generator = torch.Generator().manual_seed(3)
    chosen = torch.rand(5, 1, generator=generator)
    noise = torch.randn(5, 4, generator=generator)
    total = 0.0
    for row in range(5):
        for c in range(4):
            factor = 1 + 0.5 * noise[row, c].item() * (chosen[row].item() < 0.8)
            total += (STUDENT.logits[row, c].item() - factor * TEACHER.logits[row, c].item()) ** 2 / 10
    batch = batch_of()
    first = noisy_teacher(STUDENT, TEACHER, batch)
    assert first.item() == pytest.approx(total, rel=1e-6)
    assert noisy_teacher(STUDENT, TEACHER, batch) != first


def test_noisy_teacher_has_the_variance_and_the_share_that_are_asked_for():
    # For a student that is the teacher the loss is 1/2 a s^2 |z|^2 on average: 0.5 * 0.6 * 0.3^2 * (1 + 4).
    same = Seen(torch.tensor([[1.0, -2.0]]).expand(40_000, 2))
    found = noisy_teacher(same, same, batch_of(), share=0.6, sigma=0.3)
    assert found.item() == pytest.approx(0.135, rel=0.03)


@pytest.mark.parametrize("objective", [kd, dkd, logit_std, dist])
def test_missing_labels_are_named(objective):
    with pytest.raises(ValueError, match=r"expected labels, found none; use .*'logit_mse'"):
        objective(STUDENT, TEACHER, batch_of())
