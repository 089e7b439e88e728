"""What stages say that they hold, against what they allocate: never more, and no less than a third
of it.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config.config import Config
from pipeline.core.schema import Batch, text
from pipeline.core.stage import Options, Stage, Work
from pipeline.run.memory_estimate import estimate
from pipeline.session import open_session
from stages.evaluation.discard import DiscardOptions, EvaluateDiscard
from stages.evaluation.identification import EvaluateIdentification, IdentificationOptions
from stages.evaluation.verification import EvaluateVerification, VerificationOptions
from stages.fusion.fuse import Fuse, FuseOptions
from stages.matching.compare import Compare
from stages.matching.search import Search, SearchOptions

Make = Callable[..., Any]
Tables = Mapping[str, Batch]
EMPTY = np.empty(0, np.int64)
LISTED = Batch(
    {"a": EMPTY, "b": EMPTY, "mated": EMPTY.astype(bool), "fold": EMPTY.astype(np.int16)}
)


def templates(rows: int, width: int = 256) -> Batch:
    embedding = np.random.default_rng(0).standard_normal((rows, width), np.float32)
    return Batch({"status": np.zeros(rows, np.uint8), "embedding": embedding})


def all_pairs(references: int, probes: int) -> dict[str, Batch]:
    """The first templates are references (and the gallery), the others probes; ten templates have
    one subject.
    """
    rows = references + probes
    role = text(["gallery"] * references + ["probe"] * probes)
    return {
        "comparisons": LISTED,
        "roles": Batch({"template": np.arange(rows), "role": role}),
        "pairings": Batch({"role_a": text(["gallery"]), "role_b": text(["probe"])}),
        "templates": Batch({"subject": text(f"s{i % (rows // 10)}" for i in range(rows))}),
    }


def one_role(rows: int) -> dict[str, Batch]:
    """All pairs of the templates."""
    tables = all_pairs(rows, 0)
    return {**tables, "pairings": Batch({"role_a": text(["gallery"]), "role_b": text(["gallery"])})}


def listed(rows: int, count: int) -> dict[str, Batch]:
    a, b = np.random.default_rng(1).integers(0, rows, (2, count))
    b = np.where(a == b, (b + 1) % rows, b)
    tables = all_pairs(rows // 2, rows - rows // 2)
    subject = tables["templates"]["subject"]
    mated = subject[a] == subject[b]
    comparisons = Batch({"a": a, "b": b, "mated": mated, "fold": np.full(count, -1, np.int16)})
    return {
        **tables,
        "comparisons": comparisons,
        "pairings": Batch({"role_a": text([]), "role_b": text([])}),
    }


def scores(count: int) -> Batch:
    score = np.random.default_rng(2).uniform(-1, 1, count).astype(np.float32)
    return Batch({"score": score, "failed": np.zeros(count, np.uint8)})


def told(stage: Stage, rows: int, tables: Tables, inputs: Mapping[str, Batch]) -> Mapping[str, int]:
    sizes = {
        key: {name: column.nbytes // batch.rows for name, column in batch.items()}
        for key, batch in inputs.items()
    }
    return stage.memory(
        {"": rows, **{key: batch.rows for key, batch in inputs.items()}}, sizes, tables
    )


def compare_stage(
    source: Make, stage: Stage, rows: int, tables: Tables, inputs: Mapping[str, Batch]
) -> None:
    """Assert that outputs and what a stage tells are a lower bound of what it allocates, and of its
    order.
    """
    work = Work(0, rows, tables, {key: source(batch) for key, batch in inputs.items()})
    stage.open()
    gc.collect()
    tracemalloc.start()
    try:
        outputs = stage.compute(work)
        truth = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    parts, columns = (
        told(stage, rows, tables, inputs),
        {name for batch in outputs.values() for name in batch},
    )
    written = sum(column.nbytes for batch in outputs.values() for column in batch.columns.values())
    if stage.grain == "reduce":
        written = 0  # small, and not estimated
    known = written + sum(size for name, size in parts.items() if name not in columns)
    assert truth / 3 <= known <= 1.1 * truth, (known, truth, parts)
    for name in parts.keys() & columns:
        assert parts[name] == outputs[""][name].nbytes


@pytest.mark.parametrize(("references", "probes"), [(1000, 1000), (200, 2800)])
def test_compare_of_all_pairs(source: Make, context: Make, references: int, probes: int) -> None:
    inputs = {"templates": templates(references + probes)}
    compare_stage(
        source,
        Compare(Options(), context()),
        references * probes,
        all_pairs(references, probes),
        inputs,
    )


@pytest.mark.parametrize("shuffled", [False, True])
def test_compare_of_all_pairs_of_one_role(source: Make, context: Make, shuffled: bool) -> None:
    tables, size = one_role(2000), 2000 * 1999 // 2
    if shuffled:
        tables["roles"] = tables["roles"].take(np.random.default_rng(5).permutation(2000))
    compare_stage(
        source, Compare(Options(), context()), size, tables, {"templates": templates(2000)}
    )


def test_compare_of_a_list(source: Make, context: Make) -> None:
    tables = listed(4000, 100_000)
    compare_stage(
        source, Compare(Options(), context()), 100_000, tables, {"templates": templates(4000)}
    )


@pytest.mark.parametrize(
    ("gallery", "probes", "k"), [(20_000, 50, 20), (500, 20_000, 20), (1000, 5000, 200)]
)
def test_search(source: Make, context: Make, gallery: int, probes: int, k: int) -> None:
    stage = Search(SearchOptions(k=k, backend="torch"), context())
    compare_stage(
        source,
        stage,
        probes,
        all_pairs(gallery, probes),
        {"templates": templates(gallery + probes)},
    )


def test_search_says_how_long_its_lists_are(context: Make) -> None:
    found = told(
        Search(SearchOptions(k=7), context()), 30, all_pairs(20, 30), {"templates": templates(50)}
    )
    assert (found["candidate"], found["score"]) == (30 * 7 * 8, 30 * 7 * 4)


@pytest.mark.parametrize("shuffled", [False, True])
def test_fuse_of_faces_in_order_and_not(source: Make, context: Make, shuffled: bool) -> None:
    faces, rows = 40_000, 10_000
    batch = templates(faces)
    embeddings = Batch({**batch.columns, "norm": np.linalg.norm(batch["embedding"], axis=1)})
    face = np.random.default_rng(3).permutation(faces) if shuffled else np.arange(faces)
    import_module("pandas")  # now: that is not what the stage holds
    members = Batch(
        {
            "template": np.arange(faces) // (faces // rows),
            "face": face,
            "media": text(["m"] * faces),
        }
    )
    compare_stage(
        source,
        Fuse(FuseOptions(), context()),
        rows,
        {"members": members},
        {"embeddings": embeddings},
    )


@pytest.mark.parametrize("replicates", [0, 5])
@pytest.mark.parametrize("form", ["product", "list", "triangle"])
def test_evaluate_verification(source: Make, context: Make, form: str, replicates: int) -> None:
    tables = {
        "product": all_pairs(500, 1000),
        "list": listed(2000, 500_000),
        "triangle": one_role(1000),
    }[form]
    rows = 1000 * 999 // 2 if form == "triangle" else 500_000
    stage = EvaluateVerification(VerificationOptions(fmr=(1e-2,), replicates=replicates), context())
    compare_stage(source, stage, rows, tables, {"scores": scores(rows)})


@pytest.mark.parametrize("replicates", [0, 5])
@pytest.mark.parametrize("form", ["product", "list", "triangle"])
def test_evaluate_discard(source: Make, context: Make, form: str, replicates: int) -> None:
    tables = {
        "product": all_pairs(500, 1000),
        "list": listed(2000, 500_000),
        "triangle": one_role(1000),
    }[form]
    rows = 1000 * 999 // 2 if form == "triangle" else 500_000
    count = tables["templates"].rows
    quality = {
        "status": np.zeros(count, np.uint8),
        "quality": np.random.default_rng(6).random(count, np.float32),
    }
    stage = EvaluateDiscard(DiscardOptions(fmr=(1e-2,), replicates=replicates), context())
    compare_stage(source, stage, rows, tables, {"scores": scores(rows), "quality": Batch(quality)})


@pytest.mark.parametrize("half", ["all", "choose"])
def test_all_pairs_of_one_role_are_never_numbered_all_at_once(
    source: Make, context: Make, half: Any
) -> None:
    """One int64 of each of 3,000 × 3,000 would be 72 MB; 4.5 million scores are 18."""
    tables, rows = one_role(3000), 3000 * 2999 // 2
    stage = EvaluateVerification(
        VerificationOptions(fmr=(1e-3,), replicates=0, half=half), context()
    )
    for made, inputs in (
        (Compare(Options(), context()), {"templates": templates(3000, 8)}),
        (stage, {"scores": scores(rows)}),
    ):
        work = Work(0, rows, tables, {key: source(batch) for key, batch in inputs.items()})
        gc.collect()
        tracemalloc.start()
        try:
            made.compute(work)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 8 * 3000**2


def test_evaluate_verification_of_many_subjects_and_replicates(source: Make, context: Make) -> None:
    stage = EvaluateVerification(VerificationOptions(fmr=(1e-2,), replicates=1000), context())
    compare_stage(source, stage, 2000, listed(20_000, 2000), {"scores": scores(2000)})


@pytest.mark.parametrize(("k", "replicates"), [(200, 0), (20, 100)])
def test_evaluate_identification(source: Make, context: Make, k: int, replicates: int) -> None:
    gallery, probes = 1000, 10_000
    rng = np.random.default_rng(4)
    found = {
        "status": np.zeros(probes, np.uint8),
        "candidate": np.argsort(rng.random((probes, gallery), np.float32), axis=1)[:, :k].astype(
            np.int64
        ),
        "score": -np.sort(-rng.random((probes, k), np.float32), axis=1),
    }
    stage = EvaluateIdentification(
        IdentificationOptions(replicates=replicates, fpir=(0.1,)), context()
    )
    tables = all_pairs(gallery, probes)
    tables["templates"] = Batch(
        {"subject": text([f"s{i}" for i in range(gallery)] + [f"s{i}" for i in range(probes)])}
    )
    compare_stage(source, stage, probes, tables, {"candidates": Batch(found)})


def test_all_pairs_of_ijb_c_sizes_are_told_in_gigabytes(context: Make) -> None:
    """23,124 × 23,124 scores are 2.1 GB; with the subjects of both sides an evaluation holds some
    18 GB.
    """
    stage = EvaluateVerification(VerificationOptions(), context())
    rows = {"": 23_124**2, "scores": 23_124**2}
    found = stage.memory(rows, {"scores": {"score": 4, "failed": 1}}, all_pairs(10, 10))
    assert 15e9 < sum(found.values()) < 30e9


def test_a_gallery_of_ten_million_is_told_in_tens_of_gigabytes(context: Make) -> None:
    stage = Compare(Options(), context())
    found = stage.memory(
        {"": 1, "templates": 10_000_000}, {"templates": {"embedding": 2048}}, listed(10, 1)
    )
    assert sum(found.values()) == 10_000_000 * 2048


def test_the_estimate_of_a_plan_knows_the_length_of_given_embeddings_and_of_candidate_lists(
    tmp_path: Path,
) -> None:
    config = {
        "name": "lengths",
        "dataset": {"reader": "synthetic", "options": {"scale": 0.002, "dimension": 24}},
        "steps": {
            "embed": {"options": {"model": "given", "flip": "none"}},
            "fuse": {},
            "search": {"options": {"k": 5}},
        },
    }
    session = open_session(
        Config.model_validate({**config, "base": tmp_path}), store=tmp_path / "store", readonly=True
    )
    rows = {
        part.what: part.bytes // part.rows
        for need in estimate(session.plan, session.store)
        for part in need.parts
        if part.rows
    }
    assert (
        rows["embeddings"] == 1 + 8 + 4 * 24 + 4 + 4
    )  # the last is the variance that this set brings
    assert rows["fused"] == 1 + 4 * 24 + 4 + 1
    assert rows["candidates"] == 1 + 5 * (8 + 4)
