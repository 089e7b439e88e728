"""Instruction sets: which one computes here, and whether it has bf16.

Networks, and OpenCV's warps, give other last bits with other instruction sets (AVX2, AVX-512, AMX),
under the same keys. So every receipt names the one that computed it: the processor's, and what its
libraries are told to leave unused.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Collection, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

# back ends whose results depend on it; those of NumPy and SciPy are made not to
DEPENDENT = {"torch", "onnxruntime", "openvino", "opencv"}

# From the least to the most, by the flags of /proc/cpuinfo.
_AVX512 = {"avx512f", "avx512bw", "avx512dq", "avx512vl"}
_X86 = {
    "sse2": set[str](),
    "sse4": {"sse4_1"},
    "avx": {"avx"},
    "avx2": {"avx2", "fma"},
    "avx512": _AVX512,
    "avx512+bf16": {*_AVX512, "avx512_bf16"},
    "avx512+amx": {*_AVX512, "amx_tile", "amx_bf16"},
}
_ARM = {"neon": set[str](), "neon+bf16": {"bf16"}, "sve": {"sve"}, "sve+bf16": {"sve", "bf16"}}
_LEVELS = {"x86_64": _X86, "AMD64": _X86, "aarch64": _ARM, "arm64": _ARM}

# The variables by which a library of a back end uses less than the processor has.
_ONEDNN = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
_LIMITS = {
    "torch": (*_ONEDNN, "ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR"),
    "opencv": ("OPENCV_CPU_DISABLE",),
    "numpy": ("NPY_DISABLE_CPU_FEATURES", "OPENBLAS_CORETYPE"),
    "scipy": ("OPENBLAS_CORETYPE",),
}
# oneDNN's names of levels without bf16
_NO_BF16 = {"sse41", "avx", "avx2", "avx2_vnni", "avx512_core", "avx512_core_vnni"}


@cache
def processor_flags() -> frozenset[str]:
    """Return the processor's flags, as the kernel calls them; none if the kernel does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    told = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return frozenset(told.partition(":")[2].split())


@cache
def processor() -> str:
    """Return what the processor calls itself, or its kind if the kernel does not say."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def instruction_set(
    backends: Collection[str],
    flags: Collection[str] | None = None,
    environment: Mapping[str, str] = os.environ,
    machine: str = platform.machine(),
) -> str:
    """Return what these back ends compute with here.

    For instance "avx2" or "avx512+amx (ONEDNN_MAX_CPU_ISA=SSE41)".
    """
    found = processor_flags() if flags is None else frozenset(flags)
    levels = _LEVELS.get(machine, {machine: set[str]()})
    name = [level for level, needed in levels.items() if needed <= found][-1]
    variables = dict.fromkeys(
        variable for backend in backends for variable in _LIMITS.get(backend, ())
    )
    limits = ", ".join(
        f"{variable}={environment[variable]}" for variable in variables if environment.get(variable)
    )
    return f"{name} ({limits})" if limits else name


def gpu_architecture() -> str:
    """Return the GPU's, such as "cuda sm_90"; "" if torch is not imported: that takes seconds."""
    torch = sys.modules.get("torch")
    if not torch or not torch.cuda.is_available():
        return ""
    return "cuda sm_{}{}".format(*torch.cuda.get_device_capability())


def lacks_bf16(
    flags: Collection[str] | None = None, environment: Mapping[str, str] = os.environ
) -> bool:
    """Whether PyTorch has no instructions for bf16 here; False if the kernel does not say."""
    found = processor_flags() if flags is None else frozenset(flags)
    most = next((environment[name].lower() for name in _ONEDNN if environment.get(name)), "")
    return bool(found) and (
        most in _NO_BF16 or found.isdisjoint({"avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16"})
    )
