"""The teacher of a whole search: one frozen network, its baseline, and its outputs, each computed once.

The network given is copied, never edited. The teacher stays the same through every stage of a search: it is the
distiller and the baseline of removal, of shrinkage and of the last long distillation alike.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence, Sized
from dataclasses import replace
from functools import cached_property
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from n2n.data.augment import augment
from n2n.data.base import Split, TrainingData
from n2n.data.prepare import example_inputs
from n2n.distill.accuracy import accuracy_of, at_chance, chance_level, predict
from n2n.distill.features import INSTEAD
from n2n.distill.precision import Wish, resolve
from n2n.distill.views import View, select
from n2n.networks.count import macs, parameters
from n2n.networks.stages import Stage, last_stage, reading_all
from n2n.networks.tracing import Trace, trace

FEATURE_BYTES = 512 * 2**20
"""Of the feature maps that a teacher keeps for all views together; others are computed in every step."""


_Key = tuple[str, str, int]


@final
class Teacher:
    """A trained network as distiller and baseline.

    Attributes:
        name: what reports call it.
        accuracy: on the validation split, 0 to 1.
        loss: mean cross-entropy on the validation split.
        parameters: number of parameters.
        macs: multiply-accumulates for one image.
        fingerprint: a hash of its weights.
        notes: what a user should know, e.g. that its accuracy is at chance level.
    """

    def __init__(
        self,
        network: nn.Module,
        training: TrainingData,
        *,
        name: str = "teacher",
        device: torch.device | str = "cpu",
        precision: Wish = "auto",
        batch_size: int = 256,
        feature_bytes: int = FEATURE_BYTES,
    ) -> None:
        """Copies the network and measures its baseline.

        Args:
            network: copied, not edited.
            training: what the baseline is measured on.
            name: what reports call it.
            device: where it runs.
            precision: "auto", "fp32" or "bf16".
            batch_size: images of one pass.
            feature_bytes: of feature maps to keep, at most; 0 keeps none.

        Raises:
            ValueError: the network does not give [n, classes] logits for the data's images.
        """
        self.name = name
        self.network = copy.deepcopy(network).to(device).eval().requires_grad_(False)
        self.device = torch.device(device)
        self._precision = precision
        self._settings = resolve(precision, self.network, device)
        self._batch_size = batch_size
        self._mean, self._std = training.mean, training.std
        self._views: dict[_Key, View] = {}
        self._features: dict[tuple[_Key, Stage], Tensor] = {}
        self._class_means: dict[tuple[str, Stage], Tensor] = {}
        self._feature_bytes = feature_bytes
        self._example = example_inputs(training, 2)  # [2, C, H, W]
        self._check_outputs(training)
        self.fingerprint = fingerprint(self.network)
        self.parameters = parameters(self.network)
        self.macs = macs(self.network, example_inputs(training).to(device))
        self.accuracy, self.loss = accuracy_of(self.logits(training.validation), training.validation.labels)
        self.notes = _notes(name, self.accuracy, training)

    def _check_outputs(self, training: TrainingData) -> None:
        inputs = example_inputs(training).to(self.device)  # [1, C, H, W]
        fault = f"teacher {self.name!r} on {training.name}: expected logits [1, {training.classes}] for one example"
        try:
            with torch.no_grad(), self._settings.autocast():
                given = self.network(self._settings.place(inputs))
            found = tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__
        except RuntimeError as error:
            raise ValueError(
                f"{fault} of shape {list(inputs.shape)}, found that it does not run on it ({error}); give data of the"
                " shape that the teacher was trained on"
            ) from error
        if found != (1, training.classes):
            if isinstance(found, str):
                raise ValueError(
                    f"{fault}, found a {found}; wrap it in a module whose forward returns the logits alone"
                )
            raise ValueError(
                f"{fault}, found {list(found)}; train it on this data or rebuild its classifier with"
                f" {training.classes} classes"
            )

    def __call__(self, inputs: Tensor) -> Tensor:
        """Logits [B, K] (float32) of prepared images [B, C, H, W] on the teacher's device, without gradient."""
        with torch.no_grad(), self._settings.autocast():
            logits: Tensor = self.network(self._settings.place(inputs))  # not in the student's layout
        return logits.float()

    def outputs(self, inputs: Tensor, places: Sequence[Stage]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Logits [B, K] and maps [B, C, *spatial] of some places, of prepared images; float32, no gradient."""
        with reading_all(self.network, places) as take:
            logits = self(inputs)
        return logits, tuple(maps.float() for maps in take())

    @cached_property
    def last_stage(self) -> Stage:
        """Where the teacher gives its last feature maps.

        Raises:
            StageError: nowhere.
        """
        return last_stage(self.network, self._placed_example, name=f"teacher {self.name!r}", instead=INSTEAD)

    @cached_property
    def trace(self) -> Trace:
        """Which module gives which maps."""
        return trace(self.network, self._placed_example, name=f"teacher {self.name!r}")

    @property
    def _placed_example(self) -> Tensor:
        return self._settings.place(self._example.to(self.device))  # [2, C, H, W]

    def class_means(self, training: TrainingData, place: Stage) -> Tensor:
        """Mean of what a place [B, D] gives for the training images of each class, of length 1: [K, D] on the CPU.

        The images are those of the whole training split as they are, in eval mode; a class without any has zeros.
        """
        key = (training.fingerprint, place)
        if key not in self._class_means:
            _, (features,) = self._look(training.train.images, (place,))  # [n, D]
            sums = torch.zeros(training.classes, features.shape[1])
            sums.index_add_(0, training.train.labels.cpu(), features)  # of the mean only the direction is kept
            self._class_means[key] = F.normalize(sums, dim=1)
        return self._class_means[key]

    def logits(self, split: Split) -> Tensor:
        """Logits [n, K] of a split's images as they are, computed once per split and kept on the CPU."""
        logits = self._view(f"{split.name}-{_contents(split)}", split, None, 0, None).logits
        assert logits is not None
        return logits

    def view(
        self,
        training: TrainingData,
        subset: Tensor | None,
        index: int,
        *,
        augmented: bool,
        places: Sequence[Stage] = (),
    ) -> View:
        """View `index` of (a subset [m] of) the training images, the same for every student; computed once and kept.

        Without augmentation every index is the same view: the images as they are. It carries the teacher's maps of
        `places`, too, unless they would take more memory than there is for those of all views together.
        """
        augmentation = training.augmentation
        if not augmented or not (augmentation.pad or augmentation.flip):
            return self._view(training.fingerprint, training.train, subset, 0, None, places)
        return self._view(training.fingerprint, training.train, subset, index + 1, training, places)

    def _view(
        self,
        owner: str,
        split: Split,
        subset: Tensor | None,
        index: int,
        augmenting: TrainingData | None,
        places: Sequence[Stage] = (),
    ) -> View:
        chosen = "all" if subset is None else hashlib.sha256(subset.cpu().numpy().tobytes()).hexdigest()
        key = (owner, chosen, index)
        wanted = [place for place in places if (key, place) not in self._features]
        if not self._has_room(split if subset is None else subset, wanted):
            wanted = []
        if key not in self._views or wanted:
            view = self._views.get(key) or _drawn(split, subset, index, augmenting)
            logits, maps = self._look(view.images, wanted)
            if key not in self._views:
                self._views[key] = replace(view, logits=logits)
            self._features.update({(key, place): one for place, one in zip(wanted, maps, strict=True)})
        kept = [self._features[key, place] for place in places if (key, place) in self._features]
        if not places or len(kept) < len(places):
            return self._views[key]
        return replace(self._views[key], features=tuple(kept))

    def _has_room(self, examples: Sized, places: Sequence[Stage]) -> bool:
        """Whether the maps of so many examples may be kept beside those that are."""
        used = sum(maps.nbytes for maps in self._features.values())
        return used + len(examples) * sum(place.bytes for place in places) <= self._feature_bytes

    def _look(self, images: Tensor, places: Sequence[Stage]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Logits [n, K] and the maps [n, C, *spatial] of places, of raw images, from the same passes, on the CPU."""
        if not places:
            return self._predict(images), ()
        kept = tuple(torch.empty(len(images), *place.shape) for place in places)  # [n, C, *spatial] each
        logits: list[Tensor] = []
        with reading_all(self.network, places) as take:
            for start in range(0, len(images), self._batch_size):
                chunk = images[start : start + self._batch_size]
                logits.append(self._predict(chunk))
                for into, maps in zip(kept, take(), strict=True):
                    into[start : start + len(chunk)] = maps.float().cpu()
        return torch.cat(logits), kept

    def _predict(self, images: Tensor) -> Tensor:
        """Logits [n, K] on the CPU of raw images [n, C, H, W]."""
        return predict(
            self.network,
            images,
            mean=self._mean,
            std=self._std,
            device=self.device,
            precision=self._precision,
            batch_size=self._batch_size,
        )


def _drawn(split: Split, subset: Tensor | None, index: int, augmenting: TrainingData | None) -> View:
    """The images of a view, augmented by its index where they are at all, without outputs."""
    view = select(split, subset)
    if augmenting is None:
        return view
    generator, policy = torch.Generator().manual_seed(index), augmenting.augmentation
    return replace(view, images=augment(view.images, pad=policy.pad, flip=policy.flip, generator=generator))


def fingerprint(network: nn.Module) -> str:
    """A hash of the names, shapes and values of a network's parameters and buffers."""
    digest = hashlib.sha256()
    for key, value in network.state_dict().items():
        digest.update(f"{key}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _contents(split: Split) -> str:
    """A hash of a split by its shape, its labels and a few of its images: cheap enough to be taken at every look."""
    few = torch.cat([split.images[:4], split.images[-4:]])
    values = b"".join(part.cpu().contiguous().numpy().tobytes() for part in (split.labels, few))
    return hashlib.sha256(f"{tuple(split.images.shape)}".encode() + values).hexdigest()[:16]


def _notes(name: str, accuracy: float, training: TrainingData) -> tuple[str, ...]:
    if not at_chance(accuracy, training.validation):
        return ()
    chance = chance_level(training.validation)
    return (
        f"teacher {name!r} is at chance level on {training.name}: accuracy {accuracy:.3f}, while always naming the most"
        f" common class gives {chance:.3f}; check that its weights were loaded, and that it was trained on"
        " images normalised the same way",
    )
