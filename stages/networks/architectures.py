"""architectures: the networks that a card may name, each with the published names and shapes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from stages.networks.ir import IR
from stages.networks.iresnet import IResNet
from stages.networks.mobilefacenet import MobileFaceNet
from stages.networks.mtcnn import MtcnnNetworks


@dataclass(frozen=True)
class Architecture:
    """How a network is made, and what one forward of it gives."""

    build: Callable[[], nn.Module]
    embedding: int  # the length of its embedding
    quality: bool = False  # whether it gives a raw quality score as well

    @property
    def dimension(self) -> int:
        """What `dimension` says on a card: 1 for a quality score, else the embedding's length."""
        return 1 if self.quality else self.embedding


def _iresnet(depth: int, quality: bool = False, eps: float = 1e-5) -> Architecture:
    return Architecture(partial(IResNet, depth, quality, eps), 512, quality)


ARCHITECTURES: dict[str, Architecture] = {
    # ArcFace (arcface_torch), ElasticFace and most that followed them
    **{f"iresnet{depth}": _iresnet(depth) for depth in (18, 34, 50, 100)},
    # MagFace was trained with another eps of its batch norms, which no file tells.
    **{f"magface{depth}": _iresnet(depth, eps=2e-5) for depth in (18, 50, 100)},
    **{f"crfiqa{depth}": _iresnet(depth, quality=True) for depth in (50, 100)},
    **{
        f"curricularface{depth}": Architecture(partial(IR, depth, "curricularface"), 512)
        for depth in (50, 101)
    },
    **{
        f"adaface{depth}": Architecture(partial(IR, depth, "adaface"), 512)
        for depth in (18, 34, 50, 101)
    },
    "mobilefacenet": Architecture(MobileFaceNet, 128),
}

# Networks of detectors, which take photographs and give no embedding.
DETECTORS: dict[str, Callable[[], nn.Module]] = {"mtcnn": MtcnnNetworks}
