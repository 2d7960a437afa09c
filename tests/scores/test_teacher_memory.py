"""A teacher runs once for all students of a probe, and again where anything that matters is another."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from n2n.networks import build_teacher
from n2n.scores import Probe
from n2n.scores.diswot import diswot
from n2n.scores.teacher_memory import MOST, TeacherMemory


def resnet(seed: int = 0) -> nn.Module:
    return build_teacher("resnet20", classes=3, channels=1, width=2, seed=seed)


def probe_of(teacher: nn.Module, seed: int = 0) -> Probe:
    images = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(7))
    return Probe(images, torch.tensor([0, 1, 2, 0, 1, 2]), teacher, seed)


def test_the_second_student_finds_the_teacher_known():
    teacher, passes = resnet(), []
    probe = probe_of(teacher)
    teacher.register_forward_hook(lambda *_: passes.append(1))
    first = diswot(resnet(1), probe)
    ran = len(passes)
    assert ran > 0
    assert diswot(resnet(2), probe) == first  # drawn anew, students of one shape are one
    assert len(passes) == ran
    diswot(resnet(1), replace(probe, seed=1))
    assert len(passes) == 2 * ran


def counted(memory: TeacherMemory[int], calls: list[int], teacher: nn.Module, probe: Probe, redrawn: bool) -> int:
    def make() -> int:
        calls.append(1)
        return len(calls)

    return memory.take(teacher, probe, make, redrawn=redrawn)


def test_what_matters_is_in_the_key():
    teacher, memory, calls = resnet(), TeacherMemory[int](), list[int]()
    probe = probe_of(teacher)
    assert counted(memory, calls, teacher, probe, True) == counted(memory, calls, teacher, probe, True) == 1
    probe.images.add_(1)
    assert counted(memory, calls, teacher, probe, True) == 2
    assert counted(memory, calls, teacher, replace(probe, labels=1 - probe.labels.clamp(max=1)), True) == 3
    with torch.no_grad():
        next(iter(teacher.parameters())).add_(1)  # a weight: it is drawn anew, or counts
    assert counted(memory, calls, teacher, probe, True) == 2
    before = counted(memory, calls, teacher, probe, False)
    with torch.no_grad():
        next(iter(teacher.parameters())).add_(1)
    assert counted(memory, calls, teacher, probe, False) == before + 1


def test_the_oldest_is_forgotten():
    teacher, memory, calls = resnet(), TeacherMemory[int](), list[int]()
    probe = probe_of(teacher)
    for seed in range(MOST + 1):
        counted(memory, calls, teacher, replace(probe, seed=seed), True)
    assert counted(memory, calls, teacher, replace(probe, seed=MOST), True) == MOST + 1
    assert counted(memory, calls, teacher, replace(probe, seed=0), True) == MOST + 2
