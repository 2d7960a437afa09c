"""A student's card for people: what it was cut from, what was changed, what that costs and gains, how it was made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from n2n.networks.units import size_text
from search_spaces.base import LayerChange
from search_spaces.teacher.analysis import Layer

COMPARED: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("test_accuracy", "test accuracy", lambda value: f"{value:.2%}"),
    ("validation_accuracy", "validation accuracy", lambda value: f"{value:.2%}"),
    ("parameters", "parameters", lambda value: f"{value:,.0f}"),
    ("macs", "MACs of one example", lambda value: f"{value:,.0f}"),
    ("size_mb", "size (parameters and buffers)", size_text),
    ("latency_ms", "latency of one example (median)", lambda value: f"{value:.3f} ms"),
    ("latency_iqr_ms", "its interquartile range", lambda value: f"{value:.3f} ms"),
)
"""Figures that teacher and student are compared in: key, words, how a value is printed."""
COSTS = ("parameters", "macs", "size_mb", "latency_ms")
"""Of these the card says how many times less the student has."""


def card_text(
    *,
    fingerprint: str,
    cut_from: str | None,
    example_shape: Sequence[int],
    figures: Mapping[str, Any],
    teacher_figures: Mapping[str, Any],
    layers: Sequence[LayerChange],
    made_by: Mapping[str, Any],
) -> str:
    """The card as Markdown; `cut_from` is None for a network of the user's own."""
    shape = " x ".join(str(size) for size in example_shape)
    argument = "" if cut_from else ", network=teacher"
    parts = [
        f"# Student `{fingerprint[:12]}`",
        f"Cut from: {cut_from or 'a network of your own (pass it as network=)'}\nTakes one example of shape: {shape}",
        "## Teacher against student\n\n" + comparison(figures, teacher_figures) if teacher_figures else "",
        "## What was changed\n\n" + changes_text(layers) if layers else "",
        "## How it was made\n\n" + _table(("what", "value"), _flat(made_by)) if made_by else "",
        "## Figures\n\n" + _table(("figure", "value"), figures.items()) if figures else "",
        f'```python\nimport n2n\nnetwork = n2n.load_student("this/folder"{argument})\n```',
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def comparison(figures: Mapping[str, Any], teacher: Mapping[str, Any]) -> str:
    """Teacher and student side by side, in what is known of both."""
    rows = []
    for key, words, text in COMPARED:
        if figures.get(key) is not None and teacher.get(key) is not None:
            mine, theirs = float(figures[key]), float(teacher[key])
            times = f"{theirs / mine:.1f}x" if key in COSTS and mine else ""
            points = f"{100 * (mine - theirs):+.2f} points" if key.endswith("accuracy") else times
            rows.append((words, text(theirs), text(mine), points))
    device = figures.get("device")
    where = f"\n\nLatency on {device}, {figures.get('threads', 1)} thread(s)." if device else ""
    return _table(("", "teacher", "student", ""), rows) + where


def changes_text(layers: Sequence[LayerChange]) -> str:
    """What was removed and shrunk, layer by layer, as "64 → 24"; and how many layers are as they were."""
    changed = [layer for layer in layers if layer.changed]
    kept = len(layers) - len(changed)
    rows = [
        (
            f"`{layer.name}`",
            layer.kind,
            *(
                ("removed", "", "")
                if layer.removed
                else (_arrow(layer.width_in), _arrow(layer.width_out), _kernel(layer))
            ),
            _arrow(layer.parameters),
        )
        for layer in changed
    ]
    table = _table(("layer", "kind", "channels in", "channels out", "kernel", "parameters"), rows) + "\n\n"
    return (table if changed else "") + f"{kept} of {len(layers)} layers are as they were."


def other_network(layers: Sequence[LayerChange], found: Sequence[Layer]) -> str:
    """How a network differs from the one that a card's layers were cut from: the first layer that is not the same."""
    for at, layer in enumerate(layers):
        wanted = _layer(layer.name, layer.kind, layer.width_in[0], layer.width_out[0], layer.parameters[0])
        if at >= len(found):
            return f"it has {len(found)} layers, expected {len(layers)} with {wanted} next"
        own = found[at]
        if (own_text := _layer(own.name, own.kind, own.width_in, own.width_out, own.parameters)) != wanted:
            return f"its layer {at + 1} is {own_text}, expected {wanted}"
    if len(found) > len(layers) > 0:
        return f"it has {len(found)} layers, expected {len(layers)}"
    return "its layers are put together in another way"


def _layer(name: str, kind: str, width_in: int, width_out: int, parameters: int) -> str:
    return f"{name!r} ({kind}, {width_in} → {width_out} channels, {parameters:,} parameters)"


def _arrow(pair: tuple[int, int]) -> str:
    before, after = pair
    return f"{before:,} → {after:,}" if before != after else f"{before:,}"


def _kernel(layer: LayerChange) -> str:
    return _arrow(layer.kernel) if layer.kernel[0] else ""


def _flat(values: Mapping[str, Any], above: str = "") -> Iterable[tuple[str, object]]:
    """Nested settings as one list: ("recipe.lr", 0.05)."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows)])
