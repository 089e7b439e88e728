"""The shipped config of the CR-FIQA paper's table, over small sets in its benchmarks' formats: only
weights are missing.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import bench_sets
import pytest
from e2e.conftest import command

CONFIG = Path(__file__).resolve().parents[2] / "configs/fiqa_paper.yaml"
PACKS = ("lfw", "agedb_30", "cfp_fp", "calfw", "cplfw")
BENCHMARKS = [*PACKS, "xqlfw", "adience", "ijbc"]
# The digests of the FR models' cards are each user's own, and no weights are there.
LACKING = {"arcface_r100", "elasticface_r100", "magface_r100", "crfiqa_s", "crfiqa_l", "lightqnet"}
SMALL = [f"benchmarks.{name}.dataset.options.counts=any" for name in BENCHMARKS]
# no images are written
SMALL += [
    f"benchmarks.ijbc.dataset.options.{what}={what}.npy" for what in ("embeddings", "quality")
]
AS_SMALL = [word for field in SMALL for word in ("--set", field)]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What `plan` and `check` say of every benchmark of the config, and `check` when copies have to
    be whole.
    """
    folder = tmp_path_factory.mktemp("paper")
    images, mated = bench_sets.pairs(8)
    bench_sets.tree(
        folder / "packs", {f"{name}.bin": bench_sets.pack(images, mated) for name in PACKS}
    )
    bench_sets.xqlfw(folder / "xqlfw")
    bench_sets.adience(folder / "adience", [{"a": 3, "b": 2}] * 5)
    assert command(folder, "synth", "ijbc", "janus", "--scale", "0.01").code == 0
    places = {"PACKS": "packs", "XQLFW": "xqlfw", "ADIENCE": "adience", "IJBC": "janus/package"}
    places |= {"MODELS": "no", "SHARED": "no"}
    env = {**os.environ, **{f"QFUSE_{name}": str(folder / path) for name, path in places.items()}}
    lines = {"plan": ("plan", *AS_SMALL), "check": ("check", *AS_SMALL), "check whole": ("check",)}
    return {
        name: json.loads(command(folder, verb, CONFIG, "--json", *words, env=env).out)
        for name, (verb, *words) in lines.items()
    }


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_lacks_nothing_but_weights(told: dict[str, dict[str, Any]], name: str) -> None:
    problems = told["check"]["benchmarks"][name]["problems"]
    assert all(problem.startswith("model '") for problem in problems), problems
    # the others are aligned crops, or bring landmarks
    detector = {"yunet_320"} if name == "adience" else set()
    assert {problem.split("'")[1] for problem in problems} == LACKING | detector


@pytest.mark.parametrize("name", PACKS)
def test_a_pack_is_held_against_the_counts_of_its_own_set(
    told: dict[str, dict[str, Any]], name: str
) -> None:
    said = told["check whole"]["benchmarks"][name]["problems"]
    expected = "7,000" if name == "cfp_fp" else "6,000"
    assert (
        sum(
            f"this is not the whole of {name}: pairs: expected {expected}, found 8" in problem
            for problem in said
        )
        == 1
    )


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_judges_four_measures_under_three_models(
    told: dict[str, dict[str, Any]], name: str
) -> None:
    cells = Counter(step["stage"] for step in told["plan"][name]["steps"])
    assert cells["evaluate_discard"] == 12
    assert cells["quality"] == 6  # three do not look at the model, and the norm is each model's own
