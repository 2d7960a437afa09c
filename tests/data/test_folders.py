"""Image folders, written here with Pillow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from n2n.data import DataError, load


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def grey(value: int, height: int = 3, width: int = 5) -> np.ndarray:
    return np.full((height, width), value, dtype=np.uint8)


def fill(root: Path, *, per_class: int = 10) -> None:
    for label, name in enumerate(("cat", "dog")):
        for number in range(per_class):
            write(root / name / f"{number}.png", grey(100 * label + number))


def test_train_and_test_folders(tmp_path: Path) -> None:
    fill(tmp_path / "pets" / "train")
    write(tmp_path / "pets" / "test" / "dog" / "one.png", grey(200))
    (tmp_path / "pets" / "train" / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / "pets" / "train" / ".cache").mkdir()
    data = load(tmp_path / "pets")
    assert (data.name, data.classes, data.training.input_shape) == ("pets", 2, (1, 3, 5))
    assert (len(data.train), len(data.validation), len(data.test)) == (18, 2, 1)
    assert (data.test.labels.tolist(), int(data.test.images[0, 0, 0, 0])) == ([1], 200)
    for split in (data.train, data.validation):
        assert ((split.images[:, 0, 0, 0] >= 100).long() == split.labels).all()


def test_class_folders_without_train(tmp_path: Path) -> None:
    fill(tmp_path)
    data = load(tmp_path)
    assert len(data.train) + len(data.validation) + len(data.test) == 20
    assert len(data.test) == 4


def test_one_colour_image_makes_all_of_them_three_channels(tmp_path: Path) -> None:
    fill(tmp_path / "train")
    write(tmp_path / "test" / "cat" / "colour.png", np.array([[[1, 2, 3]] * 5] * 3, dtype=np.uint8))
    data = load(tmp_path)
    assert data.test.images[0, :, 0, 0].tolist() == [1, 2, 3]
    first = data.train.images[0]
    assert first.shape == (3, 3, 5)
    assert (first == first[0]).all()


def test_two_sizes_are_refused(tmp_path: Path) -> None:
    fill(tmp_path)
    write(tmp_path / "dog" / "large.png", grey(0, 6, 7))
    with pytest.raises(DataError, match=r"large\.png: the image is 7x6, but .*0\.png is 5x3"):
        load(tmp_path)


def test_a_truncated_image_is_refused(tmp_path: Path) -> None:
    fill(tmp_path)
    path = tmp_path / "dog" / "3.png"
    path.write_bytes(path.read_bytes()[:45])
    with pytest.raises(DataError, match=r"3\.png: not a readable image"):
        load(tmp_path)


def test_sixteen_bits_are_refused(tmp_path: Path) -> None:
    fill(tmp_path)
    write(tmp_path / "dog" / "deep.png", np.full((3, 5), 40_000, dtype=np.uint16))
    with pytest.raises(DataError, match=r"deep\.png: images of more than 8 bits"):
        load(tmp_path)


def test_an_unknown_test_class_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "train")
    write(tmp_path / "test" / "cow" / "one.png", grey(1))
    with pytest.raises(DataError, match=r"class folders cow are not in .* which has cat, dog"):
        load(tmp_path)


def test_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected one folder per class, found none"):
        load(tmp_path)
    (tmp_path / "cat").mkdir()
    with pytest.raises(DataError, match=r"expected images .* found none"):
        load(tmp_path)
