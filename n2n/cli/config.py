"""The settings of each command, validated once at the door: defaults, then the TOML file, then the flags."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import torch
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from n2n.agents import AGENTS
from n2n.calibration import RUNGS, SEEDS, STUDENTS
from n2n.comparison import BASELINES, RUNG
from n2n.distill.objectives.expression import parse
from n2n.policies.files import DEFAULT_AGENT
from n2n.scores import AGGREGATES, SCORES
from n2n.search.export import FORMATS
from search_spaces import PUBLISHED


class ConfigError(ValueError):
    """A setting that is unknown, out of range or contradicts another; the message names it and what is valid."""


def known(name: str, names: Collection[str], what: str) -> str:
    """`name`, where it is among `names`.

    Raises:
        ConfigError: it is not; the message lists the valid names and the nearest one.
    """
    if name in names:
        return name
    close = difflib.get_close_matches(name, list(names), n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    if name in AGGREGATES:
        hint = " (an aggregate ranks the students of a whole file: `n2n score --scores`)"
    raise ConfigError(f"unknown {what} {name!r}{hint}; valid: {', '.join(names)}")


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, colon, index = name.partition(":")
    known(kind, ("auto", "cpu", "cuda", "mps"), "device")
    if kind == "auto" or (colon and not index.isdecimal()):
        raise ConfigError(f"device {name!r}: expected auto, cpu, mps, cuda, or cuda and a number as in cuda:1")
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}[kind]
    if int(index or 0) >= there:
        found = f"{there} such device(s), numbered from 0" if there else f"no {kind} device"
        raise ConfigError(f"device {name!r}: this PyTorch sees {found}; use --device cpu or --device auto")
    return name


def _shape(value: object) -> object:
    """The numbers of a shape as typed, "1,3,32,32"; a list of a TOML file is left as it is."""
    if not isinstance(value, str):
        return value
    parts = value.replace("x", ",").split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise ConfigError(f"--input-shape {value}: expected whole numbers above 0 with commas, as in 1,3,32,32")
    return tuple(int(part) for part in parts)


def _threads(value: object) -> object:
    """A number of threads as typed or as it stands in a TOML file, or "auto"."""
    number = int(value) if isinstance(value, str) and value.isdecimal() else value
    if number != "auto" and (isinstance(number, bool) or not isinstance(number, int) or number < 1):
        raise ConfigError(f"threads {value!r}: expected auto, or a number from 1 to the machine's cores")
    return number


def _workers(value: object) -> object:
    """A number of workers as typed or as it stands in a TOML file, or "auto"."""
    number = int(value) if isinstance(value, str) and value.isdecimal() else value
    if number != "auto" and (isinstance(number, bool) or not isinstance(number, int) or number < 0):
        raise ConfigError(f"workers {value!r}: expected auto, or a number; 0 judges in this process")
    return number


Shape = Annotated[tuple[Annotated[int, Field(gt=0)], ...], BeforeValidator(_shape)]
"""The shape of a batch, batch axis first."""
Device = Annotated[str, AfterValidator(_device)]
Budget = int | float | str
"""An absolute number (20000), or a share of the teacher ("20%")."""
Precision = Literal["auto", "fp32", "bf16"]
Importance = Literal["l1", "l2", "bn_scale", "taylor", "random"]
Threads = Annotated[int | str, BeforeValidator(_threads)]
"""How many threads, or "auto"."""
Workers = Annotated[int | str, BeforeValidator(_workers)]
"""How many workers, or "auto"."""
ScoreName = Annotated[str, AfterValidator(lambda name: known(name, SCORES, "score"))]
SpaceChoice = Annotated[str, AfterValidator(lambda name: known(name, PUBLISHED, "space"))]
Objective = Annotated[str, AfterValidator(lambda text: str(parse(text)))]
"""A weighted sum of distillation objectives, in its shortest form."""


class Settings(BaseModel):
    """What every command understands."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: Annotated[int, Field(ge=0)] = 0
    device: Device = "cpu"


class DataSettings(Settings):
    """Which images; `data` of None means what the teacher or student was made with, and digits where nothing says."""

    data: str | None = None
    data_dir: Path | None = None


class NetworkSettings(DataSettings):
    """Which network: a teacher folder, a built-in name or the user's own `module:function`, with weights."""

    teacher: Path | None = None
    network: str | None = None
    network_args: dict[str, Any] = Field(default_factory=dict)
    weights: Path | None = None


class SpaceSettings(Settings):
    """What may change in a network; the meaning of each is that of the argument of `n2n.search` with the same name."""

    removal: bool = True
    shrinkage: bool = True
    granularity: Literal["layer", "block"] = "layer"
    factors: tuple[float, ...] | None = None
    round_to: Annotated[int, Field(gt=0)] = 1
    kernels: bool = False
    ignored_layers: tuple[str, ...] = ()


