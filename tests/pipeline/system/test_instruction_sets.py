"""What `pipeline.system.instruction_sets` says of processors, given by their flags, and of this
one.
"""

from __future__ import annotations

import platform

import pytest

from pipeline.system.instruction_sets import instruction_set, lacks_bf16, processor_flags

AVX2 = "sse4_1 avx avx2 fma avx_vnni"
SKYLAKE = f"{AVX2} avx512f avx512bw avx512dq avx512vl"
COOPER = f"{SKYLAKE} avx512_bf16"
SAPPHIRE = f"{COOPER} amx_tile amx_int8 amx_bf16"


@pytest.mark.parametrize(
    ("machine", "flags", "name"),
    [
        ("x86_64", "fpu sse2", "sse2"),
        ("x86_64", "sse4_1", "sse4"),
        ("x86_64", "sse4_1 avx", "avx"),
        ("x86_64", AVX2, "avx2"),
        (
            "x86_64",
            f"{AVX2} avx512f",
            "avx2",
        ),  # of the first such processors, which libraries do not use
        ("x86_64", SKYLAKE, "avx512"),
        ("x86_64", COOPER, "avx512+bf16"),
        ("x86_64", SAPPHIRE, "avx512+amx"),
        ("aarch64", "fp asimd", "neon"),
        ("aarch64", "fp asimd sve i8mm bf16", "sve+bf16"),
        ("riscv64", "", "riscv64"),
    ],
)
def test_an_instruction_set_is_named_by_the_flags_of_its_processor(
    machine: str, flags: str, name: str
) -> None:
    assert instruction_set(("torch",), flags.split(), {}, machine) == name


@pytest.mark.parametrize(
    ("backends", "limits"),
    [
        (("torch", "opencv"), " (ONEDNN_MAX_CPU_ISA=SSE41, OPENCV_CPU_DISABLE=AVX2)"),
        (("onnxruntime",), ""),
        (("numpy", "scipy"), " (OPENBLAS_CORETYPE=Prescott)"),
    ],
)
def test_what_libraries_are_told_to_leave_unused_is_named_with_it(
    backends: tuple[str, ...], limits: str
) -> None:
    environment = {
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "ATEN_CPU_CAPABILITY": "",
        "OPENCV_CPU_DISABLE": "AVX2",
        "OPENBLAS_CORETYPE": "Prescott",
    }
    assert instruction_set(backends, AVX2.split(), environment, "x86_64") == "avx2" + limits


@pytest.mark.parametrize(
    ("flags", "environment", "lacks"),
    [
        (AVX2, {}, True),
        (SKYLAKE, {}, True),
        (COOPER, {}, False),
        (SAPPHIRE, {}, False),
        (SAPPHIRE, {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}, True),
        (SAPPHIRE, {"DNNL_MAX_CPU_ISA": "avx2"}, True),
        (SAPPHIRE, {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}, False),
        (SAPPHIRE, {"ONEDNN_MAX_CPU_ISA": "ALL"}, False),
        ("asimd sve", {}, True),
        ("asimd bf16", {}, False),
        ("", {}, False),  # a kernel that tells nothing
    ],
)
def test_bf16_is_lacking_where_flags_or_environment_say_so(
    flags: str, environment: dict[str, str], lacks: bool
) -> None:
    assert lacks_bf16(flags.split(), environment) is lacks


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "aarch64"), reason="flags are told otherwise"
)
def test_the_flags_of_this_processor_are_read() -> None:
    assert processor_flags() & {"sse2", "asimd"}
