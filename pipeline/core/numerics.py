"""Numerics profiles: everything about *how* numbers are computed that may change their last bits.

Inside one profile results are bit-equal, however many workers run and however often they are
interrupted. A profile is chosen before planning and enters the key of every step whose last bits it
may change (`Stage.profiled`).
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.config.validation import validate
from pipeline.errors import InvalidInput, ResourceRefused, unknown


class Profile(BaseModel):
    """Device class, precision, rows in one forward (tails padded to it) and threads a model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    device: Literal["cpu", "cuda"] = "cpu"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    # of more rows a large network's maps leave the cache of a core: an eighth slower at 32
    compute_batch: int = Field(8, ge=1, le=4096)
    threads: int = Field(1, ge=1, le=256)
    # of ONNX graphs; it is in a key as the back end of a stage that runs one
    engine: Literal["onnxruntime", "openvino"] = "onnxruntime"


PROFILES = {
    profile.name: profile
    for profile in (
        Profile(name="cpu-fp32"),
        Profile(name="cpu-bf16", precision="bf16"),
        Profile(name="cuda-fp32", device="cuda", compute_batch=256),
        Profile(name="cuda-fp16", device="cuda", precision="fp16", compute_batch=256),
    )
}


# the back ends that compute on a profile's device
ON_DEVICE = {"torch", "onnxruntime", "openvino"}
# A profile sets nothing of these but the threads of a product, and stages multiply exactly.
ALIKE = {"numpy", "scipy"}


def profile_of(spec: str | dict[str, Any]) -> Profile:
    """Return a profile by its name, or from {profile: NAME, threads: 2, …}, fields overridden."""
    fields = dict(spec) if isinstance(spec, dict) else {"profile": spec}
    name = fields.pop("profile", "cpu-fp32")
    if not isinstance(name, str) or name not in PROFILES:
        raise InvalidInput(unknown("numerics profile", str(name), PROFILES))
    for field in fields:
        if field not in Profile.model_fields:
            raise InvalidInput(unknown("numerics field", field, ["profile", *Profile.model_fields]))
    profile: Profile = validate(Profile, {**PROFILES[name].model_dump(), **fields}, "numerics")
    return profile


def require_device(profile: Profile) -> None:
    """Raise ResourceRefused if the profile asks for a GPU and there is none."""
    if profile.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise ResourceRefused(
                f"numerics {profile.name!r} needs a CUDA device and none is usable; use cpu-fp32."
            )


def full_precision() -> None:
    """Make PyTorch compute on a GPU by fixed algorithms and in the precision that is asked for.

    Otherwise it may round float32 to TF32 and sum products of halves in halves, and results change
    from run to run. It holds for the whole process.
    """
    from torch import backends

    backends.cudnn.benchmark, backends.cudnn.deterministic = False, True
    backends.cudnn.allow_tf32 = backends.cuda.matmul.allow_tf32 = False
    backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False


@cache
def backend_version(distribution: str) -> str:
    """Return the installed version of a back end's distribution, or 'absent'."""
    names = {
        "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
        "opencv": ("opencv-python-headless", "opencv-python"),
    }
    for name in names.get(distribution, (distribution,)):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "absent"
