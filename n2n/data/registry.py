"""The data sets by name, and the one door to every source."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Protocol

from n2n.data.arrays import load_npz
from n2n.data.base import Data, Origin
from n2n.data.cifar import cifar10, cifar100
from n2n.data.datasets import load_function
from n2n.data.digits import digits
from n2n.data.errors import DataError
from n2n.data.folders import load_folder
from n2n.data.idx import fashion_mnist, mnist


class Loader(Protocol):
    """Reads one data set; `data_dir` is where its files are, `validation` a share and `seed` draws it."""

    def __call__(self, *, data_dir: Path | None, validation: float, seed: int, download: bool) -> Data: ...


DATA: dict[str, Loader] = {
    "digits": digits,
    "mnist": mnist,
    "fashion-mnist": fashion_mnist,
    "cifar-10": cifar10,
    "cifar-100": cifar100,
}


def load(
    source: str | Path,
    *,
    data_dir: str | Path | None = None,
    validation: float = 0.1,
    seed: int = 0,
    download: bool = True,
) -> Data:
    """The data of a name of `DATA`, of a `.npz` file, of an image folder, or of a function `module:function`.

    `data_dir` holds the files of a named data set, itself or in a folder of that name; without it they are looked for,
    and downloaded to, the user's cache. `validation` is the share of the train images, drawn by `seed`, that a search
    compares students on. A teacher must have been trained with the same `seed` and `validation`, or it has seen some of
    the validation images. The data remember all three in `origin`.

    Raises:
        DataError: unknown name, no such path, or whatever is wrong with the data.
    """
    folder = Path(data_dir) if data_dir is not None else None
    data = _load(str(source), data_dir=folder, validation=validation, seed=seed, download=download)
    return replace(data, origin=Origin(str(source), seed, validation))


def _load(name: str, *, data_dir: Path | None, validation: float, seed: int, download: bool) -> Data:
    if name in DATA:
        return DATA[name](data_dir=data_dir, validation=validation, seed=seed, download=download)
    path = Path(name)
    if path.suffix == ".npz":
        return load_npz(path, validation=validation, seed=seed)
    if path.is_dir():
        return load_folder(path, validation=validation, seed=seed)
    if ":" in name:
        return load_function(name, data_dir=data_dir, validation=validation, seed=seed)
    raise DataError(
        f"unknown data {name!r}; expected one of {', '.join(DATA)}, a .npz file, an existing image folder or "
        "module:function"
    )
