"""What `pipeline.run.microbatch` promises: rows fail alone for what is theirs, and never for what
the machine lacks.
"""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import toy
from laboratory import Lab
from machine import no_more_files

from pipeline.core.schema import Array, Batch
from pipeline.errors import ResourceRefused
from pipeline.run.microbatch import machine_refusal


class OutOfMemoryError(RuntimeError):
    """As PyTorch's is called; it has a message of its own."""


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            MemoryError(),
            (
                "memory ran out .* fewer workers, or a smaller numerics.compute_batch or"
                " dataset.shard_rows"
            ),
        ),
        (OutOfMemoryError("CUDA"), "memory ran out"),
        (RuntimeError("alloc fail (cudaMalloc error out of memory [2])"), "memory ran out"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED in cublasCreate"), "memory ran out"),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"
            ),
            "memory ran out",
        ),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "memory ran out"),
        (OSError(errno.EMFILE, "Too many open files"), "raise `ulimit -n`, or use fewer workers"),
        (OSError(errno.ENOSPC, "No space left on device"), "free some space"),
        (OSError(errno.EIO, "Input/output error"), "check the disk"),
        (ImportError("libopenblas.so: failed to map segment from shared object"), "memory ran out"),
        (
            RuntimeError("can't start new thread"),
            r"the system refused a thread .*, or raise the limit \(`ulimit -u`\)",
        ),
        (
            BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"),
            "the system refused a thread",
        ),
        (
            ModuleNotFoundError("No module named 'x'"),
            r"a library is missing or broken \(.*'x'\): install it",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_the_machine_lacks_ends_the_run_with_what_to_do(
    lab: Lab, error: Exception, sentence: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toy.Measure, "load", failing_at(lab, 5, error))
        with pytest.raises(
            ResourceRefused,
            match=f"measure: .*{sentence}.*, and run again. Nothing of these rows was stored",
        ):
            lab.run()
    assert 1 in {
        task.index for task in lab.session().plan.steps["measure"].to_run
    }  # the shard of that row
    assert lab.run().runner.summary.failures["measure"] == {}


def failing_at(lab: Lab, row: int, error: Exception) -> object:
    """`Measure.load`, which raises `error` whenever it meets one row."""
    load = toy.Measure.load

    def broken(stage: toy.Measure, rows: Batch) -> Array:
        if any(path.startswith(f"{row:02}.") for path in rows["path"]):
            raise error
        return load(stage, rows)

    return broken


def test_a_row_that_meets_a_process_without_open_files_is_not_a_failed_row(lab: Lab) -> None:
    with pytest.MonkeyPatch.context() as patch:
        load = toy.Measure.load

        def starved(stage: toy.Measure, rows: Batch) -> Array:
            with no_more_files():
                return load(stage, rows)

        patch.setattr(toy.Measure, "load", starved)
        # the whole process is without, not a thread
        one = ("dataset.shard_rows={faces: 100}", "numerics.compute_batch=100")
        with pytest.raises(ResourceRefused, match="Too many open files"):
            lab.run("run.workers=1", *one)
    assert lab.artifacts() == {}


def test_opencv_without_memory_is_the_machines_trouble() -> None:
    code = """
import resource, cv2, numpy as np
image = np.zeros((1000, 1000), np.uint8)
resource.setrlimit(resource.RLIMIT_AS, (1 << 31, 1 << 31))
try:
    cv2.resize(image, (60_000, 60_000))
except Exception as error:
    from pipeline.run.microbatch import machine_refusal
    print(machine_refusal("align", error))
"""
    root = Path(__file__).resolve().parents[3]
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert answer.stdout.startswith("align: memory ran out (error: OpenCV")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("could not convert 'std::bad_alloc' to float"),
        OSError("image file is truncated"),
        RuntimeError("shape mismatch"),
        ZeroDivisionError(),
        cv2.error("(-215:Assertion failed)"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_rows_may_have_caused_is_not_the_machines_trouble(error: Exception) -> None:
    assert machine_refusal("align", error) is None
