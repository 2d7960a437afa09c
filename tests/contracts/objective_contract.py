"""What every distillation objective owes its trainer: `check_objective(objective)` fails at a broken promise."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor, nn

from n2n.distill.objectives import Batch, Objective, Seen

CLASSES, EXAMPLES = 4, 20
KINDS: Mapping[str, int] = {
    "none": 0,
    "stages": 3,
    "own_stages": 3,
    "middle": 1,
    "last": 1,
    "penultimate": 1,
    "stage_ends": 4,
}
"""How many maps each kind of feature gives here."""


@dataclass(frozen=True)
class Scene:
    """One batch as two networks see it: what an objective is called with."""

    student: Seen
    teacher: Seen
    batch: Batch
    side: nn.Module | None = None
    options: Mapping[str, object] = field(default_factory=dict)

    def loss(self, objective: Objective) -> Tensor:
        """The objective's value; the generator and the side modules are copies, so that every call says the same."""
        given = {} if self.side is None else {"side": copy.deepcopy(self.side)}
        return objective.loss(self.student, self.teacher, fresh(self.batch), **given, **self.options)


def fresh(batch: Batch) -> Batch:
    return replace(batch, generator=torch.Generator().manual_seed(3))


def batch_of(labels: list[int] | None = None, *, classes: int = CLASSES, seed: int = 3, **given: object) -> Batch:
    """A batch in the middle of a training on few examples; `given` replaces what it says."""
    made = Batch(
        labels=None if labels is None else torch.tensor(labels),
        indices=None,
        class_means=None,
        progress=0.5,
        epoch=30.0,
        generator=torch.Generator().manual_seed(seed),
        classes=classes,
        examples=EXAMPLES,
    )
    return replace(made, **given)


def scene(
    objective: Objective,
    *,
    rows: int = 5,
    widths: tuple[int, int] = (6, 6),
    sizes: tuple[int, int] = (4, 4),
    seed: int = 0,
    labels: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    options: Mapping[str, object] | None = None,
) -> Scene:
    """Networks that saw a batch, with what the objective needs and nothing else, and its side modules."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device, dtype)

    def seen(width: int, size: int) -> Seen:
        count, kind = KINDS[objective.needs.features], objective.needs.features
        if kind == "penultimate":
            return Seen(draw(rows, CLASSES), (draw(rows, width),))
        shapes = [(width + index, max(2, size - index // 2)) for index in range(count)]
        return Seen(draw(rows, CLASSES), tuple(draw(rows, c, p, p) for c, p in shapes))

    student, teacher = seen(widths[0], sizes[0]), seen(widths[1], sizes[1])
    needs = objective.needs
    if needs.features == "own_stages":
        teacher = replace(teacher, maps=())
    given = torch.arange(rows) % CLASSES if labels is None else labels
    means = nn.functional.normalize(draw(CLASSES, widths[1]), dim=1) if needs.class_means else None
    indices = torch.arange(rows).to(device) * 3 % EXAMPLES if needs.indices else None
    batch = batch_of(labels=None, indices=indices, class_means=means)
    batch = replace(batch, labels=given.to(device) if needs.labels else None)
    options = dict(options or {})
    return Scene(student, teacher, batch, opened(objective, student, teacher, options), of_loss(objective, options))


def opened(
    objective: Objective, student: Seen, teacher: Seen, options: Mapping[str, object], seed: int = 7
) -> nn.Module | None:
    """The objective's side modules, trained before where it asks for it, in float64 for networks in float64."""
    assert (objective.open is not None) == objective.needs.side
    if objective.open is None:
        return None
    known = inspect.signature(objective.open).parameters
    chosen = {name: value for name, value in options.items() if name in known}
    side = objective.open(student, teacher, examples=EXAMPLES, classes=CLASSES, seed=seed, **chosen)
    side = side.to(student.logits.device, student.logits.dtype)
    if objective.before is not None:
        objective.before(side, [teacher, teacher])
    return side


def of_loss(objective: Objective, options: Mapping[str, object]) -> dict[str, object]:
    """Those options that the loss takes."""
    known = inspect.signature(objective.loss).parameters
    return {name: value for name, value in options.items() if name in known}


def tensors(seen: Seen) -> tuple[Tensor, ...]:
    return (seen.logits, *seen.maps)


