"""Any `torch.utils.data.Dataset`, through Python or named as `module:function`."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from n2n.data.arrays import channels_first
from n2n.data.augment import Augmentation
from n2n.data.base import Data
from n2n.data.errors import DataError
from n2n.data.tensors import from_tensors


def from_dataset(
    train: Dataset[Any],
    test: Dataset[Any] | None = None,
    *,
    name: str,
    classes: int | None = None,
    validation: float = 0.1,
    seed: int = 0,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    augmentation: Augmentation | None = None,
) -> Data:
    """Data of datasets whose items are (image, label), read into memory once.

    An image is a tensor [C, H, W], an array [H, W] or [H, W, C], or a PIL image; all have one shape. A random transform
    in the dataset is drawn once, so leave it out and pass `augmentation` instead. Float images are given to the network
    as the dataset gives them; for `mean` and `std` see `from_tensors`.

    Raises:
        DataError: items of another form, images of different shapes, no items.
    """
    images, labels = _read(train, f"{name} train")
    test_images, test_labels = _read(test, f"{name} test") if test is not None else (None, None)
    return from_tensors(
        images,
        labels,
        test_images,
        test_labels,
        name=name,
        classes=classes,
        validation=validation,
        seed=seed,
        mean=mean,
        std=std,
        augmentation=augmentation,
    )


def load_function(spec: str, *, data_dir: Path | None, validation: float, seed: int) -> Data:
    """What the function `module:function` returns: a `Data`, a Dataset, or a pair of Datasets (train, test).

    Of `data_dir`, `validation` and `seed` the function is
    given those that it has a parameter for.

    Raises:
        DataError: no such module or function, or it returns something else.
    """
    function = resolve(spec)
    offered = {"data_dir": data_dir, "validation": validation, "seed": seed}
    wanted = inspect.signature(function).parameters
    found = function(**{key: value for key, value in offered.items() if key in wanted})
    if isinstance(found, Data):
        return found
    if isinstance(found, Dataset):
        return from_dataset(found, name=spec, validation=validation, seed=seed)
    if isinstance(found, tuple) and len(found) == 2 and all(isinstance(part, Dataset) for part in found):
        return from_dataset(found[0], found[1], name=spec, validation=validation, seed=seed)
    raise DataError(
        f"{spec}: expected a Data, a torch Dataset or a pair of them (train, test), found {type(found).__name__}; "
        "n2n.data.from_tensors and from_dataset make a Data"
    )


def resolve(spec: str) -> Callable[..., Any]:
    """The function of `module:function`, where the module may lie in the working folder, or of `file.py:function`.

    Raises:
        DataError: no such module, or no such function in it.
    """
    module_name, _, function_name = spec.rpartition(":")
    if not module_name or not function_name:
        raise DataError(f"{spec!r}: expected MODULE:FUNCTION, e.g. mine:make for a function make() in mine.py")
    if module_name.endswith(".py"):
        return _function(_from_file(Path(module_name), spec), function_name, spec)
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise DataError(
            f"{spec}: {error}; looked in {here} and the installed packages. Expected MODULE:FUNCTION, e.g. "
            "mine:make for a function make() in mine.py"
        ) from error
    finally:
        sys.path.remove(here)
    return _function(module, function_name, spec)


def _from_file(file: Path, spec: str) -> ModuleType:
    """The module of a file, wherever it lies."""
    found = importlib.util.spec_from_file_location(file.stem, file)
    if found is None or found.loader is None or not file.is_file():
        raise DataError(f"{spec}: there is no file {file}; expected FILE.py:FUNCTION or MODULE:FUNCTION")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def _function(module: ModuleType, name: str, spec: str) -> Callable[..., Any]:
    function: Callable[..., Any] | None = getattr(module, name, None)
    if not callable(function):
        own = inspect.getmembers(module, lambda one: inspect.isfunction(one) or inspect.isclass(one))
        known = [key for key, value in own if value.__module__ == module.__name__]
        raise DataError(
            f"{spec}: module {module.__name__!r} has no function {name!r}; it has {', '.join(known) or 'none'}"
        )
    return function


def _read(dataset: Dataset[Any], name: str) -> tuple[Tensor, Tensor]:
    images: list[Tensor] = []
    labels: list[int] = []
    for index, item in enumerate(_items(dataset)):
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            raise DataError(f"{name}: item {index} must be a pair (image, label), found {type(item).__name__}")
        images.append(_image(item[0], f"{name} item {index}"))
        labels.append(_label(item[1], f"{name} item {index}"))
        if images[-1].shape != images[0].shape:
            raise DataError(
                f"{name}: item {index} has the shape {tuple(images[-1].shape)}, the first {tuple(images[0].shape)}; "
                "bring all images to one size"
            )
    if not images:
        raise DataError(f"{name}: expected at least one item, found none")
    return torch.stack(images), torch.tensor(labels, dtype=torch.int64)


def _items(dataset: Dataset[Any]) -> Iterator[Any]:
    # By length where there is one: a dataset need not raise IndexError at its end.
    if hasattr(dataset, "__len__"):
        return (dataset[index] for index in range(len(dataset)))
    if isinstance(dataset, Iterable):
        return iter(dataset)
    raise DataError(f"{type(dataset).__name__}: expected a Dataset with a length, or an IterableDataset")


def _label(value: Any, name: str) -> int:
    try:
        label = int(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{name}: the label must be one whole number, found {value!r}") from error
    if label != value:
        raise DataError(f"{name}: the label must be one whole number, found {value!r}")
    return label


def _image(value: object, name: str) -> Tensor:
    if isinstance(value, Tensor):
        return value if value.dtype == torch.uint8 else value.to(torch.float32)
    return channels_first(np.asarray(value)[None], name)[0]
