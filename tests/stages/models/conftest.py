"""Fixtures for model tests: the folder of real weights, a numerics profile, a tiny ONNX graph."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
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


@pytest.fixture(scope="session")
def profile() -> Callable[..., Profile]:
    return Profile


@pytest.fixture(scope="session")
def weights() -> Path:
    """The folder of real weight files, kept beside the project."""
    folder = Path(os.environ.get("QFUSE_SHARED", ROOT.parent / "shared")) / "models"
    if not folder.is_dir():
        pytest.skip(
            f"real weight files are absent: no folder {folder}; set QFUSE_SHARED to where they are"
        )
    return folder


@pytest.fixture(scope="session")
def cards_file() -> Path:
    return ROOT / "data_manifests" / "models.yaml"


@pytest.fixture(scope="session")
def crops() -> np.ndarray:
    """Nine noise crops, uint8 RGB."""
    return np.random.default_rng(7).integers(0, 256, (9, 112, 112, 3), dtype=np.uint8)
