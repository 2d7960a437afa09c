"""The card of a policy: what it was trained on, how it learned, how it compares, and the hashes of its weights."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from n2n.policies.files import Policy, PolicyError
from n2n.search.errors import ArtefactError
from n2n.search.files import read_json, write_json

CARD = "card.json"


@dataclass(frozen=True)
class Trained:
    """One network that a policy was trained on.

    Attributes:
        teacher: its name.
        data: the name of the data that it was trained with.
        parameters: of the teacher.
        accuracy: of the teacher on validation, in [0, 1]; None where nobody looked.
        key: a hash of the teacher's weights and operations, by which it is known again; empty where nobody noted it.
    """

    teacher: str
    data: str
    parameters: int
    accuracy: float | None = None
    key: str = ""


@dataclass(frozen=True)
class Point:
    """One point of a learning curve: the mean reward of the students around the `judged`-th, of a stage or phase."""

    stage: str
    judged: int
    reward: float


@dataclass(frozen=True)
class Comparison:
    """Policy against random choice, on as many judged students each, in one network.

    Attributes:
        mode: what was done with the policy: "zero-shot", "warm" or "proposal".
        stages: that were played.
        teacher, data: where.
        budget: what students could cost at most, in words.
        judged: students of each side.
        policy, random: the best reward of each side, means over `seeds` runs.
        seeds: how many runs.
        held_back: whether the policy was not trained on this network.
    """

    mode: str
    stages: str
    teacher: str
    data: str
    budget: str
    judged: int
    policy: float
    random: float
    seeds: int
    held_back: bool


@dataclass(frozen=True)
class Card:
    """See the fields; `weights` are the SHA-256 of each stage's tensors, which a policy must still have.

    Attributes:
        trained: the networks, in the order in which they came.
        space: stages, factors and what else says which students there were.
        reward: what was rewarded, in words.
        budget: what students could cost, in words.
        judged: students in all.
        curve: how rewards rose.
        compared: with random choice.
        weights: hexadecimal hashes by stage.
        made_by: the command or script.
    """

    trained: tuple[Trained, ...]
    space: Mapping[str, Any]
    reward: str
    budget: str
    judged: int
    curve: tuple[Point, ...]
    weights: Mapping[str, str]
    compared: tuple[Comparison, ...] = ()
    made_by: str = ""

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]

    def knows(self, key: str, data: str, parameters: int) -> bool:
        """Whether it was trained on a network, or on one of another seed: of as many parameters, on the same data."""
        return any(one.key == key or (one.data, one.parameters) == (data, parameters) for one in self.trained)

    def compared_with(self, found: Comparison) -> Card:
        """The card with one more comparison, in place of an earlier one of the same kind."""
        kind = ("mode", "stages", "teacher", "data", "budget", "judged")
        others = [one for one in self.compared if any(getattr(one, name) != getattr(found, name) for name in kind)]
        return replace(self, compared=(*others, found))


def weights_hash(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and values of tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        array = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def write_card(folder: Path, card: Card) -> None:
    """Writes `card.json` into the folder that holds a policy's stages. Raises `WriteError`."""
    write_json(folder / CARD, card.to_json())


def read_card(folder: Path, policies: Mapping[str, Policy]) -> Card | None:
    """The card of the policies in a folder; None where there is none.

    Raises:
        PolicyError: it cannot be read, or the weights are not all those that it was written for.
    """
    path = folder / CARD
    if not path.is_file():
        return None
    try:
        values = read_json(path, tuple(one.name for one in fields(Card)))
        card = Card(
            **{
                **values,
                "trained": tuple(Trained(**one) for one in values["trained"]),
                "curve": tuple(Point(**one) for one in values["curve"]),
                "compared": tuple(Comparison(**one) for one in values["compared"]),
            }
        )
    except (ArtefactError, TypeError) as error:
        raise PolicyError(f"{path} is not a policy's card: {error}") from error
    found = {stage: weights_hash(policy.state) for stage, policy in policies.items()}
    missing = [stage for stage in card.weights if stage not in found]
    if missing:
        raise PolicyError(
            f"{path} is the card of {' and '.join(card.weights)}, and {' and '.join(missing)} is not there; restore the"
            " folder, or remove the card where one stage is all that you want"
        )
    changed = [stage for stage in found if card.weights.get(stage) != found[stage]]
    if changed:
        raise PolicyError(
            f"{path} is the card of other weights: those of {' and '.join(changed)} have another hash; restore the"
            " folder, or remove the card where you changed them yourself"
        )
    return card


def points(curve: Path) -> tuple[Point, ...]:
    """A learning curve of a run, as at most some twenty points for each stage: means over neighbouring batches."""
    if not curve.is_file():
        return ()
    with curve.open(newline="", encoding="utf-8") as file:
        rows = [(row["stage"], int(row["evaluations"]), float(row["mean_reward"])) for row in csv.DictReader(file)]
    found = []
    for stage in dict.fromkeys(stage for stage, _, _ in rows):
        own = [(judged, reward) for name, judged, reward in rows if name == stage]
        width = -(-len(own) // 20)
        for begin in range(0, len(own), width):
            some = own[begin : begin + width]
            found.append(Point(stage, some[-1][0], round(sum(reward for _, reward in some) / len(some), 5)))
    return tuple(found)
