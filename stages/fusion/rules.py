"""Fusion rules by name: how the faces of a template become one vector.

A label such as `quality-power(p=2)` names a rule and its parameters. There are two kinds, which
differ in what they return:

    weight rule   one weight ≥ 0 a face; a template is normalize(Σ w_i x_i), one sparse product
                  (`weight_rules`)
    vector rule   the templates themselves, for what is not a weighted sum (`vector_rules`)

Rules get usable faces only, sorted by template. Ties in quality are resolved by order: the
first face wins.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.registry import available, register
from pipeline.errors import InvalidInput, unknown

Floats = NDArray[np.float64]
Vectors = NDArray[np.float32]
# Names of inputs of `fuse`, or a function that names them for given parameters.
Needs = tuple[str, ...] | Callable[[Mapping[str, float]], tuple[str, ...]]


@dataclass(frozen=True)
class UsableFaces:
    """The n usable faces of some templates, as rules see them; inputs not needed are empty."""

    template: NDArray[np.int64]  # (n,) sorted
    medium: NDArray[np.int64]  # (n,) one number a medium, different between templates
    norm: Floats
    detector: Floats
    quality: Floats
    minimum: float = np.nan  # of the reference set's quality, as all below
    maximum: float = np.nan
    mean: float = np.nan
    deviation: float = np.nan
    percentiles: Floats = field(default_factory=lambda: np.empty(0))  # (101,)
    # (n, d), not normalised
    embedding: Vectors = field(default_factory=lambda: np.empty((0, 0), np.float32))
    # (n, d), or (n, 1): one for all
    variance: Vectors = field(default_factory=lambda: np.empty((0, 0), np.float32))


@dataclass(frozen=True)
class Parameter:
    """A number that a rule takes: its default, and what it may be.

    `low` itself is allowed if `closed`.
    """

    default: float
    low: float = 0.0
    high: float = np.inf
    closed: bool = False
    whole: bool = False

    def refusal(self, value: float) -> str:
        """Say what the value should be; "" if it may be used.

        >>> Parameter(0.5, high=1).refusal(2.0)
        'a finite number above 0 and up to 1'
        """
        fits = self.low < value <= self.high or (self.closed and value == self.low)
        if np.isfinite(value) and fits:
            return "a whole number" if self.whole and not float(value).is_integer() else ""
        bounds = []
        if self.low > -np.inf:
            bounds.append(f"{'of at least' if self.closed else 'above'} {self.low:g}")
        if self.high < np.inf:
            bounds.append(f"up to {self.high:g}")
        return f"a finite number {' and '.join(bounds)}".rstrip()


@dataclass(frozen=True)
class FusionRule:
    """A rule with its parameters fixed; a vector rule has no `weigh`.

    `combine` makes the templates of a vector rule. `needs` names the inputs of `fuse` beside the
    embeddings, `reads` further columns of the embeddings. A `script` rule fixes by itself what
    becomes of norms and media.
    """

    label: str
    weigh: Callable[[UsableFaces], Floats] | None
    combine: Callable[[UsableFaces, Vectors, int], tuple[Vectors | Floats, Floats]]
    needs: tuple[str, ...]
    reads: tuple[str, ...]
    script: bool
    # version and every parameter: what decides the templates beside the label
    identity: dict[str, Any]


@dataclass(frozen=True)
class Family:
    """What a name stands for before its parameters are given."""

    function: Callable[..., Any]
    version: int
    parameters: dict[str, Parameter]
    vectors: bool = False
    needs: Needs = ()
    reads: tuple[str, ...] = ()
    script: bool = False


def weight_rule(
    name: str,
    needs: Needs = (),
    reads: tuple[str, ...] = (),
    script: bool = False,
    version: int = 1,
    **parameters: float | Parameter,
) -> Callable[[Any], Any]:
    """Register a weight rule: `function(faces, **parameters) -> (n,) float64 weights ≥ 0`.

    A parameter given as a number is that default, and takes numbers above 0; whole ones only if it
    is an int. `needs`: see `FusionRule`; it may be a function of the parameters. `version` is
    raised when the weights may change. Scaling all weights of a template changes nothing.
    """
    return rule_decorator(
        "fusion rule", name, version, parameters, needs=needs, reads=reads, script=script
    )


def vector_rule(
    name: str,
    needs: Needs = (),
    reads: tuple[str, ...] = (),
    version: int = 1,
    **parameters: float | Parameter,
) -> Callable[[Any], Any]:
    """Register a rule that makes the templates itself; the place of learned fusion, too.

    `function(faces, features, count, **parameters) -> (vectors, share)`: features (n, d) float32
    are unit embeddings, or raw ones under `features: raw`; vectors (count, d) float32 or float64
    are put to unit length afterwards, and zeros mean no template; share (n,) float64 ≥ 0 says what
    each face counted for, so that a score can be explained.
    """
    return rule_decorator(
        "fusion rule", name, version, parameters, vectors=True, needs=needs, reads=reads
    )


def rule_decorator(
    kind: str, name: str, version: int, parameters: Mapping[str, float | Parameter], **fields: Any
) -> Callable[[Any], Any]:
    """Return a decorator that registers a function as a rule; `fields`: others of `Family`."""
    # A number is a default, above 0 and whole if it is an int.
    taken = {
        n: p if isinstance(p, Parameter) else Parameter(p, whole=isinstance(p, int))
        for n, p in parameters.items()
    }

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        register(kind, name)(Family(function, version, taken, **fields))
        return function

    return decorate


_LABEL = re.compile(r"([A-Za-z][A-Za-z0-9_-]*)(?:\(([^()]*)\))?")


def fusion_rule_named(label: str) -> FusionRule:
    """Return the rule that a label such as 'top-k(k=3)' names.

    Raises InvalidInput for an unknown rule or parameter (with the nearest name), or a value that it
    does not take.

    >>> from stages.fusion import weight_rules
    >>> faces = UsableFaces(
    ...     template=np.array([0, 0, 1]),
    ...     medium=np.array([0, 1, 2]),
    ...     norm=np.ones(3),
    ...     detector=np.empty(0),
    ...     quality=np.array([0.2, 0.9, 0.5]),
    ... )
    >>> fusion_rule_named("top-k(k=1)").weigh(faces)
    array([0., 1., 1.])
    """
    family, parameters = parsed_label("fusion rule", label)
    return FusionRule(
        label=label,
        weigh=None if family.vectors else lambda faces: family.function(faces, **parameters),
        combine=lambda *given: family.function(*given, **parameters),
        needs=family.needs(parameters) if callable(family.needs) else family.needs,
        reads=family.reads,
        script=family.script,
        identity={"version": family.version, "parameters": parameters},
    )


def parsed_label(kind: str, label: str) -> tuple[Family, dict[str, float]]:
    """Return the rule that a label names, and its parameters.

    Raises InvalidInput as `fusion_rule_named` does.

    >>> parsed_label("fusion rule", "quality-power(p=3)")[1]
    {'p': 3.0}
    """
    form = _LABEL.fullmatch(label.strip())
    if form is None:
        raise InvalidInput(f"{kind} {label!r}: write NAME or NAME(parameter=number).")
    families = available(kind)
    if form[1] not in families:
        raise InvalidInput(unknown(kind, form[1], families))
    family: Family = families[form[1]]
    parameters = {name: float(parameter.default) for name, parameter in family.parameters.items()}
    for part in filter(None, (form[2] or "").split(",")):
        name, _, value = (piece.strip() for piece in part.partition("="))
        if name not in family.parameters:
            raise InvalidInput(f"{kind} {label!r}: {unknown('parameter', name, family.parameters)}")
        try:
            parameters[name] = float(value)
        except ValueError:
            raise InvalidInput(
                f"{kind} {label!r}: {name} takes a number, found {value!r}."
            ) from None
        if wanted := family.parameters[name].refusal(parameters[name]):
            raise InvalidInput(f"{kind} {label!r}: {name} must be {wanted}, found {value}.")
    return family, parameters
