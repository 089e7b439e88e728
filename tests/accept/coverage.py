"""How often the 95 % intervals hold what is true, on sets that are drawn from a model of which that
is known.

Subject i has an effect u_i on its mated and v_i on its non-mated scores, both normal with deviation
SPREAD; a comparison adds noise of deviation 1 and, if mated, a shift that sets TAR at FMR 1e-2. So
both scores are normal, and TAR and EER follow from their deviations. The second system, for
differences, has effects and noise that correlate with the first's, and a smaller shift. What pAUC
and TPIR are is the mean over TRUTH further sets, each of which is as large.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

from stages.metrics import bootstrap, discard_replicates, identification
from tests.accept.command import Check, table

SETS, REPLICATES, TRUTH = 300, 400, 2000
SUBJECTS, TARS = (40, 100, 400), (0.5, 0.9, 0.99)
SPREAD, SAME = 0.6, 0.7  # of effects; correlation of two systems
LOSS = 0.15  # of the second system's shift
FMR, LIMIT, FPIR = (1e-2, 1e-3), 0.2, 0.1
# deviations of mated and of non-mated scores
WIDE, NARROW = (np.sqrt(1 + SPREAD**2), np.sqrt(1 + 2 * SPREAD**2))
NAMES = (
    "TAR @ 1e-2",
    "TAR @ 1e-3",
    "EER",
    "pAUC(0.2)",
    "TPIR @ 0.1",
    "difference of TAR @ 1e-2",
    "difference of EER",
)
# of the EER's coverage; errors, fewer of which the report marks as very uncertain
WANTED, FEW = (0.92, 30)


@dataclass(frozen=True)
class Setting:
    """One kind of set. Uneven: a tenth of the subjects have ten times the samples of the others."""

    subjects: int
    uneven: bool
    tar: float

    @property
    def sizes(self) -> np.ndarray:
        """How many mated comparisons each subject has."""
        if not self.uneven:
            return np.full(self.subjects, 4)
        return np.where(np.arange(self.subjects) % 10 == 0, 20, 2)

    @property
    def errors(self) -> float:
        """How many mated comparisons fail at the EER, on average."""
        return float(self.sizes.sum() * self.known["EER"])

    @property
    def shift(self) -> float:
        return float(norm.isf(FMR[0]) * NARROW + norm.ppf(self.tar) * WIDE)

    @property
    def known(self) -> dict[str, float]:
        """What is true, as far as it follows from the model."""
        first, second = ({"shift": shift} for shift in (self.shift, self.shift - LOSS))
        tar = [_tar(first["shift"], target) for target in FMR]
        eer = [_eer(each["shift"]) for each in (first, second)]
        found = dict(zip(NAMES[:2], tar, strict=True)) | {NAMES[2]: eer[0]}
        return found | {NAMES[5]: tar[0] - _tar(second["shift"], FMR[0]), NAMES[6]: eer[0] - eer[1]}


def coverage() -> tuple[list[Check], str]:
    """Draw SETS sets of each setting; count how often each interval holds the truth."""
    settings = [Setting(*given) for given in product(SUBJECTS, (False, True), TARS)]
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        held = list(pool.map(held_in, settings))
    rows = [["subjects", "samples", "true TAR @ 1e-2", "mated errors at the EER", *NAMES]]
    for setting, shares in zip(settings, held, strict=True):
        kind = "uneven" if setting.uneven else "even"
        errors = f"{setting.errors:.0f}{'†' if setting.errors < FEW else ''}"
        percent = (f"{100 * share:.0f}" for share in shares.values())
        rows.append([str(setting.subjects), kind, f"{setting.tar:g}", errors, *percent])
    told = [
        shares["EER"]
        for setting, shares in zip(settings, held, strict=True)
        if setting.errors >= FEW
    ]
    check = Check(
        f"coverage of the EER's 95 % interval, with {FEW} mated errors or more at the EER",
        f"≥ {100 * WANTED:.0f} %",
        f"{100 * min(told):.0f} % at the least, in {len(told)} settings",
        min(told) >= WANTED,
    )
    text = (
        f"Percent of {SETS} sets whose 95 % interval ({REPLICATES} replicates) holds the truth; its"
        f" own error is ±2.5. †: the report marks numbers on fewer than {FEW} errors as very"
        " uncertain, because their intervals are too narrow."
    )
    return [check], f"{text}\n\n{table(rows)}"


def held_in(setting: Setting) -> dict[str, float]:
    """Return the share of sets whose interval holds the truth, by name."""
    rng = np.random.default_rng([setting.subjects, setting.uneven, int(1000 * setting.tar)])
    points = np.mean([_points(drawn(setting, rng)) for _ in range(TRUTH)], axis=0)
    truth = setting.known | dict(zip(NAMES[3:5], points, strict=True))
    held = dict.fromkeys(NAMES, 0)
    for number in range(SETS):
        for name, replicates in estimates(drawn(setting, rng), number).items():
            low, high = bootstrap.interval(replicates)
            held[name] += bool(low <= truth[name] <= high)
    return {name: count / SETS for name, count in held.items()}


@dataclass(frozen=True)
class Drawn:
    """One set: mated comparisons (M,), and each subject's reference against two other subjects'
    samples … (N,).
    """

    subjects: int
    subject: np.ndarray  # of mated comparisons
    a: np.ndarray
    b: np.ndarray
    mated: tuple[np.ndarray, np.ndarray]  # of either system
    nonmated: tuple[np.ndarray, np.ndarray]
    quality: np.ndarray  # of mated comparisons
    top: np.ndarray  # of a non-mated probe: the best of a gallery
    top_subject: np.ndarray


def drawn(setting: Setting, rng: np.random.Generator) -> Drawn:
    subject = np.repeat(np.arange(setting.subjects), setting.sizes)
    a = np.tile(np.arange(setting.subjects), max(1, 20_000 // setting.subjects))
    b = (a + 1 + rng.integers(0, setting.subjects - 1, a.size)) % setting.subjects

    def twice(count: int) -> tuple[np.ndarray, np.ndarray]:
        first = rng.standard_normal(count)
        return first, SAME * first + np.sqrt(1 - SAME**2) * rng.standard_normal(count)

    effect, other = twice(setting.subjects), twice(setting.subjects)
    noise, chance = twice(subject.size), twice(a.size)
    shifts = (setting.shift, setting.shift - LOSS)
    mated = [
        shift + SPREAD * u[subject] + e for shift, u, e in zip(shifts, effect, noise, strict=True)
    ]
    nonmated = [SPREAD * (v[a] + v[b]) + e for v, e in zip(other, chance, strict=True)]
    top_subject = np.repeat(np.arange(setting.subjects), 4)
    top = (
        SPREAD * other[0][top_subject]
        + rng.standard_normal((top_subject.size, 20)).max(axis=1) * NARROW
    )
    quality = mated[0] + 1.5 * rng.standard_normal(subject.size)
    return Drawn(
        setting.subjects,
        subject,
        a,
        b,
        (mated[0], mated[1]),
        (nonmated[0], nonmated[1]),
        quality,
        top,
        top_subject,
    )


def estimates(made: Drawn, seed: int) -> dict[str, np.ndarray]:
    """Return the replicates (R,) of every number."""
    weights = bootstrap.subject_weights(made.subjects, REPLICATES, seed)
    mated = np.repeat([True, False], [made.subject.size, made.a.size])
    sides = np.concatenate([made.subject, made.a]), np.concatenate([made.subject, made.b])
    systems = [np.concatenate(pair) for pair in zip(made.mated, made.nonmated, strict=True)]
    tar = [bootstrap.tar_replicates(scores, mated, *sides, FMR, weights) for scores in systems]
    eer = [bootstrap.eer_replicates(scores, mated, *sides, weights) for scores in systems]
    threshold = discard_replicates.threshold_replicates(
        made.nonmated[0], made.a, made.b, FMR[:1], weights
    )
    area = discard_replicates.fnm_pauc_replicates(
        made.mated[0], made.quality, made.subject, threshold, weights, [LIMIT]
    )
    rank = np.ones(made.subject.size, int)
    tpir = bootstrap.tpir_replicates(
        made.top, made.top_subject, rank, made.mated[0], made.subject, [FPIR], weights
    )
    return {
        NAMES[0]: tar[0][:, 0],
        NAMES[1]: tar[0][:, 1],
        NAMES[2]: eer[0],
        NAMES[3]: area.pauc.reshape(REPLICATES),
        NAMES[4]: tpir[:, 0],
        NAMES[5]: tar[0][:, 0] - tar[1][:, 0],
        NAMES[6]: eer[0] - eer[1],
    }


def _points(made: Drawn) -> tuple[float, float]:
    """Return pAUC and TPIR of a set: what a replicate is that draws every subject once."""
    ones = np.ones((1, made.subjects), np.uint16)
    threshold = discard_replicates.threshold_replicates(
        made.nonmated[0], made.a, made.b, FMR[:1], ones
    )
    area = discard_replicates.fnm_pauc_replicates(
        made.mated[0], made.quality, made.subject, threshold, ones, [LIMIT]
    )
    rank = np.ones(made.subject.size, int)
    tpir = identification.tpir_at_fpir(made.top, rank, made.mated[0], [FPIR]).tpir
    return float(area.pauc.ravel()[0]), float(tpir[0])


def _tar(shift: float, target: float) -> float:
    return float(norm.sf((norm.isf(target) * NARROW - shift) / WIDE))


def _eer(shift: float) -> float:
    def over(threshold: float) -> float:
        return float(norm.sf(threshold / NARROW) - norm.cdf((threshold - shift) / WIDE))

    return float(norm.sf(brentq(over, -10, 20) / NARROW))
