"""qfuse for notebooks and scripts: quality-weighted fusion of face embeddings, measured.

On arrays       `fuse`, `scores`, `error_rates`, `intervals`, `edc`, `identify`,
                `identification_rates`
On runs         `load_config`, `open_session`, `run`, `results`
For extensions  `Stage`, `Options`, `execution`, `Work`, `Batch`, `Schema`, `Field`, `Status`,
                `text`, `register`, `weight_rule`, `vector_rule`, `score_rule`, `Parameter`; for
                readers `Protocol`, `LAYOUT`, `QUALITIES`, `build_tables`, `singletons`,
                `digest_images`, `need_files`; `InvalidInput`

The functions on arrays give what a run gives, to the last bit: they are what the stages call.
Nothing heavy is imported before it is used. docs/python.md shows all of it.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

    from pipeline.config.config import Config
    from pipeline.core.registry import register as register
    from pipeline.core.schema import Batch as Batch
    from pipeline.core.schema import Field as Field
    from pipeline.core.schema import Schema as Schema
    from pipeline.core.schema import Status as Status
    from pipeline.core.schema import text as text
    from pipeline.core.stage import Options as Options
    from pipeline.core.stage import Stage as Stage
    from pipeline.core.stage import Work as Work
    from pipeline.core.stage import execution as execution
    from pipeline.errors import InvalidInput as InvalidInput
    from pipeline.session import Session
    from stages.datasets.folder import digest_images as digest_images
    from stages.datasets.folder import need_files as need_files
    from stages.fusion.rules import Parameter as Parameter
    from stages.fusion.rules import vector_rule as vector_rule
    from stages.fusion.rules import weight_rule as weight_rule
    from stages.matching.score_rules import score_rule as score_rule
    from stages.metrics.discard import Curve
    from stages.tables.schemas import QUALITIES as QUALITIES
    from stages.tables.tables import LAYOUT as LAYOUT
    from stages.tables.tables import ProtocolLists
    from stages.tables.tables import build_tables as build_tables
    from stages.tables.tables import singletons as singletons

    Protocol = ProtocolLists

_ELSEWHERE = {
    **dict.fromkeys(("Batch", "Field", "Schema", "Status", "text"), "pipeline.core.schema"),
    **dict.fromkeys(("Options", "Stage", "Work", "execution"), "pipeline.core.stage"),
    "register": "pipeline.core.registry",
    "InvalidInput": "pipeline.errors",
    **dict.fromkeys(("Parameter", "vector_rule", "weight_rule"), "stages.fusion.rules"),
    "score_rule": "stages.matching.score_rules",
    **dict.fromkeys(("LAYOUT", "Protocol", "build_tables", "singletons"), "stages.tables.tables"),
    "QUALITIES": "stages.tables.schemas",
    **dict.fromkeys(("digest_images", "need_files"), "stages.datasets.folder"),
}
_NAMED_THERE = {"Protocol": "ProtocolLists"}
__all__ = [
    *("edc", "error_rates", "fuse", "identification_rates", "identify", "intervals", "scores"),
    *("load_config", "open_session", "results", "run"),
    *_ELSEWHERE,
]


def _need_ours() -> None:
    """Raise ImportError if a module of the user's own hides one of our packages."""
    for name in ("pipeline", "stages"):
        spec = importlib.util.find_spec(name)
        places = [
            Path(place).resolve()
            for place in (spec.submodule_search_locations or [] if spec else [])
        ]
        if Path(__file__).resolve().with_name(name) not in places:
            found = (spec.origin or places[0]) if spec else "nothing"
            advice = "rename that file or folder, or start Python in another one"
            raise ImportError(
                f"qfuse needs its package {name!r}; Python finds {found}, which hides it: {advice}."
            )


_need_ours()


def __getattr__(name: str) -> Any:
    if name not in _ELSEWHERE:
        raise AttributeError(f"module 'qfuse' has no attribute {name!r}")
    module = importlib.import_module(_ELSEWHERE[name])
    return getattr(module, _NAMED_THERE.get(name, name))


def __dir__() -> list[str]:
    return sorted({*globals(), *_ELSEWHERE})


