"""A student that was saved comes back with the same outputs; what is damaged is named."""

from __future__ import annotations

import json
import pickle
import re
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from n2n.data import example_inputs, load
from n2n.networks import build_teacher
from n2n.search.artefacts import (
    MadeWith,
    TeacherName,
    load_student,
    load_weights,
    read_student_card,
    save_student,
)
from n2n.search.errors import ArtefactError, WriteError
from search_spaces import layer_removal, layer_shrinkage
from search_spaces.base import Draft, replay


@contextmanager
def file_size_limit(most: int) -> Iterator[None]:
    """Files of this process cannot grow beyond so many bytes: what a full disk does, without one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def folder(tmp_path: Path, network: nn.Module, example: Tensor) -> Path:
    space = layer_shrinkage(network, example)
    student = space.random(np.random.default_rng(3))
    save_student(tmp_path / "s", space.build(student), student, example_inputs=example, figures={"accuracy": 0.5})
    return tmp_path / "s"


def test_a_shrunk_student_comes_back_with_its_outputs(folder: Path, network: nn.Module, example: Tensor) -> None:
    space = layer_shrinkage(network, example)
    student = space.random(np.random.default_rng(3))
    with torch.no_grad():
        expected = space.build(student).eval()(example)
        for weight in network.parameters():
            weight.zero_()  # only the structure of the teacher may matter
        loaded = load_student(folder, network=network)
        assert not loaded.training
        assert torch.equal(loaded(example), expected)
    assert json.loads((folder / "card.json").read_text())["figures"] == {"accuracy": 0.5}
    assert "0.5" in (folder / "card.md").read_text()


def test_a_built_in_teacher_need_not_be_passed(tmp_path: Path) -> None:
    teacher = build_teacher("resnet20", classes=4, channels=1, width=4, seed=1)
    example = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    space = layer_removal(teacher, example, granularity="block")
    student = space.random(np.random.default_rng(0))
    network = space.build(student).eval()
    name = {"name": "resnet20", "kwargs": {"classes": 4, "channels": 1, "width": 4}}
    save_student(tmp_path, network, student, example_inputs=example, teacher_name=name)
    before = torch.random.get_rng_state()
    loaded = load_student(tmp_path)
    assert torch.equal(torch.random.get_rng_state(), before)
    with torch.no_grad():
        assert torch.equal(loaded(example), network(example))


def test_without_the_teacher_the_call_to_make_is_shown(folder: Path) -> None:
    with pytest.raises(ArtefactError, match="network=teacher"):
        load_student(folder)


def test_another_teacher_is_refused(folder: Path, example: Tensor) -> None:
    other = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(ArtefactError, match=r"does not fit the network Sequential: the student was cut from another"):
        load_student(folder, network=other)


def test_another_network_is_told_from_the_one_that_the_student_was_cut_from(
    tmp_path: Path, network: nn.Module, example: Tensor
) -> None:
    space = layer_removal(network, example)
    student = space.random(np.random.default_rng(0))
    layers, made_by = space.changes(student), {"teacher": "MyNetwork"}
    folder, built = tmp_path / "s", space.build(student)
    save_student(folder, built, student, example_inputs=example, layers=layers, made_by=made_by)

    def refused(other: nn.Module) -> str:
        with pytest.raises(ArtefactError, match=r"architecture.json does not fit the network") as caught:
            load_student(folder, network=other)
        assert "cut from MyNetwork" in str(caught.value)
        assert "of the same class and built with the same arguments" in str(caught.value)
        return str(caught.value)

    first = layers[0]
    wider = nn.Sequential(nn.Conv2d(1, 5, 3, padding=1), nn.Flatten(), nn.Linear(5 * 64, 10))
    wanted = rf"'0' \({first.kind}, 1 → {first.width_out[0]} channels, {first.parameters[0]} parameters\)"
    found = refused(wider)
    assert re.search(rf"its layer 1 is '0' \(conv, 1 → 5 channels, 50 parameters\), expected {wanted}", found)
    assert f"it has {len(layers) - 1} layers, expected {len(layers)} with '{layers[-1].name}'" in refused(network[:-1])
    assert "it cannot be read with an example of shape [1, 1, 8, 8]" in refused(nn.Linear(3, 3))


@pytest.mark.parametrize("damage", ["{}", "[]", '{"format": 1, "finger'])
@pytest.mark.parametrize("name", ["card.json", "architecture.json"])
def test_a_damaged_file_is_named_with_what_to_do(folder: Path, network: nn.Module, name: str, damage: str) -> None:
    (folder / name).write_text(damage)
    with pytest.raises(ArtefactError, match=rf"{name} .*restore it or run again") as caught:
        load_student(folder, network=network)
    if (name, damage) == ("card.json", "{}"):
        assert "card.json has no key 'format', 'fingerprint', 'teacher', 'example_shape', 'figures'" in str(
            caught.value
        )


def test_damaged_weights_are_named(folder: Path, network: nn.Module) -> None:
    model = folder / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-40])
    with pytest.raises(ArtefactError, match=r"model.safetensors is damaged"):
        load_student(folder, network=network)
    model.unlink()
    with pytest.raises(ArtefactError, match=r"model.safetensors is missing"):
        load_student(folder, network=network)


def test_weights_of_another_network_name_the_tensors_and_change_nothing(folder: Path, network: nn.Module) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(ArtefactError, match=r"0.weight has shape \[\d, 1, 3, 3\], expected \[8, 1, 3, 3\]"):
        load_weights(network, folder / "model.safetensors")
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_card_of_another_format_is_refused(folder: Path, network: nn.Module) -> None:
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**card, "format": 99}))
    with pytest.raises(ArtefactError, match="format 99"):
        load_student(folder, network=network)


@pytest.mark.parametrize("key", ["fingerprint", "teacher", "example_shape", "figures"])
def test_a_card_without_a_key_names_it(folder: Path, network: nn.Module, key: str) -> None:
    card = json.loads((folder / "card.json").read_text())
    del card[key]
    (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises(ArtefactError, match=rf"card.json has no key '{key}'.*damaged"):
        load_student(folder, network=network)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"example_shape": ["eight"]}, "'example_shape' is .*positive whole numbers"),
        ({"figures": 3}, "'figures': 3"),
        ({"data": {"name": "digits"}}, "'data' is .*fingerprint"),
        ({"teacher": {"name": "resnet21"}}, "the teacher cannot be built: unknown teacher 'resnet21'"),
    ],
)
def test_a_card_with_another_value_names_it(folder: Path, changed: dict[str, object], words: str) -> None:
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**card, **changed}))
    with pytest.raises(ArtefactError, match=words):
        load_student(folder)


def test_the_card_says_how_to_load_the_data_again(tmp_path: Path, network: nn.Module) -> None:
    data = load("digits", seed=5, validation=0.2)
    space = layer_shrinkage(network, example_inputs(data))
    student = space.random(np.random.default_rng(3))
    built = space.build(student)
    save_student(tmp_path / "s", built, student, example_inputs=example_inputs(data), data=data)
    made = read_student_card(tmp_path / "s").data
    assert made == MadeWith("digits", data.fingerprint, source="digits", seed=5, validation=0.2)
    assert load(str(made.source), seed=5, validation=0.2).fingerprint == made.fingerprint


def test_a_write_that_fails_in_the_middle_leaves_the_old_student_whole(folder: Path, example: Tensor) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    wide = nn.Sequential(nn.Conv2d(1, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.Flatten(), nn.Linear(1024, 10))
    space = layer_shrinkage(wide, example)
    student = space.student(replay(space, (0, *(9,) * (space.num_decisions - 1))))
    built = space.build(student)
    with file_size_limit(4096), pytest.raises(WriteError, match=r"cannot write the folder .*File too large.*untouched"):
        save_student(folder, built, student, example_inputs=example)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    save_student(folder, built, student, example_inputs=example)
    assert load_student(folder, network=wide)(example).shape == (1, 10)


def test_a_new_student_leaves_other_files_of_the_folder_but_no_exports_of_the_old_one(
    folder: Path, network: nn.Module, example: Tensor
) -> None:
    (folder / "mine.txt").write_text("keep")
    (folder / "exports").mkdir()
    (folder / "exports" / "student.onnx").write_text("of the old one")
    space = layer_shrinkage(network, example)
    student = space.random(np.random.default_rng(4))
    save_student(folder, space.build(student), student, example_inputs=example)
    assert (folder / "mine.txt").read_text() == "keep"
    assert not (folder / "exports").exists()
    assert read_student_card(folder).fingerprint == student.fingerprint
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_teacher_is_named_by_name_and_kwargs() -> None:
    assert TeacherName.read("mlp") == TeacherName("mlp")
    assert TeacherName.read(None) is None
    with pytest.raises(ArtefactError, match="name and kwargs"):
        TeacherName.read({"name": "mlp", "arguments": {}})


def rewritten(folder: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    """Changes the weights of a student folder."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def drop(tensors: dict[str, Tensor]) -> None:
    del tensors["4.weight"], tensors["8.bias"]


