"""Score rules: one score from the cosines of every face of one template with every face of another.

| rule          | score                                                     |
|---------------|-----------------------------------------------------------|
| max           | the largest cosine                                        |
| mean          | their mean, which is the product of the two plain means   |
| softmax(beta) | Σ s · exp(β s) / Σ exp(β s): β → 0 mean, β → ∞ max        |

A rule is given a block of pairs: `cosines` (n, m) float64, row by row the faces of the second
templates with the m faces of the first one, and `starts` (p,) int64, where each second template
begins. It returns (p,) scores. What these rules sum is rounded to multiples of STEP first, so that
sums of fewer than 2²³ numbers are exact and the order of faces changes no bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.exact.functions import exp
from stages.fusion.rules import Floats, Parameter, parsed_label, rule_decorator

Starts = NDArray[np.int64]
STEP = 2.0**-30


@dataclass(frozen=True)
class ScoreRule:
    """A score rule with its parameters fixed."""

    score: Callable[[Floats, Starts], Floats]
    identity: dict[str, Any]


def score_rule(
    name: str, version: int = 1, **parameters: float | Parameter
) -> Callable[[Any], Any]:
    """Register a score rule: `function(cosines, starts, **parameters) -> (p,) scores`.

    Parameters are given as in `weight_rule`.
    """
    return rule_decorator("score rule", name, version, parameters)


def score_rule_named(label: str) -> ScoreRule:
    """Return the rule that a label such as 'softmax(beta=10)' names.

    Raises InvalidInput for an unknown rule or parameter.
    """
    family, parameters = parsed_label("score rule", label)
    identity = {"version": family.version, "parameters": parameters}
    return ScoreRule(
        lambda cosines, starts: family.function(cosines, starts, **parameters), identity
    )


@score_rule("max", version=2)
def largest_cosine(cosines: Floats, starts: Starts) -> Floats:
    """The largest cosine of a face of the one template with a face of the other.

    >>> largest_cosine(np.array([[0.1, 0.5], [0.3, 0.2], [0.9, 0.4]]), np.array([0, 2]))
    array([0.5, 0.9])
    """
    return np.asarray(np.maximum.reduceat(cosines.max(axis=1), starts))


@score_rule("mean", version=2)
def mean_cosine(cosines: Floats, starts: Starts) -> Floats:
    """The mean of the cosines of all faces of the one with all of the other.

    >>> mean_cosine(np.array([[0.25, 0.75], [0.5, 0.5]]), np.array([0]))
    array([0.5])
    """
    pairs = np.diff(starts, append=len(cosines)) * cosines.shape[1]
    return np.asarray(_exact_sums(cosines, starts) / pairs)


@score_rule("softmax", version=2, beta=Parameter(10.0, high=300))
def softmax_cosine(cosines: Floats, starts: Starts, beta: float) -> Floats:
    """The mean of these cosines c, weighted by exp(β c)."""
    # Against the largest cosine of the pair of templates, so that not all weights of one can
    # vanish.
    best = np.repeat(largest_cosine(cosines, starts), np.diff(starts, append=len(cosines)))
    weight = exp(beta * (cosines - best[:, None]))
    return np.asarray(_exact_sums(cosines * weight, starts) / _exact_sums(weight, starts))


def _exact_sums(values: Floats, starts: Starts) -> Floats:
    """Return exact sums of the rows from each start to the next, of values rounded to STEP."""
    return np.asarray(np.add.reduceat(np.rint(values / STEP).sum(axis=1), starts) * STEP)
