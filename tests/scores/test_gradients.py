"""The scores on gradients of the loss: worked by hand, by finite differences, and twice on the same images."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from n2n.scores import SCORES, Probe, ScoreError
from n2n.scores.fisher import fisher
from n2n.scores.grad_norm import grad_norm
from n2n.scores.grasp import grasp
from n2n.scores.snip import snip
from n2n.scores.zico import zico

GRADIENT_SCORES = ("snip", "grad_norm", "grasp", "fisher", "zico")


def linear(rows: list[list[float]], *, bias: bool = False) -> nn.Linear:
    weight = torch.tensor(rows)
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias)
    with torch.no_grad():
        layer.weight.copy_(weight)
    return layer


def probe_of(images: list[list[float]], labels: list[int]) -> Probe:
    return Probe(torch.tensor(images), torch.tensor(labels))


# Logits (2, 2) for the input (1, 2): p = (1/2, 1/2), so that dL/dz = (-1/2, 1/2) and dL/dW = [[-.5, -1], [.5, 1]].
EVEN, ONE = linear([[2.0, 0.0], [0.0, 1.0]]), probe_of([[1.0, 2.0]], [0])


def test_snip_by_hand():
    assert snip(EVEN, ONE) == pytest.approx(2 * 0.5 + 1 * 1)


def test_grad_norm_by_hand():
    assert grad_norm(EVEN, ONE) == pytest.approx(math.sqrt(0.25 + 1 + 0.25 + 1))


def test_grad_norm_adds_norms_of_layers():
    # The hidden unit is 3, the logits are (3, 3): the last layer's gradient is (-1.5, 1.5), the first one's is
    # 1 * -1/2 + 1 * 1/2 = 0 by the hidden unit.
    network = nn.Sequential(linear([[3.0]]), linear([[1.0], [1.0]]))
    assert grad_norm(network, probe_of([[1.0]], [0])) == pytest.approx(math.sqrt(2 * 1.5**2))


def test_grasp_by_hand():
    # H g = d(|g|^2 / 2)/dw. With q = 1 - p_0 the gradient is q (-x, x), |g|^2 / 2 = q^2 |x|^2 = 5 q^2, and q falls with
    # z_0 - z_1 by q (1 - q) = 1/4: d/dW = 10 q dq/dW = 5 (-1/4) (x, -x). Minus its product with W: 5/4 (2 - 2) = 0.
    assert grasp(EVEN, ONE) == pytest.approx(0, abs=1e-6)
    # W = [[3, 0], [0, 0]] has z = (3, 0), q = 1/(1 + e^3) and 10 q q (1 - q) (3 * 1).
    q = 1 / (1 + math.exp(3))
    assert grasp(linear([[3.0, 0.0], [0.0, 0.0]]), ONE) == pytest.approx(30 * q * q * (1 - q), rel=1e-5)


def test_fisher_by_hand():
    # a = (2, 2), g = (-1/2, 1/2): products (-1, 1), their squares add up to 2, over 2 B = 2.
    assert fisher(EVEN, ONE) == pytest.approx(1)


def test_fisher_adds_places_before_it_squares():
    # A 1x1 convolution by 1 of (1, 3) and a sum for logit 0 with 0 for logit 1, written as a linear layer: z = (4, 0),
    # dL/dz = q (-1, 1) with q = 1/(1 + e^4). The convolution's channel: -q 1 - q 3 = -4 q; the linear layer's: -4 q, 0.
    network = nn.Sequential(
        nn.Conv2d(1, 1, 1, bias=False), nn.ReLU(inplace=True), nn.Flatten(), linear([[1.0, 1.0], [0.0, 0.0]])
    )
    nn.init.ones_(network[0].weight)
    q = 1 / (1 + math.exp(4))
    probe = Probe(torch.tensor([[[[1.0, 3.0]]]]), torch.tensor([0]))
    assert fisher(network, probe) == pytest.approx(2 * (4 * q) ** 2 / 2, rel=1e-5)


def test_zico_by_hand():
    # One weight matters, two images, two batches: with logits (w x, 0), w = 0 and label 0 the gradients are
    # -x/2 and x/2 for the two rows. For x = 1 and 3 each weight has sizes .5 and 1.5: mean 1, deviation .5, ratio 2.
    network = linear([[0.0], [0.0]])
    assert zico(network, probe_of([[1.0], [3.0]], [0, 0])) == pytest.approx(math.log(4))
    assert zico(network, probe_of([[1.0], [-3.0]], [0, 0])) == pytest.approx(math.log(4))  # sizes, not signs


def test_zico_leaves_out_what_does_not_vary():
    # The second input is the same for both images and has gradients of one size: mean 1, deviation 0.
    network = linear([[0.0, 0.0], [0.0, 0.0]])
    assert zico(network, probe_of([[1.0, 2.0], [3.0, 2.0]], [0, 0])) == pytest.approx(math.log(4))
    with pytest.raises(ScoreError, match="differ between batches, found none"):
        zico(network, probe_of([[1.0, 2.0], [1.0, 2.0]], [0, 0]))
    with pytest.raises(ScoreError, match="at least 2 images, found 1"):
        zico(network, ONE)


class Small(nn.Module):
    """Convolution, batch norm, a smooth activation, classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(1, 2, 2), nn.BatchNorm2d(2), nn.Linear(8, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.norm(self.conv(images))).flatten(1))


