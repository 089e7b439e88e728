"""Networks: the published module as it is run, beside ours as a run has it; the same weights.

`Published` is the iresnet of the field's repositories in our own words: batch norms where training
left them, eager, in float32, planes apart. Weights are random, in the published layout.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from time import perf_counter
from typing import cast

import numpy as np
import torch
from safetensors.torch import load
from torch import Tensor, nn

from benchmarks.material import PROFILE, WORKERS, Row
from benchmarks.random_networks import card_of, checkpoint, operations, smooth_crops
from pipeline.core.numerics import PROFILES, Profile
from pipeline.core.schema import Array
from pipeline.system.instruction_sets import instruction_set, lacks_bf16
from stages.models.backends import FaceModel, open_model

LAYERS = {18: (2, 2, 2, 2), 50: (3, 4, 14, 3), 100: (3, 13, 30, 3)}
BATCH = 8  # of the published module: its fastest
SQUARE = 4096  # rows of the product that tells what the machine can do
COST = "convolutions are nearly all of the work, and the same library computes both sides'"


class PublishedBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.prelu = nn.PReLU(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        return cast(
            Tensor, self.bn3(self.conv2(y)) + (x if self.downsample is None else self.downsample(x))
        )


class Published(nn.Module):
    """Maps (n, 3, 112, 112) to (n, 512)."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.bn1, self.prelu = nn.BatchNorm2d(64), nn.PReLU(64)
        inputs = 64
        for number, (outputs, count) in enumerate(
            zip((64, 128, 256, 512), LAYERS[depth], strict=True), 1
        ):
            blocks = [PublishedBlock(inputs, outputs, 2)]
            blocks += [PublishedBlock(outputs, outputs, 1) for _ in range(count - 1)]
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
            inputs = outputs
        self.bn2, self.dropout = nn.BatchNorm2d(512), nn.Dropout(0.4)
        self.fc, self.features = nn.Linear(512 * 7 * 7, 512), nn.BatchNorm1d(512)

    def forward(self, x: Tensor) -> Tensor:
        x = self.prelu(self.bn1(self.conv1(x)))
        for number in range(1, 5):
            x = getattr(self, f"layer{number}")(x)
        return cast(Tensor, self.features(self.fc(self.dropout(torch.flatten(self.bn2(x), 1)))))


def rows(count: int = 64, depths: Sequence[int] = (50, 100)) -> list[Row]:
    """Return the lines, each of `count` random crops."""
    return [row for depth in depths for row in _network_rows(depth, count)]


def _network_rows(depth: int, count: int) -> list[Row]:
    crops = smooth_crops(count)
    network = published(depth)

    def theirs() -> Array:
        return by_published(network, crops)

    def row(what: str, profile: Profile, workers: int) -> Row:
        return Row(
            f"iresnet{depth}, {what}, {count} crops",
            ours_of(depth, profile, crops, workers),
            theirs,
            smallest_cosine,
            count,
            "images/s",
            COST,
            gflop=count * operations(f"iresnet{depth}") / 1e9,
            precision=profile.precision,
        )

    bf16 = f"iresnet{depth}, bf16, {count} crops"
    many = PROFILE.model_copy(update={"threads": WORKERS})
    found = [row(f"fp32, {WORKERS} workers of 1 thread", PROFILE, WORKERS)]
    if WORKERS > 1:
        found.append(row(f"fp32, 1 worker of {WORKERS} threads", many, 1))
    if lacks_bf16():
        return [*found, Row(bf16, lambda: None, absent="no bf16 instructions here")]
    with_what = f"bf16 with {instruction_set(['torch'])}, {WORKERS} workers of 1 thread"
    return [*found, row(with_what, PROFILES["cpu-bf16"], WORKERS)]


@cache
def published(depth: int) -> Published:
    """Return the module with random weights, those of its batch norms too."""
    with torch.device("meta"):
        network = Published(depth)
    network.load_state_dict(load(checkpoint(f"iresnet{depth}").data), assign=True)
    return network.eval()


def by_published(network: nn.Module, crops: Array) -> Array:
    """Return embeddings (n, 512), on all cores, as the field's scripts compute them."""
    torch.set_num_threads(WORKERS)
    found = []
    with torch.inference_mode():
        for start in range(0, len(crops), BATCH):
            part = torch.from_numpy(crops[start : start + BATCH])
            images = part.permute(0, 3, 1, 2).float().div(255).sub(0.5).div(0.5).contiguous()
            found.append(network(images).numpy())
    return np.concatenate(found)


def ours_of(depth: int, profile: Profile, crops: Array, workers: int) -> Callable[[], Array]:
    """Return what gives the embeddings (n, 512), micro-batches on `workers` threads as in a run.

    The model is opened at the first call.
    """
    size = profile.compute_batch
    parts = [crops[start : start + size] for start in range(0, len(crops), size)]

    @cache
    def model() -> FaceModel:
        return open_model(card_of(f"iresnet{depth}"), checkpoint(f"iresnet{depth}"), profile)

    def ours() -> Array:
        with ThreadPoolExecutor(workers) as pool:
            return np.concatenate([said.embedding for said in pool.map(model(), parts)])

    return ours


def smallest_cosine(theirs: Array, ours: Array) -> str:
    x, y = (each.astype(np.float64) for each in (theirs, ours))
    cosine = (x * y).sum(axis=1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
    return f"smallest cosine {cosine.min():.6f}"


@cache
def product_rate(precision: str, square: int = SQUARE) -> float:
    """Return the GFLOP/s of PyTorch's product of two squares on all cores: the best of five."""
    torch.set_num_threads(WORKERS)
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    x = torch.rand(square, square).to(kind)
    seconds = []
    with torch.inference_mode():
        for _ in range(5):
            begin = perf_counter()
            torch.matmul(x, x)
            seconds.append(perf_counter() - begin)
    return 2 * square**3 / min(seconds) / 1e9
