"""`.pt2`: the graph and the weights as torch.export saves them; runs without the code of the network."""

from __future__ import annotations

import io
from pathlib import Path

import torch

from n2n.search.export.check import RECORDED, verify
from n2n.search.export.subject import Subject


def write_pt2(subject: Subject, path: Path) -> float:
    """Writes, reads again and compares; returns the largest difference.

    Raises:
        ExportError: it cannot be captured, or the file computes something else.
    """
    content = io.BytesIO()  # so that a full disk is an OSError like elsewhere
    torch.export.save(subject.program(), content)
    path.write_bytes(content.getvalue())
    return verify(subject, torch.export.load(path).module(), RECORDED, what=f"{subject.name} as pt2")
