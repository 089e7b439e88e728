"""quality and statistics: each method's score of every face, and what a set of scores
looks like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.schema import Batch, Status, text
from pipeline.core.stage import Context, Work
from pipeline.errors import InvalidInput
from stages.faces.align import Align, AlignOptions
from stages.faces.degrade import Degrade, DegradeOptions
from stages.faces.embed import Embed, EmbedOptions
from stages.models import catalogue
from stages.models.backends import TorchModel
from stages.networks.iresnet import IResNet
from stages.quality.quality import Quality, QualityOptions
from stages.quality.reference_statistics import STATISTICS, Statistics
from stages.tables.schemas import QUALITIES

Make = Callable[..., Any]


def quality(context: Context, method: str, rows: Batch | None = None, **inputs: Batch) -> Batch:
    stage = Quality(QualityOptions(method=method), context)
    stage.open()
    assert set(stage.uses()) == set(inputs)
    count = next(iter(inputs.values())).rows if inputs else 0
    return QUALITIES.check(
        stage.run(rows or Batch({"face_id": text(range(count))}), inputs, None)[""]
    )


def test_a_model_scores_every_usable_crop(noise: Batch, tiny: Context) -> None:
    made = quality(tiny, "tiny_quality", crops=noise)
    assert np.array_equal(made["status"], noise["status"])
    usable = noise["status"] == Status.OK
    assert np.array_equal(np.isfinite(made["quality"]), usable)
    assert len(set(made["quality"][usable])) == usable.sum()
    assert np.isnan(quality(tiny, "tiny_quality", crops=noise.take(np.array([3])))["quality"]).all()


@settings(deadline=None, max_examples=15)
@given(rows=st.lists(st.integers(0, 8), min_size=1, max_size=11))
def test_neighbours_and_the_number_of_rows_change_no_bit(
    noise: Batch, tiny: Context, rows: list[int]
) -> None:
    whole = quality(tiny, "tiny_quality", crops=noise)
    assert (
        quality(tiny, "tiny_quality", crops=noise.take(np.array(rows))).digest()
        == whole.take(np.array(rows)).digest()
    )


def test_methods_without_a_model_take_what_another_step_found(context: Make) -> None:
    status = np.array([Status.OK, Status.FAILED], np.uint8)
    values = np.float32([0.75, np.nan])
    norms, scores = (
        Batch({"status": status, "norm": values}),
        Batch({"status": status, "score": values}),
    )
    for made in (
        quality(context(), "feature-norm", embeddings=norms),
        quality(context(), "detector-score", detections=scores),
    ):
        assert np.array_equal(made["quality"], values, equal_nan=True)
        assert np.array_equal(made["status"], status)


def test_scores_that_come_with_the_data_set_are_taken_as_they_are(context: Make) -> None:
    rows = Batch({"quality": np.float32([0.5, -2])})
    assert quality(context(), "given", rows)["quality"].tolist() == [0.5, -2]
    with pytest.raises(
        InvalidInput, match=r"quality\.method is 'given' but the data set brings no quality"
    ):
        Quality(QualityOptions(method="given"), context()).fits(
            {"faces": Batch({"face_id": text("ab")})}
        )


def random_scores(context: Make, faces: Any, seed: int = 0) -> list[float]:
    stage = Quality(QualityOptions(method="random", seed=seed), context())
    stage.open()
    made = QUALITIES.check(stage.run(Batch({"face_id": text(faces)}), {}, None)[""])
    assert (made["status"] == Status.OK).all()
    return made["quality"].tolist()


def test_a_random_quality_is_the_hash_of_the_seed_and_the_face(context: Make) -> None:
    # The beginnings of `printf 'random quality|0|f0' | sha256sum` and of the same with the seed 7:
    # 24 bits each.
    assert random_scores(context, ["f0"]) == [0xD2A25C / 2**24]
    assert random_scores(context, ["f0"], seed=7) == [0xAB59B6 / 2**24]


def test_a_random_quality_is_a_faces_own_whatever_faces_are_beside_it(context: Make) -> None:
    whole = random_scores(context, [f"f{i}" for i in range(20)])
    assert random_scores(context, ["f7", "f3", "f7"]) == [whole[7], whole[3], whole[7]]
    assert random_scores(context, ["\udcff"])[0] not in whole  # a name that is not UTF-8


def test_random_qualities_are_even_between_0_and_1_and_those_of_two_seeds_have_nothing_in_common(
    context: Make,
) -> None:
    faces = [f"f{i}" for i in range(5000)]
    one, other = random_scores(context, faces), random_scores(context, faces, seed=1)
    assert min(one) >= 0
    assert max(one) < 1
    # Standard errors of a bin of 500 and of a correlation over 5,000: about 21 and 0.014.
    assert np.abs(np.histogram(one, 10, (0, 1))[0] - 500).max() < 100
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.06


def test_the_seed_is_in_the_key_of_a_random_quality_and_of_no_other() -> None:
    assert QualityOptions(method="random", seed=2).result_options() == {
        "method": "random",
        "seed": 2,
    }
    assert QualityOptions(method="given", seed=2).result_options() == {"method": "given"}
    with pytest.raises(ValueError, match="seed"):
        QualityOptions(method="random", seed=-1)


def test_random_qualities_are_decided_by_face_ids_alone(context: Make) -> None:
    assert Quality(QualityOptions(method="random"), context()).consumed() == {"faces": ("face_id",)}
    assert Quality(QualityOptions(method="lightqnet"), context()).consumed() == {}


def test_a_detector_score_that_no_detector_gave_is_not_invented(context: Make) -> None:
    scores = Batch({"status": np.zeros(2, np.uint8), "score": np.float32([0.9, np.nan])})
    with pytest.raises(InvalidInput, match="'detector-score', and some faces have none"):
        quality(context(), "detector-score", detections=scores)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("lightqnt", "did you mean 'lightqnet'"),
        ("feature-nom", "did you mean 'feature-norm'"),
        ("mobilefacenet", "unknown quality"),
    ],
)
def test_an_unknown_method_is_a_sentence(context: Make, method: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Quality(QualityOptions(method=method), context()).open()


def test_degraded_faces_score_lower(shared: Path, faces: Batch, context: Make) -> None:
    there = context(folders=(shared / "models",))
    table = Batch({"face_id": text(range(faces.rows))})
    spoilt = (
        Degrade(DegradeOptions(fraction=1), there)
        .run(table, {"crops": faces}, None)[""]
        .select(("status", "crop"))
    )
    clean, bad = (quality(there, "lightqnet", crops=crops)["quality"] for crops in (faces, spoilt))
    assert (clean > bad).mean() > 0.9


# CR-FIQA, in the layout of the published checkpoints


@pytest.fixture(scope="module")
def crfiqa(tmp_path_factory: pytest.TempPathFactory, context: Make) -> tuple[Context, Any]:
    """A randomly initialised network behind a card of its own, and the network."""
    folder = tmp_path_factory.mktemp("crfiqa")
    torch.manual_seed(0)
    network = IResNet(50, quality=True).eval()
    torch.save(network.state_dict(), folder / "random.pth")
    card = {
        "kind": "quality",
        "architecture": "crfiqa50",
        "file": "random.pth",
        "sha256": sha256((folder / "random.pth").read_bytes()).hexdigest(),
        "dimension": 1,
        "licence": "none",
    }
    (folder / "cards.yaml").write_text(yaml.safe_dump({"untrained": card}))
    return context(folders=(folder,), cards=(folder / "cards.yaml",), compute_batch=2), network


def test_one_crfiqa_network_gives_quality_and_embedding(
    crfiqa: tuple[Context, Any], noise: Batch
) -> None:
    there, network = crfiqa
    crops = noise.take(np.array([1, 3]))  # a crop, and one that failed
    pixels = torch.from_numpy(
        (crops["crop"][:1].transpose(0, 3, 1, 2) / np.float32(255) - 0.5) / 0.5
    )
    with torch.inference_mode():
        embedding, score = (answer.numpy() for answer in network(pixels))
    found = quality(there, "untrained", crops=crops)
    np.testing.assert_allclose(found["quality"][0], score[0], atol=1e-4)
    assert np.isnan(found["quality"][1])
    stage = Embed(EmbedOptions(model="untrained", flip="none"), there)
    stage.open()
    as_recognition = stage.run(Batch({"face_id": text("ab")}), {"crops": crops}, None)[""]
    assert as_recognition["embedding"].shape == (2, 512)
    np.testing.assert_allclose(as_recognition["embedding"][0], embedding[0], atol=1e-4)
    assert (
        as_recognition["status"].tolist()
        == found["status"].tolist()
        == [Status.OK, Status.NOT_FOUND]
    )


def test_a_crfiqa_checkpoint_with_another_digest_is_refused(
    crfiqa: tuple[Context, Any], tmp_path: Path
) -> None:
    there, _ = crfiqa
    (tmp_path / "random.pth").write_bytes(b"another file of the same name")
    elsewhere = replace(
        there,
        model_folders=(tmp_path,),
        profile=there.profile.model_copy(update={"compute_batch": 3}),
    )
    with pytest.raises(InvalidInput, match="another digest than declared"):
        Quality(QualityOptions(method="untrained"), elsewhere).open()


def test_a_checkpoint_that_is_absent_says_where_it_was_looked_for(
    context: Make, tmp_path: Path
) -> None:
    with pytest.raises(
        InvalidInput, match=r"needs the file 32572backbone\.pth; looked in .*CC BY-NC"
    ):
        Quality(QualityOptions(method="crfiqa_s"), context(folders=(tmp_path,))).open()


def test_scores_of_another_detector_or_another_model_are_of_another_measure(context: Make) -> None:
    def measure(method: str, **above: Any) -> Any:
        stage = Quality(QualityOptions(method=method), context())
        stage.above = above
        return stage.measure

    small, large = (Align(AlignOptions(detector=f"yunet_{side}"), context()) for side in (320, 640))
    assert measure("detector-score", detections=small) == measure(
        "detector-score", detections=small
    )
    assert measure("detector-score", detections=small) != measure(
        "detector-score", detections=large
    )
    one, other = (
        Embed(EmbedOptions(model=f"edgeface_{size}"), context()) for size in ("xxs", "xs")
    )
    assert measure("feature-norm", embeddings=one) != measure("feature-norm", embeddings=other)
    assert measure("lightqnet", embeddings=one) == measure("lightqnet", embeddings=other)
    assert measure("lightqnet").keys() == {
        "method",
        "version",
        "identity",
    }  # as files of reference sets have it


# Statistics of a set of scores


def statistics(source: Make, context: Make, values: Any, failed: Any = (), cuts: Any = ()) -> Batch:
    scores = np.array(values, np.float32)
    status = np.zeros(len(scores), np.uint8)
    status[list(failed)], scores[list(failed)] = Status.FAILED, np.nan
    batch = Batch({"status": status, "quality": scores})
    work = Work(0, len(scores), {}, {"quality": source(batch, *cuts)})
    return STATISTICS.check(Statistics(Statistics.Options(), context()).compute(work)[""])


@settings(deadline=None, max_examples=25)
@given(values=st.lists(st.floats(-100, 100, width=32), min_size=2, max_size=30), data=st.data())
def test_statistics_are_those_of_the_usable_scores(
    source: Make, context: Make, values: list[float], data: Any
) -> None:
    failed = data.draw(st.sets(st.integers(0, len(values) - 1), max_size=len(values) - 1))
    kept = [value for i, value in enumerate(values) if i not in failed]
    mean = sum(kept) / len(kept)
    row = statistics(source, context, values, failed, (1,))
    assert row["count"].tolist() == [len(kept)]
    assert (row["minimum"][0], row["maximum"][0]) == (min(kept), max(kept))
    assert row["mean"][0] == pytest.approx(mean, abs=1e-9)
    assert row["deviation"][0] == pytest.approx(
        (sum((v - mean) ** 2 for v in kept) / len(kept)) ** 0.5, abs=1e-6
    )
    assert row["percentiles"][0, [0, 50, 100]] == pytest.approx(
        [min(kept), np.median(kept), max(kept)]
    )


def test_statistics_of_no_score_are_nan(source: Make, context: Make) -> None:
    for row in (
        statistics(source, context, []),
        statistics(source, context, [1, 2], failed=[0, 1]),
    ):
        assert row["count"].tolist() == [0]
        assert np.isnan([row["minimum"][0], row["mean"][0], row["deviation"][0]]).all()
        assert np.isnan(row["percentiles"]).all()


@pytest.mark.parametrize("flip", ["none", "add"])
def test_a_model_that_embedded_the_crops_is_not_run_again_for_their_quality(
    crfiqa: tuple[Context, Any], noise: Batch, flip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, _ = crfiqa
    crops = noise.take(np.array([0, 1, 3]))
    stage = Embed(EmbedOptions(model="untrained", flip=flip), there)
    stage.open()
    stage.run(Batch({"face_id": text("abc")}), {"crops": crops}, None)
    monkeypatch.setattr(TorchModel, "__call__", lambda *_: pytest.fail("the network was run"))
    remembered = quality(there, "untrained", crops=crops)
    monkeypatch.undo()
    catalogue.forget()
    computed = quality(there, "untrained", crops=crops)
    assert np.array_equal(computed["quality"], remembered["quality"], equal_nan=True)
