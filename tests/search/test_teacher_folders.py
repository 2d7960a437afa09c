"""A teacher folder says how the teacher was trained and how to load its data again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from n2n.data import Augmentation, Origin, load
from n2n.networks import build_teacher
from n2n.search.errors import ArtefactError
from n2n.search.teachers import load_teacher, read_card, save_teacher, train_teacher

ARGUMENTS = {"inputs": 64, "hidden": [8], "classes": 10}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = load("digits", seed=4, validation=0.3)
    data = replace(data, training=replace(data.training, augmentation=Augmentation(pad=2)))
    network = build_teacher("mlp", seed=0, **ARGUMENTS)
    card = train_teacher(network, data, name="mlp", arguments=ARGUMENTS, epochs=0.2, warmup=0.5, seed=1)
    folder = tmp_path_factory.mktemp("teacher")
    save_teacher(folder, network, card)
    return folder


def test_the_card_brings_the_same_splits_back(folder: Path) -> None:
    card = read_card(folder)
    assert card.origin == Origin("digits", seed=4, validation=0.3)
    assert load("digits", seed=4, validation=0.3).fingerprint == card.data_fingerprint
    assert (card.seed, card.warmup, card.augmentation) == (1, 0.5, {"pad": 2, "flip": False})
    assert (card.threads, card.torch) == (torch.get_num_threads(), torch.__version__)


def test_the_warmup_is_that_of_the_training(folder: Path) -> None:
    def weights(warmup: float) -> Tensor:
        network = build_teacher("mlp", seed=0, **ARGUMENTS)
        data = load("digits", seed=4, validation=0.3)
        train_teacher(network, data, name="mlp", arguments=ARGUMENTS, epochs=0.5, warmup=warmup, seed=1)
        return torch.cat([value.flatten() for value in network.parameters()])

    assert torch.equal(weights(0.5), weights(0.5))
    assert not torch.equal(weights(0.5), weights(0.2))


def test_keys_that_say_how_it_was_trained_may_be_missing(folder: Path, tmp_path: Path) -> None:
    values = json.loads((folder / "teacher.json").read_text())
    for key in ("lr", "warmup", "augmentation", "split_seed", "validation", "device", "threads", "torch"):
        del values[key]
    (tmp_path / "teacher.json").write_text(json.dumps(values))
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    network, card = load_teacher(tmp_path)
    assert card.origin == Origin("digits", seed=1, validation=0.1)
    assert sum(one.numel() for one in network.parameters()) == card.parameters


@pytest.mark.parametrize(
    ("change", "words"), [({"kwargs": {}}, "found .*'kwargs'"), (None, "has no key 'name'; it was")]
)
def test_other_keys_are_refused_with_those_that_are_known(
    folder: Path, tmp_path: Path, change: dict[str, object] | None, words: str
) -> None:
    values = json.loads((folder / "teacher.json").read_text())
    values = {key: value for key, value in values.items() if key != "name"} if change is None else {**values, **change}
    (tmp_path / "teacher.json").write_text(json.dumps(values))
    with pytest.raises(ArtefactError, match=words):
        read_card(tmp_path)
