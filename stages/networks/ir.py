"""The IR networks of CurricularFace and AdaFace: ArcFace's improved ResNet as one flat body.

The attribute names are those of the published checkpoints, so a state dict loads without renaming.
The two projects' blocks differ: AdaFace has a batch norm more in each. Sources: Huang et al.,
CurricularFace (CVPR 2020); Kim et al., AdaFace (CVPR 2022), their published modules' layouts.
"""

from __future__ import annotations

from typing import Literal, cast

from torch import Tensor, nn

# Blocks of each width. What is called 18 and 34 has blocks of the same form as the others.
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 14, 3), 101: (3, 13, 30, 3)}
WIDTHS = (64, 128, 256, 512)
EMBEDDING = 512
Form = Literal["curricularface", "adaface"]


class Block(nn.Module):
    """The two convolutions of a block, between batch norms, plus the shortcut; nothing after the
    sum.
    """

    def __init__(self, form: Form, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        # A pooling window of one pixel takes every `stride`-th.
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        if inputs != outputs:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False),
            *([nn.BatchNorm2d(outputs)] if form == "adaface" else []),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.res_layer(x) + self.shortcut_layer(x))


class IR(nn.Module):
    """An IR network of `depth` 18, 34, 50 or 101 layers."""

    # Kept in float32 in every precision: few multiplications, and what is read of the embedding.
    heads = ("output_layer",)

    def __init__(self, depth: int, form: Form, dropout: float = 0.4) -> None:
        super().__init__()
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, WIDTHS[0], 3, 1, 1, bias=False),
            nn.BatchNorm2d(WIDTHS[0]),
            nn.PReLU(WIDTHS[0]),
        )
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(WIDTHS[-1]),
            nn.Dropout(dropout),
            nn.Flatten(),
            nn.Linear(WIDTHS[-1] * 7 * 7, EMBEDDING),
            nn.BatchNorm1d(EMBEDDING, affine=False),
        )
        blocks, inputs = [], WIDTHS[0]
        for width, count in zip(WIDTHS, BLOCKS[depth], strict=True):
            for i in range(count):
                blocks.append(Block(form, inputs, width, 2 if i == 0 else 1))
                inputs = width
        self.body = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, 3, 112, 112) normalised images to embeddings (n, 512), not normalised: AdaFace's
        module gives their direction and length apart.
        """
        features, full = self.features(x), next(self.output_layer.parameters()).dtype
        return cast(Tensor, self.output_layer(features.to(full)))

    def features(self, x: Tensor) -> Tensor:
        """Return the feature map (n, 512, 7, 7) that the embedding is made of."""
        return cast(Tensor, self.body(self.input_layer(x)))