class Templates(NamedTuple):
    """What `fuse` makes of n faces in m templates."""

    embedding: NDArray[Any]  # (m, d) float32, unit length; nan for a template without a usable face
    template: NDArray[Any]  # (m,) the ids, sorted
    # (n,) float64: the share of each face in its template's sum; nan for a face not usable
    weight: NDArray[Any]


class Candidates(NamedTuple):
    """The k best of a gallery for each probe, best first; ties in the order of the gallery."""

    row: NDArray[Any]  # (p, k) int64 rows of the gallery; -1 if there are no more
    score: NDArray[Any]  # (p, k) float32 cosines; nan if there are no more


@dataclass(frozen=True)
class ErrorRates:
    """Error rates of 1:1 comparisons. A number for one FMR target, an array (T,) for several."""

    target: Any
    threshold: Any  # a comparison is accepted if its score is at least this
    fmr: Any  # reached at the threshold
    fnmr: Any
    tar: Any  # 1 − FNMR
    false_matches: Any
    false_non_matches: Any
    eer: float
    auc: float


@dataclass(frozen=True)
class Intervals:
    """Percentile intervals of a bootstrap over subjects.

    They are (low, high) for one FMR target, (T, 2) for several.
    """

    tar: Any
    eer: tuple[float, float]
    level: float


@dataclass(frozen=True)
class IdentificationRates:
    """1:N rates over probes with a mate in the gallery (rank, tpir) and without one (fpir)."""

    rank: dict[int, float]
    tpir: NDArray[Any]  # (T,)
    fpir: NDArray[Any]  # (T,) reached at the threshold
    threshold: NDArray[Any]  # (T,)


