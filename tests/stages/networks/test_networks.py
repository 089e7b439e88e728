"""Network architectures: the layout of the published checkpoints, the forward of the papers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from stages.networks.iresnet import Block
from stages.networks.layers import fold_batch_norms
from stages.networks.mobilefacenet import Bottleneck, MobileFaceNet, Separable


def test_mobilefacenet_has_307_entries() -> None:
    with torch.device("meta"):
        assert len(MobileFaceNet().state_dict()) == 307


def _randomise(module: nn.Module) -> nn.Module:
    """Give batch norms statistics and weights that an identity would not pass for."""
    generator = torch.Generator().manual_seed(3)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d | nn.BatchNorm1d):
            for tensor in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
                assert tensor is not None
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        if isinstance(norm, nn.PReLU):
            norm.weight.data.uniform_(0.05, 0.5, generator=generator)
    return module.eval()


def _norm(x: torch.Tensor, state: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    mean, var, weight, bias = (
        state[f"{name}.{part}"][:, None, None]
        for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / torch.sqrt(var + 1e-5) * weight + bias


@pytest.mark.parametrize("stride", [1, 2])
def test_iresnet_block_is_the_papers_formula(stride: int) -> None:
    block = _randomise(Block(8, 8, stride, 1e-5))
    s, x = block.state_dict(), torch.randn(2, 8, 10, 10)
    y = functional.conv2d(_norm(x, s, "bn1"), s["conv1.weight"], padding=1)
    y = _norm(y, s, "bn2")
    y = torch.where(y > 0, y, y * s["prelu.weight"][:, None, None])
    y = _norm(functional.conv2d(y, s["conv2.weight"], stride=stride, padding=1), s, "bn3")
    shortcut = (
        x
        if stride == 1
        else _norm(functional.conv2d(x, s["downsample.0.weight"], stride=2), s, "downsample.1")
    )
    torch.testing.assert_close(block(x), y + shortcut, rtol=1e-4, atol=1e-4)


def test_mobilefacenet_bottleneck_is_the_papers_formula() -> None:
    block = _randomise(Bottleneck(6, 6, 2, 1))
    s, x = block.state_dict(), torch.randn(2, 6, 9, 9)
    y = _norm(functional.conv2d(x, s["conv.0.0.weight"]), s, "conv.0.1").clamp(0, 6)
    y = _norm(
        functional.conv2d(y, s["conv.1.0.weight"], padding=1, groups=12), s, "conv.1.1"
    ).clamp(0, 6)
    y = _norm(functional.conv2d(y, s["conv.2.weight"]), s, "conv.3")
    torch.testing.assert_close(block(x), x + y, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("block", [Block(8, 16, 2, 1e-5), Bottleneck(6, 8, 2, 2), Separable(8)])
def test_folding_batch_norms_keeps_the_answer(block: nn.Module) -> None:
    x = torch.randn(2, 6 if isinstance(block, Bottleneck) else 8, 12, 12)
    before = _randomise(block)
    folded = fold_batch_norms(copy.deepcopy(before))
    left = sum(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert left == (1 if isinstance(block, Block) else 0)  # bn1 stands before a padded convolution
    torch.testing.assert_close(folded(x), before(x), rtol=1e-4, atol=1e-4)
