"""Fixtures for model tests: a numerics profile, the shipped cards, crops of noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Profile:
    device: str = "cpu"
    precision: str = "fp32"
    compute_batch: int = 4
    threads: int = 1
    engine: str = "onnxruntime"


@pytest.fixture(scope="session", params=["onnxruntime", "openvino"])
def profile(request: pytest.FixtureRequest) -> Callable[..., Profile]:
    return partial(Profile, engine=request.param)


@pytest.fixture(scope="session")
def cards_file() -> Path:
    return ROOT / "data_manifests" / "models.yaml"


@pytest.fixture(scope="session")
def crops() -> np.ndarray:
    """Nine noise crops, uint8 RGB."""
    return np.random.default_rng(7).integers(0, 256, (9, 112, 112, 3), dtype=np.uint8)