def fuse(
    embeddings: ArrayLike,
    template: ArrayLike,
    quality: ArrayLike | None = None,
    rule: str | None = None,
    *,
    media: ArrayLike | None = None,
    inside_media: Literal["none", "mean", "weighted"] = "none",
    detector: ArrayLike | None = None,
    variance: ArrayLike | None = None,
    features: Literal["unit", "raw"] = "unit",
    fallback: Literal["equal", "none", "zero"] = "equal",
) -> Templates:
    """Fuse the embeddings of faces into templates, one for each distinct value of `template`.

    embeddings (n, d), of any length; template (n,) ids, numbers or texts; quality (n,), higher =
    more useful, nan for none; media (n,) ids; detector (n,) scores; variance (n, d) or (n, 1) for
    `inverse-variance`. `rule`: a label such as 'quality-power(p=2)' (`qfuse steps` lists all);
    without one 'quality-linear' if there is a quality, else 'mean'. Rules that scale by
    statistics of quality take those of these faces. A face is not usable if its embedding, or a
    value that the rule needs, is not finite. `inside_media`, `features`, `fallback`: as
    the options of the stage fuse.

    >>> import numpy as np
    >>> fused = fuse([[3, 0], [0, 1], [0, 2]], ["a", "a", "b"], quality=[0.75, 0.25, 0.5])
    >>> fused.template, fused.weight
    (array(['a', 'b'], dtype='<U1'), array([0.75, 0.25, 1.  ]))
    >>> np.round(fused.embedding, 3)
    array([[0.949, 0.316],
           [0.   , 1.   ]], dtype=float32)

    Raises InvalidInput for an unknown rule, a value it needs that was not given, and lengths that
    differ.
    """
    import numpy as np

    from pipeline.errors import InvalidInput
    from stages import builtin  # noqa: F401  registers the rules
    from stages.exact import sums, vectors
    from stages.fusion import fuse as stage
    from stages.fusion import rules
    from stages.quality.reference_statistics import summarised

    label = rule or ("mean" if quality is None else "quality-linear")
    chosen = rules.fusion_rule_named(label)
    x = np.asarray(embeddings, np.float32)
    if x.ndim != 2:
        raise InvalidInput(f"embeddings have the shape {x.shape}: give one row a face, (n, d).")
    ids, number = np.unique(np.asarray(template), return_inverse=True)
    columns = {
        "template": number,
        "quality": quality,
        "detector": detector,
        "variance": variance,
        "media": media,
    }
    given = {name: np.asarray(column) for name, column in columns.items() if column is not None}
    for name, column in given.items():
        if len(column) != len(x):
            raise InvalidInput(
                f"{name} has {len(column)} entries for {len(x)} embeddings: give one a face."
            )
    wanted = {"quality": "quality", "statistics": "quality", "detections": "detector"}
    needed = [
        *dict.fromkeys(
            [*(wanted[name] for name in chosen.needs), *(("variance",) if chosen.reads else ())]
        )
    ]
    if chosen.script or label.startswith("media-mean") or inside_media != "none":
        needed.append("media")
    for name in needed:
        if name not in given:
            raise InvalidInput(
                f"rule {label!r} needs {name} of each face: give {name}=…, or name another rule."
            )
    values: dict[str, Any] = {
        name: given[name].astype(np.float32 if name == "variance" else np.float64)
        for name in needed
        if name != "media"
    }
    if (variance := values.get("variance")) is not None and (variance <= 0).any():
        raise InvalidInput(f"variance: expected numbers above 0, found {variance.min():g}.")
    usable = np.isfinite(x).all(axis=1) & (vectors.lengths(np.nan_to_num(x)) > 0)
    for each in values.values():
        usable &= np.isfinite(each.reshape(len(x), -1)).all(axis=1)
    order = np.argsort(number, kind="stable")
    order = order[usable[order]]
    kept = {name: each[order] for name, each in values.items()}
    medium = given.get("media", np.arange(len(x)))[order]
    variances = np.empty((0, 0), np.float32)
    if "variance" in kept:
        variances = kept["variance"].reshape(len(order), -1)
    faces = rules.UsableFaces(
        template=number[order],
        medium=stage.medium_numbers(number[order], medium),
        norm=vectors.lengths(x[order]).astype(np.float32).astype(np.float64),  # as embed stores it
        detector=kept.get("detector", np.empty(0)),
        quality=kept.get("quality", np.empty(0)),
        embedding=x[order],
        variance=variances,
        **(summarised(kept["quality"]) if "statistics" in chosen.needs else {}),
    )
    options = stage.FuseOptions(
        rule=label, features=features, media=inside_media, fallback=fallback
    )
    made, weight = stage.fuse_faces(faces, len(ids), options)
    weight = np.asarray(weight, np.float64)
    total = sums.by_group(faces.template, weight, len(ids))[faces.template]
    share = np.full(len(x), np.nan)
    share[order] = np.divide(weight, total, out=np.zeros_like(weight), where=total > 0)
    return Templates(made["embedding"], ids, share)


def scores(a: ArrayLike, b: ArrayLike | None = None, *, paired: bool = False) -> NDArray[Any]:
    """Return cosine scores, higher = more similar, of rows of `a` with rows of `b`.

    a (n, d), b (m, d), of any length; without b, of `a` with itself. Returns (n, m) float32 or,
    `paired`, (n,): row i with row i. Rows that are not finite score nan. A score depends on its two
    rows alone, and is the same bits on every machine (stages/exact).

    >>> scores([[1, 0], [0, 2]], [[1, 1]])
    array([[0.70710677],
           [0.70710677]], dtype=float32)
    """
    import numpy as np

    from pipeline.errors import InvalidInput
    from stages.exact import products, vectors

    one = np.asarray(a, np.float32)
    other = one if b is None else np.asarray(b, np.float32)
    if (
        one.ndim != 2
        or other.ndim != 2
        or one.shape[1] != other.shape[1]
        or (paired and len(one) != len(other))
    ):
        also = " of as many rows" if paired else ""
        raise InvalidInput(
            f"a has the shape {one.shape} and b {other.shape}: give (n, d) and (m, d){also}."
        )
    known = [np.asarray(np.isfinite(each).all(axis=1)) for each in (one, other)]
    units = [vectors.units(each, fine) for each, fine in zip((one, other), known, strict=True)]
    if paired:
        found = products.to_scores(products.paired(*units))
        return np.where(known[0] & known[1], found, np.float32(np.nan))
    found = np.empty((len(one), len(other)), np.float32)
    for start in range(0, len(one), 1024):
        cut = slice(start, start + 1024)
        found[cut] = products.to_scores(products.cosines(units[0][cut], units[1]))
    found[~known[0]] = np.nan
    found[:, ~known[1]] = np.nan
    return found


