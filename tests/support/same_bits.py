"""One set of given embeddings, run by the real command as other machines would compute: what must
come out the same.

A processor's kind is what its libraries take it for: OPENBLAS_CORETYPE names the kernels of
OpenBLAS, and NPY_DISABLE_CPU_FEATURES the vector units that NumPy leaves unused. So two kinds can
be tried on any one machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

START = [sys.executable, "-c", "from pipeline.cli.main import main; main()"]
# what NumPy has beyond its baseline; what a processor lacks is passed over
ALL = "X86_V3 X86_V4 AVX512_ICL AVX512_SPR"
RULES = (
    *(
        "mean",
        "media-mean",
        "norm",
        "quality-power(p=1.7)",
        "quality-softmax(T=0.5)",
        "quality-rank",
        "top-k(k=3)",
    ),
    *("trimmed(f=0.3)", "medoid", "crfiqa-script", "inverse-variance"),
)
CONFIG = """
name: bits
dataset:
  reader: tables
  path: {folder}
  options: {{file: tables.h5}}
  shard_rows: {{templates: 40, comparisons: 2000}}
numerics: {{profile: cpu-fp32, threads: {threads}}}
factors: {{rule: [{rules}]}}
steps:
  embed: {{options: {{model: given, flip: none}}}}
  quality: {{options: {{method: given}}}}
  statistics: {{}}
  template_quality: {{options: {{of: mean}}}}
  fuse: {{options: {{rule: $rule}}, stored: true}}
  weighted:
    stage: fuse
    options: {{rule: quality-linear, features: raw, media: weighted}}
    stored: true
  compare: {{stored: true}}
  compare_faces: {{options: {{rule: softmax}}, stored: true}}
  qmagface: {{options: {{alpha: 0.1, beta: 0.3}}, stored: true}}
  search: {{options: {{backend: {backend}}}, stored: true}}
  evaluate_verification: {{options: {{replicates: 50}}}}
  evaluate_identification: {{options: {{replicates: 50}}}}
  evaluate_discard: {{inputs: {{quality: template_quality}}, options: {{replicates: 50}}}}
  recomputed:
    stage: evaluate_discard
    inputs: {{quality: template_quality}}
    options: {{threshold: recomputed, replicates: 50}}
"""


def config(
    folder: Path,
    name: str,
    threads: int = 1,
    backend: str = "faiss",
    rules: tuple[str, ...] = RULES,
    at_steps: bool = True,
) -> Path:
    """Write a config for the tables at `folder`/tables.h5, with or without error versus discard at
    steps.
    """
    path, text = folder / f"{name}.yaml", CONFIG if at_steps else CONFIG.split("  recomputed:")[0]
    path.write_text(
        text.format(folder=folder, threads=threads, backend=backend, rules=", ".join(rules)),
        encoding="utf-8",
    )
    return path


def start(config: Path, store: Path, *arguments: str, **machine: str) -> subprocess.Popen[str]:
    """Start a run of a config into a store, on a machine that these variables make of this one."""
    command = [*START, "run", str(config), "--store", str(store), "--json", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command,
        cwd=config.parent,
        env={**os.environ, **machine},
        stdout=pipe,
        stderr=pipe,
        text=True,
    )


def digests(store: Path) -> Counter[tuple[str, int, str]]:
    """Return how often a store holds which columns: (output, rows, digest). Keys tell of threads
    and are left out.
    """
    receipts = (json.loads(path.read_bytes()) for path in store.glob("*/??/[!.]*.json"))
    return Counter((r["output"], r["rows"], r["digest"]) for r in receipts)
