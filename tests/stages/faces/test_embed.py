"""embed: how the two flips combine, and that a face's embedding is its own affair."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.numerics import profile_of
from pipeline.core.schema import Batch, Status, text
from pipeline.core.stage import Context
from pipeline.errors import InvalidInput
from stages.faces.embed import Embed, EmbedOptions
from stages.tables.schemas import EMBEDDINGS

Make = Callable[..., Any]


def embed(crops: Batch, context: Context, **options: Any) -> Batch:
    stage = Embed(EmbedOptions(**options), context)
    stage.open()
    rows = Batch({"face_id": text(range(crops.rows))})
    return EMBEDDINGS.check(stage.run(rows, {"crops": crops}, None)[""])


def mirrored(crops: Batch) -> Batch:
    return Batch({**crops.columns, "crop": np.ascontiguousarray(crops["crop"][:, :, ::-1])})


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (unit(a) * unit(b)).sum(axis=1)


def test_without_flip_it_is_the_networks_answer_and_mirrors_differ(
    noise: Batch, tiny: Context
) -> None:
    plain, other = (
        embed(crops, tiny, model="tiny", flip="none") for crops in (noise, mirrored(noise))
    )
    assert plain["embedding"].shape == (9, 5)
    usable = plain["status"] == Status.OK
    assert cosine(plain["embedding"], other["embedding"])[usable].max() < 0.9999


def test_add_is_the_sum_of_both_answers(noise: Batch, tiny: Context) -> None:
    added, plain, other = (
        embed(crops, tiny, model="tiny", flip=flip)["embedding"]
        for crops, flip in ((noise, "add"), (noise, "none"), (mirrored(noise), "none"))
    )
    assert np.array_equal(added, plain + other, equal_nan=True)
    assert np.array_equal(
        added, embed(mirrored(noise), tiny, model="tiny", flip="add")["embedding"], equal_nan=True
    )


def test_the_cosine_of_concat_is_the_mean_of_two_cosines(noise: Batch, tiny: Context) -> None:
    both, plain, other = (
        embed(crops, tiny, model="tiny", flip=flip)["embedding"]
        for crops, flip in ((noise, "concat"), (noise, "none"), (mirrored(noise), "none"))
    )
    assert both.shape == (9, 10)
    pairs = [(i, j) for i in range(9) for j in range(9) if 3 not in (i, j)]
    a, b = (np.array(side) for side in zip(*pairs, strict=True))
    mean = (cosine(plain[a], plain[b]) + cosine(other[a], other[b])) / 2
    np.testing.assert_allclose(cosine(both[a], both[b]), mean, atol=1e-6)


@pytest.mark.parametrize("flip", ["none", "add", "concat"])
def test_failed_crops_stay_failed_and_the_norm_of_the_others_is_kept(
    noise: Batch, tiny: Context, flip: str
) -> None:
    made = embed(noise, tiny, model="tiny", flip=flip)
    assert np.array_equal(made["status"], noise["status"])
    assert np.isnan(made["embedding"][3]).all()
    assert np.isnan(made["norm"][3])
    usable = noise["status"] == Status.OK
    norm = np.linalg.norm(made["embedding"].astype(np.float64), axis=1)
    np.testing.assert_allclose(made["norm"][usable], norm[usable], rtol=1e-6)
    assert np.ptp(made["norm"][usable]) > 0


def test_with_every_crop_failed_rows_stay(noise: Batch, tiny: Context) -> None:
    made = embed(noise.take(np.array([3, 3])), tiny, model="tiny")
    assert made["embedding"].shape == (2, 5)
    assert made["status"].tolist() == [Status.NOT_FOUND] * 2
    assert embed(noise.take(slice(0, 0)), tiny, model="tiny")["embedding"].shape == (0, 5)


@pytest.mark.parametrize("flip", ["none", "add", "concat"])
@settings(deadline=None, max_examples=15)
@given(rows=st.lists(st.integers(0, 8), min_size=1, max_size=11))
def test_neighbours_and_the_number_of_rows_change_no_bit(
    noise: Batch, tiny: Context, flip: str, rows: list[int]
) -> None:
    index = np.array(rows)
    alone = embed(noise.take(index), tiny, model="tiny", flip=flip)
    assert alone.digest() == embed(noise, tiny, model="tiny", flip=flip).take(index).digest()


def test_embeddings_that_come_with_the_data_set_are_taken_as_they_are(context: Make) -> None:
    given_rows = np.float32([[3, 4], [np.nan, 1], [0, 0]])
    stage = Embed(EmbedOptions(model="given"), context())
    assert stage.uses() == ()
    assert stage.consumed() == {"faces": ("embedding", "variance")}
    stage.open()
    made = EMBEDDINGS.check(stage.run(Batch({"embedding": given_rows}), {}, None)[""])
    assert np.array_equal(made["embedding"][:2], given_rows[:2], equal_nan=True)
    assert "variance" not in made
    variance = np.float32([[1], [2], [3]])
    with_variance = EMBEDDINGS.check(
        stage.run(Batch({"embedding": given_rows, "variance": variance}), {}, None)[""]
    )
    assert np.array_equal(with_variance["variance"], variance)
    assert made["norm"][0] == 5


def test_an_embedding_of_length_0_is_a_row_that_failed(context: Make) -> None:
    stage = Embed(EmbedOptions(model="given"), context())
    made = stage.run(Batch({"embedding": np.float32([[3, 4], [0, 0]])}), {}, None)[""]
    assert made["status"].tolist() == [Status.OK, Status.FAILED]
    assert made["reason"].tolist() == ["", "the embedding has length 0, and so no direction"]
    assert np.isnan(made["embedding"][1]).all()
    assert np.isnan(made["norm"][1])


def test_given_is_refused_where_the_data_set_brings_none(context: Make) -> None:
    stage = Embed(EmbedOptions(model="given"), context())
    with pytest.raises(
        InvalidInput, match=r"embed\.model is 'given' but the data set brings no embeddings"
    ):
        stage.fits({"faces": Batch({"face_id": text("ab")})})


def test_a_model_that_cannot_embed_is_refused(tiny: Context) -> None:
    with pytest.raises(InvalidInput, match="model 'tiny_quality' gives no embedding"):
        Embed(EmbedOptions(model="tiny_quality"), tiny).open()
    with pytest.raises(InvalidInput, match="did you mean 'mobilefacenet'"):
        Embed(EmbedOptions(model="mobilfacenet"), tiny).open()
    with pytest.raises(InvalidInput, match="is of kind detector, and here"):
        Embed(EmbedOptions(model="yunet_320"), tiny).open()


def test_a_weight_file_with_another_digest_is_refused(tiny: Context, tmp_path: Any) -> None:
    (folder,) = tiny.model_folders
    other = bytearray((folder / "tiny.onnx").read_bytes())
    other[-1] ^= 1
    (tmp_path / "tiny.onnx").write_bytes(other)
    # A numerics profile that no other test opened this model under: what is open is not read again.
    there = replace(tiny, model_folders=(tmp_path,), profile=profile_of({"compute_batch": 3}))
    with pytest.raises(InvalidInput, match="another digest than declared"):
        Embed(EmbedOptions(model="tiny"), there).open()


@pytest.mark.parametrize("model", ["edgeface_xxs", "mobilefacenet"])
def test_thread_counts_agree_on_real_faces(
    shared: Any, faces: Batch, context: Make, model: str
) -> None:
    one, two = (
        embed(faces, context(folders=(shared / "models",), threads=threads), model=model)[
            "embedding"
        ]
        for threads in (1, 2)
    )
    assert len(one) == 32
    assert cosine(one, two).min() >= 0.999999


def test_people_are_told_apart(shared: Any, faces: Batch, context: Make) -> None:
    # 32 people: no two of them alike, each like its own mirror image.
    there = context(folders=(shared / "models",))
    plain, other = (
        unit(embed(crops, there, model="edgeface_xxs", flip="none")["embedding"])
        for crops in (faces, mirrored(faces))
    )
    apart = (plain @ plain.T)[~np.eye(32, dtype=bool)]
    assert apart.max() < 0.5
    assert (plain * other).sum(axis=1).min() > 0.6
