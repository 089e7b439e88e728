"""Vector rules: fusion that is no weighted sum of embeddings, and so makes the templates itself.

inverse-variance  Σ x / v over Σ 1 / v, dimension by dimension, v the variance of a unit embedding: Shi and Jain,
                  “Probabilistic Face Embeddings”, ICCV 2019, eq. 9
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from stages.rules import Faces, Floats, Vectors, vector_rule


@vector_rule("inverse-variance", reads=("variance",))
def inverse_variance(faces: Faces, features: Vectors, count: int) -> tuple[Vectors, Floats]:
    variance = faces.variance.astype(np.float64)
    precision = np.divide(1, variance, out=np.zeros_like(variance), where=variance > 0)
    # At most 1 in each template, as weights are: small ones would lose the sums in float32.
    members = np.searchsorted(faces.template, np.arange(count + 1))
    top = np.zeros(count)
    np.maximum.at(top, faces.template, precision.max(axis=1, initial=0))
    precision = (precision / np.where(top > 0, top, 1)[faces.template, None]).astype(np.float32)
    add = sparse.csr_matrix(
        (np.ones(len(precision), np.float32), np.arange(len(precision)), members), (count, len(precision))
    )
    total = add @ precision
    summed = add @ (features * precision)
    mean = np.divide(summed, total, out=np.zeros(summed.shape, np.float32), where=total > 0)
    return mean, precision.mean(axis=1, dtype=np.float64) if precision.shape[1] else np.zeros(len(precision))
