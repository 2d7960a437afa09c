"""Normalisation by hand, and crops and flips against plain slicing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from n2n.data import Augmentation, augment, example_inputs, from_tensors, prepare
from n2n.data.prepare import channel_statistics


def test_bytes_are_scaled_and_normalised_per_channel() -> None:
    images = torch.tensor([[[[0, 255]], [[51, 102]]]], dtype=torch.uint8)  # [1, 2, 1, 2]
    prepared = prepare(images, mean=(0.5, 0.2), std=(0.25, 0.1))
    assert prepared.dtype == torch.float32
    torch.testing.assert_close(prepared, torch.tensor([[[[-2.0, 2.0]], [[0.0, 2.0]]]]))


def test_floats_are_normalised_only() -> None:
    torch.testing.assert_close(prepare(torch.tensor([[3.0, 5.0]]), mean=(1.0, 1.0), std=(2.0, 4.0)), torch.ones(1, 2))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_statistics_agree_with_numpy(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(0)
    array = rng.integers(0, 256, (20, 3, 5, 4), dtype=np.uint8)
    images = torch.from_numpy(array)
    mean, std = channel_statistics(images if dtype == torch.uint8 else images.float() / 255)
    np.testing.assert_allclose(mean, (array / 255).mean(axis=(0, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(std, (array / 255).std(axis=(0, 2, 3)), atol=1e-6)


def test_a_constant_channel_becomes_zeros() -> None:
    images = torch.full((4, 1, 2, 2), 7, dtype=torch.uint8)
    mean, std = channel_statistics(images)
    assert std == (1.0,)
    torch.testing.assert_close(prepare(images, mean=mean, std=std), torch.zeros(4, 1, 2, 2), atol=1e-6, rtol=0)


def test_example_inputs_are_prepared_train_images_with_mean_0_and_deviation_1() -> None:
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (100, 2, 3, 3), dtype=np.uint8))
    data = from_tensors(images, torch.arange(100) % 5, images, torch.arange(100) % 5, name="noise")
    inputs = example_inputs(data, 90)
    assert inputs.shape == (90, 2, 3, 3)
    assert abs(float(inputs.mean())) < 0.1
    assert abs(float(inputs.std()) - 1) < 0.1
    assert torch.equal(example_inputs(data.training), inputs[:1])


def views(image: Tensor, pad: int, flip: bool) -> dict[tuple[float, ...], tuple[int, int, bool]]:
    """Every view that is allowed, made with NumPy, by its pixels."""
    padded = np.pad(image.numpy(), ((0, 0), (pad, pad), (pad, pad)))
    height, width = image.shape[1:]
    found = {}
    for row in range(2 * pad + 1):
        for column in range(2 * pad + 1):
            crop = padded[:, row : row + height, column : column + width]
            for mirrored in (False, True) if flip else (False,):
                view = crop[:, :, ::-1] if mirrored else crop
                found[tuple(view.flatten().tolist())] = (row, column, mirrored)
    return found


@pytest.mark.parametrize(("pad", "flip"), [(0, True), (1, False), (2, True)])
def test_only_and_all_the_crops_and_flips_occur_each_for_every_image(pad: int, flip: bool) -> None:
    image = torch.arange(1.0, 1 + 2 * 5 * 4).reshape(2, 5, 4)
    allowed = views(image, pad, flip)
    batch = image.expand(60 * len(allowed), 2, 5, 4).contiguous()
    out = augment(batch, pad=pad, flip=flip, generator=torch.Generator().manual_seed(0))
    assert out.shape == batch.shape
    drawn = [tuple(view.flatten().tolist()) for view in out]
    counts = {view: drawn.count(view) for view in set(drawn)}
    assert set(counts) == set(allowed)
    assert min(counts.values()) > 25  # about 60 of each; uniform
    assert max(counts.values()) < 110


def test_channels_keep_their_places_and_images_their_order() -> None:
    batch = torch.arange(3.0).reshape(3, 1, 1, 1) * 10 + torch.tensor([1.0, 2.0]).reshape(1, 2, 1, 1)
    batch = batch.expand(3, 2, 4, 4).contiguous()  # constant planes of value 10 * image + channel
    out = augment(batch, pad=1, flip=True, generator=torch.Generator().manual_seed(3))
    assert torch.equal(out.amax(dim=(2, 3)), batch[:, :, 0, 0])


def test_a_seed_gives_the_same_views_and_the_input_is_left_alone() -> None:
    batch = torch.rand(16, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    before = batch.clone()
    first, again, other = (
        augment(batch, pad=2, flip=True, generator=torch.Generator().manual_seed(seed)) for seed in (5, 5, 6)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(batch, before)


def test_no_augmentation_changes_nothing() -> None:
    batch = torch.rand(4, 1, 3, 3, generator=torch.Generator().manual_seed(1))
    assert torch.equal(augment(batch, pad=0, flip=False), batch)


def test_a_negative_pad_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 0; found -1"):
        Augmentation(pad=-1)
