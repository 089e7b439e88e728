"""Selection: which templates of a large gallery may be among the k best of a probe, found fast.

A selector names every candidate whose score could be one of the k largest, given how far its own
product can be from the score (`products.doubt`); which of them are, the exact product says
(`search`). So the selector decides speed alone. A probe with too many candidates, as when most of
a gallery are copies of one template, is left to the exact product.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.numerics import full_precision
from pipeline.system.instruction_sets import lacks_bf16
from stages.exact import products

PROBES_AT_ONCE, COLUMNS_AT_ONCE = 256, 1 << 15  # of one product
# of one on a GPU, for which the processor waits: 256 MiB of scores, 4 GiB in all if all tie
GPU_PROBES, GPU_COLUMNS = 1024, 1 << 16
GPU_REACH = 2048  # the longest list that FAISS makes on a GPU
CROWD = 1 << 10  # candidates of a probe beyond k
GROUP_COLUMNS = 16  # columns of a group
RowNumbers = NDArray[np.int64]


@dataclass(frozen=True)
class Selected:
    """Candidates as pairs of a probe and a gallery row, in no particular order.

    `probe`, `row` (c,): numbers of probes and rows of the gallery. `crowded` (p,) bool: probes with
    too many candidates to name.
    """

    probe: RowNumbers
    row: RowNumbers
    crowded: NDArray[np.bool_]


Select = Callable[[NDArray[np.float32], int], Selected]  # unit rows of probes, k


def with_numpy(gallery: NDArray[np.float32]) -> Select:
    """Return a selector that multiplies all unit rows (g, d) of a gallery at once, in float32.

    All scores of the probes with this gallery must fit in memory.
    """
    margin = np.float32(2 * products.doubt(gallery.shape[1]))

    def select(probes: NDArray[np.float32], k: int) -> Selected:
        near = probes @ gallery.T
        probe, row = np.divmod(
            np.flatnonzero(near >= (kth_best(near, k) - margin)[:, None]), len(gallery)
        )
        crowded = np.bincount(probe, minlength=len(probes)) > k + CROWD
        named = ~crowded[probe]
        return Selected(probe[named], row[named], crowded)

    return select


def kth_best(scores: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """Return a bound (n,) for each row of scores (n, m) that k of them reach, and few others do.

    It is the k-th of the best of each group of columns, or of all if groups would be few.
    """
    count, size = scores.shape
    if size >= 2 * GROUP_COLUMNS * k:
        scores = (
            scores[:, : size // GROUP_COLUMNS * GROUP_COLUMNS]
            .reshape(count, GROUP_COLUMNS, -1)
            .max(axis=1)
        )
    least = scores.shape[1] - k
    return np.partition(scores, least, axis=1)[:, least]


def gpu_of(backend: str) -> str | None:
    """Return "cuda" if this back end, faiss or torch, can select on a GPU here, else None."""
    if backend == "faiss":
        import faiss

        return "cuda" if faiss.get_num_gpus() else None
    import torch

    return "cuda" if torch.cuda.is_available() else None


def with_faiss(gallery: NDArray[np.float32], threads: int = 1, device: str | None = None) -> Select:
    """Return a selector that asks FAISS's flat index of the unit rows (g, d).

    It keeps to `threads` threads in the calling thread. `device`: cuda for the first GPU, where
    FAISS multiplies in float32 as well; None for the processor.
    """
    import faiss

    faiss.omp_set_num_threads(threads)
    index: Any = faiss.IndexFlatIP(gallery.shape[1])
    index.add(np.ascontiguousarray(gallery))
    longest = len(gallery)
    if device is not None:
        index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
        longest = min(longest, GPU_REACH)
    margin = 2 * products.doubt(gallery.shape[1])

    def select(probes: NDArray[np.float32], k: int) -> Selected:
        found: list[tuple[RowNumbers, RowNumbers]] = []
        waiting, most = np.arange(len(probes)), min(longest, k + CROWD)
        reach = min(longest, k + 16)
        while len(waiting):
            near, rows = index.search(np.ascontiguousarray(probes[waiting]), reach)
            # A list is complete once its last entry is too far from the k-th to change the order.
            kept = near >= near[:, k - 1, None] - margin
            settled = np.full(len(waiting), True) if reach == len(gallery) else ~kept[:, -1]
            kept[~settled] = False
            found.append((np.repeat(waiting, kept.sum(axis=1)), rows[kept]))
            waiting = waiting[~settled]
            if reach == most:
                break
            reach = min(most, 4 * reach)
        return _selected(found, waiting, len(probes))

    return select


def with_torch(
    gallery: NDArray[np.float32],
    threads: int = 1,
    device: str | None = None,
    half: bool | None = None,
) -> Select:
    """Return a selector that multiplies the unit rows (g, d) block by block.

    It keeps to `threads` threads in the calling thread.

    `device`: a torch device, which multiplies in float32; None for the processor. Tensor cores,
    which multiply halves, sum in a way that the margin does not cover. `half`: on the processor in
    bfloat16 by PyTorch, which takes a fraction of the time if the processor has instructions for it
    (None: there alone); else in float32 by NumPy.
    """
    import torch

    torch.set_num_threads(threads)
    gallery = np.ascontiguousarray(gallery)
    rows, columns, matrix = PROBES_AT_ONCE, COLUMNS_AT_ONCE, None
    if device is not None:
        full_precision()
        half, rows, columns = False, GPU_PROBES, GPU_COLUMNS
        matrix = torch.from_numpy(gallery).to(device)
    elif half is None:
        half = not lacks_bf16()
    if half:
        matrix = torch.from_numpy(gallery).to(torch.bfloat16)
    unit = products.BFLOAT16 if half else products.FLOAT32
    # the product is rounded to the type once more
    doubt = products.doubt(gallery.shape[1], unit) + unit

    def near(part: NDArray[np.float32], block: slice) -> Any:
        if matrix is None:
            return torch.from_numpy(part @ gallery[block].T)
        return torch.from_numpy(part).to(matrix.device, matrix.dtype) @ matrix[block].T

    def select(probes: NDArray[np.float32], k: int) -> Selected:
        found: list[tuple[RowNumbers, RowNumbers]] = []
        crowded = np.zeros(len(probes), bool)
        for start in range(0, len(probes), rows):
            part = np.ascontiguousarray(probes[start : start + rows])
            blocks = (
                near(part, slice(left, left + columns)) for left in range(0, len(gallery), columns)
            )
            probe, row, crowded[start : start + len(part)] = _scan_blocks(
                blocks, columns, len(part), k, 2 * doubt, device or "cpu"
            )
            found.append((start + probe, row))
        return _selected(found, np.flatnonzero(crowded), len(probes))

    return select


def _scan_blocks(
    blocks: Iterable[Any], columns: int, probes: int, k: int, margin: float, device: str
) -> tuple[RowNumbers, RowNumbers, NDArray[np.bool_]]:
    """Return (probe, row) of every candidate, and which probes (p,) are crowded: these have none.

    blocks are products (p, `columns`) on a device with one block of the gallery after another; the
    last may have fewer columns. The k-th of the best of each group of columns, so far, is a bound
    that k templates reach. Only groups whose best comes within `margin` of it are looked into.
    """
    import torch

    deep = 64
    # A block should have several times as many groups as k.
    while deep > 1 and 4 * k * deep > columns:
        deep //= 2
    best = torch.full((probes, k), -torch.inf, device=device)
    count = torch.zeros(probes, dtype=torch.int64, device=device)
    found: list[tuple[Any, Any, Any]] = []
    for left, near in zip(itertools.count(0, columns), blocks, strict=False):
        groups = near.shape[1] // deep
        # Columns c, c + groups, c + 2 groups … are group c; what is left over at the end, each is
        # one of its own.
        inside = near[:, : groups * deep].view(probes, deep, groups)
        rest = near[:, groups * deep :].float()
        tops = torch.cat([inside.amax(dim=1).float(), rest], dim=1)
        # k different groups reach their own best, so k templates reach the k-th of these: what lies
        # below it by more than the margin is beaten by k others, whatever the exact scores are.
        best = torch.topk(torch.cat([best, tops], dim=1), k, dim=1).values
        bound = torch.where(count > k + CROWD, torch.inf, best[:, -1] - margin)
        probe, group = torch.nonzero(tops >= bound[:, None], as_tuple=True)
        whole = group < groups
        in_groups = (
            probe[whole],
            inside[probe[whole], :, group[whole]].float(),
            group[whole, None] + torch.arange(deep, device=device) * groups,
        )
        left_over = (
            probe[~whole],
            tops[probe[~whole], group[~whole], None],
            group[~whole, None] + groups * (deep - 1),
        )
        for own, cells, column in (in_groups, left_over):
            at, place = torch.nonzero(cells >= bound[own, None], as_tuple=True)
            found.append((cells[at, place], own[at], left + column[at, place]))
            count += torch.bincount(own[at], minlength=probes)
    score, probe, row = (torch.cat(parts) for parts in zip(*found, strict=True))
    crowded = count > k + CROWD
    # The bound rose from block to block: early candidates are compared with the final one.
    kept = score >= torch.where(crowded, torch.inf, best[:, -1] - margin)[probe]
    return probe[kept].cpu().numpy(), row[kept].cpu().numpy(), crowded.cpu().numpy()


def _selected(
    found: list[tuple[RowNumbers, RowNumbers]], crowded: RowNumbers, probes: int
) -> Selected:
    probe, row = (np.concatenate(parts) for parts in zip(*found, strict=True))
    flag = np.zeros(probes, bool)
    flag[crowded] = True
    return Selected(probe, row, flag)
