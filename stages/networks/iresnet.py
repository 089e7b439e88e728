"""The improved ResNet of ArcFace, with the linear quality head of CR-FIQA if asked for.

The attribute names are those of the published checkpoints, so a state dict loads without renaming:
477 entries and 43,591,361 parameters (50 layers), 927 and 65,156,673 (100 layers) with the quality
head; 475 and 925 without. Sources: Deng et al., ArcFace (CVPR 2019), section 3.1; Boutros et al.,
CR-FIQA (CVPR 2023), section 3.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from stages.networks.layers import Folding

LAYERS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 14, 3), 100: (3, 13, 30, 3)}
WIDTHS = (64, 128, 256, 512)
EMBEDDING = 512


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


class Block(Folding):
    """bn1 → conv1 → bn2 → PReLU → conv2 (stride) → bn3, plus the shortcut.

    There is no activation after the sum.
    """

    folds = (("conv1", "bn2"), ("conv2", "bn3"))

    def __init__(self, inputs: int, outputs: int, stride: int, eps: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs, eps)
        self.conv1 = _conv(inputs, outputs, 3)
        self.bn2 = nn.BatchNorm2d(outputs, eps)
        self.prelu = nn.PReLU(outputs)
        self.conv2 = _conv(outputs, outputs, 3, stride)
        self.bn3 = nn.BatchNorm2d(outputs, eps)
        if stride == 1 and inputs == outputs:
            self.downsample = None
        else:
            self.downsample = nn.Sequential(
                _conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs, eps)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        y = self.bn3(self.conv2(y))
        return cast(Tensor, y + (x if self.downsample is None else self.downsample(x)))


class IResNet(Folding):
    """An iresnet of `depth` 18, 34, 50 or 100 layers, with the CR-FIQA quality head if `quality`.

    `eps` is that of every batch norm (1e-5; MagFace was trained with 2e-5). `dropout` acts in
    training only.
    """

    folds = (("conv1", "bn1"),)
    # Kept in float32 in every precision: 0.3 M multiplications, and a score rounded to 8 bits ties
    # too often.
    heads = ("features", "qs")

    def __init__(
        self, depth: int, quality: bool = False, eps: float = 1e-5, dropout: float = 0.4
    ) -> None:
        super().__init__()
        self.conv1 = _conv(3, WIDTHS[0], 3)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0], eps)
        self.prelu = nn.PReLU(WIDTHS[0])
        inputs = WIDTHS[0]
        for number, (outputs, count) in enumerate(zip(WIDTHS, LAYERS[depth], strict=True), start=1):
            blocks = [
                Block(inputs if i == 0 else outputs, outputs, 2 if i == 0 else 1, eps)
                for i in range(count)
            ]
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
            inputs = outputs
        self.bn2 = nn.BatchNorm2d(inputs, eps)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(inputs * 7 * 7, EMBEDDING)
        self.features = nn.BatchNorm1d(EMBEDDING, eps)
        self.qs = nn.Linear(EMBEDDING, 1) if quality else None

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Map (n, 3, 112, 112) normalised images to embeddings (n, 512).

        With a quality head also to raw quality (n,). Embeddings are not normalised, and the head
        reads them so.
        """
        x = self.prelu(self.bn1(self.conv1(x)))
        for number in range(1, 5):
            x = self.get_submodule(f"layer{number}")(x)
        x = self.fc(self.dropout(torch.flatten(self.bn2(x), 1)))
        embedding: Tensor = self.features(x.to(self.features.weight.dtype))
        return embedding if self.qs is None else (embedding, self.qs(embedding).squeeze(1))
