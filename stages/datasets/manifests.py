"""Sets as published: the counts of a whole copy, and what is known to be skewed in it.

They are described in data_manifests/.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict

from pipeline.config.validation import validate
from pipeline.config.yaml_text import read_yaml
from stages.datasets.problems import Problems
from stages.shipped_files import resource

CountsCheck = Literal["published", "any"]  # any: take what is there


class Benchmark(BaseModel):
    """One benchmark, or a set for training, which no reader reads and whose `layout` is described.

    `counts` are asked of a copy; those under `unconfirmed` are shown, and nothing is checked
    against them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    reader: str | None = None
    title: str
    licence: str
    source: str
    layout: str = ""
    bias: str
    counts: dict[str, int] = {}
    unconfirmed: dict[str, int] = {}


def benchmark(name: str) -> Benchmark:
    """Return what data_manifests/NAME.yaml says."""
    path = resource(f"data_manifests/{name}.yaml")
    found: Benchmark = validate(Benchmark, read_yaml(path, "manifest"), str(path))
    return found


def need_whole(name: str, found: Mapping[str, int], problems: Problems) -> None:
    """Tell which counts are not the published ones."""
    published = benchmark(name).counts
    words = [
        f"{what}: expected {published[what]:,}, found {n:,}"
        for what, n in found.items()
        if n != published.get(what, n)
    ]
    if words:
        words[-1] += (
            "; complete the copy, or set dataset.options.counts to any to take what is there"
        )
    problems.add(f"this is not the whole of {name}", words)
