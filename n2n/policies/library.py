"""The policy library: policies by name, in a folder of the user's and in the package.

A policy of the library is a folder with `card.json` and one folder for each stage. Names that come with the package
can be used and exported, and are not changed.
"""

from __future__ import annotations

import os
import re
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from n2n.policies.card import CARD, Card, read_card
from n2n.policies.files import META, STAGES, WEIGHTS, Policy, PolicyError, load_policies
from n2n.search.errors import WriteError

HOME = "N2N_POLICIES"
"""The environment variable that names another folder than `~/.n2n/policies`."""
SHIPPED = Path(__file__).parent / "shipped"
LARGEST = 64 * 2**20
"""Bytes of one file of an archive that is still taken; policies have some hundred kB."""
NOT_ONE = "is not a policy that `n2n policy export` wrote"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MEMBERS = {CARD, *(f"{stage}/{name}" for stage in STAGES for name in (META, WEIGHTS))}


@dataclass(frozen=True)
class Entry:
    """One policy: its name or path, its folder, its policies by stage, its card, and whether the package brought it."""

    name: str
    folder: Path
    policies: Mapping[str, Policy]
    card: Card | None
    shipped: bool = False

    @property
    def cards(self) -> Path:
        """The folder of the card: that of the stages, which of a run is `policies`."""
        return _inner(self.folder)


@dataclass(frozen=True)
class Broken:
    """A folder of the library that cannot be read, and why."""

    name: str
    problem: str


@dataclass(frozen=True)
class Library:
    """The policies in `folder` and those in `shipped`; a name of the user's hides one of the package."""

    folder: Path
    shipped: Path = SHIPPED

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder))

    @classmethod
    def usual(cls) -> Library:
        """That of the user: `$N2N_POLICIES`, or `~/.n2n/policies`."""
        return cls(Path(os.environ.get(HOME) or Path.home() / ".n2n" / "policies"))

    def entries(self) -> list[Entry | Broken]:
        """All policies by name; folders that cannot be read are told, and keep nobody from the others."""
        found: dict[str, Entry | Broken] = {}
        for parent, shipped in ((self.shipped, True), (self.folder, False)):
            for path in sorted(parent.iterdir()) if parent.is_dir() else []:
                if path.is_dir() and _NAME.fullmatch(path.name):
                    try:
                        found[path.name] = read_entry(path, path.name, shipped=shipped)
                    except PolicyError as error:
                        found[path.name] = Broken(path.name, str(error))
        return [found[name] for name in sorted(found)]

    def find(self, wanted: str | Path) -> Entry:
        """The policy of a name, or in a folder: of one stage, of several, or of a run.

        Raises:
            PolicyError: there is none, with the names that there are; or it cannot be read.
        """
        text = str(wanted)
        for parent, shipped in ((self.folder, False), (self.shipped, True)):
            if _NAME.fullmatch(text) and (parent / text).is_dir():
                return read_entry(parent / text, text, shipped=shipped)
        path = Path(wanted)
        if path.exists():
            return read_entry(path, text)
        names = ", ".join(one.name for one in self.entries()) or "none yet"
        raise PolicyError(
            f"there is no folder {path}, and no policy of that name in the library ({names}); name a policy's folder, a"
            " run's, or one of the library (`n2n policy list`)"
        )

    def add(self, wanted: str | Path, name: str, *, force: bool = False) -> Entry:
        """Takes a policy over under a name: from a folder, a run, another name, or a file that `export` wrote.

        Raises:
            PolicyError: the name cannot be one, or is taken here or by the package (`force` hides that one), there is
                no policy, or the archive holds something else.
            WriteError: the file system refused.
        """
        if not _NAME.fullmatch(name):
            raise PolicyError(
                f"the name {name!r}: expected letters, digits, dot, minus and underscore, at most 64 of them"
            )
        target = self.folder / name
        if target.exists() and not force:
            raise PolicyError(f"the library has a policy {name!r} already ({target}); choose another name, or --force")
        if (self.shipped / name).is_dir() and not force:
            raise PolicyError(
                f"{name!r} comes with the package, and yours of that name would hide it; choose another, or --force"
            )
        making, before = self.folder / f".{name}.part", self.folder / f".{name}.before"
        try:
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir(parents=True)
            if Path(wanted).is_file():
                _unpack(Path(wanted), making)
            else:
                _copy(self.find(wanted), making)
            read_entry(making, name)  # what cannot be read does not come in
            if target.exists():  # it goes when the new one is there
                shutil.rmtree(before, ignore_errors=True)
                target.rename(before)
            making.rename(target)
            shutil.rmtree(before, ignore_errors=True)
        except OSError as error:
            raise WriteError(f"cannot write {target}: {error.strerror or error}") from error
        finally:
            shutil.rmtree(making, ignore_errors=True)
        return read_entry(target, name)

    def remove(self, name: str) -> Path:
        """Takes a policy of the user's out of the library, a broken one too; its folder is gone then.

        Raises:
            PolicyError: there is none of that name, or it comes with the package.
            WriteError: the file system refused.
        """
        path = self.folder / name
        if not _NAME.fullmatch(name) or not path.is_dir():
            whose = " (it comes with the package)" if _NAME.fullmatch(name) and (self.shipped / name).is_dir() else ""
            raise PolicyError(f"there is no policy {name!r} of yours in the library{whose}; see `n2n policy list`")
        try:
            shutil.rmtree(path)
        except OSError as error:
            raise WriteError(f"cannot remove {path}: {error.strerror or error}") from error
        return path

    def export(self, wanted: str | Path, file: Path, *, force: bool = False) -> Path:
        """Writes a policy into one zip file, which holds JSON and safetensors only.

        Raises:
            PolicyError: there is no such policy, or the file is there and `force` is off.
            WriteError: the file system refused.
        """
        entry = self.find(wanted)
        if file.exists() and not force:
            raise PolicyError(f"{file} is there already; choose another name, or --force")
        making = file.with_name(f".{file.name}.part")
        try:
            with zipfile.ZipFile(making, "w", zipfile.ZIP_DEFLATED) as archive:
                for name, path in _files(entry).items():
                    archive.write(path, name)
            making.replace(file)
        except OSError as error:
            raise WriteError(f"cannot write {file}: {error.strerror or error}") from error
        finally:
            making.unlink(missing_ok=True)
        return file


