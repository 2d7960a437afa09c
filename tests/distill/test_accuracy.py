"""Accuracy by hand, and batch-norm statistics against plain averages."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from n2n.data import Split, prepare
from n2n.distill.accuracy import accuracy, reestimate_batch_norm


def split(images: torch.Tensor, labels: list[int]) -> Split:
    return Split(images, torch.tensor(labels), "by hand")


def test_accuracy_and_loss_by_hand():
    # Identity network: the images are the logits. Rows are right, right, wrong, right.
    images = torch.tensor([[math.log(3), 0.0], [0.0, math.log(3)], [math.log(3), 0.0], [0.0, math.log(3)]])
    share, loss = accuracy(nn.Identity(), split(images, [0, 1, 1, 1]), mean=(0.0,), std=(1.0,), batch_size=3)
    assert share == 0.75
    assert loss == pytest.approx((3 * math.log(4 / 3) + math.log(4)) / 4, rel=1e-6)


def test_images_are_prepared():
    images = torch.tensor([[255, 0], [0, 255]], dtype=torch.uint8)
    network = nn.Linear(2, 2, bias=False)
    network.weight.data = torch.eye(2)
    _, loss = accuracy(network, split(images, [0, 1]), mean=(0.5, 0.5), std=(0.5, 0.5))
    assert loss == pytest.approx(math.log(1 + math.exp(-2)), rel=1e-5)  # logits are +1 and -1


def test_modes_are_put_back_module_by_module():
    network = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5), nn.BatchNorm1d(2))
    network[2].eval()
    before = network[2].running_mean.clone()
    accuracy(network, split(torch.ones(4, 2), [0, 1, 0, 1]), mean=(0.0,), std=(1.0,))
    assert [module.training for module in network] == [True, True, False]
    assert torch.equal(network[2].running_mean, before)


def test_the_mode_is_put_back_after_an_error():
    network = nn.Linear(3, 2).train()
    with pytest.raises(RuntimeError):
        accuracy(network, split(torch.ones(2, 5), [0, 1]), mean=(0.0,), std=(1.0,))
    assert network.training


def test_what_is_no_tensor_is_named_with_what_to_do():
    class Named(nn.Module):
        def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"logits": images.flatten(1)[:, :2]}

    with pytest.raises(ValueError, match=r"Named gives a dict, expected a tensor of logits.* returns the logits alone"):
        accuracy(Named(), split(torch.zeros(2, 1, 4, 4), [0, 1]), mean=(0.0,), std=(1.0,))


def test_reestimated_statistics_are_the_plain_averages(training, make_network):
    network = make_network()
    network[1].running_mean.fill_(50.0)
    network[1].momentum = 0.3
    network[1].eval()
    inputs = prepare(training.train.images[:60], mean=training.mean, std=training.std)
    reestimate_batch_norm(network, inputs.split(20))
    with torch.no_grad():
        maps = network[0](inputs)
        variances = [network[0](part).var(dim=(0, 2, 3)) for part in inputs.split(20)]
    torch.testing.assert_close(network[1].running_mean, maps.mean(dim=(0, 2, 3)), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(network[1].running_var, torch.stack(variances).mean(0), atol=1e-5, rtol=1e-4)
    assert network[1].momentum == 0.3
    assert not network[1].training
    assert network.training


def test_without_batches_the_statistics_stay(make_network):
    network = make_network()
    network[1].running_mean.fill_(7.0)
    reestimate_batch_norm(network, [])
    assert (network[1].running_mean == 7).all()
