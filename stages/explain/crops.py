"""crops: pictures of faces as a run kept them."""

from __future__ import annotations

import base64
import io

from pipeline.core.schema import Array
from pipeline.plan.graph import Ref, Step
from pipeline.session import Results


def nearest_with(results: Results, step: Step, column: str) -> tuple[Step, str] | None:
    """Return the nearest output above a step that has a column; None if none has it."""
    waiting: list[Ref] = list(step.inputs.values())
    while waiting:
        ref = waiting.pop(0)
        above = results.plan.steps[ref.step]
        if any(field.name == column for field in above.stage.produces[ref.output].fields):
            return above, ref.output
        waiting += above.inputs.values()
    return None


def jpeg(crop: Array) -> str:
    """Return base64 of a JPEG of a crop (h, w, 3) uint8."""
    from PIL import Image

    written = io.BytesIO()
    Image.fromarray(crop).save(written, "JPEG", quality=85)
    return base64.b64encode(written.getvalue()).decode()
