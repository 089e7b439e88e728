"""Every published network with weights made by rule, against its own module's outputs."""

from __future__ import annotations

from tests.accept.command import SHARED, Check, table
from tests.support import published_networks as published

LIMIT = 1e-9


def networks() -> tuple[list[Check], str]:
    """Compare all that each published module returns, in float64."""
    layouts, golden = published.layouts(SHARED), published.golden(SHARED)
    rows, checks = [["published module", "tensors", "parameters", "largest deviation"]], []
    for name, expected in golden.items():
        worst = published.deviation(name, layouts[name], expected["outputs"])
        counts = f"{expected['keys']:,}", f"{expected['parameters']:,}"
        rows.append([name, *counts, f"{worst:.1e}"])
        checks.append(Check(name, f"≤ {LIMIT:g}", f"{worst:.1e}", worst <= LIMIT))
    return checks, table(rows)
