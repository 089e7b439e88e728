"""Weight rules: what each face counts for in its template.

A rule returns one weight ≥ 0 a face; a template is normalize(Σ w_i x_i), one sparse product. Rules are named as in
`quality-power(p=2)`. Faces come sorted by template, and only usable ones come. Ties in quality are resolved by order:
the first face wins. Scaling all weights of a template changes nothing.

| rule                 | weight of face i                                                          |
|----------------------|---------------------------------------------------------------------------|
| mean                 | 1                                                                         |
| media-mean           | 1 / faces in its medium                                                   |
| norm                 | ‖x_i‖                                                                     |
| detector             | detector score                                                            |
| quality-minmax       | (q − min) / (max − min), min and max over the reference set (CR-FIQA's IJB script) |
| quality-linear       | max(q, 0)                                                                 |
| quality-power(p)     | max(q, 0)^p                                                               |
| quality-softmax(T)   | exp(z / T), z = q standardised on the reference set; T → ∞ mean, T → 0 best |
| top-k(k)             | 1 for the k best faces                                                    |
| best                 | 1 for the best face                                                       |
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InvalidInput, unknown
from pipeline.registry import available, register

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Faces:
    """The n usable faces of some templates: what rules may look at. Inputs a rule does not need are empty."""

    template: NDArray[np.int64]  # (n,) sorted
    medium: NDArray[np.int64]  # (n,) one number a medium, different between templates
    norm: Floats
    detector: Floats
    quality: Floats
    minimum: float = np.nan  # of the reference set's quality
    maximum: float = np.nan
    mean: float = np.nan
    deviation: float = np.nan


@dataclass(frozen=True)
class Rule:
    """A weight rule with its parameters fixed. `needs` names the inputs of `fuse` beside the embeddings."""

    label: str
    weigh: Callable[[Faces], Floats]
    needs: tuple[str, ...]
    identity: dict[str, Any]  # version and every parameter: what decides the weights beside the label


@dataclass(frozen=True)
class _Family:
    function: Callable[..., Floats]
    needs: tuple[str, ...]
    version: int
    defaults: dict[str, float]


def weight_rule(name: str, needs: tuple[str, ...] = (), version: int = 1, **defaults: float) -> Callable[[Any], Any]:
    """Register a weight rule: `function(faces, **parameters) -> (n,) float64 weights`.

    A parameter whose default is an int takes whole numbers only. `version` is raised when the weights may change.
    """

    def decorate(function: Callable[..., Floats]) -> Callable[..., Floats]:
        register("weight rule", name)(_Family(function, needs, version, defaults))
        return function

    return decorate


_FORM = re.compile(r"([a-z][a-z0-9-]*)(?:\(([^()]*)\))?")


def rule_named(label: str) -> Rule:
    """Return the rule that a label such as 'top-k(k=3)' names.

    Raises InvalidInput for an unknown rule or parameter (with the nearest name), or a value that is no number.
    """
    form = _FORM.fullmatch(label.strip())
    if form is None:
        raise InvalidInput(f"weight rule {label!r}: write NAME or NAME(parameter=number), as in quality-power(p=2).")
    families = available("weight rule")
    if form[1] not in families:
        raise InvalidInput(unknown("weight rule", form[1], families))
    family: _Family = families[form[1]]
    parameters = dict(family.defaults)
    for part in filter(None, (form[2] or "").split(",")):
        name, _, value = (piece.strip() for piece in part.partition("="))
        if name not in family.defaults:
            raise InvalidInput(f"weight rule {label!r}: {unknown('parameter', name, family.defaults)}")
        try:
            parameters[name] = float(value)
        except ValueError:
            raise InvalidInput(f"weight rule {label!r}: {name} takes a number, found {value!r}.") from None
        if not np.isfinite(parameters[name]) or parameters[name] <= 0:
            raise InvalidInput(f"weight rule {label!r}: {name} must be a finite number above 0.")
        if isinstance(family.defaults[name], int) and not parameters[name].is_integer():
            raise InvalidInput(f"weight rule {label!r}: {name} must be a whole number, found {value}.")
    identity = {"version": family.version, "parameters": parameters}
    return Rule(label, lambda faces: family.function(faces, **parameters), family.needs, identity)


@weight_rule("mean")
def mean(faces: Faces) -> Floats:
    return np.ones(len(faces.template))


@weight_rule("media-mean")
def media_mean(faces: Faces) -> Floats:
    _, medium, count = np.unique(faces.medium, return_inverse=True, return_counts=True)
    return 1.0 / count[medium]


@weight_rule("norm")
def norm(faces: Faces) -> Floats:
    return faces.norm


@weight_rule("detector", needs=("detections",))
def detector(faces: Faces) -> Floats:
    return np.maximum(faces.detector, 0)


@weight_rule("quality-minmax", needs=("quality", "statistics"))
def quality_minmax(faces: Faces) -> Floats:
    span = faces.maximum - faces.minimum
    if not span > 0:
        return np.ones(len(faces.template))
    return np.clip((faces.quality - faces.minimum) / span, 0, 1)


@weight_rule("quality-linear", needs=("quality",))
def quality_linear(faces: Faces) -> Floats:
    return np.maximum(faces.quality, 0)


@weight_rule("quality-power", needs=("quality",), p=2.0)
def quality_power(faces: Faces, p: float) -> Floats:
    # Scaled by the template's best first, so that no power overflows or vanishes for all of its faces.
    best = _by_template(np.maximum, faces, np.maximum(faces.quality, 0))
    ratio = np.divide(np.maximum(faces.quality, 0), best, out=np.zeros(len(best)), where=best > 0)
    return np.asarray(ratio**p)


@weight_rule("quality-softmax", needs=("quality", "statistics"), T=0.5)
def quality_softmax(faces: Faces, T: float) -> Floats:  # noqa: N803  the field's letter for a temperature
    if not faces.deviation > 0:
        return np.ones(len(faces.template))
    z = (faces.quality - faces.mean) / faces.deviation
    return np.asarray(np.exp((z - _by_template(np.maximum, faces, z)) / T))


@weight_rule("top-k", needs=("quality",), k=3)
def top_k(faces: Faces, k: float) -> Floats:
    order = np.lexsort((np.arange(len(faces.quality)), -faces.quality, faces.template))
    starts = _starts(faces)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order)) - np.repeat(starts, np.diff([*starts, len(order)]))
    return (rank < k).astype(np.float64)


@weight_rule("best", needs=("quality",))
def best(faces: Faces) -> Floats:
    return np.asarray(top_k(faces, 1))


def _starts(faces: Faces) -> NDArray[np.int64]:
    return np.flatnonzero(np.diff(faces.template, prepend=-1))


def _by_template(reduce: np.ufunc, faces: Faces, values: Floats) -> Floats:
    """Return, for each face, the reduction of `values` over its template."""
    starts = _starts(faces)
    if len(starts) == 0:
        return values
    reduced = reduce.reduceat(values, starts)
    return np.asarray(np.repeat(reduced, np.diff([*starts, len(values)])))
