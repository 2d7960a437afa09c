"""The teacher's values at a sample of positions, taken once and kept for every student."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Protocol, final

import torch
from torch import Tensor

CHUNK = 64
"""Images of one run of the teacher."""
MOST_BYTES = 2**30
"""Of one value for all images, at most: with larger values, fewer images are used."""


class Recorder(Protocol):
    """Runs a teacher and shows the values inside, e.g. `search_spaces.teacher.record.Recorder`."""

    @property
    def batch(self) -> int:
        """Images of each run."""
        ...

    def run(self, inputs: Tensor, wanted: Collection[int], look: Any) -> Any:
        """Calls `look(node, value)` for each wanted node and gives what the teacher gives."""
        ...


@final
class TeacherSamples:
    """Values of a teacher's nodes for some images, at the same random positions for all nodes of one spatial shape.

    Attributes:
        images: prepared images [n, C, ...], n a multiple of the recorder's batch.
    """

    def __init__(self, recorder: Recorder, images: Tensor, *, positions: int = 16, seed: int = 0) -> None:
        """Keeps as many of the images as whole batches hold.

        Args:
            recorder: of the teacher.
            images: prepared images [n, C, ...] on the teacher's device.
            positions: of each image, for values that have that many.
            seed: of the positions.

        Raises:
            ValueError: fewer images than one batch, or no position.
        """
        whole = len(images) // recorder.batch * recorder.batch
        if whole == 0:
            raise ValueError(f"expected at least {recorder.batch} images for the closed form, found {len(images)}")
        if positions < 1:
            raise ValueError(f"positions: expected 1 or more of each image, found {positions}")
        self.images = images[:whole]
        self._recorder, self._positions, self._seed = recorder, positions, seed
        self._values: dict[int, Tensor] = {}
        self._places: dict[int, Tensor] = {}

    def places(self, positions: int) -> Tensor:
        """Which of each image's `positions` are looked at: [n, p] of indices, ascending and the same in every call."""
        if positions not in self._places:
            most = min(self._positions, positions)
            generator = torch.Generator().manual_seed(self._seed * 1_000_003 + positions)
            drawn = torch.rand(len(self.images), positions, generator=generator).argsort(dim=1)[:, :most]
            self._places[positions] = drawn.sort(dim=1).values.to(self.images.device)
        return self._places[positions]

    def sample(self, value: Tensor, axis: int, *, start: int = 0, images: int | None = None) -> Tensor:
        """The entries [s, C] of a value at the looked-at positions; `axis` is that of its C channels.

        The value may be that of the images from `start` on, `images` of them (all by default).
        """
        many = len(self.images) if images is None else images
        rows = value.movedim(axis, -1).reshape(many, -1, value.shape[axis])  # [n, P, C]
        places = self.places(rows.shape[1])[start : start + many]  # [n, p]
        at = torch.arange(many, device=value.device).unsqueeze(1)
        return rows[at, places].flatten(0, 1)

    def take(self, axes: Mapping[int, int]) -> None:
        """Runs the teacher once for those nodes whose values are not known yet, each with the axis of its channels."""
        missing = axes.keys() - self._values.keys()
        if not missing:
            return
        parts: dict[int, list[Tensor]] = {node: [] for node in missing}
        batch = self._recorder.batch
        for start in range(0, len(self.images), batch):

            def look(node: int, value: Tensor, start: int = start) -> None:
                parts[node].append(self.sample(value, axes[node], start=start, images=batch))

            self._recorder.run(self.images[start : start + batch], missing, look)
        self._values.update({node: torch.cat(found) for node, found in parts.items()})

    def of(self, node: int) -> Tensor:
        """The sampled value [s, C] of a node that was taken."""
        return self._values[node]
