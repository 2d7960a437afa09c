"""The policies that come with the package: small, whole, named, and of use on a network that they have not seen."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

import n2n
from n2n.data import Data
from n2n.policies.library import SHIPPED, Broken, Library

HELD_BACK = {"resnet-26", "vgg-9", "mobile-8", "dense-13"}


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "none")


def test_they_are_small_and_their_cards_are_of_their_weights(library: Library) -> None:
    entries = library.entries()
    assert {one.name for one in entries} == {"default", "residual-plain"}
    for entry in entries:
        assert not isinstance(entry, Broken), entry
        assert entry.shipped
        assert set(entry.policies) == {"removal", "shrinkage"}
        assert entry.card is not None  # reading it has compared the hashes of the weights
        assert entry.card.judged > 1000
        assert len(entry.card.curve) > 1
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file()) < 2_000_000


def test_the_one_for_comparisons_has_not_seen_what_is_held_back(library: Library) -> None:
    cards = {name: library.find(name).card for name in ("default", "residual-plain")}
    seen = {name: {one.teacher for one in card.trained} for name, card in cards.items() if card is not None}
    assert not seen["residual-plain"] & HELD_BACK
    assert seen["default"] >= seen["residual-plain"] | HELD_BACK


@pytest.mark.parametrize("name", ["default", "residual-plain"])
def test_they_make_a_student_at_once(name: str, library: Library, teacher: nn.Module, digits: Data) -> None:
    found = n2n.compare_policies(
        name, teacher, None, digits, max_params="30%", judged=2, seeds=1, against=(), progress=False, library=library
    )
    (curve,) = found.side(name, "zero-shot").curves
    assert len(curve) == 2
    assert curve[-1] is not None  # within the budget
