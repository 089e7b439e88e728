"""MobileFaceNet (Chen et al., 2018, table 1), as a public PyTorch state dict of 307 entries.

That variant differs from the paper: no PReLU, a pointwise convolution in the second stage, and a
128-D linear layer with bias before the last batch norm. Which rectifier acts where is not in the
file but shows in its stored batch-norm statistics: ReLU6 inside the bottlenecks (with an unbounded
ReLU the inputs of the second one's depthwise norm lie 3.5 deviations from the stored means, against
0.08), plain ReLU in the second stage.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from stages.networks.layers import Folding

EMBEDDING = 128
# expansion, channels, blocks, stride of the first (paper, table 1)
STAGES = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))


def _conv(
    inputs: int,
    outputs: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    padding: int | None = None,
) -> nn.Conv2d:
    padding = kernel // 2 if padding is None else padding
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)


def _conv_bn_relu(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        _conv(inputs, outputs, kernel, stride, groups), nn.BatchNorm2d(outputs), nn.ReLU6()
    )


class Bottleneck(nn.Module):
    """Inverted residual: expand 1×1 → depthwise 3×3 (stride) → linear 1×1.

    It has a shortcut if the shapes agree.
    """

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            _conv_bn_relu(inputs, hidden, 1),
            _conv_bn_relu(hidden, hidden, 3, stride, hidden),
            _conv(hidden, outputs, 1),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return cast(Tensor, x + y if self.residual else y)


class Separable(Folding):
    """Depthwise 3×3 → pointwise 1×1, each with batch norm and ReLU."""

    folds = (("depthwise", "bn1"), ("pointwise", "bn2"))

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = _conv(channels, channels, 3, groups=channels)
        self.pointwise = _conv(channels, channels, 1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return cast(
            Tensor, self.relu(self.bn2(self.pointwise(self.relu(self.bn1(self.depthwise(x))))))
        )


class GlobalDepthwise(Folding):
    """One learnt 7×7 weighting a channel instead of average pooling; linear."""

    folds = (("depthwise", "bn"),)

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = _conv(channels, channels, 7, groups=channels, padding=0)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.bn(self.depthwise(x)))


class MobileFaceNet(Folding):
    """Maps (n, 3, 112, 112) normalised RGB images to embeddings (n, 128), not normalised."""

    folds = (("conv3", "bn"),)
    heads: tuple[str, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = _conv_bn_relu(3, 64, 3, 2)
        self.dw_conv = Separable(64)
        blocks, inputs = [], 64
        for expansion, outputs, count, stride in STAGES:
            for i in range(count):
                blocks.append(Bottleneck(inputs, outputs, expansion, stride if i == 0 else 1))
                inputs = outputs
        self.features = nn.Sequential(*blocks)
        self.conv2 = _conv_bn_relu(inputs, 512, 1)
        self.gdconv = GlobalDepthwise(512)
        self.conv3 = nn.Conv2d(512, EMBEDDING, 1)
        self.bn = nn.BatchNorm2d(EMBEDDING)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(self.features(self.dw_conv(self.conv1(x))))
        return cast(Tensor, self.bn(self.conv3(self.gdconv(x)))).flatten(1)
