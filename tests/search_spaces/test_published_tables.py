"""The published counts: NAS-Bench-201 for all 15,625 cells, S0 for all 64 networks, and the tables' own codes."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from n2n.networks import count
from search_spaces import cifar_resnet, nas_bench_201
from search_spaces.nas_bench_201 import Cell
from search_spaces.published import PublishedSpace

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def rows_of(name: str) -> list[dict[str, str]]:
    if not (DATA / name).is_file():
        pytest.skip(f"the published table is not there: ../shared/data/{name}")
    with (DATA / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def cells() -> PublishedSpace:
    return nas_bench_201()


def test_all_cells_have_the_published_counts(cells: PublishedSpace) -> None:
    codes = set()
    for student in cells.all():
        ones, threes, pools = (student.code.count(digit) for digit in "234")
        cost = cells.cost(student)
        assert cost.parameters == 73_306 + 28_000 * ones + 243_040 * threes
        assert cost.macs == 7_943_872 + 4_362_240 * ones + 35_819_520 * threes + 1_290_240 * pools
        codes.add(student.code)
    assert len(codes) == 15_625


def operations(network: nn.Module, size: int) -> int:
    """The published way of counting, by hooks on a network that runs."""
    found = []

    def note(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        elements = output.numel()
        if isinstance(module, nn.Conv2d):
            found.append(module.weight[0].numel() * elements)
        elif isinstance(module, nn.Linear):
            found.append(module.weight.numel())
        elif isinstance(module, nn.BatchNorm2d):
            found.append(2 * elements)
        elif isinstance(module, nn.ReLU):
            found.append(elements)
        elif isinstance(module, nn.AvgPool2d):
            found.append(int(module.kernel_size) ** 2 * elements)
        elif isinstance(module, nn.AdaptiveAvgPool2d):
            found.append((inputs[0].shape[-1] + 1) ** 2 * elements)

    for module in network.eval().modules():
        module.register_forward_hook(note)
    with torch.no_grad():
        network(torch.zeros(1, 3, size, size))
    return sum(found)


@pytest.mark.parametrize(("classes", "size"), [(10, 32), (100, 32), (120, 16)])
def test_built_cells_have_the_counts_that_are_said(classes: int, size: int) -> None:
    space = nas_bench_201(classes=classes, image_size=size)
    rng = np.random.default_rng(0)
    for student in [*(space.random(rng) for _ in range(6)), space.from_code("000000"), space.from_code("333333")]:
        network, cost = space.build(student, inherit=False), space.cost(student)
        ones, threes = student.code.count("2"), student.code.count("3")
        assert count.parameters(network) == cost.parameters
        if (classes, size) == (10, 32):
            weighted = count.macs(network, torch.zeros(1, 3, size, size))
            assert weighted == 7_783_040 + 3_932_160 * ones + 35_389_440 * threes
        assert operations(network, size) == cost.macs


def test_a_cell_sums_what_its_edges_give() -> None:
    """421230: pool 1<-0, conv1x1 2<-0, skip 2<-1, conv1x1 3<-0, conv3x3 3<-1, none 3<-2."""
    torch.manual_seed(0)
    cell = Cell((4, 2, 1, 2, 3, 0), 4).eval()
    x = torch.randn(2, 4, 6, 6)

    def conv(edge: int, given: torch.Tensor) -> torch.Tensor:
        kernel = cell.edges[edge][1].weight
        out = nn.functional.conv2d(given.clamp(min=0), kernel, padding=kernel.shape[-1] // 2)
        return out / (1 + 1e-5) ** 0.5  # a fresh norm in evaluation: mean 0, variance 1

    ones = torch.ones(1, 1, 3, 3)
    windows = nn.functional.conv2d(torch.ones(1, 1, 6, 6), ones, padding=1)  # elements that a window has
    node1 = nn.functional.conv2d(x, ones.repeat(4, 1, 1, 1), padding=1, groups=4) / windows
    with torch.no_grad():
        torch.testing.assert_close(cell(x), conv(3, x) + conv(4, node1))  # 3<-2 lets nothing through
        first_two = Cell((4, 2, 1, 0, 0, 1), 4).eval()
        first_two.edges[1] = cell.edges[1]
        torch.testing.assert_close(first_two(x), conv(1, x) + node1)


def test_every_cell_of_the_table_is_a_student(cells: PublishedSpace) -> None:
    codes = [row["ops"] for row in rows_of("nas-bench-201/cifar10.csv")]
    assert len({cells.from_code(code).choices for code in codes}) == 15_625
    assert all(cells.from_code(code).code == code for code in codes[::97])


def test_the_ends_of_s0() -> None:
    space = cifar_resnet(classes=100)
    for code, parameters in (("1-1-1", 83_892), ("7-7-7", 667_188)):
        student = space.from_code(code)
        assert space.cost(student).parameters == parameters
        assert count.parameters(space.build(student)) == parameters


def test_s0_has_the_counts_of_its_table() -> None:
    space, rows = cifar_resnet(), rows_of("diswot-s0/s0.csv")
    for row in rows:
        student = space.from_code("-".join(row[f"depth{stage}"] for stage in (1, 2, 3)))
        cost = space.cost(student)
        assert (cost.parameters, cost.macs) == (int(row["params"]), int(row["macs"]))
    assert len(rows) == 64
