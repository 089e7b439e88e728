"""Networks on a device beside the processor: PyTorch models in each precision, and ONNX graphs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
import torch

from benchmarks.gpu_lines import OK, SKIPPED, TYPES, UNEQUAL, Line, Sizes, attempted, seconds
from benchmarks.random_networks import card_of, checkpoint, graph, operations, smooth_crops
from pipeline.core.numerics import PROFILES, Profile
from stages.models.backends import ModelOutput, open_model
from stages.models.cards import ModelCard, WeightFile

# Set before the first run: the least cosine of a face's embedding with the processor's, in float32,
# and the most that a quality score may be off, as a share of the largest.
COSINE = {"fp32": 0.999999, "fp16": 0.9995, "bf16": 0.999}
QUALITY = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 5e-2}
# of the page, and the profile and precision that they stand for
WAYS = {
    "`cuda-fp32`": ("cuda-fp32", "fp32"),
    "`cuda-fp16`": ("cuda-fp16", "fp16"),
    "`cuda-fp16` with `precision: bf16`": ("cuda-fp16", "bf16"),
}


@dataclass(frozen=True)
class Truth:
    """A model, what the processor answers in float32 on all cores, and its images a second."""

    card: ModelCard
    weights: WeightFile
    cost: int  # operations for one image
    answer: ModelOutput
    speed: float

    @staticmethod
    def of(card: ModelCard, weights: WeightFile, cost: int, sizes: Sizes) -> Truth:
        profile = PROFILES["cpu-fp32"].model_copy(
            update={
                "threads": len(os.sched_getaffinity(0)),
                "compute_batch": min(sizes.batch, PROFILES["cpu-fp32"].compute_batch),
            }
        )
        model, crops = open_model(card, weights, profile), smooth_crops(sizes.images)
        model(crops[:1])
        begin = time.perf_counter()
        answer = model(crops)
        return Truth(card, weights, cost, answer, len(crops) / (time.perf_counter() - begin))


def network_lines(
    architecture: str, device: str, sizes: Sizes, peak: dict[str, float]
) -> Iterator[Line]:
    """Yield the lines of one architecture with random weights."""
    cost = operations(architecture)
    truth = Truth.of(card_of(architecture), checkpoint(architecture), cost, sizes)
    for way, (name, precision) in WAYS.items():
        path = f"{architecture}, {way}"
        if device == "cpu" and precision == "fp16":
            yield Line(path, SKIPPED, "PyTorch models compute in float16 on a GPU only")
            continue
        profile = _profile(name, precision, device, sizes)
        yield attempted(path, partial(_line, path, truth, profile, sizes, peak), device)


def graph_lines(device: str, sizes: Sizes, peak: dict[str, float]) -> Iterator[Line]:
    """Yield the line of an ONNX graph."""
    path = "ONNX graph, `cuda-fp32`"
    try:
        ort = import_module("onnxruntime")
        card, weights, cost = graph()
    except ImportError as error:
        yield Line(path, SKIPPED, f"{error.name} is not installed")
        return
    if device != "cpu" and "CUDAExecutionProvider" not in ort.get_available_providers():
        yield Line(path, SKIPPED, "this ONNX Runtime has no CUDA provider")
        return
    truth = Truth.of(card, weights, cost, sizes)
    profile = _profile("cuda-fp32", "fp32", device, sizes)
    yield attempted(path, partial(_line, path, truth, profile, sizes, peak), device)


def _profile(name: str, precision: str, device: str, sizes: Sizes) -> Profile:
    changed = {"precision": precision, "device": device, "compute_batch": sizes.batch}
    return PROFILES[name].model_copy(update=changed)


def _line(path: str, truth: Truth, profile: Profile, sizes: Sizes, peak: dict[str, float]) -> Line:
    model, crops = open_model(truth.card, truth.weights, profile), smooth_crops(sizes.images)
    answer = model(crops)
    good, told = agreement(truth.answer, answer, profile.precision)
    # The order of faces and what other threads do must not matter: a profile promises that.
    with ThreadPoolExecutor(2) as pool:
        again = pool.map(model, [np.ascontiguousarray(crops[::-1])] * 2)
        same = all(_same_bits(answer, turned) for turned in again)
    many = np.resize(crops, (sizes.timed, *crops.shape[1:]))
    speed = sizes.timed / seconds(partial(model, many), profile.device, sizes.repeats)
    shown = f"{speed:,.0f} images/s"
    if truth.card.architecture != "onnx":
        speed = _alone(model, profile, sizes)
        shown += f"; network alone {speed:,.0f}"
    return Line(
        path,
        OK if good and same else UNEQUAL,
        f"{told}; {'the same' if same else 'OTHER'} bits in another order, from two threads",
        shown,
        f"{truth.speed:,.0f} images/s",
        f"{speed * truth.cost / peak[profile.precision]:.1%}",
    )


def _alone(model: Any, profile: Profile, sizes: Sizes) -> float:
    """Return the images a second of a PyTorch network itself.

    It gets planes that lie on its device. Preparing and copying them is a call's work, which the
    workers of a run do beside each other.
    """
    planes = torch.rand((sizes.batch, 3, 112, 112), device=profile.device)
    planes = planes.to(TYPES[profile.precision], memory_format=torch.channels_last)
    forward: Callable[[], Any] = partial(model._network, planes)
    with torch.inference_mode():
        return sizes.batch / seconds(forward, profile.device, sizes.repeats)


def agreement(truth: ModelOutput, answer: ModelOutput, precision: str) -> tuple[bool, str]:
    """Return whether an answer is within the limits of its precision, and how far it is off."""
    limits, told = [], []
    if truth.embedding is not None and answer.embedding is not None:
        a, b = (each.astype(np.float64) for each in (truth.embedding, answer.embedding))
        lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        cosine = float(((a * b).sum(axis=1) / lengths).min())
        limits.append(cosine >= COSINE[precision])  # nan is not
        told.append(f"smallest cosine {cosine:.8f}")
    if truth.quality is not None and answer.quality is not None:
        off = float(np.abs(truth.quality - answer.quality).max() / np.abs(truth.quality).max())
        limits.append(off <= QUALITY[precision])
        told.append(f"quality within {off:.1e} of the largest score")
    return bool(limits) and all(limits), ", ".join(told)


def _same_bits(answer: ModelOutput, turned: ModelOutput) -> bool:
    """Whether a model gave each face the same when faces came in the opposite order."""
    pairs = ((answer.embedding, turned.embedding), (answer.quality, turned.quality))
    return all(np.array_equal(a, b[::-1]) for a, b in pairs if a is not None and b is not None)
