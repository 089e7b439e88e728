"""Run every path of the project that can use a GPU beside the processor, and write docs/gpu.md.

`make gpu` runs it. It ends with 1 if a path disagrees or fails, and still writes the page; without
a CUDA device it ends with 6 and writes nothing.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date
from functools import partial
from pathlib import Path

import torch

from benchmarks import gpu_networks
from benchmarks.gpu_lines import FULL, QUICK, Line, Sizes, failed, peaks
from benchmarks.gpu_networks import graph_lines, network_lines
from benchmarks.gpu_search import TOP, product_lines, search_lines
from pipeline.core.numerics import backend_version
from pipeline.errors import ResourceRefused
from pipeline.system.instruction_sets import gpu_architecture, processor

PAGE = Path(__file__).resolve().parent.parent / "docs" / "gpu.md"
LIBRARIES = ("numpy", "faiss-gpu", "faiss-cpu", "onnxruntime", "opencv")


def main(arguments: Sequence[str] | None = None, page: Path = PAGE) -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser("python -m benchmarks.gpu", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="little data; print the page, write nothing"
    )
    parser.add_argument(
        "--device",
        choices=("cuda", "cpu"),
        default="cuda",
        help="cpu tries the command itself: print the page, write nothing",
    )
    given = parser.parse_args(arguments)
    if given.device == "cuda" and not torch.cuda.is_available():
        print(
            "make gpu needs a CUDA device and none is usable: run it where `nvidia-smi` lists one,"
            " with a driver that is new enough and a PyTorch that is made for CUDA (this is"
            f" {torch.__version__}). Nothing was written.",
            file=sys.stderr,
        )
        return ResourceRefused.exit_code
    text, good = measure(given.device, QUICK if given.quick else FULL)
    if given.quick or given.device == "cpu":
        print(text)
    else:
        page.write_text(text, encoding="utf-8")
        print(f"wrote {page}: take “not yet run on a GPU” out of README.md.", file=sys.stderr)
    return 0 if good else 1


def measure(device: str, sizes: Sizes) -> tuple[str, bool]:
    """Return the page, and whether every path on the device agrees with the processor."""
    begin, peak, lines = time.perf_counter(), peaks(device, sizes), []
    for line in all_lines(device, sizes, peak):
        lines.append(line)
        print(_row(line), file=sys.stderr, flush=True)
    took = time.perf_counter() - begin
    return _page(device, sizes, peak, lines, took), all(line.good for line in lines)


def all_lines(device: str, sizes: Sizes, peak: dict[str, float]) -> Iterator[Line]:
    """Yield the lines of every path. If one cannot even be prepared, the others go on, too."""
    families: dict[str, Callable[[], Iterable[Line]]] = {
        name: partial(network_lines, name, device, sizes, peak) for name in sizes.networks
    }
    families["ONNX graph"] = partial(graph_lines, device, sizes, peak)
    families["search"] = partial(search_lines, device, sizes, peak)
    families["exact product"] = partial(product_lines, device, sizes, peak)
    for name, family in families.items():
        try:
            yield from family()
        except Exception as error:
            yield failed(name, error)


def _row(line: Line) -> str:
    cells = (line.path, line.agreement, line.device, line.cpu, line.share, line.verdict)
    return f"| {' | '.join(cells)} |"


def _page(
    device: str, sizes: Sizes, peak: dict[str, float], lines: Sequence[Line], took: float
) -> str:
    """Return the whole page as Markdown."""
    versions = ", ".join(
        f"{name} {found}" for name in LIBRARIES if (found := backend_version(name)) != "absent"
    )
    measure = ", ".join(f"{name} {speed / 1e12:.3g}" for name, speed in peak.items())
    limits = "; ".join(
        f"{name} {gpu_networks.COSINE[name]} and {gpu_networks.QUALITY[name]:.0e}"
        for name in gpu_networks.COSINE
    )
    bad = sum(not line.good for line in lines)
    return f"""# On a GPU

Made by `make gpu`; not edited by hand. Every path that can use a GPU, beside the same on the processor, from the same arrays.

- Device: {_device(device)}.
- Processor: {processor()}, {len(os.sched_getaffinity(0))} cores usable; {platform.system()}, Python {platform.python_version()}; {date.today().isoformat()}.
- Libraries: torch {torch.__version__}, {versions}.
- The device's own product of two matrices of {sizes.square:,}², TFLOP/s (fp32 without TF32): {measure}.
- Result: {f"{bad} of {len(lines)} paths differ or failed" if bad else "no path differs or failed"}. The whole run took {took:.0f} s.

| path | agreement with the processor | on the device | on this processor | of the device's own product | verdict |
|---|---|---:|---:|---:|---|
{chr(10).join(map(_row, lines))}

The limits were set before the first run.

- **Networks** have random weights in their published layouts, and get {sizes.images} smooth random crops. An embedding's cosine with
  the processor's in float32 is at least, and a quality score is off by at most, this share of the largest: {limits}. The same
  faces in another order, from two threads at once, give the same bits.
- **Search**: {sizes.probes:,} probes, {TOP} candidates each. Ids, order and scores equal those that the processor finds. One template
  in 50 has copies, and every second probe resembles one of these, so the last place of its list is a tie.
- **The exact product** equals the processor's bit by bit.

The processor has all cores, and its networks compute in float32. A call prepares {sizes.timed:,} crops on one core, copies them and computes
forwards of {sizes.batch}; “network alone” begins with what lies on the device. Operations are those of convolutions, matrices and
the product of probes with gallery: 12.6 GFLOP an image for iresnet50, 24.2 for iresnet100. Times are medians of {sizes.repeats} repeats
after one that is not counted. “Skipped” paths were not looked at.
"""


def _device(device: str) -> str:
    """Return the name of a device, its memory, driver and libraries."""
    if device == "cpu":
        return "none, the processor stands in for it"
    memory = torch.cuda.get_device_properties(device).total_memory / 2**30
    cudnn = torch.backends.cudnn.version()
    return (
        f"{torch.cuda.get_device_name(device)} ({gpu_architecture()}), {memory:.0f} GiB, driver"
        f" {_driver()}, CUDA {torch.version.cuda}, cuDNN {cudnn}"
    )


def _driver() -> str:
    """Return the version of the driver, as nvidia-smi has it."""
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        told = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return told.stdout.split("\n")[0].strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
