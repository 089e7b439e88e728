"""Score rules: one score from the cosines of every face of one template with every face of another.

| rule          | score                                                     |
|---------------|-----------------------------------------------------------|
| max           | the largest cosine                                        |
| mean          | their mean, which is the product of the two plain means   |
| softmax(beta) | Σ s · exp(β s) / Σ exp(β s): β → 0 mean, β → ∞ max        |

A rule is given a block of pairs: `cosines` (n, m) float32, row by row the faces of the second templates with the m faces of
the first one, and `starts` (p,) int64, where each second template begins. It returns (p,) scores.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.rules import Floats, Parameter, Vectors, parsed, registered

Starts = NDArray[np.int64]


@dataclass(frozen=True)
class ScoreRule:
    """A score rule with its parameters fixed."""

    score: Callable[[Vectors, Starts], Floats]
    identity: dict[str, Any]


def score_rule(name: str, version: int = 1, **parameters: float | Parameter) -> Callable[[Any], Any]:
    """Register a score rule: `function(cosines, starts, **parameters) -> (p,) scores`; parameters as in `weight_rule`."""
    return registered("score rule", name, version, parameters)


def score_rule_named(label: str) -> ScoreRule:
    """Return the rule that a label such as 'softmax(beta=10)' names. Raises InvalidInput where it names none."""
    family, parameters = parsed("score rule", label)
    identity = {"version": family.version, "parameters": parameters}
    return ScoreRule(lambda cosines, starts: family.function(cosines, starts, **parameters), identity)


@score_rule("max")
def largest(cosines: Vectors, starts: Starts) -> Floats:
    return np.maximum.reduceat(cosines.max(axis=1), starts).astype(np.float64)


@score_rule("mean")
def mean(cosines: Vectors, starts: Starts) -> Floats:
    faces = np.diff(starts, append=len(cosines)) * cosines.shape[1]
    return np.asarray(np.add.reduceat(cosines.sum(axis=1, dtype=np.float64), starts) / faces)


@score_rule("softmax", beta=Parameter(10.0, high=300))
def softmax(cosines: Vectors, starts: Starts, beta: float) -> Floats:
    weight = np.exp(beta * (cosines.astype(np.float64) - 1))  # at most 1, and above 0 down to a cosine of −1
    above = np.add.reduceat((cosines * weight).sum(axis=1), starts)
    return np.asarray(above / np.add.reduceat(weight.sum(axis=1), starts))
