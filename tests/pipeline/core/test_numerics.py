"""What `pipeline.core.numerics` promises about profiles and the versions of back ends."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np
import pytest

from pipeline.core.numerics import (
    PROFILES,
    backend_version,
    full_precision,
    profile_of,
    require_device,
)
from pipeline.errors import InvalidInput, ResourceRefused


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_is_had_by_its_name(name: str) -> None:
    assert profile_of(name) == PROFILES[name]
    assert profile_of({"profile": name}) == PROFILES[name]


def test_fields_of_a_profile_are_overridden_one_by_one() -> None:
    profile = profile_of({"profile": "cpu-bf16", "threads": 3})
    assert (profile.device, profile.precision, profile.compute_batch, profile.threads) == (
        "cpu",
        "bf16",
        8,
        3,
    )


def test_without_a_name_the_plain_cpu_profile_is_meant() -> None:
    assert profile_of({"compute_batch": 4}) == PROFILES["cpu-fp32"].model_copy(
        update={"compute_batch": 4}
    )


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("cpu-fp23", "unknown numerics profile 'cpu-fp23': did you mean 'cpu-fp32'?"),
        (32, "unknown numerics profile '32'"),
        ({"profile": ["cpu-fp32"]}, "unknown numerics profile"),
        ({"profil": "cpu-bf16"}, "unknown numerics field 'profil': did you mean 'profile'?"),
        ({"thread": 2}, "did you mean 'threads'?"),
        ({"threads": 0}, "threads: expected 1 or more (found 0)"),
        ({"precision": "fp8"}, "precision: "),
        ({"compute_batch": None, "device": "tpu"}, "compute_batch: "),
    ],
    ids=str,
)
def test_what_is_no_profile_is_refused_with_what_was_found(spec: Any, sentence: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        profile_of(spec)
    assert sentence in str(caught.value)


def test_a_cpu_profile_needs_no_device() -> None:
    require_device(profile_of("cpu-fp32"))


def test_a_cuda_profile_is_refused_where_there_is_no_gpu() -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ResourceRefused, match=r"'cuda-fp16' needs a CUDA device .* use cpu-fp32"):
        require_device(profile_of("cuda-fp16"))


def test_on_a_gpu_nothing_is_rounded_further_than_asked_nor_left_to_chance() -> None:
    torch = pytest.importorskip("torch")
    torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
    full_precision()
    assert torch.backends.cudnn.deterministic
    assert not torch.backends.cudnn.benchmark
    assert not torch.backends.cudnn.allow_tf32
    matmul = torch.backends.cuda.matmul
    assert not matmul.allow_tf32
    assert not matmul.allow_fp16_reduced_precision_reduction
    assert not matmul.allow_bf16_reduced_precision_reduction


def test_a_back_end_is_named_by_its_installed_version_or_absent() -> None:
    assert backend_version("numpy") == np.__version__
    assert backend_version("opencv") == version("opencv-python-headless")
    assert backend_version("no-such-distribution") == "absent"