def error_rates(
    mated: ArrayLike,
    non_mated: ArrayLike,
    fmr: float | Sequence[float] = 1e-3,
    rule: Literal["at_most", "nearest", "script"] = "at_most",
) -> ErrorRates:
    """Return error rates of 1:1 comparisons at one or several FMR targets, with EER and AUC.

    See docs/metrics.md.

    mated (M,), non_mated (N,): finite scores; a comparison is accepted if its score is at least
    the threshold.

    >>> rates = error_rates([0.9, 0.8, 0.7, 0.3], [0.6, 0.4, 0.3, 0.2, 0.1], fmr=0.2)
    >>> rates.threshold, rates.fmr, rates.tar
    (0.6, 0.2, 0.75)

    Raises ValueError for a score that is not finite or a target outside [0, 1].
    """
    import numpy as np

    from stages.metrics import verification

    own = verification.Ascending.of(mated, "mated")
    others = verification.Ascending.of(non_mated, "non_mated")
    points = verification.operating_points(
        own, others, np.atleast_1d(np.asarray(fmr, np.float64)), rule
    )
    names = ("target", "threshold", "fmr", "fnmr", "tar", "false_matches", "false_non_matches")
    several = np.ndim(fmr) > 0
    found = {
        name: each if several else each[0].item()
        for name in names
        for each in [getattr(points, name)]
    }
    return ErrorRates(
        **found, eer=verification.eer(own, others)[0], auc=verification.auc(own, others)
    )


