"""Inference-time rewriting shared by the networks: batch norms folded into the layer before them.

A network class says, in `folds`, which of its own attributes are (layer, batch norm) pairs.
"""

from __future__ import annotations

from itertools import pairwise
from typing import cast

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class Folding(nn.Module):
    """A module that names its (convolution, batch norm) attribute pairs."""

    folds: tuple[tuple[str, str], ...] = ()


def fold_batch_norms(network: nn.Module) -> nn.Module:
    """Fold every batch norm that directly follows a convolution into it, in place.

    Returns the network.

    Only for inference (eval mode). A norm *before* a zero-padded convolution stays: folding it
    would be wrong at the border.
    """
    for module in list(network.modules()):
        if isinstance(module, Folding):
            for layer, norm in module.folds:
                _fold(module, layer, norm)
        elif isinstance(module, nn.Sequential):
            names = list(module._modules)
            for layer, norm in pairwise(names):
                if isinstance(module._modules[layer], nn.Conv2d) and isinstance(
                    module._modules[norm], nn.BatchNorm2d
                ):
                    _fold(module, layer, norm)
    return network


def _fold(module: nn.Module, layer: str, norm: str) -> None:
    convolution = cast(nn.Conv2d, getattr(module, layer))
    batch_norm = cast(nn.BatchNorm2d, getattr(module, norm))
    setattr(module, layer, fuse_conv_bn_eval(convolution, batch_norm))
    setattr(module, norm, nn.Identity())
