"""The closed form is exact where the student can represent the teacher, whatever the teacher is made of."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Collection

import numpy as np
import pytest
import torch
from awkward_networks import CASES
from torch import Tensor, nn

from n2n.distill.accuracy import reestimate_batch_norm
from n2n.distill.layer_inputs import LayerInputs, groups_of
from n2n.distill.refit import Fitted, refit
from n2n.distill.samples import TeacherSamples
from n2n.networks.cifar_resnet import resnet20
from search_spaces import layer_removal, layer_shrinkage
from search_spaces.base import SpaceError, replay
from search_spaces.layer_removal import LayerRemoval
from search_spaces.teacher import record
from search_spaces.teacher.architecture import TeacherArchitecture
from search_spaces.teacher.reading import read
from search_spaces.teacher.record import Look, Recorder
from search_spaces.teacher.space import TeacherSpace

IMAGES = 256
SOLVED = sorted(
    # What has no inputs of numbers, several inputs, or one layer called twice is not solved for (all of it, at least).
    set(CASES) - {"dict-inputs", "tuple-inputs", "torch-encoder", "twice"}
)


TYPICAL = {
    "dense",
    "linear-gate",
    "shuffled",
    "depthwise",
    "norms",
    "tied",
    "one-dimension",
    "own-attention",
    "recurrent",
}


def teacher_of(name: str) -> tuple[nn.Module, Tensor]:
    """A network in eval mode whose norms have seen data, and many inputs for it."""
    make, example = CASES[name]
    network, inputs = make(), torch.randn(IMAGES, *example().shape[1:])
    with torch.no_grad():
        for _ in range(20):
            network.train()(inputs[:64])
    return network.eval(), inputs


def samples_of(space: TeacherSpace, inputs: Tensor, positions: int = 16) -> TeacherSamples:
    return TeacherSamples(space.recorder(inputs[:64]), inputs, positions=positions)


def kept(space: TeacherSpace) -> TeacherArchitecture:
    return space.student(replay(space, (space.num_actions - 1,) * space.num_decisions))


def distance(network: nn.Module, teacher: nn.Module, inputs: Tensor) -> float:
    """The error of outputs over their spread."""
    with torch.no_grad():
        given, wanted = network.eval()(inputs), teacher(inputs)
    return float((given - wanted).norm() / (wanted - wanted.mean(0)).norm())


@pytest.mark.parametrize(
    "name", [one if one in TYPICAL else pytest.param(one, marks=pytest.mark.slow) for one in SOLVED]
)
def test_a_student_that_keeps_everything_gives_what_the_teacher_gives(name: str) -> None:
    teacher, inputs = teacher_of(name)
    space = LayerRemoval(read(teacher, inputs[:2]), granularity="layer", kept=frozenset(), may_be_empty=True)
    student = space.build(kept(space))
    result = refit(student, space.targets(kept(space)), samples_of(space, inputs), strength=1e-9)
    assert distance(student, teacher, inputs) < 1e-3
    assert result.solved > 0
    assert all(one.reason for one in result.layers if one.status is not Fitted.SOLVED)


@pytest.mark.parametrize("name", ["dense", "res2", "conv-gate", "depthwise"])
def test_students_come_nearer_to_the_teacher_than_inherited_weights(name: str) -> None:
    teacher, inputs = teacher_of(name)
    space = layer_shrinkage(teacher, inputs[:2])
    samples = samples_of(space, inputs)
    held_out = torch.randn_like(inputs)
    for seed in range(3):
        chosen = space.random(np.random.default_rng(seed))
        inherited, solved = space.build(chosen), space.build(chosen)
        reestimate_batch_norm(inherited, [inputs])
        refit(solved, space.targets(chosen), samples)
        before, after = (distance(one, teacher, held_out) for one in (inherited, solved))
        assert after <= before
        assert after < 1.05


def test_duplicated_channels_can_go_without_a_trace() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU())
    network.append(nn.Flatten()).append(nn.Linear(6 * 16, 5))
    with torch.no_grad():
        for values in (network[0].weight, network[0].bias):
            values[:4] = 10 * values[4:]  # the same after the norm, and of the greater rows
        network[1].running_var[:4] = 100 * (1 + network[1].eps) - network[1].eps
    network.eval()
    inputs = torch.randn(IMAGES, 3, 8, 8)
    space = layer_shrinkage(network, inputs[:2], factors=(0.5, 1.0))
    half = TeacherArchitecture(space.reading.fingerprint, widths=(("0", 4),))
    student = space.build(half)
    reestimate_batch_norm(student, [inputs])
    assert distance(student, network, inputs) > 0.1
    refit(student, space.targets(half), samples_of(space, inputs, positions=36), strength=1e-9)
    assert distance(student, network, inputs) < 0.01


def test_a_removed_block_is_made_up_for_by_the_one_before_it() -> None:
    """The state after the last surviving block is solved for, not the one that this block gave in the teacher."""
    space = layer_removal(resnet20(channels=1), torch.randn(2, 1, 8, 8), granularity="block")
    adds = [node for node in space.reading.nodes if node.target.startswith("add")]
    reluless = {name: space.reading.branches[i].add for i, name in enumerate(("first", "second", "third"))}
    removed = {"stages.0.1", "stages.0.2"}
    actions = tuple(int(space.decision_name(at) not in removed) for at in range(space.num_decisions))
    goals = {one.layer: one for one in space.targets(space.student(replay(space, actions))).layers}
    assert goals["stages.0.0.conv2"].node == reluless["third"] == adds[2].index
    assert goals["stages.0.0.conv2"].norm == "stages.0.0.bn2"
    # What is taken from it is the shortcut's value: the activation behind the first norm.
    (less,) = goals["stages.0.0.conv2"].less
    assert space.reading.nodes[less.student].target.startswith("relu")
    assert space.reading.nodes[less.student - 1].layer == "bn1"
    # Without those blocks' absence it is the block's own state.
    goals = {one.layer: one for one in space.targets(kept(space)).layers}
    assert goals["stages.0.0.conv2"].node == reluless["first"]


class Counting:
    """A recorder that counts its runs."""

    def __init__(self, inner: Recorder) -> None:
        self.inner, self.batch, self.runs = inner, inner.batch, 0

    def run(self, inputs: Tensor, wanted: Collection[int], look: Look) -> object:
        self.runs += 1
        return self.inner.run(inputs, wanted, look)


def test_the_teacher_is_asked_once_for_all_students_that_keep_its_layers() -> None:
    teacher, inputs = teacher_of("dense")
    space = layer_shrinkage(teacher, inputs[:2])
    recorder = Counting(space.recorder(inputs[:64]))
    samples = TeacherSamples(recorder, inputs)
    for seed in range(3):
        chosen = space.random(np.random.default_rng(seed))
        refit(space.build(chosen), space.targets(chosen), samples)
        assert recorder.runs == IMAGES // 64


def test_the_teachers_graph_is_captured_once_and_goes_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    captured: list[tuple[int, ...]] = []
    capture = record.capture

    def counting(network: nn.Module, example: Tensor, forward_fn: object) -> object:
        captured.append(tuple(example.shape))
        return capture(network, example, forward_fn)  # type: ignore[arg-type]

    monkeypatch.setattr(record, "capture", counting)
    teacher, inputs = teacher_of("dense")
    space = layer_shrinkage(teacher, inputs[:2])
    first, again, other = space.recorder(inputs[:64]), space.recorder(inputs[64:128]), space.recorder(inputs[:32])
    assert [shape[0] for shape in captured] == [64, 32]
    assert (first.batch, again.batch, other.batch) == (64, 64, 32)
    gone = weakref.ref(space.reading.network)
    del space, first, again, other
    gc.collect()
    assert gone() is None, "what is kept of a teacher must not keep it alive"


def test_the_same_student_is_solved_to_the_last_bit_again() -> None:
    teacher, inputs = teacher_of("dense")
    space = layer_shrinkage(teacher, inputs[:2])
    chosen = space.random(np.random.default_rng(1))
    states = []
    for _ in range(2):
        student = space.build(chosen)
        refit(student, space.targets(chosen), samples_of(space, inputs))
        states.append(student.state_dict())
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def test_a_layer_that_meets_no_number_keeps_its_weights_and_says_so() -> None:
    teacher, inputs = teacher_of("dense")
    space = layer_removal(teacher, inputs[:2])
    student = space.build(kept(space))
    before = {key: value.clone() for key, value in student.state_dict().items()}
    samples = samples_of(space, inputs)
    samples.images = torch.full_like(samples.images, torch.nan)
    result = refit(student, space.targets(kept(space)), samples)
    assert result.solved == 0
    assert {one.status for one in result.layers} == {Fitted.SINGULAR}
    assert all(torch.equal(before[k], v) for k, v in student.state_dict().items() if k.endswith("weight"))


def test_too_few_images_are_refused() -> None:
    teacher, inputs = teacher_of("dense")
    space = layer_removal(teacher, inputs[:2])
    with pytest.raises(ValueError, match="expected at least 64 images for the closed form, found 63"):
        TeacherSamples(space.recorder(inputs[:64]), inputs[:63])


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(4, 6, 3, stride=2, padding=1), (4, 9, 7)),
        (nn.Conv2d(4, 6, (3, 2), padding=(2, 0), dilation=(2, 1), groups=2), (4, 8, 8)),
        (nn.Conv2d(4, 4, 3, padding="same", groups=4), (4, 6, 5)),
        (nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), (4, 6, 5)),
        (nn.Conv1d(3, 5, 4, stride=3), (3, 17)),
        (nn.Conv3d(2, 4, 2, padding=1), (2, 4, 3, 5)),
        (nn.Linear(7, 3), (5, 7)),
        (nn.Linear(7, 3), (7,)),
    ],
)
@pytest.mark.parametrize("windows", [1, 3])
def test_the_rows_of_a_layer_are_what_its_weights_see(
    layer: nn.Conv2d | nn.Linear, shape: tuple[int, ...], windows: int
) -> None:
    """Weights times rows are the layer's own outputs at those places."""
    images = 4
    value = torch.randn(images * windows, *shape)
    inputs = LayerInputs(layer, value, images)
    output = layer(value)
    channels = output.shape[1] if isinstance(layer, nn.modules.conv._ConvNd) else output.shape[-1]
    flat = output.movedim(1 if isinstance(layer, nn.modules.conv._ConvNd) else -1, -1).reshape(images, -1, channels)
    assert inputs.positions == flat.shape[1]
    places = torch.stack([torch.randperm(inputs.positions)[: min(5, inputs.positions)] for _ in range(images)])
    rows = inputs.rows(places, 1, 3)  # [G, s, d]
    weight = layer.weight.reshape(groups_of(layer), -1, rows.shape[2])
    given = torch.einsum("gsd,gmd->sgm", rows, weight).flatten(1) + layer.bias
    wanted = torch.stack([flat[image, places[image]] for image in (1, 2)]).flatten(0, 1)
    torch.testing.assert_close(given, wanted, atol=1e-5, rtol=1e-5)


def test_a_student_of_another_space_is_refused() -> None:
    teacher, inputs = teacher_of("dense")
    space = layer_removal(teacher, inputs[:2])
    with pytest.raises(SpaceError, match="belongs to a teacher of structure other"):
        space.targets(TeacherArchitecture("other"))
