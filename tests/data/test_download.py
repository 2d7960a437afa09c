"""Downloads from a server on this machine."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from n2n.data import DataError
from n2n.data.download import CIFAR_10, CIFAR_100, FASHION_MNIST, MNIST, Source, default_data_dir, fetch, folder_of


class Quiet(SimpleHTTPRequestHandler):
    requested: list[str]

    def __init__(self, *args: object, requested: list[str], **kwargs: object) -> None:
        self.requested = requested
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        self.requested.append(self.path)
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.requested: list[str] = []
        handler = partial(Quiet, directory=str(root), requested=self.requested)
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    root = tmp_path / "served"
    root.mkdir()
    running = Server(root)
    thread = threading.Thread(target=running.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield running
    running.http.shutdown()
    running.http.server_close()
    thread.join()


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def test_a_file_with_the_right_md5_gets_its_name_and_is_not_fetched_twice(server: Server, tmp_path: Path) -> None:
    (server.root / "file.bin").write_bytes(b"content" * 1000)
    target = tmp_path / "new" / "folder" / "file.bin"
    for _ in range(2):
        assert fetch(server.url + "file.bin", target, md5=md5(b"content" * 1000)) == target
    assert target.read_bytes() == b"content" * 1000
    assert server.requested == ["/file.bin"]
    assert list(target.parent.iterdir()) == [target]


def test_another_md5_is_refused_and_nothing_is_lost(server: Server, tmp_path: Path) -> None:
    (server.root / "file.bin").write_bytes(b"tampered")
    target = tmp_path / "here" / "file.bin"
    target.parent.mkdir()
    target.write_bytes(b"old")
    with pytest.raises(DataError, match=rf"expected a file with md5 {md5(b'true')}, found {md5(b'tampered')}"):
        fetch(server.url + "file.bin", target, md5=md5(b"true"))
    assert [(path.name, path.read_bytes()) for path in target.parent.iterdir()] == [("file.bin", b"old")]


def test_a_file_that_the_server_does_not_have(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "here" / "file.bin"
    with pytest.raises(DataError, match=r"file\.bin: the download failed \(HTTP Error 404.*--data-dir"):
        fetch(server.url + "file.bin", target, md5=md5(b""))
    assert list(target.parent.iterdir()) == []


def test_no_server(server: Server, tmp_path: Path) -> None:
    server.http.socket.close()  # nobody listens any more
    with pytest.raises(DataError, match="the download failed"):
        fetch(server.url + "file.bin", tmp_path / "file.bin", md5=md5(b""), timeout=2)


def source(server: Server, files: dict[str, bytes], *, archive: bool = False) -> Source:
    for name, content in files.items():
        (server.root / name).write_bytes(content)
    digests = tuple((name, md5(content)) for name, content in files.items())
    return Source("own", "own", server.url, digests, sentinels=("a",), archive=archive)


def test_all_files_of_a_source_are_fetched_and_later_only_the_missing_ones(server: Server, tmp_path: Path) -> None:
    own = source(server, {"a.gz": gzip.compress(b"a"), "b.gz": gzip.compress(b"b")})
    data_dir = tmp_path / "data"
    with pytest.raises(DataError, match=r"own: no file a in .*allow the download"):
        folder_of(own, data_dir, download=False)
    assert folder_of(own, data_dir, download=True) == data_dir / "own"
    assert sorted(path.name for path in (data_dir / "own").iterdir()) == ["a.gz", "b.gz"]
    (data_dir / "own" / "b.gz").unlink()
    folder_of(own, data_dir, download=True)
    assert server.requested == ["/a.gz", "/b.gz", "/b.gz"]
    assert folder_of(own, data_dir / "own", download=False) == data_dir / "own"


def test_an_archive_is_unpacked_without_its_folders(server: Server, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in {"folder/a": b"first", "../../outside": b"second"}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    own = source(server, {"own.tar.gz": packed.getvalue()}, archive=True)
    folder = folder_of(own, tmp_path / "data", download=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"a": b"first", "outside": b"second"}


def test_a_damaged_archive_is_refused(server: Server, tmp_path: Path) -> None:
    own = source(server, {"own.tar.gz": b"not an archive"}, archive=True)
    with pytest.raises(DataError, match=r"own\.tar\.gz: a damaged archive"):
        folder_of(own, tmp_path / "data", download=True)


def test_the_users_cache_is_the_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_data_dir() == tmp_path / "n2n"


@pytest.mark.parametrize("published", [MNIST, FASHION_MNIST, CIFAR_10, CIFAR_100])
def test_the_published_sources_have_well_formed_entries(published: Source) -> None:
    assert published.base_url.endswith("/")
    assert all(len(digest) == 32 and int(digest, 16) for _, digest in published.md5)