class TrainTeacherSettings(DataSettings):
    """`n2n train-teacher`."""

    network: str
    network_args: dict[str, Any] = Field(default_factory=dict)
    epochs: Annotated[float, Field(gt=0)] | None = None
    lr: Annotated[float, Field(gt=0)] | None = None
    batch_size: Annotated[int, Field(gt=0)] = 128
    precision: Precision = "auto"
    out: Path | None = None
    force: bool = False


class SearchSettings(NetworkSettings, SpaceSettings):
    """`n2n search`; the meaning of each is that of the argument of `n2n.search` with the same name.

    With `space` it is that of `n2n.search_space`, and `network_args` are the space's arguments.
    """

    space: SpaceChoice | None = None
    against: str | None = None
    out: Path | None = None
    resume: Path | None = None
    force: bool = False
    max_params: Budget | None = None
    max_macs: Budget | None = None
    max_latency_ms: Budget | None = None
    max_size_mb: Budget | None = None
    evaluations: Annotated[int, Field(gt=0)] = 60
    seconds: Annotated[float, Field(gt=0)] | None = None
    agent: Annotated[str, AfterValidator(lambda name: known(name, AGENTS, "agent"))] = DEFAULT_AGENT
    rollouts: Annotated[int, Field(gt=0)] = 5
    steps: Annotated[int, Field(ge=0)] = 60
    objective: Objective = "kd"
    final_epochs: Annotated[float, Field(ge=0)] | None = None
    finalists: Annotated[int, Field(gt=0)] = 2
    importance: Importance = "l1"
    start: Literal["inherited", "refit", "fresh"] = "refit"
    final_start: Literal["inherited", "refit", "fresh"] | None = None
    ladder: tuple[str, ...] = ()
    promote: Annotated[float, Field(gt=0, le=1)] = 0.4
    expects: dict[str, tuple[float, float, float]] = Field(default_factory=dict)
    calibrated_for: str | None = None
    shortfall: Annotated[float, Field(gt=0, le=1)] | None = None
    evaluate: ScoreName | None = None
    prefilter: ScoreName | None = None
    prefilter_ratio: Annotated[int, Field(gt=1)] | None = None
    population: Annotated[int, Field(gt=1)] | None = None
    tournament: Annotated[int, Field(gt=0)] | None = None
    cache: Path | None = None
    policy: str | None = None
    policy_mode: Literal["warm", "zero-shot", "proposal"] = "warm"
    precision: Precision = "auto"
    workers: Workers = 0
    address: str | None = None
    asynchronous: bool = False
    gpus_per_worker: Annotated[float, Field(ge=0)] = 0.0
    threads: Threads = "auto"


class ApplySettings(NetworkSettings):
    """`n2n policy apply POLICY`; `students` are drawn in each stage, and the others as in `n2n search`."""

    policy: str
    target_params: Budget | None = None
    target_macs: Budget | None = None
    students: Annotated[int, Field(gt=0)] = 1
    final_epochs: Annotated[float, Field(gt=0)] | None = None
    final_start: Literal["inherited", "refit", "fresh"] | None = None
    objective: Objective = "kd"
    out: Path | None = None
    force: bool = False
    precision: Precision = "auto"


class CompareSettings(NetworkSettings):
    """`n2n policy compare POLICY ...`; the meaning of each is that of the argument of `n2n.compare_policies`."""

    policies: tuple[str, ...]
    target_params: Budget | None = None
    target_macs: Budget | None = None
    judged: Annotated[int, Field(gt=0)] = 10
    seeds: Annotated[int, Field(gt=0)] = 3
    against: tuple[Annotated[str, AfterValidator(lambda name: known(name, AGENTS, "agent"))], ...] = BASELINES
    policy_modes: tuple[Literal["warm", "zero-shot", "proposal"], ...] = ("zero-shot",)
    rung: str = RUNG
    keep: bool = False


class CalibrateSettings(NetworkSettings):
    """`n2n calibrate`; the meaning of each is that of the argument of `n2n.calibrate` with the same name."""

    out: Path | None = None
    seconds: Annotated[float, Field(gt=0)] | None = None
    students: Annotated[int, Field(gt=0)] = STUDENTS
    rungs: tuple[str, ...] = RUNGS
    truth: str | None = None
    seeds: Annotated[int, Field(gt=0)] = SEEDS
    granularity: Literal["layer", "block"] = "block"
    objective: Objective = "kd"
    importance: Importance = "l1"
    precision: Precision = "auto"
    threads: Annotated[int, Field(gt=0)] | None = None


def _names(value: object) -> object:
    """Names as typed, with commas; a list of a TOML file is left as it is."""
    return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value


