"""Random weights for scores that judge an architecture and not its weights."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

_NORMS = (_BatchNorm, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def draw_weights(network: nn.Module) -> None:
    """Draws the parameters of a borrowed network anew, from torch's global generator, module by module.

    Weights (parameters of two axes and more) come from N(0, 1), biases are 0, norms have weight 1 and bias 0, as the
    releases of DisWOT and Zen-NAS have them; other vectors, such as the scales of layers, stay as they are.
    """
    with torch.no_grad():
        for module in network.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if name.endswith("bias"):
                    parameter.zero_()
                elif isinstance(module, _NORMS):
                    parameter.fill_(1)
                elif parameter.ndim >= 2:
                    parameter.normal_()