def intervals(
    score: ArrayLike,
    mated: ArrayLike,
    subject_a: ArrayLike,
    subject_b: ArrayLike,
    fmr: float | Sequence[float] = 1e-3,
    *,
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Intervals:
    """Return intervals of TAR at FMR targets and of the EER, by a bootstrap over subjects.

    score (N,) finite; mated (N,) bool; subject_a, subject_b (N,): whom each comparison is of,
    numbers or texts. One FMR target or several.

    >>> found = intervals(
    ...     [0.9, 0.3, 0.8, 0.4, 0.2, 0.1],
    ...     [True, True, True, False, False, False],
    ...     ["a", "b", "c", "a", "b", "a"],
    ...     ["a", "b", "c", "b", "c", "c"],
    ...     fmr=0.1,
    ... )
    >>> found.tar
    (0.3333333333333333, 1.0)

    Raises ValueError for a score that is not finite, or a mated flag that disagrees with the
    subjects.
    """
    import numpy as np

    from stages.metrics import bootstrap

    names, number = np.unique(
        np.concatenate([np.asarray(subject_a), np.asarray(subject_b)]), return_inverse=True
    )
    a, b = np.split(number, 2)
    weights = bootstrap.subject_weights(len(names), replicates, seed)
    targets = np.atleast_1d(np.asarray(fmr, np.float64))
    tar = np.stack(
        bootstrap.interval(bootstrap.tar_replicates(score, mated, a, b, targets, weights), level),
        axis=-1,
    )
    eer = bootstrap.interval(bootstrap.eer_replicates(score, mated, a, b, weights), level)
    low, high = (float(end) for end in eer)
    return Intervals(
        tar if np.ndim(fmr) else (float(tar[0, 0]), float(tar[0, 1])), (low, high), level
    )


def edc(
    mated: ArrayLike,
    quality: ArrayLike,
    *,
    threshold: float | None = None,
    fnmr: float | None = None,
    fmr: float | None = None,
    non_mated: ArrayLike | None = None,
) -> Curve:
    """Return false non-matches versus discard: the steps `x`, `y`, and `area(limit)`.

    This is the FNM-EDC of ISO/IEC 29794-1.

    mated (M,) scores; quality (M,) of each comparison, or (M, 2) of its two samples, of which the
    lower counts. Give the threshold itself, the share of false non-matches to start from (`fnmr`),
    or `fmr` with the scores `non_mated`.

    >>> curve = edc([0.9, 0.8, 0.2, 0.7], quality=[3, 2, 1, 4], threshold=0.5)
    >>> curve.x, curve.y, curve.area(0.5)
    (array([0.  , 0.25, 0.5 , 0.75, 1.  ]), array([0.25, 0.  , 0.  , 0.  , 0.  ]), 0.0625)

    Raises ValueError for values that are not finite, and unless exactly one of threshold, fnmr and
    fmr is given.
    """
    import numpy as np

    from stages.metrics import discard

    if sum(each is not None for each in (threshold, fnmr, fmr)) != 1 or (fmr is not None) != (
        non_mated is not None
    ):
        raise ValueError("give exactly one of threshold, fnmr, and fmr with non_mated.")
    if threshold is None:
        none = np.empty(0, np.float64)
        threshold = discard.threshold_for(
            mated, none if non_mated is None else non_mated, fmr=fmr, fnmr=fnmr
        )
    value = np.asarray(quality)
    return discard.fnm_edc(
        mated, discard.pair_quality(*value.T) if value.ndim == 2 else value, threshold
    )


def identify(gallery: ArrayLike, probes: ArrayLike, k: int = 20) -> Candidates:
    """Return the k best gallery templates of every probe, exactly, as the stage search does.

    gallery (g, d), probes (p, d), of any length. A row that is not finite in float32, or is zero,
    such as the template that `fuse` makes of no usable face, is nobody's candidate, and a probe
    like that has none. Raises InvalidInput for other shapes.

    >>> found = identify([[1, 0], [0, 1]], [[3, 4]], k=1)
    >>> found.row, found.score
    (array([[1]]), array([[0.8]], dtype=float32))
    """
    import numpy as np

    from pipeline.errors import InvalidInput
    from stages.exact import products, vectors
    from stages.matching import candidates
    from stages.matching.search import exact_top

    enrolled, seeking = (np.asarray(each, np.float32) for each in (gallery, probes))
    if enrolled.ndim != 2 or seeking.ndim != 2 or enrolled.shape[1] != seeking.shape[1]:
        raise InvalidInput(
            f"gallery {enrolled.shape}, probes {seeking.shape}: give (g, d) and (p, d)."
        )
    if not isinstance(k, int | np.integer) or isinstance(k, bool) or k < 1:
        raise InvalidInput(f"k: expected a whole number of candidates, 1 or more, found {k!r}.")
    usable, asked = (
        np.flatnonzero(np.isfinite(each).all(axis=1) & (vectors.lengths(np.nan_to_num(each)) > 0))
        for each in (enrolled, seeking)
    )
    row = np.full((len(seeking), k), -1, np.int64)
    score = np.full((len(seeking), k), np.nan, np.float32)
    if not len(usable) or not len(asked):
        return Candidates(row, score)
    unit = vectors.units(enrolled[usable])
    select, wide, most = candidates.with_numpy(unit), products.wide(unit), min(k, len(usable))
    for start in range(0, len(asked), 256):
        part = asked[start : start + 256]
        best, cosines = exact_top(wide, vectors.units(seeking[part]), most, select)
        row[part, :most], score[part, :most] = usable[best], cosines
    return Candidates(row, score)


def identification_rates(
    found: Candidates,
    gallery_subject: ArrayLike,
    probe_subject: ArrayLike,
    *,
    fpir: Sequence[float] = (1e-1, 1e-2),
    ranks: Sequence[int] = (1, 5, 10),
) -> IdentificationRates:
    """Return rank-k rates, and TPIR at FPIR targets, of what `identify` found (docs/metrics.md).

    gallery_subject (g,), probe_subject (p,): whom each template is of. A probe is mated if its
    subject is in the gallery. Raises InvalidInput for other lengths, and for a rank beyond the
    candidates that `identify` was asked for.

    >>> found = identify([[1, 0], [0, 1]], [[3, 4], [4, 3]], k=2)
    >>> rates = identification_rates(found, ["a", "b"], ["b", "c"], fpir=[1.0], ranks=[1])
    >>> rates.rank, rates.tpir
    ({1: 1.0}, array([1.]))
    """
    import numpy as np

    from pipeline.errors import InvalidInput
    from stages.metrics import identification

    enrolled, seeking = np.asarray(gallery_subject), np.asarray(probe_subject)
    targets = np.atleast_1d(np.asarray(fpir, np.float64)).tolist()
    wanted = np.atleast_1d(np.asarray(ranks)).tolist()
    if len(seeking) != len(found.row) or len(enrolled) <= found.row.max(initial=-1):
        raise InvalidInput(
            f"gallery_subject has {len(enrolled)} entries and probe_subject {len(seeking)}, for"
            f" {len(found.row)} probes whose candidates reach row {found.row.max(initial=-1)} of"
            " the gallery: give one a template."
        )
    depth = found.row.shape[1]
    if wanted and max(wanted) > min(depth, len(enrolled)):
        deepest = min(depth, len(enrolled))
        raise InvalidInput(
            f"ranks: {max(wanted)} is beyond the {deepest} candidates of a probe: ask `identify`"
            " for a larger k, or for lower ranks."
        )
    _, number = np.unique(np.concatenate([enrolled, seeking]), return_inverse=True)
    own, probe = number[: len(enrolled)], number[len(enrolled) :]
    mated = np.isin(probe, own)
    rank = identification.mate_rank(np.where(found.row >= 0, own[found.row], -1), probe)
    top = np.where(np.isfinite(found.score[:, 0]), found.score[:, 0], -np.inf)
    points = identification.tpir_at_fpir(top[~mated], rank[mated], top[mated], targets)
    closed = {
        k: float(((rank[mated] > 0) & (rank[mated] <= k)).mean()) if mated.any() else np.nan
        for k in wanted
    }
    return IdentificationRates(closed, points.tpir, points.fpir, points.threshold)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Return a config, its fields checked; `overrides` are given as to --set.

    Raises InvalidInput if a field is wrong. Whether its steps, rules and data exist is found when
    it is opened or checked (`open_session`, `qfuse check`).
    """
    from pipeline.config import config

    return config.load_config(Path(path), list(overrides))


def open_session(config: str | Path | Config, overrides: Sequence[str] = ()) -> Session:
    """Return a config opened: its data set, store and plan; nothing is computed.

    `overrides` are given as to --set, and need a config by its path. Raises what is wrong first.
    """
    from pipeline import session
    from pipeline.config.config import Config
    from pipeline.errors import InvalidInput

    if isinstance(config, Config) and overrides:
        raise InvalidInput(
            "overrides are of a config that is read: give them to load_config, or give open_session"
            " the config's path."
        )

    return session.open_session(
        Path(config) if isinstance(config, str) else config, list(overrides)
    )


def run(
    config: str | Path, overrides: Sequence[str] = (), *, workers: int | None = None
) -> list[Path]:
    """Compute whatever of a config is missing, as `qfuse run` does; return the report's files.

    The page comes first.

    `overrides`: as of --set, 'steps.fuse.options.rule=mean'. For one benchmark of several,
    'benchmark=NAME'.
    """
    import warnings

    from pipeline import session
    from pipeline.plan.check import open_all
    from pipeline.run.events import Events
    from pipeline.store.mending import mended

    loaded = load_config(config, overrides)

    def once() -> list[Path]:
        opened = session.open_session(loaded)
        open_all(opened.plan.to_run)
        session.execute(opened, Events(opened.folder if opened.plan.to_run else None), workers)
        return session.current_report(opened, warnings.warn)

    return mended(once, warnings.warn)


def results(run: str | Path) -> pd.DataFrame:
    """Return the numbers of a finished run as its report shows them, one a row.

    They come with intervals, counts and differences.

    `run`: its name, its folder, or its config. Raises InvalidInput for anything else.
    """
    import json

    import pandas as pd

    from stages.results.finished_runs import find_run

    return pd.DataFrame(
        json.loads((find_run(run).folder / "numbers.json").read_text(encoding="utf-8"))["table"]
    )
