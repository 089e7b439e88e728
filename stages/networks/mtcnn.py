"""MTCNN (Zhang et al., 2016): the three networks of its cascade, as public PyTorch state dicts.

Conventions: images are RGB, (x − 127.5) / 128. Corrections are left, top, right, bottom, as shares
of the window's width and height; landmarks are five x, then five y, as shares of the window from
its left upper corner. Probability: that the window holds a face.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn


def _conv_prelu(inputs: int, outputs: int, kernel: int) -> tuple[nn.Conv2d, nn.PReLU]:
    return nn.Conv2d(inputs, outputs, kernel), nn.PReLU(outputs)


def _pool(kernel: int) -> nn.MaxPool2d:
    return nn.MaxPool2d(kernel, 2, ceil_mode=True)


def _flat(x: Tensor) -> Tensor:
    """Flatten (n, c, h, w) column by column: the first weights were MATLAB's."""
    return x.transpose(1, 3).flatten(1)


def _probability(logits: Tensor) -> Tensor:
    """Return the second class's probability; classes are the second axis."""
    return logits.softmax(dim=1)[:, 1]


class ProposalNet(nn.Module):
    """Maps (n, 3, h, w) to probability (n, y, x) and corrections (n, 4, y, x).

    The windows are of 12 × 12 pixels, one every two pixels.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = _conv_prelu(3, 10, 3)
        self.conv2, self.prelu2 = _conv_prelu(10, 16, 3)
        self.conv3, self.prelu3 = _conv_prelu(16, 32, 3)
        self.conv4_1, self.conv4_2 = nn.Conv2d(32, 2, 1), nn.Conv2d(32, 4, 1)
        self.pool1 = _pool(2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.pool1(self.prelu1(self.conv1(x)))
        x = self.prelu3(self.conv3(self.prelu2(self.conv2(x))))
        return _probability(self.conv4_1(x)), cast(Tensor, self.conv4_2(x))


class RefinementNet(nn.Module):
    """Maps windows (n, 3, 24, 24) to probability (n,) and corrections (n, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = _conv_prelu(3, 28, 3)
        self.conv2, self.prelu2 = _conv_prelu(28, 48, 3)
        self.conv3, self.prelu3 = _conv_prelu(48, 64, 2)
        self.dense4, self.prelu4 = nn.Linear(576, 128), nn.PReLU(128)
        self.dense5_1, self.dense5_2 = nn.Linear(128, 2), nn.Linear(128, 4)
        self.pool1, self.pool2 = _pool(3), _pool(3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.pool1(self.prelu1(self.conv1(x)))
        x = self.pool2(self.prelu2(self.conv2(x)))
        x = self.prelu3(self.conv3(x))
        x = self.prelu4(self.dense4(_flat(x)))
        return _probability(self.dense5_1(x)), cast(Tensor, self.dense5_2(x))


class OutputNet(nn.Module):
    """Maps windows (n, 3, 48, 48) to probability (n,), corrections (n, 4), landmarks (n, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = _conv_prelu(3, 32, 3)
        self.conv2, self.prelu2 = _conv_prelu(32, 64, 3)
        self.conv3, self.prelu3 = _conv_prelu(64, 64, 3)
        self.conv4, self.prelu4 = _conv_prelu(64, 128, 2)
        self.dense5, self.prelu5 = nn.Linear(1152, 256), nn.PReLU(256)
        self.dense6_1, self.dense6_2 = nn.Linear(256, 2), nn.Linear(256, 4)
        self.dense6_3 = nn.Linear(256, 10)
        self.pool1, self.pool2, self.pool3 = _pool(3), _pool(3), _pool(2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.pool1(self.prelu1(self.conv1(x)))
        x = self.pool2(self.prelu2(self.conv2(x)))
        x = self.pool3(self.prelu3(self.conv3(x)))
        x = self.prelu4(self.conv4(x))
        x = self.prelu5(self.dense5(_flat(x)))
        return _probability(self.dense6_1(x)), self.dense6_2(x), self.dense6_3(x)


class MtcnnNetworks(nn.Module):
    """The three networks, whose names begin with pnet, rnet and onet."""

    def __init__(self) -> None:
        super().__init__()
        self.pnet, self.rnet, self.onet = ProposalNet(), RefinementNet(), OutputNet()
