"""Imports every built-in part, so that each registers itself. Named by the entry point `qfuse.plugins`."""

from stages import align, compare, degrade, embed, evaluate, fuse, quality, report, search
from stages.datasets import folder, lfw, synthetic, tables_file

__all__ = [
    "align",
    "compare",
    "degrade",
    "embed",
    "evaluate",
    "folder",
    "fuse",
    "lfw",
    "quality",
    "report",
    "search",
    "synthetic",
    "tables_file",
]
