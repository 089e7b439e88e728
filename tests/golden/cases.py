"""Tiny inputs, and every stage on them. `test_golden` records and compares what comes out."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.core.numerics import profile_of
from pipeline.core.registry import available
from pipeline.core.schema import Batch, Status, text
from pipeline.core.stage import Context, Source, Stage, Work
from pipeline.files.file_tree import open_files
from stages.tables.tables import ProtocolLists, build_tables

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("QFUSE_SHARED", ROOT.parent / "shared"))

Result = tuple[Stage, dict[str, Batch]]
CASES: dict[str, Callable[[], Result]] = {}
EXACT, REAL = set(), set()


def case(name: str, exact: bool = False, real: bool = False) -> Callable[[Any], Any]:
    """Register a case: `exact` is recorded as digests, `real` needs the real faces and weights."""

    def decorate(function: Callable[[], Result]) -> Callable[[], Result]:
        CASES[name] = function
        EXACT.update([name] if exact else [])
        REAL.update([name] if real else [])
        return function

    return decorate


def made(name: str, root: Path | None = None, **options: Any) -> Stage:
    cls = available("stage")[name]
    files = None if root is None else lambda: open_files(root)
    stage: Stage = cls(
        cls.Options(**options), Context(profile_of("cpu-fp32"), files, (SHARED / "models",))
    )
    return stage


def source(batch: Batch) -> Source:
    return Source(
        (0,), (batch.rows,), lambda _, columns: batch if columns is None else batch.select(columns)
    )


def mapped(stage: Stage, rows: Batch, **inputs: Batch) -> Result:
    stage.open()
    return stage, stage.run(rows, inputs, stage.load(rows))


def computed(stage: Stage, rows: int, tables: dict[str, Batch], **inputs: Batch) -> Result:
    return stage, stage.compute(
        Work(0, rows, tables, {name: source(batch) for name, batch in inputs.items()})
    )


# Inputs


def embeddings() -> Batch:
    """Eight dimensions, four of them equal but for the sign: norms of 2, 4 and 8. The sixth
    failed."""
    rng = np.random.default_rng(3)
    values = np.zeros((12, 8), np.float32)
    for row in values:
        row[rng.permutation(8)[:4]] = rng.choice([-1, 1], 4) * rng.choice([1, 2, 4])
    status = np.zeros(12, np.uint8)
    status[5], values[5] = Status.FAILED, np.nan
    return Batch({"status": status, "embedding": values, "norm": np.linalg.norm(values, axis=1)})


def qualities() -> Batch:
    values = np.float32([1, 0.5, -1, 0.25, 1, 0, 0.5, 0.5, -2, -1, 0.25, 1])
    return Batch({"status": np.zeros(12, np.uint8), "quality": values, "score": np.abs(values) / 2})


def a_set() -> dict[str, Batch]:
    """Four templates of three faces, two subjects; two references, two probes, one of the
    references enrolled.
    """
    faces, templates = [f"f{i}" for i in range(12)], [f"t{i}" for i in range(4)]
    found = ProtocolLists(
        face_id=faces,
        path=[""] * 12,
        sha256=[""] * 12,
        subject=[f"s{i // 3 % 2}" for i in range(12)],
        template_id=templates,
        template_subject=["s0", "s1", "s0", "s1"],
        member_template=[templates[i // 3] for i in range(12)],
        member_face=faces,
        member_media=["m0", "m0", "m1"] * 4,
        role_template=["t0", "t1", "t2", "t3", "t0"],
        role=["reference", "reference", "probe", "probe", "gallery"],
        all_pairs=("reference", "probe"),
    )
    return build_tables(found, "the golden set")


def a_list(rows: int = 12) -> dict[str, Batch]:
    """Every pair of twelve faces of six subjects, in three folds."""
    names, subjects = [f"f{i}" for i in range(rows)], [f"s{i // 2}" for i in range(rows)]
    pairs = [(i, j) for i in range(rows) for j in range(i + 1, rows)]
    found = ProtocolLists(
        face_id=names,
        path=names,
        sha256=names,
        subject=subjects,
        template_id=names,
        template_subject=subjects,
        member_template=names,
        member_face=names,
        member_media=names,
        comparison_a=[names[a] for a, _ in pairs],
        comparison_b=[names[b] for _, b in pairs],
        mated=[subjects[a] == subjects[b] for a, b in pairs],
        fold=[i % 3 for i in range(len(pairs))],
        role_template=[*names[::2], *names[1::2], *names[:6:2]],
        role=["reference"] * 6 + ["probe"] * 6 + ["gallery"] * 3,
    )
    return build_tables(found, "the golden list")


def crops(rows: int = 4) -> Batch:
    """Waves of three colours under noise; the second failed."""
    y, x = np.mgrid[:112, :112]
    waves = [
        128 + 90 * np.sin(x / (7 + i + c) + c) * np.cos(y / (9 + 2 * i))
        for i in range(rows)
        for c in range(3)
    ]
    noise = np.random.default_rng(5).normal(0, 30, (rows, 112, 112, 1))
    crop = (
        (np.array(waves).reshape(rows, 3, 112, 112).transpose(0, 2, 3, 1) + noise)
        .clip(0, 255)
        .astype(np.uint8)
    )
    status = np.zeros(rows, np.uint8)
    status[1], crop[1] = Status.NOT_FOUND, 0
    return Batch({"status": status, "crop": crop})


def ids(rows: int) -> Batch:
    return Batch({"face_id": text(f"face {i}" for i in range(rows))})


# Cases: NumPy and SciPy alone


@case("embed given", exact=True)
def _() -> Result:
    return mapped(made("embed", model="given"), embeddings().select(["embedding"]))


@case("quality given", exact=True)
def _() -> Result:
    return mapped(made("quality", method="given"), qualities().select(["quality"]))


@case("detector_scores", exact=True)
def _() -> Result:
    return mapped(made("detector_scores"), qualities().select(["score"]))


@case("quality feature-norm", exact=True)
def _() -> Result:
    return mapped(made("quality", method="feature-norm"), ids(12), embeddings=embeddings())


@case("statistics", exact=True)
def _() -> Result:
    return computed(made("statistics"), 12, {}, quality=qualities())


def fused(rule: str, **options: Any) -> Result:
    stage = made("fuse", rule=rule, **options)
    statistics = CASES["statistics"]()[1][""]
    variance = {"variance": (1 + np.arange(12, dtype=np.float32) % 5)[:, None] / 8}
    read = Batch({**embeddings(), **variance})
    inputs = {
        "embeddings": read,
        "quality": qualities(),
        "statistics": statistics,
        "detections": qualities(),
    }
    return computed(stage, 4, a_set(), **{name: inputs[name] for name in stage.uses()})


for rule in (
    "mean",
    "media-mean",
    "norm",
    "quality-linear",
    "quality-power(p=2)",
    "top-k(k=2)",
    "best",
):
    case(f"fuse {rule}", exact=True)(lambda rule=rule: fused(rule))
for rule in (
    "threshold(t=0.5)",
    "top-fraction(f=0.4)",
    "trimmed(f=0.4)",
    "medoid",
    "insightface-script",
):
    case(f"fuse {rule}")(lambda rule=rule: fused(rule))
for rule in (
    "detector",
    "quality-minmax",
    "quality-softmax(T=0.5)",
    "quality-rank",
    "crfiqa-script",
    "inverse-variance",
):
    case(f"fuse {rule}")(lambda rule=rule: fused(rule))
case("fuse raw, weighted mean inside media")(
    lambda: fused("quality-linear", features="raw", media="weighted")
)
case("fuse raw, mean inside media")(lambda: fused("quality-linear", features="raw", media="mean"))


@case("quality random", exact=True)
def _() -> Result:
    return mapped(made("quality", method="random", seed=7), ids(12))


@case("template_quality", exact=True)
def _() -> Result:
    return computed(
        made("template_quality", of="median", faces="scored"), 4, a_set(), quality=qualities()
    )


@case("template_quality of embedded faces", exact=True)
def _() -> Result:
    return computed(
        made("template_quality", of="median"),
        4,
        a_set(),
        quality=qualities(),
        embeddings=embeddings(),
    )


@case("compare_faces")
def _() -> Result:
    return computed(
        made("compare_faces", rule="softmax(beta=4)"), 4, a_set(), embeddings=embeddings()
    )


@case("qmagface")
def _() -> Result:
    scores = CASES["compare all pairs"]()[1][""]
    quality = CASES["template_quality"]()[1][""]
    return computed(
        made("qmagface", alpha=0.5, beta=0.75), 4, a_set(), scores=scores, quality=quality
    )


@case("compare a list", exact=True)
def _() -> Result:
    return computed(made("compare"), 66, a_list(), templates=embeddings())


@case("compare all pairs", exact=True)
def _() -> Result:
    return computed(made("compare"), 4, a_set(), templates=embeddings().take(slice(0, 4)))


@case("search", exact=True)
def _() -> Result:
    return computed(made("search", k=4), 6, a_list(), templates=embeddings())


@case("evaluate 1:1", exact=True)
def _() -> Result:
    scores = CASES["compare a list"]()[1][""]
    mated = a_list()["comparisons"]["mated"]
    scores = Batch(
        {**scores, "score": (scores["score"] + mated * np.float32(0.5)).astype(np.float32)}
    )
    return computed(
        made("evaluate_verification", fmr=(0.25, 0.03125), replicates=8),
        66,
        a_list(),
        scores=scores,
    )


@case("evaluate 1:N", exact=True)
def _() -> Result:
    found = CASES["search"]()[1][""]
    stage = made("evaluate_identification", fpir=(0.5, 0.25), ranks=(1, 3), replicates=8)
    return computed(stage, 6, a_list(), candidates=found)


@case("evaluate discard")
def _() -> Result:
    scores = CASES["compare a list"]()[1][""]
    stage = made("evaluate_discard", fmr=(0.5, 0.25), fnmr=(0.25,), replicates=8)
    return computed(stage, 66, a_list(), scores=scores, quality=qualities())


@case("evaluate discard, 1:N")
def _() -> Result:
    found = CASES["search"]()[1][""]
    stage = made(
        "evaluate_discard_identification", fpir=(1.0, 0.75), limits=(0.5, 0.75), replicates=8
    )
    return computed(stage, 6, a_list(), candidates=found, quality=qualities())


@case("evaluate 1:N, pooled script", exact=True)
def _() -> Result:
    found = CASES["search"]()[1][""]
    return computed(
        made("evaluate_pooled_script", targets=(1.0, 0.5)), 6, a_list(), candidates=found
    )


# Cases: OpenCV and networks


@case("align crops")
def _() -> Result:
    with tempfile.TemporaryDirectory() as folder:
        for i, size in enumerate([(112, 112), (150, 130)]):
            Image.fromarray(crops()["crop"][2 * i]).resize(size, Image.Resampling.NEAREST).save(
                f"{folder}/{i}.png"
            )
        (Path(folder) / "2.png").write_bytes(b"no image")
        names = ["0.png", "1.png", "2.png", "3.png"]
        digests = [sha256((Path(folder) / name).read_bytes()).hexdigest() for name in names[:3]] + [
            ""
        ]
        return mapped(
            made("align", Path(folder), detector="none"),
            Batch({"path": text(names), "sha256": text(digests)}),
        )


@case("degrade")
def _() -> Result:
    return mapped(made("degrade", fraction=0.75, seed=1), ids(12), crops=crops(12))


@case("align a photograph", real=True)
def _() -> Result:
    archive = SHARED / "data" / "lfw.zip"
    name = "lfw/AJ_Cook/AJ_Cook_0001.jpg"
    data = open_files(archive).read(name)
    given = np.float32([[45, 45], [90, 45], [68, 75], [52, 98], [90, 90]])
    rows = {"path": text([name] * 2), "sha256": text([sha256(data).hexdigest()] * 2)}
    landmarks = np.stack([np.full((5, 2), np.nan, np.float32), given])
    return mapped(made("align", archive), Batch({**rows, "landmarks": landmarks}))


for model, flip in (
    ("edgeface_xxs", "add"),
    ("mobilefacenet", "concat"),
    ("mobilefacenet", "none"),
):
    case(f"embed {model}, flip {flip}", real=True)(
        lambda model=model, flip=flip: mapped(
            made("embed", model=model, flip=flip), ids(4), crops=crops()
        )
    )
case("quality lightqnet", real=True)(
    lambda: mapped(made("quality", method="lightqnet"), ids(4), crops=crops())
)