def add(tensors: dict[str, Tensor]) -> None:
    tensors["9.weight"] = torch.zeros(2, 3)


def reshape(tensors: dict[str, Tensor]) -> None:
    tensors["8.bias"] = torch.zeros(11)
    tensors["3.weight"] = tensors["3.weight"][:, :, :1].contiguous()


def count(tensors: dict[str, Tensor]) -> None:
    tensors["1.running_mean"] = tensors["1.running_mean"].to(torch.int64)


def spoil(tensors: dict[str, Tensor]) -> None:
    tensors["3.weight"][0, 0] = torch.nan


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (spoil, r"does not fit the network: 3.weight holds numbers that are not finite"),
        (drop, r"does not fit the network: 4.weight is missing, expected \[\d\]"),
        (add, r"does not fit the network: 9.weight \[2, 3\] is not in the network"),
        (reshape, r"does not fit the network: 3.weight has shape \[\d, \d, 1, 3\], expected \[\d, \d, 3, 3\]"),
        (count, r"does not fit the network: 1.running_mean holds torch.int64, expected torch.float32"),
    ],
)
def test_the_first_tensor_that_does_not_fit_the_architecture_is_named(
    folder: Path, network: nn.Module, change: Callable[[dict[str, Tensor]], None], words: str
) -> None:
    rewritten(folder, change)
    with pytest.raises(ArtefactError, match=words):
        load_student(folder, network=network)


