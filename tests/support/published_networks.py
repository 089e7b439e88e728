"""Published networks with weights made by rule, and the outputs that their own modules gave.

`layouts/README.md` of the shared files says how both were made.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stages.networks.architectures import ARCHITECTURES
from stages.networks.ir import IR

Layout = Sequence[tuple[str, list[int]]]

# The published module → the architecture of a card.
PUBLISHED = {
    **{f"arcface_torch_iresnet{depth}": f"iresnet{depth}" for depth in (18, 34, 50, 100)},
    "elasticface_iresnet100": "iresnet100",
    "crfiqa_iresnet50": "crfiqa50",
    "crfiqa_iresnet100": "crfiqa100",
    "magface_iresnet50": "magface50",
    "magface_iresnet100": "magface100",
    "curricularface_ir50": "curricularface50",
    "curricularface_ir101": "curricularface101",
    **{f"adaface_ir{depth}": f"adaface{depth}" for depth in (18, 34, 50, 101)},
}


def layouts(shared: Path) -> dict[str, Layout]:
    with gzip.open(shared / "layouts/layouts.json.gz") as file:
        found: dict[str, Layout] = json.load(file)
    return found


def golden(shared: Path) -> dict[str, Any]:
    text = (shared / "layouts/golden.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)["golden"]
    return found


def deviation(name: str, layout: Layout, outputs: Sequence[Any]) -> float:
    """Return the largest deviation from the outputs, relative to their size where that is above 1;
    they are given to ten digits. Infinite if a shape differs.
    """
    with torch.device("meta"):
        network = ARCHITECTURES[PUBLISHED[name]].build()
    network.load_state_dict(filled(layout), assign=True)
    with torch.inference_mode():
        found = [output.numpy() for output in answers(network.double().eval(), name)]
    if [list(each.shape) for each in found] != [each["shape"] for each in outputs]:
        return np.inf
    worst = 0.0
    for own, expected in zip(found, outputs, strict=True):
        parts = (
            (own[0].ravel()[: len(expected["first"])], expected["first"]),
            (own[1].ravel()[: len(expected["second_image"])], expected["second_image"]),
            (np.linalg.norm(own, axis=1), expected["norms"]),
        )
        for values, wanted in parts:
            size = np.maximum(np.abs(wanted), 1)
            worst = max(worst, float((np.abs(values - np.array(wanted)) / size).max()))
    return worst


def answers(network: nn.Module, name: str) -> list[Tensor]:
    """Return what the published module returns: AdaFace's gives direction and length apart,
    CurricularFace's the feature map as well.
    """
    found = network(images())
    if isinstance(found, tuple):
        return [found[0], found[1][:, None]]
    if name.startswith("adaface"):
        length = found.norm(dim=1, keepdim=True)
        return [found / length, length]
    if isinstance(network, IR):
        return [found, network.features(images()).flatten(1)]
    return [found]


@cache
def images() -> Tensor:
    i = np.arange(1, 2 * 3 * 112 * 112 + 1, dtype=np.float64)
    values = 2 * np.modf(i * 0.7548776662466927)[0] - 1
    return torch.from_numpy(values.reshape(2, 3, 112, 112))


def filled(layout: Sequence[tuple[str, list[int]]]) -> dict[str, Tensor]:
    """Return weights by the rule of the golden outputs."""
    names = {name for name, _ in layout}
    return {
        name: torch.zeros(shape, dtype=torch.int64)
        if name.endswith("num_batches_tracked")
        else torch.from_numpy(_values(name, shape, k, names))
        for k, (name, shape) in enumerate(layout)
    }


def _values(name: str, shape: list[int], k: int, names: set[str]) -> np.ndarray:
    i = np.arange(1, int(np.prod(shape)) + 1, dtype=np.float64)
    u = np.modf((i + 1009 * k) * 0.6180339887498949)[0].reshape(shape)
    if len(shape) >= 2:
        return (2 * u - 1) * np.sqrt(3 / np.prod(shape[1:]))
    if name.endswith("running_var"):
        return 0.8 + 0.4 * u
    if name.endswith(("running_mean", "bias")):
        return 0.2 * (u - 0.5)
    of_norm = f"{name.rpartition('.')[0]}.running_mean" in names
    return 0.8 + 0.4 * u if of_norm else 0.1 + 0.3 * u
