"""Search and exact products on a device beside the processor."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch

from benchmarks.gpu_lines import OK, SKIPPED, UNEQUAL, Line, Sizes, attempted, seconds
from pipeline.core.schema import Array
from pipeline.system.available import available_memory
from stages.exact import products, vectors
from stages.matching import candidates
from stages.matching.search import exact_top

TOP = 20  # candidates of a probe
COPIES = 2 * TOP  # of a template: the last place of a list is then a tie
CORES = len(os.sched_getaffinity(0))
# bytes of a GPU beside the gallery: blocks of scores, and what FAISS takes for itself
GPU_ROOM = 6 << 30


def search_lines(device: str, sizes: Sizes, peak: dict[str, float]) -> Iterator[Line]:
    """Yield a line for each back end of a search in one gallery."""
    gallery, probes = templates(sizes, gallery_that_fits(sizes, device))
    begin = time.perf_counter()
    truth = exact_top(gallery, probes, TOP, candidates.with_torch(gallery, CORES))
    here = len(probes) / (time.perf_counter() - begin)
    for backend in ("torch", "faiss"):
        path = f"search by {backend}, {len(gallery):,} × {sizes.dimension}"
        place, missing = _place(backend, device)
        if missing:
            yield Line(path, SKIPPED, missing)
            continue
        line = partial(_search_line, path, backend, place, gallery, probes, truth, here)
        yield attempted(path, partial(line, device, sizes.repeats, peak["fp32"]), device)


def _place(backend: str, device: str) -> tuple[str | None, str]:
    """Return the device of a selector, and what it lacks; FAISS knows the processor as None."""
    if backend == "torch":
        return device, ""
    try:
        gpu = candidates.gpu_of("faiss")
    except ImportError:
        return None, "FAISS is not installed"
    if device == "cpu":
        return None, ""
    return gpu, "" if gpu else "this FAISS has no GPU: it needs faiss-gpu in place of faiss-cpu"


def _search_line(
    path: str,
    backend: str,
    place: str | None,
    gallery: Array,
    probes: Array,
    truth: tuple[Array, Array],
    here: float,
    device: str,
    repeats: int,
    peak: float,
) -> Line:
    make = {"torch": candidates.with_torch, "faiss": candidates.with_faiss}[backend]
    select = make(gallery, CORES, place)
    found = exact_top(gallery, probes, TOP, select)
    same, equal = (100 * np.mean(a == b) for a, b in zip(found, truth, strict=True))
    alone = seconds(partial(select, probes, TOP), device, repeats)
    whole = seconds(partial(exact_top, gallery, probes, TOP, select), device, 1)
    return Line(
        path,
        OK if same == equal == 100 else UNEQUAL,
        f"{same:.7g} % of {found[0].size:,} places and {equal:.7g} % of scores identical",
        f"{len(probes) / whole:,.0f} probes/s; selecting alone {len(probes) / alone:,.0f}",
        f"{here:,.0f} probes/s",
        f"{2 * len(probes) * gallery.size / alone / peak:.1%}",
    )


def gallery_that_fits(sizes: Sizes, device: str) -> int:
    """Return how many templates to search: those asked for, or as many as memory holds."""
    row, host = 4 * sizes.dimension, available_memory()
    fitting = [sizes.gallery]
    if host is not None:
        fitting.append(host // (8 * row))  # drawn, as unit rows, in halves, in an index
    if device != "cpu":
        fitting.append((torch.cuda.mem_get_info()[0] - GPU_ROOM) // (2 * row))
    return max(TOP * COPIES, min(fitting))


def templates(sizes: Sizes, gallery: int) -> tuple[Array, Array]:
    """Return unit rows of a gallery (g, d) and of probes (p, d), float32.

    One row in 50 has COPIES - 1 copies, and every second probe resembles one of these.
    """
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((gallery, sizes.dimension), np.float32)
    copied = rng.permutation(gallery)[: max(1, gallery // 50 // COPIES) * COPIES]
    rows[copied] = np.repeat(rows[copied[::COPIES]], COPIES, axis=0)
    near = rng.integers(0, gallery, sizes.probes)
    near[::2] = rng.choice(copied, len(near[::2]))
    noise = rng.standard_normal((sizes.probes, sizes.dimension), np.float32)
    return vectors.units(rows), vectors.units(rows[near] + noise)


def product_lines(device: str, sizes: Sizes, peak: dict[str, float]) -> Iterator[Line]:
    """Yield the line of the exact product."""
    path = "exact product in float64, which stages leave to the processor"
    rng = np.random.default_rng(4)
    a, b = (
        vectors.units(rng.standard_normal((n, sizes.dimension), np.float32)) for n in sizes.rows
    )
    begin = time.perf_counter()
    truth = products.cosines(a, b)
    here = 2 * truth.size * sizes.dimension / (time.perf_counter() - begin)
    yield attempted(
        path, partial(_product_line, path, a, b, truth, here, device, sizes, peak), device
    )


def _product_line(
    path: str,
    a: Array,
    b: Array,
    truth: Array,
    here: float,
    device: str,
    sizes: Sizes,
    peak: dict[str, float],
) -> Line:
    x, y = (torch.from_numpy(each).to(device).double() for each in (a, b))
    equal = np.count_nonzero(cosines_on(x, y).cpu().numpy() == truth)
    cost = 2 * truth.size * sizes.dimension
    there = cost / seconds(partial(cosines_on, x, y), device, sizes.repeats)
    return Line(
        path,
        OK if equal == truth.size else UNEQUAL,
        f"{equal:,} of {truth.size:,} cosines identical bit by bit",
        f"{there / 1e12:.3g} TFLOP/s",
        f"{here / 1e12:.3g} TFLOP/s",
        f"{there / peak['fp64']:.1%}",
    )


def cosines_on(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the cosines of unit rows a (m, d) with b (n, d), float64, on their device."""
    return a @ b.T
