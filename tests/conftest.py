"""What every test starts from: the same random numbers in every run, alone or after others."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch

# The same examples in every run: a new one that fails must not stop an unrelated change. To look for new ones:
# `scripts/test --hypothesis-profile=default`.
hypothesis.settings.register_profile("repeatable", derandomize=True)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Seeds the generators that networks and samples draw from where a test hands over none of its own."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users may enter, as `tmp_path` may not be."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def read_only() -> Callable[[Path], AbstractContextManager[None]]:
    """Inside of `with read_only(folder)` nothing below the folder can be written, by root neither."""

    @contextmanager
    def without_rights(folder: Path) -> Iterator[None]:
        places = [folder, *folder.rglob("*")]
        modes = {place: place.stat().st_mode for place in places}
        for place in places:
            place.chmod(0o555 if place.is_dir() else 0o444)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            yield
        finally:
            if root:
                os.seteuid(0)
            for place, mode in modes.items():
                place.chmod(mode)

    return without_rights