def small() -> tuple[Small, Probe]:
    generator = torch.Generator().manual_seed(1)
    torch.manual_seed(0)
    images = torch.randn(6, 1, 3, 3, generator=generator, dtype=torch.float64)
    return Small().double(), Probe(images, torch.arange(6) % 3)


def slopes(network: nn.Module, probe: Probe, step: float = 1e-5) -> list[torch.Tensor]:
    """dL/dw for each weight of two axes and more, by central differences."""
    weights = [weight for weight in network.parameters() if weight.ndim >= 2]

    def loss() -> float:
        return float(F.cross_entropy(network(probe.images), probe.labels))

    found = []
    network.train()
    with torch.no_grad():
        for weight in weights:
            slope, flat = torch.zeros_like(weight), weight.view(-1)
            for index in range(flat.numel()):
                values = []
                for sign in (1, -1):
                    flat[index] += sign * step
                    values.append(loss())
                    flat[index] -= sign * step
                slope.view(-1)[index] = (values[0] - values[1]) / (2 * step)
            found.append(slope)
    return found


def test_first_order_scores_are_those_of_finite_differences():
    network, probe = small()
    found = slopes(network, probe)
    weights = [network.conv.weight.detach(), network.head.weight.detach()]
    expected = sum(float((weight * slope).abs().sum()) for weight, slope in zip(weights, found, strict=True))
    assert snip(network, probe) == pytest.approx(expected, rel=1e-6)
    assert grad_norm(network, probe) == pytest.approx(sum(float(slope.norm()) for slope in found), rel=1e-6)


def test_grasp_is_that_of_finite_differences():
    network, probe = small()
    weights, step = [network.conv.weight.detach(), network.head.weight.detach()], 1e-3
    gradient, products = slopes(network, probe), []
    for sign in (1, -1):  # H g is the change of the gradient along g
        with torch.no_grad():
            for weight, along in zip(weights, gradient, strict=True):
                weight.add_(sign * step * along)
            products.append(slopes(network, probe))
            for weight, along in zip(weights, gradient, strict=True):
                weight.sub_(sign * step * along)
    changes = [(after - before) / (2 * step) for after, before in zip(*products, strict=True)]
    expected = -sum(float((weight * change).sum()) for weight, change in zip(weights, changes, strict=True))
    assert abs(expected) > 1e-3
    assert grasp(network, probe) == pytest.approx(expected, rel=1e-4)


def test_fisher_is_that_of_finite_differences():
    # Scaling a channel of one image by 1 + t changes the loss by t sum_p a g: what is squared.
    network, probe = small()
    count, felt = len(probe.images), 0.0
    for layer, shape in ((network.conv, (2, 1, 1)), (network.head, (3,))):
        for image in range(count):
            for channel in range(shape[0]):
                losses = []
                for change in (1e-5, -1e-5):
                    scale = torch.ones(count, *shape, dtype=torch.float64)
                    scale[image, channel] += change
                    handle = layer.register_forward_hook(lambda module, inputs, output, scale=scale: output * scale)
                    with torch.no_grad():
                        losses.append(float(F.cross_entropy(network(probe.images), probe.labels, reduction="sum")))
                    handle.remove()
                felt += ((losses[0] - losses[1]) / 2e-5) ** 2
    assert fisher(network, probe) == pytest.approx(felt / (2 * count), rel=1e-5)


@pytest.mark.parametrize("name", ["snip", "grad_norm", "grasp", "fisher"])
def test_the_same_images_twice_have_the_same_score(name):
    network, probe = small()
    twice = Probe(probe.images.repeat(2, 1, 1, 1), probe.labels.repeat(2))
    assert SCORES[name](network, twice) == pytest.approx(SCORES[name](network, probe))


@pytest.mark.parametrize("name", GRADIENT_SCORES)
def test_outputs_that_are_no_logits_and_networks_without_weights_are_told(name):
    with pytest.raises(ScoreError, match=rf"{name}: expected logits \[\d, more than 7\] .* found outputs of shape"):
        SCORES[name](EVEN, probe_of([[1.0, 2.0], [2.0, 1.0]], [7, 7]))
    with pytest.raises(ScoreError, match=f"{name}: expected weights"):
        SCORES[name](nn.Flatten(), probe_of([[1.0, 2.0], [2.0, 1.0]], [0, 1]))


def test_grasp_goes_through_attention():
    torch.manual_seed(0)
    network = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Flatten(), nn.Linear(24, 2))
    probe = Probe(torch.randn(4, 3, 8), torch.tensor([0, 1, 0, 1]))
    assert math.isfinite(grasp(network, probe))
    assert fisher(network, probe) > 0
