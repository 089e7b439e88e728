"""What `stages.datasets.synthetic` promises: a shape, a seed, and a task on which quality pays."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.core.schema import Batch
from stages.datasets.synthetic import (
    HiddenTruth,
    SyntheticReader,
    SynthOptions,
    noise_level,
    optimal_weights,
    synthesise,
    synthesise_truth,
)
from stages.metrics.verification import operating_points
from stages.tables.comparisons import Comparisons, role_rows
from stages.tables.pair_layouts import Product
from stages.tables.tables import LAYOUT

Floats = NDArray[np.floating[Any]]
SEEDS = (0, 1, 2)


@cache
def made(options: SynthOptions = SynthOptions()) -> dict[str, Batch]:  # noqa: B008  frozen
    return synthesise(options)


@cache
def truth(options: SynthOptions = SynthOptions()) -> HiddenTruth:  # noqa: B008  frozen
    return synthesise_truth(options)


def unit(vectors: Floats) -> Floats:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def tar(options: SynthOptions, weight: Floats) -> float:
    """1 - FNMR at FMR 1e-3 of templates fused with `weight` (n,)."""
    tables = made(options)
    members = tables["members"]
    weighted = unit(tables["faces"]["embedding"])[members["face"]] * weight[members["face"], None]
    fused = unit(
        np.add.reduceat(weighted, np.flatnonzero(np.diff(members["template"], prepend=-1)))
    )
    a, b = (role_rows(tables["roles"], role) for role in ("reference", "probe"))
    subject = tables["templates"]["subject"]
    mated = subject[a][:, None] == subject[b][None]
    scores = fused[a] @ fused[b].T
    return float(operating_points(scores[mated], scores[~mated], [1e-3]).tar[0])


def test_tables_fit_the_layout() -> None:
    for name, schema in LAYOUT.schemas.items():
        schema.check(made()[name])


def test_counts_are_those_of_ijbc_times_the_scale() -> None:
    tables = made()
    counts = [
        tables["faces"].rows,
        tables["templates"].rows,
        len(set(tables["templates"]["subject"])),
    ]
    assert counts == [round(469_375 * 0.02), round(23_124 * 0.02), round(3_531 * 0.02)]


@settings(deadline=None, max_examples=30)
@given(
    st.builds(
        SynthOptions,
        scale=st.floats(1e-6, 4e-3),
        seed=st.integers(0, 2**64),
        dimension=st.integers(2, 9),
        single_probes=st.floats(0, 1),
        size_spread=st.floats(0, 4),
        look_alikes=st.floats(0, 1),
        shared_noise=st.floats(0, 1),
    )
)
def test_any_options_give_whole_and_finite_tables(options: SynthOptions) -> None:
    tables = synthesise(options)
    assert len(np.unique(tables["members"]["template"])) == tables["templates"].rows
    assert np.array_equal(np.sort(tables["members"]["face"]), np.arange(tables["faces"].rows))
    assert np.isfinite(tables["faces"]["embedding"]).all()


def test_every_subject_has_one_reference_and_a_probe() -> None:
    tables = made()
    subject = tables["templates"]["subject"]
    reference, probe = (
        subject[role_rows(tables["roles"], role)] for role in ("reference", "probe")
    )
    assert sorted(reference) == sorted(set(subject)) == sorted(set(probe))
    assert len(reference) + len(probe) == tables["templates"].rows


def test_half_of_the_references_are_the_gallery() -> None:
    tables = made()
    gallery, reference = (
        set(role_rows(tables["roles"], role)) for role in ("gallery", "reference")
    )
    assert gallery < reference
    assert len(gallery) == len(reference) // 2


def test_every_reference_is_compared_with_every_probe() -> None:
    comparisons = Comparisons.of(made())
    assert isinstance(comparisons.form, Product)
    assert comparisons.rows == len(comparisons.a) * len(comparisons.b)


def test_template_sizes_are_heavy_tailed() -> None:
    size = np.bincount(made()["members"]["template"])
    assert 0.05 < np.mean(size == 1) < 0.4
    assert size.max() > 10 * np.median(size)


def test_a_still_is_one_face_and_some_videos_are_many() -> None:
    media, count = np.unique(made()["members"]["media"].astype(str), return_counts=True)
    still = np.char.startswith(media, "still")
    assert count[still].max() == 1
    assert count[~still].mean() > 4


def test_a_medium_lies_in_one_template() -> None:
    members = made()["members"]
    pairs = set(zip(members["media"], members["template"].tolist(), strict=True))
    assert len(pairs) == len(set(members["media"]))


def test_frames_of_a_video_share_noise() -> None:
    hidden, members = truth(), made()["members"]
    residual = unit(unit(made()["faces"]["embedding"]) - hidden.centre[hidden.subject])
    same = members["media"][1:] == members["media"][:-1]
    near = (residual[1:] * residual[:-1]).sum(axis=1)
    assert near[same].mean() > near[~same].mean() + 0.2


def test_some_subjects_look_alike() -> None:
    centre = truth().centre
    assert np.triu(centre @ centre.T, 1).max() > 0.3
    apart = synthesise_truth(SynthOptions(look_alikes=0, dimension=1024)).centre
    assert np.triu(apart @ apart.T, 1).max() < 0.2


def test_the_same_seed_gives_the_same_set() -> None:
    again = synthesise(SynthOptions())
    assert {n: b.digest() for n, b in again.items()} == {n: b.digest() for n, b in made().items()}


def test_another_seed_gives_another_set() -> None:
    assert made(SynthOptions(seed=1))["faces"].digest() != made()["faces"].digest()


def test_quality_noise_changes_what_is_observed_and_not_the_faces() -> None:
    faces, noisier = made()["faces"], made(SynthOptions(quality_noise=0.3))["faces"]
    assert np.array_equal(faces["embedding"], noisier["embedding"])
    assert not np.array_equal(faces["quality"], noisier["quality"])


def test_observed_quality_is_the_true_one_with_noise_and_never_zero() -> None:
    observed, quality = made()["faces"]["quality"], truth().quality
    assert 0 < observed.min() <= observed.max() <= 1
    assert np.std(observed - quality) == pytest.approx(0.1, rel=0.1)


def test_noise_grows_as_quality_falls() -> None:
    options = SynthOptions(sigma_best=0.5, sigma_worst=5)
    assert noise_level(np.array([0.0, 1.0]), options) == pytest.approx([5, 0.5])
    assert np.all(np.diff(noise_level(np.linspace(0, 1, 50), options)) < 0)


def test_a_face_is_as_far_from_its_centre_as_its_noise_says() -> None:
    hidden = truth()
    cosine = (unit(made()["faces"]["embedding"]) * hidden.centre[hidden.subject]).sum(axis=1)
    assert np.mean(cosine - 1 / np.sqrt(1 + hidden.sigma**2)) == pytest.approx(0, abs=0.01)


def test_the_norm_is_a_mild_hint_of_quality() -> None:
    norm = np.linalg.norm(made()["faces"]["embedding"], axis=1)
    assert 0.2 < np.corrcoef(norm, truth().quality)[0, 1] < 0.7


def test_the_mean_is_neither_hopeless_nor_perfect() -> None:
    rates = [tar(SynthOptions(seed=seed), np.ones(made()["faces"].rows)) for seed in SEEDS]
    assert 0.85 < np.mean(rates) < 0.97


def test_weighting_by_observed_quality_beats_the_mean() -> None:
    gains = []
    for seed in SEEDS:
        options = SynthOptions(seed=seed)
        quality = made(options)["faces"]["quality"]
        gains.append(tar(options, quality) - tar(options, np.ones_like(quality)))
    assert min(gains) > 0
    assert np.mean(gains) > 0.02


def test_without_shared_noise_no_power_of_quality_is_nearer_the_centre_than_inverse_variance() -> (
    None
):
    options = SynthOptions(shared_noise=0, seed=3)
    hidden, members = truth(options), made(options)["members"]
    starts = np.flatnonzero(np.diff(members["template"], prepend=-1))
    face = unit(made(options)["faces"]["embedding"])

    def nearness(weight: Floats) -> float:
        fused = unit(np.add.reduceat(face * weight[:, None], starts))
        return float((fused * hidden.centre[hidden.subject[starts]]).sum(axis=1).mean())

    best = nearness(optimal_weights(hidden.sigma))
    assert all(best >= nearness(hidden.quality**power) for power in range(8))


def test_the_variance_that_the_set_shows_is_that_of_the_best_weights() -> None:
    options = SynthOptions(scale=0.002, seed=3)
    variance = made(options)["faces"]["variance"]
    assert variance.shape == (len(variance), 1)
    weight = optimal_weights(truth(options).sigma).astype(np.float64)
    np.testing.assert_allclose(1 / variance[:, 0], weight * options.dimension, rtol=1e-5)


def test_the_reader_needs_no_files_and_gives_the_same_tables() -> None:
    reader = SyntheticReader(SynthOptions(scale=0.001))
    again = synthesise(SynthOptions(scale=0.001))
    assert {n: b.digest() for n, b in reader.read(None).items()} == {
        n: b.digest() for n, b in again.items()
    }
