"""template_quality: quality scores of faces → one quality score for each template.

`of`: the `min` (the published error-versus-discard scripts for IJB-C), `max`, `mean` or `median`
over its usable faces, which are those that `fuse` can put into the template and that have a
quality. A template with no usable face is EMPTY.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from pipeline.core.registry import register
from pipeline.core.schema import Batch, Status
from pipeline.core.stage import Options, Stage, Work
from stages.exact import sums
from stages.tables.schemas import QUALITIES


class TemplateQualityOptions(Options):
    """How the qualities of faces become one."""

    of: Literal["min", "max", "mean", "median"] = "min"
    """Which of its faces' qualities, or which mean of them, a template gets."""
    faces: Literal["embedded", "scored"] = "embedded"
    """Which count: those with an embedding, or all with a quality (needs no `embed`)."""


@register("stage", "template_quality")
class TemplateQuality(Stage):
    """Make one quality score for each template from those of its faces."""

    name = "template_quality"
    version = 3
    grain = "group"
    axis = "templates"
    Options = TemplateQualityOptions
    produces: ClassVar = {"": QUALITIES}
    inputs: ClassVar = {"quality": "quality", "embeddings": "embed"}
    consumes: ClassVar = {"members": ("template", "face")}
    members: ClassVar = ("members", "face", "faces")
    options: TemplateQualityOptions

    def uses(self) -> tuple[str, ...]:
        return ("quality", "embeddings") if self.options.faces == "embedded" else ("quality",)

    def backends(self) -> tuple[str, ...]:
        return ("numpy",)

    def compute(self, work: Work) -> dict[str, Batch]:
        members, count = work.tables["members"], work.stop - work.start
        read = work.inputs["quality"].take(members["face"], ("status", "quality"))
        usable = read["status"] == Status.OK
        if self.options.faces == "embedded":
            usable &= (
                work.inputs["embeddings"].take(members["face"], ("status",))["status"] == Status.OK
            )
        template, quality = members["template"][usable], read["quality"][usable].astype(np.float64)
        # sorted inside each template: then a choice is a place
        quality = quality[np.lexsort((quality, template))]
        start = np.searchsorted(template, np.arange(count))
        stop = np.searchsorted(template, np.arange(count), side="right")
        some = stop > start
        found = np.full(count, np.nan)
        if some.any():
            first, last = start[some], stop[some] - 1
            if self.options.of == "mean":
                found[some] = sums.by_group(template, quality, count)[some] / (last - first + 1)
            else:
                low = {"min": first, "max": last, "median": (first + last) // 2}[self.options.of]
                high = {"min": first, "max": last, "median": (first + last + 1) // 2}[
                    self.options.of
                ]
                found[some] = (quality[low] + quality[high]) / 2
        status = np.where(some, Status.OK, Status.EMPTY).astype(np.uint8)
        return {
            "": Batch(
                {
                    "status": status,
                    "reason": np.full(count, "", object),
                    "quality": found.astype(np.float32),
                }
            )
        }