class ScoreSettings(DataSettings):
    """`n2n score`."""

    space: SpaceChoice | None = None
    network_args: dict[str, Any] = Field(default_factory=dict)
    architectures: Path | None = None
    sample: Annotated[int, Field(gt=0)] | None = None
    scores: Annotated[
        tuple[Annotated[str, AfterValidator(lambda name: known(name, {**SCORES, **AGGREGATES}, "score"))], ...],
        BeforeValidator(_names),
    ] = ()
    seeds: Annotated[int, Field(gt=0)] = 1
    batch: Annotated[int, Field(gt=0)] = 64
    against: str | None = None
    out: Path | None = None


class InspectSettings(DataSettings, SpaceSettings):
    """`n2n inspect NETWORK`; the meaning of each is that of the argument of `n2n.inspect` with the same name.

    `space` names a published space instead of a network; `network_args` are then its arguments.
    """

    network: str | None = None
    space: SpaceChoice | None = None
    network_args: dict[str, Any] = Field(default_factory=dict)
    weights: Path | None = None
    input_shape: Shape | None = None
    latency: bool = True


def _layers(value: object) -> object:
    """Pairs of module names as typed, "STUDENT=TEACHER"; pairs of a TOML file are left as they are."""
    if not isinstance(value, list | tuple):
        return value
    pairs = [tuple(part.strip() for part in one.split("=", 1)) if isinstance(one, str) else one for one in value]
    wrong = [one for one in pairs if isinstance(one, tuple) and (len(one) != 2 or not all(one))]
    if wrong:
        raise ConfigError(f"--layer {'='.join(wrong[0])}: expected STUDENT=TEACHER, e.g. --layer stages.1=stages.2")
    return pairs


class DistillSettings(NetworkSettings):
    """`n2n distill STUDENT`; `student` names a network instead of a student folder, `layers` are STUDENT=TEACHER."""

    student: str | None = None
    student_args: dict[str, Any] = Field(default_factory=dict)
    student_weights: Path | None = None
    out: Path | None = None
    resume: bool = False
    force: bool = False
    epochs: Annotated[float, Field(gt=0)] = 3.0
    objective: Objective = "kd"
    layers: Annotated[tuple[tuple[str, str], ...], BeforeValidator(_layers)] = ()
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    optimizer: Literal["sgd", "adam"] = "sgd"
    lr: Annotated[float, Field(gt=0)] | None = None
    batch_size: Annotated[int, Field(gt=0)] = 64
    clip: Annotated[float, Field(gt=0)] | None = None
    precision: Precision = "auto"


class EvaluateSettings(NetworkSettings):
    """`n2n evaluate FOLDER`."""

    precision: Precision = "auto"


class ExportSettings(Settings):
    """`n2n export STUDENT`; only the structure of the network is read, so it needs neither weights nor data."""

    format: Annotated[str, AfterValidator(lambda name: known(name, FORMATS, "format"))] = "safetensors"
    teacher: Path | None = None
    network: str | None = None
    network_args: dict[str, Any] = Field(default_factory=dict)
    static_batch: bool = False
    out: Path | None = None
    force: bool = False


S = TypeVar("S", bound=BaseModel)


def settings(model: type[S], file: Path | None, given: Mapping[str, Any]) -> S:
    """The settings of a command: `given` (flags) over the keys of the TOML `file` over the defaults.

    Raises:
        ConfigError: an unreadable file, an unknown key (the valid ones are listed), or a value that is not valid.
    """
    from_file = _read(file) if file is not None else {}
    for key in from_file:
        try:
            known(key, model.model_fields, "key")
        except ConfigError as error:
            raise ConfigError(f"{file}: {error}") from None
    merged = {**from_file, **given}
    if from_file.get("network_args") and given.get("network_args"):
        merged["network_args"] = {**from_file["network_args"], **given["network_args"]}
    try:
        return model.model_validate(merged)
    except ValidationError as error:
        raise ConfigError("; ".join(_sentence(item, file, given) for item in error.errors())) from None


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration file {file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not TOML: {error}") from None


def _sentence(item: Any, file: Path | None, given: Mapping[str, Any]) -> str:
    """One pydantic error in words: where it was said, what was expected, what was found."""
    key = str(item["loc"][0]) if item["loc"] else ""
    place = f"--{key.replace('_', '-')}" if key in given or file is None else f"{file}: {key}"
    if item["type"] == "missing":
        return f"{place} is required"
    message = str(item["msg"]).removeprefix("Value error, ")
    return message if item["type"] == "value_error" else f"{place}: {message} (found {item['input']!r})"


def assignments(pairs: Collection[str], *, flag: str = "--network-arg") -> dict[str, Any]:
    """The dictionary of `("width=8", "hidden=[32, 32]")`; values are JSON where they read as JSON, else text.

    Raises:
        ConfigError: no "=" in a pair.
    """
    read: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise ConfigError(f"{flag} {pair!r}: expected NAME=VALUE, e.g. {flag} width=8")
        try:
            read[name.replace("-", "_")] = json.loads(text)
        except json.JSONDecodeError:
            read[name.replace("-", "_")] = text
    return read
