"""What `make gpu` measures with: sizes, lines of its page, time on a device, its own products."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from pipeline.core.numerics import full_precision
from pipeline.errors import no_memory

TYPES = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp64": torch.float64,
}
OK, UNEQUAL, SKIPPED, FAILED = "ok", "NOT EQUAL", "skipped", "FAILED"


@dataclass(frozen=True)
class Sizes:
    """How much is computed.

    `images` are compared with the processor; `timed` ones, in forwards of `batch`, are timed on the
    device. `gallery`, `probes` and `dimension` are of a search. The exact product has `rows` (m,
    n), and the product of two square matrices, the measure of the rest, has sides of `square`.
    """

    networks: tuple[str, ...]
    images: int
    timed: int
    batch: int
    gallery: int
    probes: int
    dimension: int
    rows: tuple[int, int]
    square: int
    repeats: int


FULL = Sizes(
    networks=(
        "mobilefacenet",
        "iresnet50",
        "iresnet100",
        "crfiqa50",
        "curricularface50",
        "adaface101",
    ),
    images=128,
    timed=1024,
    batch=256,
    gallery=1_000_000,
    probes=10_000,
    dimension=512,
    rows=(4096, 32_768),
    square=8192,
    repeats=5,
)
QUICK = Sizes(
    networks=("mobilefacenet",),
    images=6,
    timed=8,
    batch=4,
    gallery=4000,
    probes=60,
    dimension=64,
    rows=(50, 300),
    square=128,
    repeats=2,
)


@dataclass(frozen=True)
class Line:
    """A path: how far it agrees with the processor, how fast both are, and what follows.

    `share`: of the speed of the device's own matrix product.
    """

    path: str
    verdict: str
    agreement: str
    device: str = "–"
    cpu: str = "–"
    share: str = "–"

    @property
    def good(self) -> bool:
        return self.verdict in (OK, SKIPPED)


def attempted(path: str, job: Callable[[], Line], device: str) -> Line:
    """Return the line of a path; if it raises, one that says so: the other paths go on."""
    try:
        return job()
    except Exception as error:
        return failed(path, error)
    finally:
        gc.collect()
        if device != "cpu":
            torch.cuda.empty_cache()


def failed(path: str, error: Exception) -> Line:
    """Return the line of a path that raised."""
    why = "memory ran out, " if no_memory(error) else ""
    told = f"{why}{type(error).__name__}: {error}".splitlines()[0].replace("|", "/")
    return Line(path, FAILED, f"{told:.300}")


def wait(device: str) -> None:
    """Wait until a GPU has done what was asked of it: calls return before."""
    if device != "cpu":
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], Any], device: str, repeats: int) -> float:
    """Return the median time of some work on a device, after one run that warms it up."""
    work()
    found = []
    for _ in range(repeats):
        wait(device)
        begin = time.perf_counter()
        work()
        wait(device)
        found.append(time.perf_counter() - begin)
    return statistics.median(found)


def peaks(device: str, sizes: Sizes) -> dict[str, float]:
    """Return the operations a second of the device's own product of two square matrices."""
    full_precision()
    made = torch.Generator(device).manual_seed(0)
    found = {}
    for name, kind in TYPES.items():
        # of random numbers: zeros draw less power, and are multiplied faster
        a, b = (
            torch.randn((sizes.square,) * 2, generator=made, device=device).to(kind)
            for _ in range(2)
        )
        found[name] = 2 * sizes.square**3 / seconds(partial(torch.mm, a, b), device, sizes.repeats)
    return found