def with_gradients(of: Scene) -> Scene:
    """The same with leaves that ask for gradients, the teacher's too."""

    def leaves(seen: Seen) -> Seen:
        return Seen(*(leaf(seen.logits), tuple(map(leaf, seen.maps))))

    return replace(of, student=leaves(of.student), teacher=leaves(of.teacher))


def leaf(values: Tensor) -> Tensor:
    return values.detach().clone().requires_grad_()


def check_objective(objective: Objective, device: str = "cpu") -> None:
    """Runs every check below."""
    check_declared(objective)
    for check in (
        check_scalar,
        check_gradients,
        check_autocast,
        check_half_precision,
        check_repeatable,
        check_small_batches,
        check_extreme_logits,
        check_dead_maps,
        check_other_shapes,
    ):
        check(objective, device)


def check_declared(objective: Objective) -> None:
    """What it needs is of the known kinds, its options have defaults, and its docstring says where it is from."""
    assert objective.needs.features in KINDS
    assert objective.loss.__doc__
    for function in (objective.loss, objective.open):
        for one in inspect.signature(function).parameters.values() if function else ():
            provided = one.name in ("side", "examples", "classes", "seed")
            assert one.kind is not one.KEYWORD_ONLY or provided or one.default is not one.empty
    assert ("side" in inspect.signature(objective.loss).parameters) == objective.needs.side


def check_scalar(objective: Objective, device: str = "cpu") -> None:
    """A finite scalar in float32, on the device of the networks."""
    value = scene(objective, device=device).loss(objective)
    assert value.shape == ()
    assert value.dtype == torch.float32
    assert value.device.type == device
    assert math.isfinite(value.item())


def check_gradients(objective: Objective, device: str = "cpu") -> None:
    """Student and side modules get a gradient, the teacher none; nothing is written into what was handed over."""
    given = with_gradients(scene(objective, device=device))
    before = [one.detach().clone() for seen in (given.student, given.teacher) for one in tensors(seen)]
    side = given.side
    kwargs = {} if side is None else {"side": side}
    objective.loss(given.student, given.teacher, fresh(given.batch), **kwargs, **given.options).backward()
    assert all(one.grad is None for one in tensors(given.teacher))
    reached = [one.grad for one in tensors(given.student) if one.grad is not None]
    assert sum(float(gradient.abs().sum()) for gradient in reached) > 0
    assert all(bool(torch.isfinite(gradient).all()) for gradient in reached)
    for index, maps in enumerate(given.student.maps):
        assert maps.grad is not None, f"maps {index} get no gradient"
        assert maps.grad.abs().sum() > 0, f"maps {index} get no gradient"
    after = [one for seen in (given.student, given.teacher) for one in tensors(seen)]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    if side is not None:
        learning = [one for one in side.parameters() if one.requires_grad]
        assert all(one.grad is not None for one in learning)
        frozen = [one for one in side.parameters() if not one.requires_grad]
        assert all(one.grad is None for one in frozen)


def check_autocast(objective: Objective, device: str = "cpu") -> None:
    """Under autocast the value and the gradients are those without it, bit by bit."""
    plain, cast = (with_gradients(scene(objective, device=device)) for _ in range(2))
    value = plain.loss(objective)
    value.backward()
    with torch.autocast(device, dtype=torch.bfloat16):
        other = cast.loss(objective)
    other.backward()
    assert torch.equal(value, other)
    for one, same in zip(tensors(plain.student), tensors(cast.student), strict=True):
        assert (one.grad is None) == (same.grad is None)
        assert one.grad is None or torch.equal(one.grad, same.grad)


def check_half_precision(objective: Objective, device: str = "cpu") -> None:
    """What networks give under autocast, in bfloat16, has a float32 loss close to that of the exact values."""
    exact = scene(objective, device=device)

    def rounded(seen: Seen) -> Seen:
        return Seen(seen.logits.bfloat16(), tuple(one.bfloat16() for one in seen.maps))

    half = replace(exact, student=rounded(exact.student), teacher=rounded(exact.teacher)).loss(objective)
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(exact.loss(objective).item(), rel=0.05, abs=0.02)


def check_repeatable(objective: Objective, device: str = "cpu") -> None:
    """The same again from the same generator, whatever the global one says, which is left as it was."""
    given = scene(objective, device=device)
    first = given.loss(objective)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert torch.equal(given.loss(objective), first)
    assert torch.equal(scene(objective, device=device).loss(objective), first)
    assert torch.equal(torch.get_rng_state(), state)


