"""What all published spaces promise: the contract, exact costs, codes, and that searches run on them unchanged."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from space_contract import check_space

from envs import StudentVectorEnv
from n2n.agents import AGENTS, rollout
from n2n.data import load
from n2n.distill.teacher import Teacher
from n2n.evaluate import Status, distillation, scoring
from n2n.networks import build_teacher, count
from search_spaces import PUBLISHED
from search_spaces.base import FEATURES, Architecture, Draft, SpaceError, replay
from search_spaces.limits import CostLimits
from search_spaces.published import PublishedSpace
from search_spaces.smallest import smallest
from search_spaces.toy import toy

NAMES = tuple(PUBLISHED)
CODES = {
    "cifar_resnet": "1-3-5",
    "cifar_resnet_width": "1-3-5/16-24-32",
    "nas_bench_201": "421211",
    "super_residual": "k3k3.32.16.2-k1k5k1.64.32.1-k3k3.96.32.3",
    "vit": "48/2x4-3x2",
}


@pytest.fixture(params=NAMES)
def space(request: pytest.FixtureRequest) -> PublishedSpace:
    return PUBLISHED[request.param]()


def some(space: PublishedSpace, many: int) -> list[Architecture]:
    """The smallest and the largest student, and random ones."""
    rng = np.random.default_rng(0)
    largest = space.student(replay(space, (space.num_actions - 1,) * space.num_decisions))
    return [smallest(space), largest, *(space.random(rng) for _ in range(many))]


def test_meets_the_contract(space: PublishedSpace) -> None:
    check_space(space, np.random.default_rng(0))


@pytest.mark.parametrize("name", NAMES)
def test_meets_the_contract_for_other_images(name: str) -> None:
    check_space(PUBLISHED[name](classes=3, channels=1, image_size=8), np.random.default_rng(1))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("images", [{}, {"classes": 7, "channels": 1, "image_size": 16}], ids=["usual", "other"])
def test_costs_are_those_of_the_built_networks(name: str, images: dict[str, int]) -> None:
    space = PUBLISHED[name](**images)
    inputs = torch.zeros(1, images.get("channels", 3), *[images.get("image_size", 32)] * 2)
    for student in some(space, 8):
        network, cost = space.build(student, inherit=False), space.cost(student)
        assert cost.parameters == count.parameters(network)
        assert cost.size_mb == count.size_mb(network)
        if name != "nas_bench_201":  # whose published MACs count more than convolutions; see its own test
            assert cost.macs == count.macs(network, inputs)


def test_the_teacher_is_the_largest(space: PublishedSpace) -> None:
    costs = [space.cost(student) for student in some(space, 100)]
    assert max(cost.parameters for cost in costs) == space.teacher_cost.parameters
    assert max(cost.macs for cost in costs) == space.teacher_cost.macs
    assert min(costs, key=lambda cost: cost.parameters) == costs[0]


@pytest.mark.parametrize("name", NAMES)
def test_images_of_any_size_become_logits(name: str) -> None:
    space = PUBLISHED[name](classes=5, image_size=16)
    sizes = (16,) if name == "vit" else (16, 8, 24, 32)
    for student in some(space, 2):
        network = space.build(student, inherit=False, seed=3)
        for size in sizes:
            logits = network(torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0)))
            assert logits.shape == (2, 5)
            assert torch.isfinite(logits).all()


def test_every_weight_of_the_largest_takes_part(space: PublishedSpace) -> None:
    network = space.build(some(space, 0)[1], inherit=False)
    network(torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))).square().sum().backward()
    still = [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert still == []


def test_codes_and_json_say_which_student(space: PublishedSpace) -> None:
    students = [*some(space, 60), space.from_code(CODES[space.name])]
    for student in students:
        assert space.from_code(student.code) == student
        assert space.student(Draft(space.actions_of(student))) == student
        record = json.loads(student.to_json())
        assert (record["kind"], record["code"]) == (space.name, student.code)
    assert space.from_code(CODES[space.name]).code == CODES[space.name]
    assert len({one.fingerprint for one in students}) == len(set(students))


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("cifar_resnet", "1-3", "three depths of 1, 3, 5 or 7 blocks, as in 1-3-5"),
        ("cifar_resnet", "1-2-3", "has 2 for stage2.depth; valid: 1, 3, 5, 7"),
        ("cifar_resnet_width", "1-3-5", "as in 1-3-5/16-32-64"),
        ("cifar_resnet_width", "1-3-5/16-32-63", "has 63 for stage3.width; valid: 16, 32, 48, 64"),
        ("nas_bench_201", "42121", "six digits"),
        ("nas_bench_201", "421251", "has 5 for edge 3<-1; valid: 0, 1, 4, 2, 3"),
        ("nas_bench_201", "42121\N{SUPERSCRIPT TWO}", "six digits"),
        ("super_residual", "k3k3.32.16.2", "as in k3k3"),
        ("super_residual", "k7k7.32.16.2-k3k3.64.32.1-k3k3.96.32.3", "kinds: k1k3k1, k3k3, k1k5k1, k5k5"),
        ("super_residual", "k3k3.32.16.9-k3k3.64.32.1-k3k3.96.32.3", "has 9 for stage1.layers; valid: 1, 2, 3"),
        ("vit", "48", "as in 48/2x4-3x2"),
        ("vit", "48/2x4", "has 1 for depth; valid: 2, 3, 4, 5, 6"),
        ("vit", "48/" + "-".join(["2x4"] * 7), "has 7 for depth"),
        ("vit", "48/2x4-9x2", "has 9 for block2.heads; valid: 1, 2, 3, 4"),
    ],
)
def test_a_wrong_code_is_told_in_words(name: str, code: str, words: str) -> None:
    with pytest.raises(SpaceError) as caught:
        PUBLISHED[name]().from_code(code)
    assert words in str(caught.value)
    assert name in str(caught.value)


def test_a_student_of_other_images_or_another_space_is_refused(space: PublishedSpace) -> None:
    student = space.from_code(CODES[space.name])
    other = PUBLISHED[space.name](classes=11)
    for stranger in (other.from_code(CODES[space.name]), smallest(toy()), replace(student, choices=(99,))):
        for call in (space.cost, space.build, space.changes):
            with pytest.raises(SpaceError, match="open the space with the arguments"):
                call(stranger)
    with pytest.raises(SpaceError, match="open the space with the arguments"):
        other.from_json(student.to_json())
    with pytest.raises(SpaceError, match="bn_scale"):
        space.build(student, importance="guess")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "images", [{"classes": 1}, {"channels": 0}, {"image_size": 30}, {"image_size": 0}, {"classes": 1e1}]
)
def test_images_out_of_range_are_refused(name: str, images: dict[str, int]) -> None:
    with pytest.raises(SpaceError, match=f"{name}: expected classes >= 2"):
        PUBLISHED[name](**images)


@pytest.mark.parametrize("name", ["cifar_resnet", "cifar_resnet_width"])
def test_all_lists_every_student_once(name: str) -> None:
    space = PUBLISHED[name]()
    assert len({student.choices for student in space.all()}) == space.family.students


def test_how_many_students_there_are_worked_by_hand() -> None:
    found = {name: PUBLISHED[name]().family.students for name in NAMES}
    assert found["cifar_resnet"] == 64
    assert found["cifar_resnet_width"] == 64 * 64
    assert found["nas_bench_201"] == 15_625
    assert found["super_residual"] == 72**3
    assert found["vit"] == 3 * (16**7 - 16**2) // 15  # a geometric series over the depths 2 to 6


def test_mutants_are_legal_and_near(space: PublishedSpace) -> None:
    rng = np.random.default_rng(2)
    for _ in range(12):
        parent = space.random(rng)
        mutant = space.mutate(parent, rng)
        actions = space.actions_of(mutant)
        assert mutant != parent
        assert space.student(replay(space, actions)).choices == mutant.choices
        assert replay(space, actions).actions == actions  # none had to be replaced by a legal one
        if space.name != "vit":  # where blocks come and go with the depth
            assert sum(a != b for a, b in zip(mutant.choices, parent.choices, strict=True)) == 1


def test_spaces_travel_to_workers(space: PublishedSpace) -> None:
    twin = pickle.loads(pickle.dumps(space))
    student = space.from_code(CODES[space.name])
    assert twin.from_json(pickle.loads(pickle.dumps(student)).to_json()) == student
    assert twin.cost(student) == space.cost(student)


@pytest.mark.parametrize("agent", ["evolution", "reinforce", "random", "uniform"])
@pytest.mark.parametrize("name", NAMES)
def test_agents_search_in_them_with_a_score(name: str, agent: str) -> None:
    space = PUBLISHED[name](classes=10, channels=1, image_size=8)
    evaluate = scoring(space, load("digits").training, score="params", batch=4)
    env = StudentVectorEnv(space, evaluate, lambda one: 0.0 if one.score is None else one.score / 1e6, 3)
    player = AGENTS[agent](len(FEATURES), space.num_actions, space.num_decisions, seed=0)
    for _ in range(2):
        trajectory, evaluations = rollout(env, player)
        player.learn(trajectory)
        for one in evaluations:
            student = space.from_json(one.architecture)
            assert one.status is Status.OK or space.cost(student) == space.teacher_cost, one.reason
            assert one.parameters == space.cost(student).parameters
            if one.status is Status.OK:
                assert one.score == one.parameters


@pytest.mark.parametrize("name", NAMES)
def test_their_students_are_distilled(name: str) -> None:
    space, training = PUBLISHED[name](channels=1, image_size=8, classes=10), load("digits").training
    teacher = Teacher(build_teacher("resnet110", channels=1, seed=0), training)
    judged = distillation(space, teacher, training, steps=1, subset=16, validation_subset=16, precision="fp32")
    evaluation = judged([space.from_code(CODES[name])])[0]
    assert evaluation.status is Status.OK, evaluation.reason
    assert evaluation.parameters == space.cost(space.from_code(CODES[name])).parameters


def test_fewer_choices_than_actions_are_the_last_ones() -> None:
    space = PUBLISHED["super_residual"]()
    masks = [space.legal(Draft((3,) * at)).tolist() for at in range(4)]
    assert masks == [[True] * 4, [False, True, True, True], [False, False, True, True], [False, True, True, True]]
    assert space.student(replay(space, (0,) * 12)).code == "-".join(
        f"k1k3k1.{width}.{width // 2}.1" for width in (16, 32, 64)
    )


def test_a_draft_with_actions_that_there_are_not_is_refused() -> None:
    space = PUBLISHED["super_residual"]()
    with pytest.raises(SpaceError, match=r"stage1\.bottleneck has no action 1; expected 2 to 3"):
        space.student(Draft((0, 1, 1, *[3] * 9)))


def test_a_super_block_worked_by_hand() -> None:
    space = PUBLISHED["super_residual"]()
    small = space.from_code("k1k3k1.16.8.1-k3k3.32.16.1-k1k3k1.64.32.1")
    more = space.from_code("k1k3k1.16.8.1-k3k3.32.16.2-k1k3k1.64.32.1")
    # A second layer of k3k3: 32 to 16 and 16 to 32 by 3x3 with two norms, on 16x16, without a projection.
    assert space.cost(more).parameters - space.cost(small).parameters == 2 * 9 * 32 * 16 + 2 * 16 + 2 * 32
    assert space.cost(more).macs - space.cost(small).macs == 2 * 9 * 32 * 16 * 16 * 16
    deeper = space.from_code("k1k3k1.16.8.2-k3k3.32.16.1-k1k3k1.64.32.1")
    # A second layer of k1k3k1 is two residual blocks 16 -> 8 -> 8 -> 16.
    assert space.cost(deeper).parameters - space.cost(small).parameters == 2 * (
        16 * 8 + 9 * 64 + 8 * 16 + 2 * (8 + 8 + 16)
    )


def test_decisions_about_blocks_that_are_not_there_have_one_action() -> None:
    space = PUBLISHED["vit"]()
    shallow = Draft((4, 0))  # the greatest width, two blocks
    for decision in range(2, space.num_decisions):
        mask = space.legal(shallow)
        assert mask.sum() == (4 if decision < 6 else 1)
        shallow = space.apply(shallow, space.num_actions - 1)
    assert space.student(shallow).code == "64/4x4-4x4"
    assert space.student(Draft((4, 0, 4, 4, 4, 4, *[1] * 8))) == space.student(shallow)  # the same network
    assert all(layer.removed for layer in space.changes(space.student(shallow)) if layer.name[7:8] in "2345")


def test_a_vision_transformer_worked_by_hand() -> None:
    space = PUBLISHED["vit"]()
    two, three = space.from_code("32/1x2-1x2"), space.from_code("32/1x2-1x2-2x3")
    # Norms 2 * 64; qkv 32 -> 96 and out 32 -> 32 (two heads of 16); MLP 32 -> 96 -> 32, all with biases.
    block = 2 * 64 + 33 * 96 + 33 * 32 + 33 * 96 + 97 * 32
    assert space.cost(three).parameters - space.cost(two).parameters == block
    # 65 tokens through the matrices, and 65 x 65 scores of 32 features, twice.
    macs = 65 * (32 * 96 + 32 * 32 + 2 * 32 * 96) + 2 * 65 * 65 * 32
    assert space.cost(three).macs - space.cost(two).macs == macs


def test_attention_is_that_of_torch() -> None:
    """A block against `torch.nn.TransformerEncoderLayer` with the same weights, at heads that fill the width."""
    space = PUBLISHED["vit"]()
    block = space.build(space.from_code("32/2x2-2x2"), inherit=False).blocks[0].eval()
    theirs = torch.nn.TransformerEncoderLayer(
        32, 2, 64, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    ).eval()
    mine = block.state_dict()
    names = {
        "self_attn.in_proj_weight": "attention.qkv.weight", "self_attn.in_proj_bias": "attention.qkv.bias",
        "self_attn.out_proj.weight": "attention.out.weight", "self_attn.out_proj.bias": "attention.out.bias",
        "norm1.weight": "attention.norm.weight", "norm1.bias": "attention.norm.bias",
        "norm2.weight": "mlp.0.weight", "norm2.bias": "mlp.0.bias",
        "linear1.weight": "mlp.1.weight", "linear1.bias": "mlp.1.bias",
        "linear2.weight": "mlp.3.weight", "linear2.bias": "mlp.3.bias",
    }  # fmt: skip
    theirs.load_state_dict({name: mine[own] for name, own in names.items()})
    tokens = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(block(tokens), theirs(tokens), rtol=1e-5, atol=1e-5)


def test_a_vision_transformer_names_the_size_that_it_takes() -> None:
    network = PUBLISHED["vit"](image_size=16).build(PUBLISHED["vit"](image_size=16).from_code(CODES["vit"]))
    with pytest.raises(ValueError, match="open the space with image_size=32"):
        network(torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3])
def test_students_within_limits_and_no_others_are_reached(space: PublishedSpace, share: float) -> None:
    """Random students, mutants and the contract keep to both limits at once, wherever these lie."""
    rng = np.random.default_rng(0)
    least, most = space.cost(smallest(space)), space.teacher_cost
    limits = CostLimits(
        least.parameters + share * (most.parameters - least.parameters), least.macs + share * (most.macs - least.macs)
    )
    bounded = space.within(limits)
    student = bounded.random(rng)
    for _ in range(6):
        assert limits.allow(bounded.cost(student))
        student = bounded.mutate(student, rng) if rng.random() < 0.5 else bounded.random(rng)
    for one in some(space, 12):  # whoever keeps to the limits can be reached action by action
        draft, legal = Draft(), True
        for action in space.actions_of(space.from_json(one.to_json())):
            legal = legal and bool(bounded.legal(draft)[action])
            draft = Draft((*draft.actions, action))
        assert legal == limits.allow(space.cost(one))


def test_what_is_listed_within_limits_is_what_keeps_to_them() -> None:
    space = PUBLISHED["cifar_resnet"](classes=10)
    costs = {student: space.cost(student) for student in space.all()}
    middle = sorted(cost.parameters for cost in costs.values())[len(costs) // 3]
    for limits in (CostLimits(parameters=middle), CostLimits(macs=sorted(c.macs for c in costs.values())[40])):
        expected = {student for student, cost in costs.items() if limits.allow(cost)}
        assert set(space.within(limits).all()) == expected


def test_limits_that_no_student_meets_are_refused(space: PublishedSpace) -> None:
    least = space.cost(smallest(space))
    with pytest.raises(SpaceError, match=f"no student has at most .*; the smallest has {least.parameters:,} param"):
        space.within(CostLimits(parameters=least.parameters - 1))
    alone = space.within(CostLimits(parameters=least.parameters, macs=least.macs))
    rng = np.random.default_rng(0)
    assert alone.cost(alone.mutate(alone.random(rng), rng)) == least
