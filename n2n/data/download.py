"""Where the files of a data set are: the given folder, or a download that is checked before it gets its name."""

from __future__ import annotations

import hashlib
import http.client
import os
import tarfile
import urllib.request
import zlib
from dataclasses import dataclass
from pathlib import Path

from n2n.data.errors import DataError


@dataclass(frozen=True)
class Source:
    """A published data set: `folder` below the data folder, `base_url` and the md5 of each file to fetch.

    `sentinels` are files of which any one (plain or with .gz) shows that a folder holds the data set; `archive` says
    that what is fetched is a tar file of them.
    """

    name: str
    folder: str
    base_url: str
    md5: tuple[tuple[str, str], ...]
    sentinels: tuple[str, ...]
    archive: bool = False


MNIST = Source(
    name="mnist",
    folder="mnist",
    base_url="https://ossci-datasets.s3.amazonaws.com/mnist/",
    md5=(
        ("train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
        ("train-labels-idx1-ubyte.gz", "d53e105ee54ea40749a09fcbcd1e9432"),
        ("t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3"),
        ("t10k-labels-idx1-ubyte.gz", "ec29112dd5afa0611ce80d1b7f02629c"),
    ),
    sentinels=("train-images-idx3-ubyte", "t10k-images-idx3-ubyte"),
)
FASHION_MNIST = Source(
    name="fashion-mnist",
    folder="fashion-mnist",
    base_url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    md5=(
        ("train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        ("train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe"),
        ("t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79"),
        ("t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310"),
    ),
    sentinels=("train-images-idx3-ubyte", "t10k-images-idx3-ubyte"),
)
CIFAR_10 = Source(
    name="cifar-10",
    folder="cifar-10-batches-bin",
    base_url="https://www.cs.toronto.edu/~kriz/",
    md5=(("cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"),),
    sentinels=("test_batch.bin", *(f"data_batch_{number}.bin" for number in range(1, 6))),
    archive=True,
)
CIFAR_100 = Source(
    name="cifar-100",
    folder="cifar-100-binary",
    base_url="https://www.cs.toronto.edu/~kriz/",
    md5=(("cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8"),),
    sentinels=("train.bin", "test.bin"),
    archive=True,
)


SOURCES = (MNIST, FASHION_MNIST, CIFAR_10, CIFAR_100)


def folder_of(source: Source, data_dir: Path | None, *, download: bool) -> Path:
    """The folder with the files of a source: `data_dir`/folder, `data_dir` itself, or a download into the former.

    Of a source of single files (no archive) those that are missing in the folder are fetched.

    Raises:
        DataError: it is in neither place and `download` is off or fails.
    """
    root = data_dir if data_dir is not None else default_data_dir()
    # MNIST and Fashion-MNIST share their file names: a folder that is named for another source is not this one.
    another = root.name in {other.folder for other in SOURCES if other.folder != source.folder}
    places = (root / source.folder,) if another else (root / source.folder, root)
    found = next((folder for folder in places if _holds(folder, source)), None)
    if found is None and not download:
        raise DataError(
            f"{source.name}: no file {source.sentinels[0]} in {' or '.join(map(str, places))}; give the folder that "
            "holds it with --data-dir, or allow the download"
        )
    folder = found or places[0]
    if download and not (found and source.archive):
        _complete(source, folder)
    return folder


def default_data_dir() -> Path:
    """Where downloads go when nothing is said: `n2n` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "n2n"


def fetch(url: str, path: Path, *, md5: str, timeout: float = 30.0) -> Path:
    """Download `url` to `path`: to a temporary name beside it, which becomes `path` when the md5 is right.

    `timeout` is in seconds without an answer. A file that is there with that md5 is not fetched again.

    Raises:
        DataError: no connection, a refused request, or a file with another md5; `path` is left as it was.
    """
    if path.is_file() and hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() == md5:
        return path
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        found = _receive(url, part, timeout)
        if found != md5:
            raise DataError(
                f"{url}: expected a file with md5 {md5}, found {found}; nothing was kept, try again or put the "
                f"published file at {path}"
            )
        os.replace(part, path)
    except (OSError, http.client.HTTPException) as error:
        raise DataError(
            f"{url}: the download failed ({error}); put the file at {path} yourself or give its folder with --data-dir"
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return path


def unpack(path: Path) -> None:
    """Write the files of a tar archive beside it, without their folders; none has its name before all are whole.

    Raises:
        DataError: the archive is damaged.
    """
    parts: list[tuple[Path, Path]] = []
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isfile() else None
                if content is not None:
                    final = path.parent / Path(member.name).name
                    parts.append((final.with_name(f"{final.name}.part"), final))
                    parts[-1][0].write_bytes(content.read())
        for part, final in parts:
            os.replace(part, final)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: a damaged archive ({error}); remove it and fetch it again") from error
    finally:
        for part, _ in parts:
            part.unlink(missing_ok=True)


def _complete(source: Source, folder: Path) -> None:
    for name, digest in source.md5:
        path = folder / name
        if source.archive:
            unpack(fetch(source.base_url + name, path, md5=digest))
            path.unlink()
        elif not (path.is_file() or path.with_suffix("").is_file()):
            fetch(source.base_url + name, path, md5=digest)


def _receive(url: str, path: Path, timeout: float) -> str:
    """Write what `url` answers to `path`; its md5."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("wb") as out, urllib.request.urlopen(url, timeout=timeout) as answer:
        while chunk := answer.read(1 << 20):
            digest.update(chunk)
            out.write(chunk)
    return digest.hexdigest()


def _holds(folder: Path, source: Source) -> bool:
    return any((folder / f"{name}{suffix}").is_file() for name in source.sentinels for suffix in ("", ".gz"))
