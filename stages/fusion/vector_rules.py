"""Vector rules: fusion that is no weighted sum of embeddings, and so makes the templates itself.

inverse-variance is eq. 9 of Shi and Jain, “Probabilistic Face Embeddings”, ICCV 2019.
"""

from __future__ import annotations

import numpy as np

from stages.exact import sums
from stages.fusion.rules import Floats, UsableFaces, Vectors, vector_rule


@vector_rule("inverse-variance", reads=("variance",), version=2)
def inverse_variance(faces: UsableFaces, features: Vectors, count: int) -> tuple[Floats, Floats]:
    """Σ x / v over Σ 1 / v, dimension by dimension, v the variance of a unit embedding."""
    precision = np.divide(1, faces.variance, dtype=np.float64)
    mean = sums.weighted_means(features, precision, faces.template, count)
    top = np.zeros(count)
    np.maximum.at(top, faces.template, precision.max(axis=1, initial=0))
    relative = precision / np.where(top > 0, top, 1)[faces.template, None]
    return mean, sums.total(relative) / max(1, precision.shape[1])
