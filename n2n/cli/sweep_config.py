"""The settings of `n2n sweep`: one TOML file, read, checked against `n2n search` trial by trial, and kept as TOML."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from n2n.cli.config import ConfigError, SearchSettings, known, settings
from n2n.cli.search import arguments
from n2n.policies import PolicyError
from n2n.policies.library import Library
from n2n.search.errors import SearchError
from n2n.search.options import SearchOptions
from n2n.sweep.trials import Trial, expand

NOT_OF_A_TRIAL = {
    "out": "each trial has its own folder below that of the sweep",
    "resume": "say n2n sweep --resume",
    "force": "name another folder for the sweep",
    "workers": "trials run in parallel: say trials_at_once",
    "asynchronous": "a trial judges in its own process",
    "gpus_per_worker": "say gpus_per_trial",
    "address": "say it at the top of the file",
    "space": "sweeps compare searches over a teacher; run n2n search --space once for each",
    "against": "it goes with --space",
}
"""Keys of `n2n search` that a sweep sets itself, and what to do instead."""
PATHS = ("teacher", "weights", "data_dir")
"""Keys whose value is a file or folder that must be there."""


class SweepSettings(BaseModel):
    """`n2n sweep`; the meaning of each is that of the argument of `n2n.sweep.run.sweep` with the same name.

    `base`, `grid` and `trials` hold keys of `n2n search`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    out: Path | None = None
    trials_at_once: Annotated[int, Field(gt=0)] = 2
    cpus_per_trial: Annotated[int, Field(gt=0)] = 1
    gpus_per_trial: Annotated[float, Field(ge=0)] = 0.0
    scheduler: Literal["none", "asha"] = "none"
    retries: Annotated[int, Field(ge=0)] = 2
    storage: str | None = None
    address: str | None = None
    base: dict[str, Any] = Field(default_factory=dict)
    grid: dict[str, list[Any]] = Field(default_factory=dict)
    trials: list[dict[str, Any]] = Field(default_factory=list)


def read_sweep(file: Path, given: Mapping[str, Any]) -> SweepSettings:
    """The settings of a sweep, `given` over the file, with paths that hold wherever it is resumed from.

    Raises:
        ConfigError: the file cannot be read, has an unknown key (the nearest valid one is told) or a bad value.
    """
    found = settings(SweepSettings, file, given)
    for place, keys in (("base", found.base), ("grid", found.grid), *((_nth(at), one) for at, one in _singles(found))):
        for key in keys:
            _check_key(f"{file}: {place}", key)
    resolved = {
        "base": {key: _absolute(key, value) for key, value in found.base.items()},
        "grid": {key: [_absolute(key, value) for value in values] for key, values in found.grid.items()},
        "trials": [{key: _absolute(key, value) for key, value in one.items()} for one in found.trials],
        "storage": found.storage if found.storage is None or "://" in found.storage else str(_full(found.storage)),
        "out": None if found.out is None else found.out.resolve(),
    }
    return found.model_copy(update=resolved)


def _singles(found: SweepSettings) -> list[tuple[int, dict[str, Any]]]:
    return [*enumerate(found.trials, start=1)]


def _nth(number: int) -> str:
    return f"[[trials]] {number}"


def _check_key(place: str, key: str) -> None:
    """Raises `ConfigError` for what is no key of a search, or one that the sweep sets."""
    if key in NOT_OF_A_TRIAL:
        raise ConfigError(f"{place}: {key} is not for a trial: {NOT_OF_A_TRIAL[key]}")
    try:
        known(key, [name for name in SearchSettings.model_fields if name not in NOT_OF_A_TRIAL], "key")
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from None


def _absolute(key: str, value: Any) -> Any:
    """A path as an absolute one; of `data` and `policy` what is a file or folder here; other values as they are."""
    if not isinstance(value, str):
        return value
    if key in (*PATHS, "cache") or (key in ("data", "policy") and Path(value).expanduser().exists()):
        return str(_full(value))
    return value


def _full(path: str) -> Path:
    return Path(path).expanduser().resolve()


def trials_of(found: SweepSettings) -> tuple[tuple[Trial, ...], dict[str, SearchSettings]]:
    """The trials of a sweep, and the settings of each by its name, all of them checked.

    Raises:
        ConfigError: a trial's setting is not valid or a file is not there; the trial is named.
        SweepError: a key of the grid has no values, or two trials are the same.
    """
    defaults = {name: _plain(field.get_default(call_default_factory=True)) for name, field in _fields()}
    trials = expand(found.base, found.grid, found.trials, {**defaults, "threads": found.cpus_per_trial})
    return trials, {one.name: checked(one, found.cpus_per_trial) for one in trials}


def _fields() -> list[tuple[str, Any]]:
    return [(name, field) for name, field in SearchSettings.model_fields.items() if name not in NOT_OF_A_TRIAL]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def checked(trial: Trial, cpus: int) -> SearchSettings:
    """The settings of one search; its threads are the trial's CPUs unless it says otherwise.

    A sweep does not try out what is fastest: trials that run beside one another would each find something else, and
    another number of threads rounds otherwise.

    Raises:
        ConfigError: a value is not valid, nothing says what the teacher is, or a file is not there.
    """
    try:
        made = settings(SearchSettings, None, {"threads": cpus, **trial.settings})
        given = {**arguments(made), "factors": made.factors or SearchOptions.factors}
        names = SearchOptions.__dataclass_fields__
        SearchOptions(**{name: value for name, value in given.items() if name in names and value is not None})
    except (ConfigError, SearchError, ValidationError) as error:
        raise ConfigError(f"trial {trial.name}: {str(error).replace('--', '')}") from None
    if made.teacher is None and made.network is None:
        raise ConfigError(
            f"trial {trial.name}: no teacher: say teacher = FOLDER (of `n2n train-teacher`), or network with weights"
        )
    for key in PATHS:
        path = getattr(made, key)
        if path is not None and not path.exists():
            raise ConfigError(f"trial {trial.name}: {key} = {path} is not there")
    if made.policy is not None:
        try:
            Library.usual().find(made.policy)
        except PolicyError as error:
            raise ConfigError(f"trial {trial.name}: policy: {error}") from error
    if made.cache is not None and not made.cache.parent.is_dir():
        raise ConfigError(f"trial {trial.name}: cache = {made.cache}: there is no folder {made.cache.parent}")
    return made


def to_toml(found: SweepSettings) -> str:
    """The settings as TOML, which reads back as the same settings."""
    values = found.model_dump(mode="json", exclude={"out", "base", "grid", "trials"}, exclude_none=True)
    parts = [_pairs(values), "[base]\n" + _pairs(found.base), "[grid]\n" + _pairs(found.grid)]
    parts += ["[[trials]]\n" + _pairs(one) for one in found.trials]
    return "\n".join(parts)


def _pairs(values: Mapping[str, Any]) -> str:
    return "".join(f"{key} = {toml_value(value)}\n" for key, value in values.items())


def toml_value(value: Any) -> str:
    """A value of a TOML file as TOML: texts, numbers, lists and tables; dates as texts, which nothing here asks for."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{toml_value(str(key))} = {toml_value(one)}" for key, one in value.items()) + "}"
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
