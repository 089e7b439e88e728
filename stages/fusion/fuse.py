"""fuse: embeddings → templates, under one fusion rule.

A template is normalize(Σ w_i x_i) over its usable faces, x_i the unit embedding (or the raw one,
`features: raw`, which is the unit one with its norm in the weight). It is one sparse product W @ X,
whose sums are exact (stages/exact), so the order of a template's faces changes no bit of it; a
vector rule makes it in its own way. If all weights of a template vanish, `fallback` decides, and
the column of that name says so; a template with no usable face is EMPTY.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from pipeline.core.registry import register
from pipeline.core.schema import Array, Batch, Status
from pipeline.core.stage import Options, Stage, Work
from pipeline.errors import InvalidInput
from stages.exact import sums, vectors
from stages.fusion import rules
from stages.quality.quality import Quality
from stages.quality.reference_statistics import Statistics
from stages.tables.schemas import FUSED

# input → the column by which rules weigh
WEIGHED_BY = {"quality": "quality", "detections": "score"}


class FuseOptions(Options):
    """The fusion rule, and what becomes of norms, media and templates without weights.

    `media: mean` is Σ w x / n of each medium, as in the published IJB scripts; `weighted` is
    Σ w x / Σ w, so that every medium counts the same.
    """

    rule: str = "mean"
    """A fusion rule with its parameters, as `quality-power(p=2)`; `qfuse steps` lists them."""
    features: Literal["unit", "raw"] = "unit"
    """Unit embeddings, or raw ones, whose norms are weights as well."""
    media: Literal["none", "mean", "weighted"] = "none"
    """Faces of one medium: each for itself, averaged first, or their weighted mean first."""
    fallback: Literal["equal", "none", "zero"] = "equal"
    """Weights that all vanish: equal ones; an EMPTY template; or zeros, as in the scripts."""

    @model_validator(mode="after")
    def _known(self) -> FuseOptions:
        rule = rules.fusion_rule_named(self.rule)
        if rule.script and (self.features != "unit" or self.media == "weighted"):
            raise ValueError(
                f"rule {self.rule!r} keeps norms in its own way and means inside media: leave out"
                " features and media"
            )
        if rule.weigh is None and self.media != "none":
            raise ValueError(
                f"rule {self.rule!r} makes no weights that media could share: leave out media"
            )
        return self


@register("stage", "fuse")
class Fuse(Stage):
    """Build templates under one fusion rule."""

    name = "fuse"
    version = 5
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
        return ("embeddings", *rules.fusion_rule_named(self.options.rule).needs)

    def backends(self) -> tuple[str, ...]:
        return ("numpy", "scipy")

    def identity(self) -> Any:
        return rules.fusion_rule_named(self.options.rule).identity

    def memory(
        self,
        rows: Mapping[str, int],
        sizes: Mapping[str, Mapping[str, int]],
        tables: Mapping[str, Batch],
    ) -> Mapping[str, int]:
        faces = tables["members"]["face"]
        # read without a copy
        in_order = len(faces) == 0 or np.array_equal(
            faces, np.arange(faces[0], faces[0] + len(faces))
        )
        row = sum(sizes["embeddings"][name] for name in ("status", "embedding", "norm"))
        held = {"sums": 2 * rows[""] * sizes["embeddings"]["embedding"]}
        return held if in_order else {**held, "faces by template": len(faces) * row}

    def fits(self, tables: Mapping[str, Batch]) -> None:
        quality, statistics = self.above.get("quality"), self.above.get("statistics")
        if isinstance(quality, Quality) and isinstance(statistics, Statistics):
            statistics.refuse_other(quality.measure)
        lacking = [
            name
            for name in rules.fusion_rule_named(self.options.rule).reads
            if name not in tables["faces"]
        ]
        if lacking:
            raise InvalidInput(
                f"fuse.rule {self.options.rule!r} needs the {lacking[0]} of each embedding, and the"
                " data set brings none: name another rule, or let it bring a column"
                f" faces/{lacking[0]} with embed.model 'given'."
            )
        if "variance" in rules.fusion_rule_named(self.options.rule).reads:
            _check_variance(tables["faces"])

    def compute(self, work: Work) -> dict[str, Batch]:
        return {"": self.explained(work)[0]}

    def explained(self, work: Work) -> tuple[Batch, Array]:
        """Return the templates, and what each member counted for.

        The counts are (members,) float64, nan for a face that was not usable.
        """
        faces, usable = self._faces(work, rules.fusion_rule_named(self.options.rule))
        templates, weight = fuse_faces(faces, work.stop - work.start, self.options)
        counted = np.full(len(usable), np.nan)
        counted[usable] = weight
        return templates, counted

    def _faces(self, work: Work, rule: rules.FusionRule) -> tuple[rules.UsableFaces, Array]:
        """Return the usable faces of the members, and which members these are, (members,) bool."""
        members = work.tables["members"]
        embedded = work.inputs["embeddings"].take(
            members["face"], ("status", "embedding", "norm", *rule.reads)
        )
        usable = embedded["status"] == Status.OK
        known: dict[str, Any] = {}
        for name, column in WEIGHED_BY.items():
            if name in rule.needs:
                read = work.inputs[name].take(members["face"], ("status", column))
                usable &= read["status"] == Status.OK
                known[name] = read[column].astype(np.float64)
        if "detections" in known and np.isnan(known["detections"][usable]).any():
            raise InvalidInput(
                f"fuse.rule {rule.label!r} needs detector scores, and some faces have none: their"
                " landmarks or crops came with the data set. Name another rule, or let the data"
                " set bring a score for each face."
            )
        statistics: dict[str, Any] = {}
        if "statistics" in rule.needs:
            row = work.inputs["statistics"].read()
            statistics = {
                name: float(row[name][0]) for name in ("minimum", "maximum", "mean", "deviation")
            }
            statistics["percentiles"] = row["percentiles"][0]
        kept = slice(None) if usable.all() else usable  # a slice copies nothing
        template, none = members["template"][kept], np.empty(0)
        variance = np.empty((0, 0), np.float32)
        if "variance" in rule.reads:
            variance = embedded["variance"][kept]
        return (
            rules.UsableFaces(
                template=template,
                medium=medium_numbers(template, members["media"][kept]),
                norm=embedded["norm"][kept].astype(np.float64),
                detector=known["detections"][kept] if "detections" in known else none,
                quality=known["quality"][kept] if "quality" in known else none,
                embedding=embedded["embedding"][kept],
                variance=variance,
                **statistics,
            ),
            usable,
        )


def fuse_faces(faces: rules.UsableFaces, count: int, options: FuseOptions) -> tuple[Batch, Array]:
    """Return `count` templates as FUSED rows, and what each face counted for: (n,) float64 ≥ 0."""
    rule = rules.fusion_rule_named(options.rule)
    if rule.weigh is None:
        features = vectors.units(faces.embedding) if options.features == "unit" else faces.embedding
        combined, weight = rule.combine(faces, features, count)
        summed, vanished = combined.astype(np.float64, copy=False), np.zeros(count, bool)
    else:
        weight, vanished = _scaled_weights(
            count, faces.template, rule.weigh(faces), options.fallback
        )
        if options.media != "none" and not rule.script:
            weight = _weights_inside_media(weight, faces.medium, options.media == "weighted")
        share = sums.shares(
            faces.template, weight if options.features == "unit" else weight * faces.norm, count
        )
        inverse = vectors.inverse_lengths(faces.norm)
        summed = sums.weighted(faces.embedding, inverse, faces.template, share, count)
    return (
        _as_templates(summed, faces.template[weight > 0], vanished, options.fallback == "zero"),
        weight,
    )


def _check_variance(faces: Batch) -> None:
    """Raise InvalidInput for variances that are not valid: the first face is named."""
    variance = faces["variance"]
    width = faces["embedding"].shape[1] if "embedding" in faces else None
    if variance.shape[1] not in (1, width):
        raise InvalidInput(
            f"faces/variance has {variance.shape[1]} numbers a face: give one, or"
            f" {width or 'one for each dimension'}."
        )
    bad = np.flatnonzero(~((variance > 0) & np.isfinite(variance)).all(axis=1))
    if len(bad):
        raise InvalidInput(
            f"faces/variance of face {faces['face_id'][bad[0]]!r} ({len(bad)} such) is not above 0"
            " and finite: a face that is certain in all would outweigh every other one; give it a"
            " small variance."
        )


def _as_templates(summed: Array, used: Array, vanished: Array, zero: bool) -> Batch:
    """Return FUSED rows from the sums (count, d) of templates.

    `used`: the template of each face that counted; `vanished` (count,): templates whose weights
    vanished. With `zero` those are vectors of zeros.
    """
    length = vectors.lengths(summed)
    ok = (length > 0) & np.isfinite(length)
    embedding = np.full(summed.shape, np.nan, np.float32)
    np.divide(summed, length[:, None], out=embedding, where=ok[:, None], casting="same_kind")
    if zero:
        embedding[vanished], ok = 0, ok | vanished
    return Batch(
        {
            "status": np.where(ok, Status.OK, Status.EMPTY).astype(np.uint8),
            "embedding": embedding,
            "used": np.bincount(used, minlength=len(ok)).astype(np.int32),
            "fallback": vanished & ok,
        }
    )


def _scaled_weights(
    count: int, template: Array, weight: Array, fallback: str
) -> tuple[Array, Array]:
    """Return weights (n,) scaled so that each template's largest is 1, and who fell back (count,).

    Templates whose weights all vanish fall back: under `equal` all of their weights are 1, under
    `zero` 0; under `none` no template does. Raises InvalidInput for a weight below 0.
    """
    weight = np.nan_to_num(weight, nan=0.0, posinf=0.0, neginf=0.0)
    if (weight < 0).any():
        raise InvalidInput(
            f"fuse.rule gave a weight of {weight.min():g}: a weight is 0 or more; mend the rule."
        )
    top = np.zeros(count)
    np.maximum.at(top, template, weight)
    vanished = (np.bincount(template, minlength=count) > 0) & ~(top > 0) & (fallback != "none")
    alone = 1.0 if fallback == "equal" else 0.0
    return (
        np.where(vanished[template], alone, weight / np.where(top > 0, top, 1.0)[template]),
        vanished,
    )


def medium_numbers(template: NDArray[np.int64], media: Array) -> NDArray[np.int64]:
    """Return one number for each (template, medium).

    >>> medium_numbers(np.array([0, 0, 1]), np.array(["video", "video", "video"], object))
    array([0, 0, 1])
    """
    import pandas as pd

    medium, names = pd.factorize(media)
    number, _ = pd.factorize(template * (len(names) + 1) + medium)
    return np.asarray(number, np.int64)


def _weights_inside_media(
    weight: NDArray[np.float64], medium: NDArray[np.int64], weighted: bool
) -> NDArray[np.float64]:
    """Divide each weight by the number of faces in its medium or, `weighted`, by their weights."""
    count = int(medium.max(initial=-1)) + 1
    total = (
        sums.by_group(medium, weight, count) if weighted else np.bincount(medium, minlength=count)
    )
    return np.divide(weight, total[medium], out=np.zeros_like(weight), where=total[medium] > 0)
