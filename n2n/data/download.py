"""Where the files of a data set are: the given folder, or a download that is checked before it gets its name."""

from __future__ import annotations

import hashlib
import http.client
import os
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from n2n.data.errors import DataError


@dataclass(frozen=True)
class Source:
    """A published data set: `folder` below the data folder, `base_url` and the md5 of each file to fetch.

    `sentinels` are files of which any one (plain or with .gz) shows that a folder holds the data set.
    """

    name: str
    folder: str
    base_url: str
    md5: tuple[tuple[str, str], ...]
    sentinels: tuple[str, ...]


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


def folder_of(source: Source, data_dir: Path | None, *, download: bool) -> Path:
    """The folder with the files of a source: `data_dir`/folder, `data_dir` itself, or a download into the former.

    Raises:
        DataError: it is in neither place and `download` is off or fails.
    """
    root = data_dir if data_dir is not None else default_data_dir()
    for folder in (root / source.folder, root):
        if _holds(folder, source):
            return folder
    if not download:
        raise DataError(
            f"{source.name}: no file {source.sentinels[0]} in {root / source.folder} or {root}; give the folder that "
            "holds it with --data-dir, or allow the download"
        )
    for name, digest in source.md5:
        fetch(source.base_url + name, root / source.folder / name, md5=digest)
    return root / source.folder


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
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.md5(usedforsecurity=False)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as out, urllib.request.urlopen(url, timeout=timeout) as answer:
            while chunk := answer.read(1 << 20):
                digest.update(chunk)
                out.write(chunk)
        if digest.hexdigest() != md5:
            raise DataError(
                f"{url}: expected a file with md5 {md5}, found {digest.hexdigest()}; nothing was kept, try again or "
                f"put the published file at {path}"
            )
        os.replace(temporary, path)
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise DataError(
            f"{url}: the download failed ({error}); put the file at {path} yourself or give its folder with --data-dir"
        ) from error
    finally:
        Path(temporary).unlink(missing_ok=True)
    return path


def _holds(folder: Path, source: Source) -> bool:
    return any((folder / f"{name}{suffix}").is_file() for name in source.sentinels for suffix in ("", ".gz"))
