"""Student folders as a search leaves them, and a Python that has torch but not N2N."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from n2n.networks import build_teacher
from n2n.search.artefacts import load_student, save_student
from search_spaces import layer_removal, layer_shrinkage
from search_spaces.base import replay

TEACHERS = {
    "resnet20": ({"classes": 4, "channels": 1, "width": 4}, (1, 16, 16)),
    "vgg11_bn": ({"classes": 4, "channels": 3, "width": 4}, (3, 16, 16)),
    "mlp": ({"classes": 4, "inputs": 16, "hidden": [12, 10, 12]}, (1, 4, 4)),
}

ABSENT = "import sys\nfor name in ('n2n', 'envs', 'search_spaces', 'safetensors'):\n    sys.modules[name] = None\n"
"""Makes these packages unimportable: what is exported must not need them."""


def save(folder: Path, name: str) -> Path:
    """A student of a built-in teacher, some layers removed and the others half as wide, in a folder."""
    kwargs, shape = TEACHERS[name]
    teacher = build_teacher(name, seed=1, **kwargs).eval()
    example = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    space = layer_removal(teacher, example)
    removal = space.random(np.random.default_rng(5))
    shrinkage = layer_shrinkage(teacher, example, start=removal, factors=(0.5, 1.0))
    student = shrinkage.student(replay(shrinkage, (0,) * shrinkage.num_decisions))
    network = shrinkage.build(student)
    with torch.no_grad():
        network(example)  # running statistics of its own
    save_student(folder, network, student, example_inputs=example, teacher_name={"name": name, "kwargs": kwargs})
    return folder


@pytest.fixture(scope="module")
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a student of the teacher that the test is parametrised with."""
    return save(tmp_path_factory.mktemp("students") / "1", request.param)


@pytest.fixture(scope="module")
def student(folder: Path) -> nn.Module:
    return load_student(folder)


@pytest.fixture(scope="session")
def isolated() -> Callable[[str], str]:
    """Runs code in a Python process without N2N, and gives what it prints."""

    def run(code: str) -> str:
        done = subprocess.run([sys.executable, "-I", "-c", ABSENT + code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
