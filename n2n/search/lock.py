"""A run folder is held by one search at a time, by a lock that ends with its process however that ends."""

from __future__ import annotations

import errno
import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from n2n.search.errors import ArtefactError, WriteError
from n2n.search.files import LOCK, check_free, claim_folder

try:
    import fcntl
except ModuleNotFoundError:  # Windows has no flock: there nothing is held, and nothing is refused
    fcntl = None  # type: ignore[assignment]

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What a file system says that has no locks; a folder on it is not held."""
_TRIES, _PAUSE = 10, 0.02
"""Whoever looks at a lock holds it for an instant, so that one refusal says nothing yet."""


@dataclass(frozen=True)
class Holder:
    """The process that holds a folder, its machine, and since when (ISO 8601, UTC); 0 and "" where it did not say."""

    pid: int
    host: str
    since: str

    def __str__(self) -> str:
        if not self.pid:
            return "another process"
        return f"process {self.pid} on {self.host} since {self.since}"


def held_by(folder: Path) -> Holder | None:
    """Who holds a folder; None where nobody does. Nothing is written.

    Raises:
        ArtefactError: the file of the lock cannot be read.
    """
    path = folder / LOCK
    try:
        handle = os.open(path, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ArtefactError(f"{path} cannot be read: {error.strerror}; check its permissions") from error
    try:
        return None if _locked(handle, exclusive=False) else _read(handle)
    finally:
        os.close(handle)


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Holds a folder until the block or the process ends; one that was not there is made, and goes if it stays empty.

    Raises:
        ArtefactError: another search holds it; who that is is named.
        WriteError: the file system refused.
    """
    path, new = folder / LOCK, not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = _taken(path)
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror or error}; check the folder's permissions") from error
    try:
        if handle is None:
            raise _refusal(folder, held_by(folder) or Holder(0, "", ""))
        yield
    finally:
        if handle is not None:
            # Removed while it is held: whoever opened it in the meantime finds that it is no longer the folder's file.
            path.unlink(missing_ok=True)
            os.close(handle)
        if new:
            with suppress(OSError):  # something was written into it
                folder.rmdir()


@contextmanager
def claimed(out: Path, *, force: bool) -> Iterator[None]:
    """A run folder that is this search's alone; a run that was in it is cleared where `force` says so.

    Raises:
        ArtefactError: another search holds it, with `force` too; it is a file, or holds something and `force` is off.
        WriteError: the file system refused.
    """
    check_held(out)
    check_free(out, force=force)
    with hold(out):
        claim_folder(out, force=force)
        yield


def check_held(folder: Path) -> None:
    """Refuses a folder that a search is at work in.

    Raises:
        ArtefactError: as said; who holds it is named.
    """
    if holder := held_by(folder):
        raise _refusal(folder, holder)


def _refusal(folder: Path, holder: Holder) -> ArtefactError:
    return ArtefactError(
        f"{folder} is in use: {holder} is searching there; wait until it has ended or end it, or choose another folder"
    )


def _taken(path: Path) -> int | None:
    """The locked file, open, with this process in it; None where another holds it."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if not _locked(handle, exclusive=True):
                os.close(handle)
                return None
            if _still(path, handle):
                own = Holder(os.getpid(), platform.node(), datetime.now(UTC).isoformat(timespec="seconds"))
                os.ftruncate(handle, 0)
                os.write(handle, json.dumps(asdict(own)).encode())
                return handle
        except OSError:
            os.close(handle)
            raise
        os.close(handle)  # of a search that ended between the two steps: there is another file now, or none


def _still(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def _locked(handle: int, *, exclusive: bool) -> bool:
    """Whether the lock was there to be had; an exclusive one is asked for a few times."""
    if fcntl is None:
        return True
    kind = (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB
    for _ in range(_TRIES if exclusive else 1):
        try:
            fcntl.flock(handle, kind)
        except BlockingIOError:
            time.sleep(_PAUSE if exclusive else 0)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return True
            raise
        else:
            return True
    return False


def _read(handle: int) -> Holder:
    """What the holder wrote; it may be about to."""
    try:
        said = json.loads(os.pread(handle, 4096, 0))
        return Holder(int(said["pid"]), str(said["host"]), str(said["since"]))
    except (ValueError, KeyError, TypeError):
        return Holder(0, "", "")
