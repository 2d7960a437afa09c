"""Writing files so that a reader never meets half of one: to a temporary name, then `os.replace`."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from n2n.search.errors import ArtefactError, WriteError

OWN_NAMES = (
    "config.json",
    "environment.json",
    "evaluations.sqlite",
    "evaluations.sqlite-journal",
    "judged.sqlite",
    "finished.json",
    "evaluations.sqlite-wal",
    "evaluations.sqlite-shm",
    "result.json",
    "learning_curve.csv",
    "learning_curve.earlier.csv",
    "front.csv",
    "report.md",
    "front.png",
    "reward.png",
    "run.log",
)
"""The plain files that a run writes; `force` clears these and the folders `students` and `policies`."""
STARTED, NAMED = "started_from", "started_from.json"
"""In a run folder: a copy of the policy that it started from, and how that was named."""
LOCK = ".lock"
"""The file by which a search holds its folder; see `n2n.search.lock`."""


def write_with(path: Path, write: Callable[[Path], None]) -> None:
    """Lets `write` fill a temporary file beside `path` and then puts it in place.

    Raises:
        WriteError: the file system refused (a full disk, say); `path` is as it was before.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise WriteError(
            f"cannot write {path}: {error.strerror or error}. Free some space or choose another folder; "
            "files written earlier are whole, and an older file of this name is untouched."
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_folder(folder: Path, fill: Callable[[Path], None], *, stale: Collection[str] = ()) -> None:
    """Lets `fill` write files into a temporary folder beside `folder` and then swaps it in, whole.

    Files of an older `folder` that `fill` does not write stay, but for those of the names `stale`, which were made from
    what is replaced.

    Raises:
        WriteError: the file system refused; `folder` is as it was before.
    """
    target = folder.resolve()
    temporary: Path | None = None
    try:
        if target.exists() and not target.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "there is a file of this name")
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
        temporary.chmod(0o755)
        fill(temporary)
        _swap(temporary, target, stale)
    except OSError as error:
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
        raise WriteError(
            f"cannot write the folder {folder}: {cause.strerror or cause}. Free some space or choose another folder; "
            "an older folder of this name is untouched."
        ) from error
    finally:
        if temporary is not None:
            _remove_tree(temporary)


def _swap(new: Path, target: Path, stale: Collection[str]) -> None:
    """Puts the folder `new` in the place of `target`; what only the old one holds moves over, if it is not `stale`."""
    if not target.exists():
        new.rename(target)
        return
    old = new.with_name(f"{new.name}.old")
    target.rename(old)
    try:
        new.rename(target)
    finally:
        if not target.exists():
            old.rename(target)
    for child in old.iterdir():
        if child.name not in stale and not (target / child.name).exists():
            child.rename(target / child.name)
    _remove_tree(old)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes bytes in one step. Raises `WriteError`."""
    write_with(path, lambda temporary: _fill(temporary, content))


def _fill(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text in one step. Raises `WriteError`."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Writes a value as readable JSON in one step. Raises `WriteError`."""
    write_text(path, json.dumps(value, indent=2, sort_keys=False) + "\n")


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes a header and rows in one step; None becomes an empty cell. Raises `WriteError`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(["" if cell is None else cell for cell in row] for row in rows)
    write_text(path, text.getvalue())


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes named tensors as safetensors in one step; shared memory is written twice. Raises `WriteError`."""
    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_bytes(path, save(own))


def read_json(path: Path, keys: Sequence[str] = ()) -> dict[str, Any]:
    """Reads a JSON object that holds `keys`.

    Raises:
        ArtefactError: no such file, it cannot be read or is not a JSON object, or keys are missing; they are named.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        where = f"is {path.parent} the right folder?" if path.parent.exists() else f"there is no folder {path.parent}"
        raise ArtefactError(f"{path} is missing; {where}") from error
    except OSError as error:
        raise ArtefactError(f"{path} cannot be read: {error.strerror or error}; check its permissions") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ArtefactError(
            f"{path} is not JSON ({error}); it was damaged or edited: restore it or run again"
        ) from error
    if not isinstance(value, dict):
        raise ArtefactError(
            f"{path} holds a JSON {type(value).__name__}, expected an object; it was damaged or edited: "
            "restore it or run again"
        )
    missing = [key for key in keys if key not in value]
    if missing:
        raise ArtefactError(
            f"{path} has no key {', '.join(map(repr, missing))}; it was damaged or edited: restore it or run again"
        )
    return value


def check_free(out: Path, *, force: bool) -> None:
    """Refuses a place where no run can be written, before anything is; the file of a lock is not in the way.

    Raises:
        ArtefactError: `out` is a file, or holds something and `force` is off.
    """
    if out.exists() and not out.is_dir():
        raise ArtefactError(f"{out} is a file; give a folder for the run")
    if not force and out.is_dir() and any(child.name != LOCK for child in out.iterdir()):
        raise ArtefactError(
            f"{out} is not empty; choose another folder, or say force=True (--force) to replace its run"
        )


def claim_folder(out: Path, *, force: bool) -> None:
    """Makes the run folder; a folder that holds something is refused unless `force`.

    With `force` only the names that a run writes are cleared; other files stay. Whether another search is at work in
    the folder is not asked here but by `n2n.search.lock.claimed`.

    Raises:
        ArtefactError: `out` is a file, or holds something and `force` is off.
        WriteError: the folder cannot be made or cleared.
    """
    check_free(out, force=force)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name in OWN_NAMES:
            (out / name).unlink(missing_ok=True)
        for folder in ("students", "policies"):
            _remove_tree(out / folder)
    except OSError as error:
        raise WriteError(f"cannot make or clear the run folder {out}: {error.strerror or error}") from error


def _remove_tree(folder: Path) -> None:
    if not folder.is_dir():
        return
    for child in folder.iterdir():
        if child.is_dir() and not child.is_symlink():
            _remove_tree(child)
        else:
            child.unlink()
    folder.rmdir()