def check_small_batches(objective: Objective, device: str = "cpu") -> None:
    """One example, and examples of one class alone, have a finite loss and finite gradients."""
    check_finite(objective, scene(objective, rows=1, device=device))
    check_finite(objective, scene(objective, labels=torch.full((5,), 2), device=device))


def check_extreme_logits(objective: Objective, device: str = "cpu") -> None:
    """Logits so large that probabilities are 0 and 1, of the same mind and of another, and logits all alike."""
    given = scene(objective, device=device)
    for ours, theirs in ((1e4, 1e4), (-1e4, 1e4), (1e4, 1.0), (1.0, 1e4), (0.0, 0.0), (0.0, 1e4)):
        student = replace(given.student, logits=ours * given.student.logits)
        teacher = replace(given.teacher, logits=theirs * given.teacher.logits)
        check_finite(objective, replace(given, student=student, teacher=teacher))


def check_dead_maps(objective: Objective, device: str = "cpu") -> None:
    """Maps of zeros, on either side or both, and maps that are the same on both, give no NaN."""
    given = scene(objective, device=device)

    def dead(seen: Seen) -> Seen:
        return replace(seen, maps=tuple(map(torch.zeros_like, seen.maps)))

    check_finite(objective, replace(given, student=dead(given.student)))
    check_finite(objective, replace(given, teacher=dead(given.teacher)))
    check_finite(objective, replace(given, student=dead(given.student), teacher=dead(given.teacher)))
    if given.teacher.maps:
        check_finite(objective, replace(given, student=replace(given.student, maps=given.teacher.maps)))
    if given.student.maps:
        first = given.student.maps[0].clone()
        first[0] = 0  # one dead example
        check_finite(objective, replace(given, student=replace(given.student, maps=(first, *given.student.maps[1:]))))


def check_other_shapes(objective: Objective, device: str = "cpu") -> None:
    """Widths and sizes that differ have a loss, or an error that names another objective or an option."""
    if objective.needs.features == "none":
        return
    for options in ({"widths": (5, 9)}, {"sizes": (3, 5)}, {"widths": (9, 5), "sizes": (5, 3)}):
        refusal = ""
        try:
            check_finite(objective, scene(objective, device=device, **options))
        except ValueError as error:
            refusal = str(error)
        assert not refusal or (objective.name in refusal and "use '" in refusal), (
            f"it does not say what to do: {refusal}"
        )


def check_finite(objective: Objective, given: Scene) -> None:
    """A finite loss with finite gradients."""
    given = with_gradients(given)
    value = given.loss(objective)
    assert math.isfinite(value.item())
    if value.requires_grad:
        value.backward()
    for one in tensors(given.student):
        assert one.grad is None or bool(torch.isfinite(one.grad).all())


def gradient_agrees(objective: Objective, given: Scene, *, directions: int = 4, step: float = 1e-6) -> None:
    """Automatic differentiation against central differences along random directions, in float64.

    Each tensor that the student says is moved by itself, and in every place at once. A first call comes before, so that
    what side modules keep of it is a constant, as it is when training.
    """
    if given.side is not None:
        objective.loss(given.student, given.teacher, fresh(given.batch), side=given.side, **given.options)
    student = tuple(map(leaf, tensors(given.student)))
    generator = torch.Generator().manual_seed(11)

    def loss(values: tuple[Tensor, ...]) -> Tensor:
        return replace(given, student=Seen(values[0], values[1:])).loss(objective)

    value = loss(student)
    assert value.dtype == torch.float64
    gradients = torch.autograd.grad(value, student, allow_unused=True)
    tolerance = 1e-6 * max(1.0, float(value.detach().abs()))
    for position, (one, gradient) in enumerate(zip(student, gradients, strict=True)):
        for _ in range(directions):
            direction = torch.randn(one.shape, generator=generator, dtype=torch.float64)
            expected = 0.0 if gradient is None else float((gradient * direction).sum())
            with torch.no_grad():
                there, back = (
                    loss((*student[:position], one + sign * step * direction, *student[position + 1 :])).item()
                    for sign in (1, -1)
                )
            assert (there - back) / (2 * step) == pytest.approx(expected, rel=1e-4, abs=tolerance)
