"""`.pt2`: the graph and the weights as torch.export saves them; runs without the code of the network."""

from __future__ import annotations

import io
from pathlib import Path

import torch

from n2n.search.errors import ExportError
from n2n.search.export.check import RECORDED, verify
from n2n.search.export.subject import CAPTURE_ERRORS, Subject


def write_pt2(subject: Subject, path: Path) -> float:
    """Writes, reads again and compares; returns the largest difference.

    Raises:
        ExportError: it cannot be captured, or the file computes something else.
    """
    content = io.BytesIO()  # so that a full disk is an OSError like elsewhere
    torch.export.save(subject.program(), content)
    path.write_bytes(content.getvalue())
    what = f"{subject.name} as pt2"
    try:
        # From memory, because torch wants the name of a file to end in .pt2 and this one is temporary.
        again = torch.export.load(io.BytesIO(path.read_bytes())).module()
    except (*CAPTURE_ERRORS, SyntaxError) as error:
        raise ExportError(
            f"{what} cannot be read again ({' '.join(str(error).split())[:400]}); nothing was written. Modules whose "
            "names are Python keywords are one cause; format python may serve"
        ) from error
    return verify(subject, again, RECORDED, what=what)
