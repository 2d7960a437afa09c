"""The data sets by name."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from n2n.data.base import Data
from n2n.data.errors import DataError
from n2n.data.idx import fashion_mnist, mnist


class Loader(Protocol):
    """Reads one data set; `data_dir` is where its files are, `validation` a share and `seed` draws it."""

    def __call__(self, *, data_dir: Path | None, validation: float, seed: int, download: bool) -> Data: ...


DATA: dict[str, Loader] = {
    "mnist": mnist,
    "fashion-mnist": fashion_mnist,
}


def load(
    source: str | Path,
    *,
    data_dir: str | Path | None = None,
    validation: float = 0.1,
    seed: int = 0,
    download: bool = True,
) -> Data:
    """The data of a name of `DATA`.

    Raises:
        DataError: unknown name, or whatever is wrong with the data.
    """
    folder = Path(data_dir) if data_dir is not None else None
    name = str(source)
    if name in DATA:
        return DATA[name](data_dir=folder, validation=validation, seed=seed, download=download)
    raise DataError(f"unknown data {name!r}; the names are {', '.join(DATA)}")
