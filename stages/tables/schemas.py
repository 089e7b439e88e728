"""The columns of a data set's tables, and those that flow between stages.

| table       | one row is                                        |
|-------------|---------------------------------------------------|
| faces       | one face in one image                             |
| members     | a face's place in a template (sorted by template) |
| templates   | a set of faces compared as one                    |
| roles       | what a template serves as: reference, probe, gallery |
| comparisons | one 1:1 comparison of a list                      |
| pairings    | *all pairs* of two roles or of one, never materialised |
"""

from __future__ import annotations

from pipeline.core.schema import Field, Schema

FACES = Schema(
    "faces",
    (
        Field("face_id", "text"),
        Field("path", "text"),  # relative to the data set's root; empty if there is no image
        # of the image file; empty if it is missing, UNREADABLE if it cannot be read
        Field("sha256", "text"),
        Field("subject", "text"),
        Field("box", "float32", (4,), "px: x, y, width, height", optional=True),
        Field("landmarks", "float32", (5, 2), "px: x, y", optional=True),
        Field("score", "float32", (), "detector score, higher = surer", optional=True),
        Field("embedding", "float32", (None,), optional=True),
        Field(
            "variance",
            "float32",
            (None,),
            "of the unit embedding, by dimension or one for all",
            optional=True,
        ),
        Field("quality", "float32", (), "higher = more useful", optional=True),
    ),
)


MEMBERS = Schema(
    "members", (Field("template", "int64"), Field("face", "int64"), Field("media", "text"))
)


TEMPLATES = Schema("templates", (Field("template_id", "text"), Field("subject", "text")))


ROLES = Schema("roles", (Field("template", "int64"), Field("role", "text")))


COMPARISONS = Schema(
    "comparisons",
    (Field("a", "int64"), Field("b", "int64"), Field("mated", "bool"), Field("fold", "int16")),
)


PAIRINGS = Schema("pairings", (Field("role_a", "text"), Field("role_b", "text")))


STATUS = Field("status", "uint8")


REASON = Field("reason", "text")


DETECTIONS = Schema(
    "detections",
    (
        STATUS,
        REASON,
        Field("box", "float32", (4,), "px: x, y, width, height"),
        Field("landmarks", "float32", (5, 2), "px: x, y"),
        Field(
            "score", "float32", (), "detector score, higher = surer; nan if nothing was detected"
        ),
        Field("faces_found", "int32"),
    ),
    finite=("box", "landmarks"),
)


CROPS = Schema("crops", (STATUS, Field("crop", "uint8", (112, 112, 3), "RGB")))


EMBEDDINGS = Schema(
    "embeddings",
    (
        STATUS,
        REASON,
        Field("embedding", "float32", (None,)),
        Field("norm", "float32", (), "L2 norm of the embedding"),
        Field(
            "variance",
            "float32",
            (None,),
            "of the unit embedding, by dimension or one for all",
            optional=True,
        ),
    ),
    finite=("embedding", "norm"),
)


QUALITIES = Schema(
    "qualities",
    (STATUS, REASON, Field("quality", "float32", (), "higher = more useful")),
    finite=("quality",),
)


FUSED = Schema(
    "fused",
    (
        STATUS,
        Field("embedding", "float32", (None,), "unit length, or zeros under fuse.fallback zero"),
        Field("used", "int32", (), "faces with a weight above 0"),
        Field("fallback", "bool"),  # its weights vanished, and fuse.fallback decided
    ),
    finite=("embedding",),
)


SCORES = Schema(
    "scores",
    (
        Field("score", "float32", (), "cosine; nan if a template failed"),
        # 0, or 1 if the first template failed, 2 if the second, 3 if both
        Field("failed", "uint8"),
    ),
)


CANDIDATES = Schema(
    "candidates",
    (
        STATUS,
        Field("candidate", "int64", (None,), "row of templates; -1 = none"),
        Field("score", "float32", (None,), "cosine"),
    ),
)


# One row is one number. `replicates` are its bootstrap values, drawn with the same subject weights
# in every cell, so that differences between cells can be paired.
NUMBERS = Schema(
    "numbers",
    (
        Field("metric", "text"),
        Field("target", "float64"),  # FMR, FPIR or rank asked for; nan if there is none
        Field("rule", "text"),  # at_most, nearest, script, or empty
        Field("value", "float64"),
        Field("low", "float64"),
        Field("high", "float64"),
        Field("achieved", "float64"),  # FMR or FPIR reached at the threshold
        Field("threshold", "float64"),
        # in 1:N false positives: those behind `achieved`; -1 if it does not apply
        Field("false_matches", "int64"),
        # comparisons or probes that `achieved` is over; -1 if it does not apply
        Field("nonmated", "int64"),
        # distinct pairs of subjects behind `false_matches`; -1 if it does not apply
        Field("subject_pairs", "int64"),
        # mated comparisons or probes that are wrong at it; -1 if it does not apply
        Field("misses", "int64"),
        Field("trials", "int64"),  # comparisons, probes or templates that `value` is over
        # subjects behind `trials`, which alone are independent; -1 if not known
        Field("subjects", "int64"),
        Field("few", "bool"),  # fewer than 30 false matches decide; `misses` may be few as well
        Field("replicates", "float64", (None,)),
    ),
)


CURVES = Schema("curves", (Field("curve", "text"), Field("x", "float64"), Field("y", "float64")))
