"""What may change in a teacher, as rows of text: layer by layer, and the costs between which its students lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from n2n.networks import Latency
from n2n.networks.units import latency_text, mac_text, millions, size_text
from search_spaces.base import Cost
from search_spaces.coverage import Coverage, LayerCoverage, Range
from search_spaces.family import Decision

LAYER_HEADER = ("layer", "kind", "what may change", "width group", "parameters", "MACs", "why not more")
SPACE_RANGE_HEADER = ("space", "quantity", "min", "middle", "max")
DECISION_HEADER = ("decision", "choices, from the cheapest to the largest network's")
RANGE_HEADER = ("students of", "quantity", "min", "middle", "max (teacher)")
STATUS = {"both": "removable, shrinkable"}


def layer_rows(coverage: Coverage, outside: Sequence[str] = ()) -> list[tuple[str, ...]]:
    """The rows under `LAYER_HEADER`; a group that is only read is written "← group".

    `outside` names the parameters that belong to no layer.
    """
    rows: list[tuple[str, ...]] = [
        (
            layer.name,
            layer.kind,
            STATUS.get(layer.status, layer.status),
            layer.group or (f"← {layer.reads}" if layer.reads else ""),
            f"{layer.parameters:,}",
            mac_text(layer.macs) if layer.macs else "",
            reasons(layer),
        )
        for layer in coverage.layers
    ]
    if coverage.outside or coverage.outside_macs:
        some = f"{', '.join(outside[:3])}{f' and {len(outside) - 3} more' if len(outside) > 3 else ''}"
        macs = mac_text(coverage.outside_macs) if coverage.outside_macs else ""
        why = f"belongs to no layer{': ' + some if some else ''}"
        rows.append(("(outside layers)", "", "frozen", "", f"{coverage.outside:,}", macs, why))
    return rows


def reasons(layer: LayerCoverage) -> str:
    """Why spaces leave a layer as it is; what several say is said once, and of a removable layer only what matters."""
    if layer.removable and not layer.parameters:
        return ""  # that an activation has no width is no news
    spaces: dict[str, list[str]] = {}
    for space, why in layer.reasons:
        spaces.setdefault(why, []).append(space.removeprefix("layer_"))
    return "; ".join(f"{' and '.join(names)}: {why}" for why, names in spaces.items())


def range_rows(ranges: Mapping[str, Range], timings: Mapping[str, Latency]) -> list[tuple[str, ...]]:
    """The rows under `RANGE_HEADER`; latencies, by stage and of the "teacher", where they were measured."""
    quantities: tuple[tuple[str, Callable[[Cost], str]], ...] = (
        ("parameters", lambda cost: millions(cost.parameters)),
        ("MACs", lambda cost: mac_text(cost.macs)),
        ("size", lambda cost: size_text(cost.size_mb)),
    )
    rows: list[tuple[str, ...]] = []
    for stage, found in ranges.items():
        rows += [
            (stage if at == 0 else "", name, text(found.low), text(found.middle), text(found.high))
            for at, (name, text) in enumerate(quantities)
        ]
        if stage in timings:
            low, high = (latency_text(timings[name].median_ms, timings[name].iqr_ms) for name in (stage, "teacher"))
            rows.append(("", "latency (IQR)", low, "", high))
    return rows


def decision_rows(decisions: Sequence[Decision]) -> list[tuple[str, ...]]:
    """The rows under `DECISION_HEADER`."""
    return [(decision.name, ", ".join(decision.texts)) for decision in decisions]


def shares_text(coverage: Coverage) -> str:
    """Which share of the parameters each kind of decision covers."""
    shares = {
        "removal": coverage.removal,
        "shrinkage": coverage.shrinkage,
        "either": coverage.either,
        "none": coverage.none,
    }
    return "parameters under decisions: " + ", ".join(f"{name} {share:.1%}" for name, share in shares.items())


def latency_note(timings: Mapping[str, Latency]) -> str:
    """What latencies were measured on; empty where none was."""
    one = next(iter(timings.values()), None)
    if one is None:
        return ""
    threads = f"{one.threads} thread{'' if one.threads == 1 else 's'}"
    return f"latency of one batch: median (interquartile range) on {one.device}, {threads}"
