"""safetensors: one file with the weights and, as metadata, the architecture and what the card says."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from n2n.search.errors import ExportError
from n2n.search.export.check import EXACT, verify
from n2n.search.export.subject import Subject


def write_weights(subject: Subject, path: Path) -> float:
    """Writes, reads again and compares bit for bit, then the outputs of the network with these weights.

    Raises:
        ExportError: the file holds something else than the network.
    """
    state = subject.own.state_dict()
    facts = {"network": subject.name, **subject.facts}
    path.write_bytes(save(detached(state), facts))
    found, metadata = read(path)
    different = [name for name in state.keys() | found.keys() if not _same(state.get(name), found.get(name))]
    if different or metadata != facts:
        what = f"tensor {min(different)}" if different else "metadata"
        raise ExportError(f"{subject.name} as safetensors: {what} came back changed; nothing was written. Try again")
    filled = replace(subject, network=copy.deepcopy(subject.network))
    filled.own.load_state_dict(found)
    return verify(subject, filled.network, EXACT, what=f"{subject.name} as safetensors")


def detached(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, each with memory of its own."""
    return {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a safetensors file.

    Raises:
        ExportError: it cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except SafetensorError as error:
        raise ExportError(f"{path} cannot be read again ({error}); nothing was written. Try again") from error


def _same(ours: Tensor | None, theirs: Tensor | None) -> bool:
    if ours is None or theirs is None or ours.dtype != theirs.dtype or ours.shape != theirs.shape:
        return False
    return ours.contiguous().view(-1).view(torch.uint8).equal(theirs.contiguous().view(-1).view(torch.uint8))
