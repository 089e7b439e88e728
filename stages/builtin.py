"""Imports every built-in part, so that each registers itself.

The entry point `qfuse.plugins` names this module.
"""

# ruff: noqa: F401
from stages.datasets import adience, bin_pack, folder, lfw, synthetic, tables_file, tinyface, xqlfw
from stages.datasets.ijb import common_package, nist
from stages.evaluation import (
    discard,
    discard_identification,
    identification,
    pooled_script,
    verification,
)
from stages.faces import align, degrade, detector_scores, embed
from stages.fusion import fuse, vector_rules, weight_rules
from stages.matching import compare, compare_faces, qmagface, score_rules, search
from stages.quality import quality, reference_statistics, template_quality
from stages.report import report, study, terminal