def read_entry(folder: Path, name: str, *, shipped: bool = False) -> Entry:
    """A policy with its card. Raises `PolicyError` where it cannot be read."""
    policies = load_policies(folder)
    return Entry(name, folder, policies, read_card(_inner(folder), policies), shipped)


def _files(entry: Entry) -> dict[str, Path]:
    """The files of a policy by their names in the library."""
    found = {}
    for stage in entry.policies:
        single = (entry.folder / META).is_file()
        folder = entry.folder if single else _inner(entry.folder) / stage
        found.update({f"{stage}/{name}": folder / name for name in (META, WEIGHTS)})
    card = _inner(entry.folder) / CARD
    return {**found, **({CARD: card} if card.is_file() and entry.card is not None else {})}


def _inner(folder: Path) -> Path:
    """Where the stages of a policy are: in its folder, or, of a run, in `policies`."""
    return folder / "policies" if (folder / "policies").is_dir() else folder


def _copy(entry: Entry, making: Path) -> None:
    for name, path in _files(entry).items():
        (making / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(path, making / name)


def _unpack(file: Path, making: Path) -> None:
    """Takes the members of an archive that a policy has, and refuses any other."""
    try:
        with zipfile.ZipFile(file) as archive:
            strange = [one.filename for one in archive.infolist() if one.filename not in _MEMBERS]
            large = [one.filename for one in archive.infolist() if one.file_size > LARGEST]
            if strange or large:
                why = "" if strange else f", larger than {LARGEST // 2**20} MiB"
                raise PolicyError(f"{file} {NOT_ONE}: it holds {', '.join((strange or large)[:3])}{why}")
            for one in archive.infolist():
                (making / one.filename).parent.mkdir(exist_ok=True)
                (making / one.filename).write_bytes(archive.read(one))
    except (zipfile.BadZipFile, EOFError) as error:
        raise PolicyError(f"{file} {NOT_ONE}: {error}") from error
