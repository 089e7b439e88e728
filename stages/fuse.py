"""fuse: embeddings + weights → templates.

A template is normalize(Σ w_i x_i) over its usable faces, x_i the unit embedding (or the raw one, `features: raw`, as the
published IJB scripts have it). It is one sparse product W @ X. A template whose weights all vanish falls back to equal
weights and says so in `fallback`; one with no usable face is EMPTY.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import field_validator
from scipy import sparse

from pipeline.errors import InvalidInput
from pipeline.registry import register
from pipeline.schema import Array, Batch, Status
from pipeline.stage import Options, Stage, Work
from stages import rules
from stages.tables import FUSED


class FuseOptions(Options):
    """`rule`: see stages/rules.py.

    `media`: `mean` first averages the weighted features of each medium, Σ w x / n (the published IJB scripts);
    `weighted` takes their weighted mean, Σ w x / Σ w, so that every medium counts the same.
    """

    rule: str = "mean"
    features: Literal["unit", "raw"] = "unit"
    media: Literal["none", "mean", "weighted"] = "none"

    @field_validator("rule")
    @classmethod
    def _known(cls, label: str) -> str:
        rules.rule_named(label)
        return label


@register("stage", "fuse")
class Fuse(Stage):
    """Build templates under one weight rule."""

    name = "fuse"
    version = 2
    grain = "group"
    axis = "templates"
    Options = FuseOptions
    produces: ClassVar = {"": FUSED}
    inputs: ClassVar = {
        "embeddings": "embed",
        "quality": "quality",
        "statistics": "statistics",
        "detections": "align.detections",
    }
    consumes: ClassVar = {"members": ("template", "face", "media")}
    members: ClassVar = ("members", "face", "faces")
    stored = False
    options: FuseOptions

    def uses(self) -> tuple[str, ...]:
        return ("embeddings", *rules.rule_named(self.options.rule).needs)

    def backends(self) -> tuple[str, ...]:
        return ("numpy", "scipy")

    def identity(self) -> Any:
        return rules.rule_named(self.options.rule).identity

    def memory(
        self, rows: Mapping[str, int], sizes: Mapping[str, Mapping[str, int]], tables: Mapping[str, Batch]
    ) -> Mapping[str, int]:
        faces = tables["members"]["face"]
        in_order = len(faces) == 0 or np.array_equal(faces, np.arange(faces[0], faces[0] + len(faces)))  # read without a copy
        row = sum(sizes["embeddings"][name] for name in ("status", "embedding", "norm"))
        sums = 3 * rows[""] * sizes["embeddings"]["embedding"]  # the sums, those of templates with a face, and at unit length
        if in_order:
            return {"sums": sums}
        # What was read is gone when the sums are made.
        return {"faces by template": len(faces) * row, "sums": max(0, sums - rows["embeddings"] * row)}

    def compute(self, work: Work) -> dict[str, Batch]:
        members = work.tables["members"]
        rule = rules.rule_named(self.options.rule)
        embedded = work.inputs["embeddings"].take(members["face"], ("status", "embedding", "norm"))
        usable = embedded["status"] == Status.OK
        known: dict[str, Any] = {}
        for name, column in (("quality", "quality"), ("detections", "score")):
            if name in rule.needs:
                read = work.inputs[name].take(members["face"], ("status", column))
                usable &= read["status"] == Status.OK
                known[name] = read[column].astype(np.float64)
        if "detections" in known and np.isnan(known["detections"][usable]).any():
            raise InvalidInput(
                f"fuse.rule {rule.label!r} needs detector scores, and some faces have none: their landmarks or crops came "
                "with the data set. Name another rule, or let the data set bring a score for each face."
            )
        if "statistics" in rule.needs:
            row = work.inputs["statistics"].read()
            known |= {name: float(row[name][0]) for name in ("minimum", "maximum", "mean", "deviation")}
        kept = slice(None) if usable.all() else usable  # a slice copies nothing
        template, none = members["template"][kept], np.empty(0)
        faces = rules.Faces(
            template=template,
            medium=_medium_numbers(template, members["media"][kept]),
            norm=embedded["norm"][kept].astype(np.float64),
            detector=known["detections"][kept] if "detections" in known else none,
            quality=known["quality"][kept] if "quality" in known else none,
            **{name: known[name] for name in ("minimum", "maximum", "mean", "deviation") if name in known},
        )
        return {"": self._fused(work.stop - work.start, faces, rule, embedded["embedding"][kept])}

    def _fused(self, count: int, faces: rules.Faces, rule: rules.Rule, features: Array) -> Batch:
        weight, vanished = weights(count, faces, rule)
        if self.options.media != "none":
            weight = _inside_media(weight, faces.medium, self.options.media == "weighted")
        if self.options.features == "unit":
            weight = np.divide(weight, faces.norm, out=np.zeros_like(weight), where=faces.norm > 0)
        indptr = np.searchsorted(faces.template, np.arange(count + 1))
        matrix = sparse.csr_matrix((weight.astype(np.float32), np.arange(len(weight)), indptr), shape=(count, len(weight)))
        summed = np.asarray(matrix @ features, np.float32)
        length = np.linalg.norm(summed, axis=1)
        used = np.bincount(faces.template[weight > 0], minlength=count).astype(np.int32)
        ok = length > 0
        embedding = np.full_like(summed, np.nan)
        embedding[ok] = summed[ok] / length[ok, None].astype(np.float32)
        status = np.where(ok, Status.OK, Status.EMPTY).astype(np.uint8)
        return Batch({"status": status, "embedding": embedding, "used": used, "fallback": vanished & ok})


def weights(count: int, faces: rules.Faces, rule: rules.Rule) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return (n,) weights scaled to at most 1 in each template, and (count,) which templates fell back to equal ones.

    The scale keeps float32 sums exact enough: weights of size 1e-6 would lose them.
    """
    weight = np.nan_to_num(rule.weigh(faces), nan=0.0, posinf=0.0, neginf=0.0)
    top = np.zeros(count)
    np.maximum.at(top, faces.template, weight)
    has_faces = np.bincount(faces.template, minlength=count) > 0
    vanished = has_faces & ~(top > 0)
    scaled = np.where(vanished[faces.template], 1.0, weight / np.where(top > 0, top, 1.0)[faces.template])
    return scaled, vanished


def _medium_numbers(template: NDArray[np.int64], media: Array) -> NDArray[np.int64]:
    """Return one number for each (template, medium)."""
    import pandas as pd

    medium, names = pd.factorize(media)
    number, _ = pd.factorize(template * (len(names) + 1) + medium)
    return np.asarray(number, np.int64)


def _inside_media(weight: NDArray[np.float64], medium: NDArray[np.int64], weighted: bool) -> NDArray[np.float64]:
    """Divide each weight by the number of faces in its medium or, `weighted`, by the sum of their weights."""
    total = np.bincount(medium, weight if weighted else None)[medium]
    return np.divide(weight, total, out=np.zeros_like(weight), where=total > 0)
