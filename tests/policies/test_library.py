"""The library keeps, hands on and gives back policies, and takes nothing else in."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from n2n.policies import PolicyError, load_policies
from n2n.policies.card import Card, Comparison, Point, Trained, points, read_card, weights_hash, write_card
from n2n.policies.library import Broken, Entry, Library

Make = Callable[[str, int], Path]


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "home" / "policies", tmp_path / "shipped")


def card_of(folder: Path) -> Card:
    weights = {stage: weights_hash(policy.state) for stage, policy in load_policies(folder).items()}
    return Card(
        trained=(Trained("net", "digits", 1000, 0.9),),
        space={"granularity": "layer"},
        reward="accuracy",
        budget="none",
        judged=12,
        curve=(Point("removal", 6, 0.25),),
        weights=weights,
    )


def test_a_policy_goes_round_through_the_library_and_a_file(library: Library, policy: Make, tmp_path: Path) -> None:
    source = policy("source", 3)
    write_card(source, card_of(source))
    library.add(source, "mine")
    file = library.export("mine", tmp_path / "mine.zip")
    other = Library(tmp_path / "other", tmp_path / "shipped")
    entry = other.add(file, "theirs")
    assert entry.card == card_of(source)
    for stage, one in load_policies(source).items():
        assert entry.policies[stage].meta == one.meta
        assert all(torch.equal(value, one.state[name]) for name, value in entry.policies[stage].state.items())
    assert [one.name for one in library.entries()] == ["mine"]
    assert not list(tmp_path.rglob(".*")), "nothing half made stays"


def test_a_run_and_the_folder_of_one_stage_come_in_as_well(library: Library, policy: Make, tmp_path: Path) -> None:
    source = policy("run/policies", 3)
    write_card(source, card_of(source))
    assert set(library.add(source.parent, "run").policies) == {"removal", "shrinkage"}
    assert library.find("run").card is not None
    one = library.add(source / "shrinkage", "one")
    assert set(one.policies) == {"shrinkage"}
    assert one.card is None
    with zipfile.ZipFile(library.export("one", tmp_path / "one.zip")) as archive:
        assert sorted(archive.namelist()) == ["shrinkage/policy.json", "shrinkage/policy.safetensors"]


def test_the_users_name_hides_the_packages(library: Library, policy: Make) -> None:
    policy("shipped/default", 2)
    assert library.find("default").shipped
    with pytest.raises(PolicyError, match="comes with the package"):
        library.add(policy("own", 5), "default")
    library.add(policy("own", 5), "default", force=True)
    assert not library.find("default").shipped
    (entry,) = library.entries()
    assert isinstance(entry, Entry)
    assert not entry.shipped


def test_a_name_that_is_taken_or_none_is_refused(library: Library, policy: Make) -> None:
    source = policy("source", 3)
    library.add(source, "mine")
    with pytest.raises(PolicyError, match="has a policy 'mine' already"):
        library.add(source, "mine")
    library.add(source, "mine", force=True)
    for name in ("", "../mine", "a/b", ".hidden", "x" * 65):
        with pytest.raises(PolicyError, match="expected letters, digits"):
            library.add(source, name)
    with pytest.raises(PolicyError, match=r"no policy of that name in the library \(mine\)"):
        library.find("yours")


def test_strange_archives_stay_outside(library: Library, policy: Make, tmp_path: Path) -> None:
    file = tmp_path / "strange.zip"
    for member in ("../../evil", "policy.pkl", "removal/policy.json/x"):
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(member, "x")
        with pytest.raises(PolicyError, match="is not a policy that `n2n policy export` wrote: it holds"):
            library.add(file, "strange")
    file.write_bytes(b"PK no zip")
    with pytest.raises(PolicyError, match="is not a policy that `n2n policy export` wrote"):
        library.add(file, "strange")
    whole = library.export(policy("source", 3), tmp_path / "whole.zip")
    with zipfile.ZipFile(whole) as archive, zipfile.ZipFile(file, "w") as half:
        half.writestr("removal/policy.json", archive.read("removal/policy.json"))
    with pytest.raises(PolicyError, match=r"policy\.safetensors"):
        library.add(file, "strange")
    assert library.entries() == []
    assert not library.folder.exists() or not list(library.folder.iterdir())


def test_a_broken_policy_is_told_and_keeps_nobody_from_the_others(library: Library, policy: Make) -> None:
    library.add(policy("source", 3), "good")
    broken = library.add(policy("other", 3), "bad").folder / "removal" / "policy.json"
    broken.write_text("{")
    first, second = library.entries()
    assert isinstance(first, Broken)
    assert "policy.json" in first.problem
    assert isinstance(second, Entry)


def test_a_card_belongs_to_its_weights(policy: Make) -> None:
    folder, other = policy("one", 3), policy("two", 4)
    write_card(folder, card_of(folder))
    assert read_card(folder, load_policies(folder)) == card_of(folder)
    write_card(folder, card_of(other))
    with pytest.raises(PolicyError, match="the card of other weights: those of shrinkage have another hash"):
        read_card(folder, load_policies(folder))
    (folder / "card.json").write_text(json.dumps({**card_of(folder).to_json(), "colour": "red"}))
    with pytest.raises(PolicyError, match="is not a policy's card"):
        read_card(folder, load_policies(folder))


def test_a_card_wants_all_stages_that_it_was_written_for(policy: Make, library: Library) -> None:
    folder = policy("two", 3)
    write_card(folder, card_of(folder))
    shutil.rmtree(folder / "removal")
    with pytest.raises(PolicyError, match="the card of removal and shrinkage, and removal is not there"):
        library.add(folder, "half")
    (folder / "card.json").unlink()
    assert set(library.add(folder, "half").policies) == {"shrinkage"}


def test_a_card_knows_a_network_by_its_weights_and_by_its_size_and_data(policy: Make) -> None:
    card = replace(card_of(policy("one", 3)), trained=(Trained("net", "digits", 1000, 0.9, key="abc"),))
    assert card.knows("abc", "mnist", 5)
    assert card.knows("of another seed", "digits", 1000)
    assert not card.knows("of another seed", "mnist", 1000)
    assert not card.knows("of another seed", "digits", 1001)


def test_the_hash_sees_names_shapes_and_values() -> None:
    base = {"a": torch.zeros(2, 3), "b": torch.ones(1)}
    others = [
        {"a": torch.zeros(3, 2), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3), "c": torch.ones(1)},
        {"a": torch.zeros(2, 3), "b": torch.ones(1) + 1e-6},
        {"a": torch.zeros(2, 3).double(), "b": torch.ones(1)},
    ]
    assert len({weights_hash(one) for one in (base, *others)}) == 5
    assert weights_hash(dict(reversed(base.items()))) == weights_hash(base)


def test_a_comparison_replaces_the_one_of_the_same_kind(policy: Make) -> None:
    line = Comparison("warm", "removal", "net", "digits", "none", 10, 0.8, 0.6, 3, True)
    card = card_of(policy("one", 3)).compared_with(line).compared_with(replace(line, judged=20))
    assert [one.judged for one in card.compared] == [10, 20]
    again = card.compared_with(replace(line, policy=0.9))
    assert [(one.judged, one.policy) for one in again.compared] == [(20, 0.8), (10, 0.9)]


def test_a_long_curve_becomes_some_twenty_points(tmp_path: Path) -> None:
    rows = ["stage,evaluations,mean_reward"] + [f"removal,{5 * (i + 1)},{i / 100}" for i in range(50)]
    (tmp_path / "curve.csv").write_text("\n".join([*rows, "shrinkage,5,0.5"]) + "\n")
    found = points(tmp_path / "curve.csv")
    assert len(found) == 18  # 17 of three batches (the last of two), and one
    assert found[0] == Point("removal", 15, 0.01)
    assert found[-2:] == (Point("removal", 250, 0.485), Point("shrinkage", 5, 0.5))
    assert points(tmp_path / "none.csv") == ()