def test_an_architecture_of_another_student_is_refused(tmp_path: Path, network: nn.Module, example: Tensor) -> None:
    """Both students have the same tensors: without a look at the architecture nobody would notice."""
    space = layer_removal(network, example)
    names = [space.decision_name(decision) for decision in range(space.num_decisions)]
    students = [
        space.student(Draft(tuple(int(name != gone) for name in names)))
        for gone in ("2", "5")  # the two activations
    ]
    for at, student in enumerate(students):
        save_student(tmp_path / str(at), space.build(student), student, example_inputs=example)
    (tmp_path / "0" / "architecture.json").write_text((tmp_path / "1" / "architecture.json").read_text())
    with pytest.raises(ArtefactError, match="the files are of different students"):
        load_student(tmp_path / "0", network=network)
    (tmp_path / "0" / "architecture.json").write_text("{")
    with pytest.raises(ArtefactError, match=r"architecture.json is damaged"):
        load_student(tmp_path / "0", network=network)


def test_a_pickle_in_the_place_of_the_weights_is_not_opened(folder: Path, network: nn.Module, tmp_path: Path) -> None:
    class Opened:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "opened",))

    (folder / "model.safetensors").write_bytes(pickle.dumps(Opened()))
    with pytest.raises(ArtefactError, match=r"model.safetensors is damaged"):
        load_student(folder, network=network)
    torch.save(Opened(), folder / "model.safetensors")
    with pytest.raises(ArtefactError, match=r"model.safetensors is damaged"):
        load_student(folder, network=network)
    assert not (tmp_path / "opened").exists()
    pickle.loads(pickle.dumps(Opened()))
    assert (tmp_path / "opened").exists(), "the bait works"


def test_a_teacher_that_is_no_built_in_name_is_not_looked_for(folder: Path) -> None:
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**card, "teacher": {"name": "os:getcwd", "kwargs": {}}}))
    with pytest.raises(ArtefactError, match="unknown teacher 'os:getcwd'"):
        load_student(folder)
