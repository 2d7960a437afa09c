"""Files appear whole or not at all, and a folder with something in it is not touched."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch

from n2n.search.errors import ArtefactError, WriteError
from n2n.search.files import claim_folder, read_json, write_csv, write_json, write_tensors, write_with


def test_a_write_that_fails_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    target = tmp_path / "result.json"
    write_json(target, {"old": 1})

    def full(path: Path) -> None:
        path.write_text("half of")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(WriteError, match=r"result.json.*No space left.*untouched"):
        write_with(target, full)
    assert read_json(target) == {"old": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_reported_as_such(tmp_path: Path) -> None:
    def full(path: Path) -> None:
        Path("/dev/full").write_bytes(b"one byte too many")

    with pytest.raises(WriteError, match="No space left on device"):
        write_with(tmp_path / "model.safetensors", full)
    assert list(tmp_path.iterdir()) == []


def test_json_and_csv_come_back(tmp_path: Path) -> None:
    write_json(tmp_path / "a" / "one.json", {"x": [1, None]})
    assert read_json(tmp_path / "a" / "one.json") == {"x": [1, None]}
    write_csv(tmp_path / "t.csv", ("a", "b"), [(1, None), ("x,y", 2.5)])
    assert (tmp_path / "t.csv").read_text() == 'a,b\n1,\n"x,y",2.5\n'


@pytest.mark.parametrize("text", ["{", "[1]", "\xff"])
def test_what_is_no_json_object_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "card.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ArtefactError, match=r"card.json"):
        read_json(tmp_path / "card.json")


def test_tensors_that_share_memory_can_be_written(tmp_path: Path) -> None:
    tied = torch.arange(4.0)
    write_tensors(tmp_path / "m.safetensors", {"a": tied, "b": tied, "c": torch.eye(3).t()[1:]})
    assert (tmp_path / "m.safetensors").stat().st_size > 3 * 16


def test_a_folder_in_use_is_refused_unless_forced(tmp_path: Path) -> None:
    out = tmp_path / "run"
    claim_folder(out, force=False)
    (out / "report.md").write_text("old")
    (out / "students" / "1").mkdir(parents=True)
    (out / "mine.txt").write_text("keep")
    with pytest.raises(ArtefactError, match="not empty"):
        claim_folder(out, force=False)
    assert (out / "report.md").read_text() == "old"
    claim_folder(out, force=True)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(ArtefactError, match="is a file"):
        claim_folder(tmp_path / "run", force=True)
