"""fuse against a template-by-template loop in float64, and what no rule may change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core import registry
from pipeline.core.schema import Batch, Status
from pipeline.core.stage import Context, Source, Work
from pipeline.errors import InvalidInput
from pipeline.plan.dataset import Dataset
from stages.fusion import rules
from stages.fusion.fuse import Fuse, FuseOptions
from stages.quality.reference_statistics import Statistics
from stages.tables.schemas import FUSED
from stages.tables.tables import LAYOUT, ProtocolLists, build_tables

Make = Callable[..., Any]
properties = settings(deadline=None, max_examples=25)
WIDTH = 6
# Each rule as a weight of one face, from its norm, detector score and quality and the least and
# greatest quality.
RULES: dict[str, Callable[..., float]] = {
    "mean": lambda n, d, q, low, high: 1,
    "norm": lambda n, d, q, low, high: n,
    "detector": lambda n, d, q, low, high: d,
    "quality-linear": lambda n, d, q, low, high: max(q, 0),
    "quality-power(p=2)": lambda n, d, q, low, high: max(q, 0) ** 2,
    "quality-minmax": lambda n, d, q, low, high: (q - low) / (high - low),
}
EVERY_RULE = [
    *(
        *RULES,
        "media-mean",
        "quality-softmax",
        "quality-rank",
        "top-k(k=2)",
        "top-fraction",
        "threshold",
        "best",
        "medoid",
    ),
    *("trimmed(f=0.4)", "inverse-variance"),
]


class Set:
    """Templates of random size over random faces, some of which failed in one of three steps."""

    def __init__(
        self,
        source: Make,
        context: Make,
        seed: int = 0,
        templates: int = 5,
        faces: int = 20,
        failed: float = 0.2,
    ) -> None:
        rng = np.random.default_rng(seed)
        self.source, self.context = source, context
        embedding = rng.standard_normal((faces, WIDTH)).astype(np.float32) * rng.uniform(
            0.5, 30, (faces, 1)
        ).astype(np.float32)
        self.status = {
            name: (rng.random(faces) < failed).astype(np.uint8) * Status.FAILED
            for name in ("e", "q", "d")
        }
        embedding[self.status["e"] > 0] = np.nan
        self.embeddings = Batch(
            {
                "status": self.status["e"],
                "embedding": embedding,
                "norm": np.linalg.norm(embedding, axis=1).astype(np.float32),
            }
        )
        self.variance = rng.uniform(0.1, 1, (faces, WIDTH)).astype(np.float32)
        self.qualities = self._scored(self.status["q"], "quality", rng.normal(0.5, 1, faces))
        self.detections = self._scored(self.status["d"], "score", rng.uniform(0, 1, faces))
        sizes = rng.integers(1, 6, templates)
        # Faces are shared between templates, and media names too.
        self.members = [
            (t, int(f), f"m{rng.integers(3)}")
            for t in range(templates)
            for f in rng.integers(0, faces, sizes[t])
        ]
        self.templates, self.faces = templates, faces

    @staticmethod
    def _scored(status: np.ndarray, name: str, values: np.ndarray) -> Batch:
        return Batch(
            {"status": status, name: np.where(status > 0, np.nan, values).astype(np.float32)}
        )

    def fuse(
        self, rule: str, shards: int = 10**9, cuts: tuple[int, ...] = (), **options: Any
    ) -> Batch:
        """Fuse in shards of `shards` templates, reading inputs whose shards end at `cuts`."""
        names = [f"t{t}" for t in range(self.templates)]
        face_names = [f"f{f}" for f in range(self.faces)]
        found = ProtocolLists(
            face_id=face_names,
            path=[""] * self.faces,
            sha256=[""] * self.faces,
            subject=[""] * self.faces,
            template_id=names,
            template_subject=[""] * self.templates,
            member_template=[names[t] for t, _, _ in self.members],
            member_face=[face_names[f] for _, f, _ in self.members],
            member_media=[m for _, _, m in self.members],
        )
        tables = build_tables(found, "a set")
        dataset = Dataset("", tables, LAYOUT.axes(tables, {"templates": shards}), LAYOUT, None)
        statistics = Statistics(Statistics.Options(), self.context()).compute(
            Work(0, 0, {}, {"quality": self.source(self.qualities)})
        )
        inputs = {
            "embeddings": self.source(Batch({**self.embeddings, "variance": self.variance}), *cuts),
            "quality": self.source(self.qualities, *cuts),
            "detections": self.source(self.detections, *cuts),
            "statistics": self.source(statistics[""]),
        }
        stage = Fuse(FuseOptions(rule=rule, **options), self.context())
        parts = []
        for start, stop in dataset.axes["templates"].shards:
            members = dataset.part("members", Fuse.consumes["members"], "templates", start, stop)
            read = {name: inputs[name] for name in stage.uses()}
            parts.append(
                FUSED.check(stage.compute(Work(start, stop, {"members": members}, read))[""])
            )
        return Batch({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})

    def slow(
        self, rule: str, features: str = "unit", media: str = "none"
    ) -> list[tuple[np.ndarray | None, int, bool]]:
        """(unit vector or None, faces with a weight, whether weights vanished) of every
        template."""
        needed = (
            "e" + ("q" if rule.startswith("quality") else "") + ("d" if rule == "detector" else "")
        )
        known = self.qualities["quality"][self.status["q"] == 0].astype(np.float64)
        low, high = known.min(), known.max()
        result = []
        for t in range(self.templates):
            used = [
                (f, m)
                for owner, f, m in self.members
                if owner == t and not any(self.status[s][f] for s in needed)
            ]
            x = {f: self.embeddings["embedding"][f].astype(np.float64) for f, _ in used}
            norms = {f: float(np.sqrt((x[f] ** 2).sum())) for f in x}
            values = [
                (norms[f], float(self.detections["score"][f]), float(self.qualities["quality"][f]))
                for f, _ in used
            ]
            weight = [RULES[rule](*value, low, high) for value in values]
            vanished = bool(used) and not any(weight)
            weight = [1.0] * len(used) if vanished else weight
            total = np.zeros(WIDTH)
            for name in {m for _, m in used} if media != "none" else {""}:
                inside = [i for i, (_, m) in enumerate(used) if name in ("", m)]
                divisor = {
                    "none": 1,
                    "mean": len(inside),
                    "weighted": sum(weight[i] for i in inside),
                }[media]
                for i in inside:
                    if divisor:
                        f = used[i][0]
                        total += (
                            weight[i] / divisor * (x[f] / norms[f] if features == "unit" else x[f])
                        )
            length = np.linalg.norm(total)
            result.append(
                (total / length if length else None, sum(w > 0 for w in weight), vanished)
            )
        return result


@pytest.fixture(scope="session")
def example(source: Make, context: Make) -> Callable[..., Set]:
    return lambda seed=0, **shape: Set(source, context, seed, **shape)


@pytest.mark.parametrize("media", ["none", "mean", "weighted"])
@pytest.mark.parametrize("features", ["unit", "raw"])
@pytest.mark.parametrize("rule", RULES)
@properties
@given(seed=st.integers(0, 10**6))
def test_templates_equal_a_plain_loop(
    example: Make, rule: str, features: str, media: str, seed: int
) -> None:
    faces = example(seed)
    fused = faces.fuse(rule, features=features, media=media)
    for t, (vector, used, vanished) in enumerate(faces.slow(rule, features, media)):
        assert (fused["status"][t] == Status.OK) == (vector is not None)
        assert fused["used"][t] == used
        assert fused["fallback"][t] == vanished
        if vector is None:
            assert fused["status"][t] == Status.EMPTY
            assert np.isnan(fused["embedding"][t]).all()
        else:
            np.testing.assert_allclose(fused["embedding"][t], vector, atol=2e-5)


@pytest.mark.parametrize("rule", EVERY_RULE)
def test_templates_have_unit_length(example: Make, rule: str) -> None:
    embedding = example(3, failed=0.0).fuse(rule)["embedding"].astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("rule", EVERY_RULE)
def test_shard_boundaries_change_no_bit(example: Make, rule: str) -> None:
    faces = example(1, templates=11, faces=40)
    whole = faces.fuse(rule).digest()
    for shards in (1, 3, 4):
        assert faces.fuse(rule, shards=shards, cuts=(7, 8, 30)).digest() == whole


@pytest.mark.parametrize("rule", EVERY_RULE)
@properties
@given(seed=st.integers(0, 10**6))
def test_the_order_of_members_changes_nothing_but_rounding(
    example: Make, rule: str, seed: int
) -> None:
    faces = example(seed % 7)
    before = faces.fuse(rule)
    np.random.default_rng(seed).shuffle(faces.members)
    after = faces.fuse(rule)
    np.testing.assert_allclose(after["embedding"], before["embedding"], atol=2e-5)
    assert np.array_equal(after["used"], before["used"])


@pytest.mark.parametrize("features", ["unit", "raw"])
@pytest.mark.parametrize("media", ["none", "mean", "weighted"])
@pytest.mark.parametrize("rule", [rule for rule in EVERY_RULE if rule != "inverse-variance"])
def test_a_template_of_one_face_is_that_face_whatever_the_rule(
    example: Make, rule: str, media: str, features: str
) -> None:
    faces = example(2, failed=0.0)
    faces.members = [(t, 3 * t, "m") for t in range(faces.templates)]
    x = faces.embeddings["embedding"][::3][: faces.templates].astype(np.float64)
    expected = x / np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose(
        faces.fuse(rule, media=media, features=features)["embedding"], expected, atol=1e-6
    )


@pytest.mark.parametrize("rule", EVERY_RULE)
def test_a_failed_face_is_left_out_and_the_others_stand(example: Make, rule: str) -> None:
    faces = example(4, failed=0.0)
    faces.members = [(0, 0, "a"), (0, 1, "a"), (0, 2, "b"), (1, 3, "a")]
    faces.templates = 2
    with_it = faces.members
    faces.members = [member for member in with_it if member[1] != 1]
    expected = faces.fuse(rule)
    faces.members = with_it
    embedding, status = faces.embeddings["embedding"].copy(), faces.status["e"].copy()
    embedding[1], status[1] = np.nan, Status.NOT_FOUND
    faces.embeddings = Batch({**faces.embeddings.columns, "status": status, "embedding": embedding})
    assert faces.fuse(rule).digest() == expected.digest()


def test_templates_without_a_usable_face_or_without_any_face_are_empty(example: Make) -> None:
    faces = example(5, failed=1.0)
    faces.members = [(0, 0, "a"), (2, 1, "a")]
    fused = faces.fuse("mean")
    assert (fused["status"] == Status.EMPTY).all()
    assert np.isnan(fused["embedding"]).all()
    assert not fused["used"].any()
    assert not fused["fallback"].any()
    faces.members = []
    assert faces.fuse("quality-softmax", media="mean").digest() == fused.digest()


def test_vanished_weights_fall_back_to_equal_ones_and_are_flagged(example: Make) -> None:
    faces = example(6, failed=0.0)
    faces.templates = 2
    faces.members = [(0, 0, "a"), (0, 1, "a"), (1, 2, "a"), (1, 3, "a")]
    faces.qualities = Batch(
        {**faces.qualities.columns, "quality": np.float32([-2, -1, -1, 1] + [0] * 16)}
    )
    fused = faces.fuse("quality-linear")
    assert fused["fallback"].tolist() == [True, False]
    assert fused["used"].tolist() == [2, 1]
    np.testing.assert_array_equal(fused["embedding"][0], faces.fuse("mean")["embedding"][0])


def test_faces_that_cancel_give_no_template(example: Make) -> None:
    faces = example(7, failed=0.0)
    embedding = faces.embeddings["embedding"].copy()
    embedding[:2] = np.float32([[3, 4, 0, 0, 0, 0], [-3, -4, 0, 0, 0, 0]])
    norm = np.linalg.norm(embedding, axis=1)
    faces.embeddings = Batch({"status": faces.status["e"], "embedding": embedding, "norm": norm})
    faces.templates, faces.members = 1, [(0, 0, "a"), (0, 1, "a")]
    assert faces.fuse("mean")["status"].tolist() == [Status.EMPTY]


def test_a_medium_counts_once_however_many_frames_it_has(example: Make) -> None:
    faces = example(8, failed=0.0)
    faces.templates = 1
    faces.members = [(0, 0, "video"), (0, 0, "video"), (0, 0, "video"), (0, 1, "still")]
    often = faces.fuse("mean", media="mean")["embedding"]
    faces.members = [(0, 0, "video"), (0, 1, "still")]
    np.testing.assert_allclose(often, faces.fuse("mean")["embedding"], atol=1e-6)


@properties
@given(seed=st.integers(0, 10**6), norm=st.booleans(), detector=st.booleans())
def test_the_common_script_is_its_arithmetic_written_out(
    example: Make, seed: int, norm: bool, detector: bool
) -> None:
    faces = example(seed, failed=0.0)
    fused = faces.fuse(
        f"insightface-script(norm={int(norm)}, detector={int(detector)})", fallback="none"
    )
    for t in range(faces.templates):
        media: dict[str, list[np.ndarray]] = {}
        for owner, f, m in faces.members:
            if owner == t:
                x = faces.embeddings["embedding"][f].astype(np.float64)
                x = x if norm else x / np.linalg.norm(x)
                media.setdefault(m, []).append(x * faces.detections["score"][f] if detector else x)
        total = np.sum([np.mean(inside, axis=0) for inside in media.values()], axis=0)
        np.testing.assert_allclose(fused["embedding"][t], total / np.linalg.norm(total), atol=2e-5)


@properties
@given(seed=st.integers(0, 10**6))
def test_the_script_of_cr_fiqa_is_its_arithmetic_written_out(example: Make, seed: int) -> None:
    faces = example(seed, failed=0.0)
    fused = faces.fuse("crfiqa-script", fallback="none")
    q = faces.qualities["quality"].astype(np.float64)
    scaled = (q - q.min()) / (q.max() - q.min())
    for t in range(faces.templates):
        media: dict[str, list[np.ndarray]] = {}
        for owner, f, m in faces.members:
            if owner == t:
                media.setdefault(m, []).append(
                    faces.embeddings["embedding"][f].astype(np.float64) * scaled[f]
                )
        total = np.sum([np.mean(inside, axis=0) for inside in media.values()], axis=0)
        if np.linalg.norm(total) == 0:
            assert fused["status"][t] == Status.EMPTY
        else:
            np.testing.assert_allclose(
                fused["embedding"][t], total / np.linalg.norm(total), atol=2e-5
            )


def test_without_a_fallback_a_template_whose_weights_vanish_is_empty(example: Make) -> None:
    faces = example(6, failed=0.0)
    faces.templates = 2
    faces.members = [(0, 0, "a"), (0, 1, "a"), (1, 3, "a")]
    faces.qualities = Batch(
        {**faces.qualities.columns, "quality": np.float32([-2, -1, -1, 1] + [0] * 16)}
    )
    fused = faces.fuse("quality-linear", fallback="none")
    assert fused["status"].tolist() == [Status.EMPTY, Status.OK]
    assert not fused["fallback"].any()
    assert np.isnan(fused["embedding"][0]).all()


@pytest.fixture
def worthless(example: Make) -> Set:
    """Template 0 of faces of quality −2 and −1, template 1 of one of quality 1, template 2 of a
    face that failed.
    """
    faces: Set = example(6, failed=0.0)
    faces.templates = 3
    faces.members = [(0, 0, "a"), (0, 1, "b"), (1, 3, "a"), (2, 4, "a")]
    faces.qualities = Batch(
        {**faces.qualities.columns, "quality": np.float32([-2, -1, -1, 1] + [0] * 16)}
    )
    status = faces.embeddings["status"].copy()
    status[4] = Status.FAILED
    faces.embeddings = Batch({**faces.embeddings.columns, "status": status})
    return faces


@pytest.mark.parametrize("media", ["none", "mean", "weighted"])
@pytest.mark.parametrize("features", ["unit", "raw"])
def test_under_zero_a_template_whose_weights_vanish_is_a_vector_of_zeros(
    worthless: Set, features: str, media: str
) -> None:
    fused = worthless.fuse("quality-linear", fallback="zero", features=features, media=media)
    assert fused["embedding"][0].tolist() == [0.0] * WIDTH
    assert fused["status"].tolist() == [Status.OK, Status.OK, Status.EMPTY]
    assert fused["fallback"].tolist() == [True, False, False]
    assert fused["used"].tolist() == [0, 1, 0]


def test_the_worst_face_of_a_set_alone_is_a_vector_of_zeros_under_the_script_of_cr_fiqa(
    worthless: Set,
) -> None:
    worthless.members = [(0, 0, "a"), (1, 0, "a"), (1, 3, "a"), (2, 4, "a")]
    fused = worthless.fuse("crfiqa-script", fallback="zero")
    assert fused["fallback"].tolist() == [True, False, False]
    assert not fused["embedding"][0].any()
    x = worthless.embeddings["embedding"][3].astype(np.float64)
    np.testing.assert_allclose(fused["embedding"][1], x / np.linalg.norm(x), atol=1e-6)


@pytest.mark.parametrize("fallback", ["equal", "none"])
def test_zero_leaves_every_other_template_as_other_fallbacks_make_it(
    worthless: Set, fallback: str
) -> None:
    zero, other = (worthless.fuse("quality-linear", fallback=each) for each in ("zero", fallback))
    for name in zero:
        np.testing.assert_array_equal(zero[name][1:], other[name][1:])


def test_faces_that_cancel_give_no_template_under_zero_either(worthless: Set) -> None:
    embedding = worthless.embeddings["embedding"].copy()
    embedding[1] = -embedding[0]
    norm = np.linalg.norm(embedding, axis=1)
    worthless.embeddings = Batch(
        {**worthless.embeddings.columns, "embedding": embedding, "norm": norm}
    )
    assert worthless.fuse("mean", fallback="zero")["status"][0] == Status.EMPTY


@pytest.mark.parametrize("features", ["unit", "raw"])
def test_inverse_variance_takes_each_dimension_by_itself(example: Make, features: str) -> None:
    faces = example(9, failed=0.0)
    faces.templates, faces.members = 1, [(0, 0, "a"), (0, 1, "a"), (0, 2, "b")]
    x = faces.embeddings["embedding"][:3].astype(np.float64)
    x = x / np.linalg.norm(x, axis=1, keepdims=True) if features == "unit" else x
    precision = 1 / faces.variance[:3].astype(np.float64)
    expected = (x * precision).sum(axis=0) / precision.sum(axis=0)
    fused = faces.fuse("inverse-variance", features=features)["embedding"][0]
    np.testing.assert_allclose(fused, expected / np.linalg.norm(expected), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rule": "crfiqa-script", "features": "raw"}, "keeps norms in its own way"),
        ({"rule": "insightface-script", "media": "weighted"}, "leave out features and media"),
        ({"rule": "inverse-variance", "media": "mean"}, "makes no weights that media could share"),
    ],
)
def test_options_that_a_rule_has_no_use_for_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        FuseOptions(**options)


def test_a_script_means_inside_media_once_whatever_the_option_says(example: Make) -> None:
    faces = example(10, failed=0.0)
    assert (
        faces.fuse("insightface-script", media="mean").digest()
        == faces.fuse("insightface-script").digest()
    )


def test_a_rule_that_reads_variance_needs_a_data_set_that_brings_it(
    context: Callable[..., Context],
) -> None:
    with pytest.raises(
        InvalidInput, match="needs the variance of each embedding, and the data set brings none"
    ):
        Fuse(FuseOptions(rule="inverse-variance"), context()).fits({"faces": Batch({})})


@pytest.mark.parametrize(
    ("variance", "said"),
    [
        ([[1, 1], [1, 1]], "has 2 numbers a face: give one, or 3"),
        ([[1], [0]], r"of face 'b' \(1 such\) is not above 0"),
        ([[-1], [np.nan]], r"of face 'a' \(2 such\)"),
    ],
)
def test_a_variance_that_is_none_is_refused_before_anything_runs(
    context: Callable[..., Context], variance: Any, said: str
) -> None:
    faces = Batch(
        {
            "face_id": np.array(["a", "b"], object),
            "embedding": np.ones((2, 3)),
            "variance": np.float32(variance),
        }
    )
    with pytest.raises(InvalidInput, match=said):
        Fuse(FuseOptions(rule="inverse-variance"), context()).fits({"faces": faces})


def test_an_unknown_rule_is_refused_with_the_options(context: Callable[..., Context]) -> None:
    with pytest.raises(InvalidInput, match="did you mean 'quality-linear'"):
        FuseOptions(rule="quality-liner")
    assert Fuse(FuseOptions(rule="detector"), context()).uses() == ("embeddings", "detections")


# What `fuse` reads its inputs by.


@properties
@given(data=st.data())
def test_rows_are_taken_from_shards_in_any_order_with_repeats(
    source: Callable[..., Source], data: Any
) -> None:
    rows = data.draw(st.integers(1, 30))
    cuts = (
        sorted(data.draw(st.lists(st.integers(1, rows - 1), unique=True, max_size=5)))
        if rows > 1
        else []
    )
    wanted = np.array(data.draw(st.lists(st.integers(0, rows - 1), max_size=20)), np.int64)
    batch = Batch(
        {
            "value": np.arange(rows) * 10,
            "text": np.array([f"r{i}" for i in range(rows)], dtype=object),
        }
    )
    taken = source(batch, *cuts).take(wanted)
    assert taken.digest() == batch.take(wanted).digest()


def test_rows_are_numbered_along_the_axis_where_shards_between_are_left_out() -> None:
    shards = {0: (0, 4), 1: (10, 13), 2: (20, 25)}
    read = []

    def read_shard(i: int, columns: Any) -> Batch:
        read.append(i)
        return Batch({"value": np.arange(*shards[i])})

    taken = Source((0, 10, 20), (4, 13, 25), read_shard).take(np.array([24, 3, 12, 20, 3, 10]))
    assert taken["value"].tolist() == [24, 3, 12, 20, 3, 10]
    assert read == [0, 1, 2]
    read.clear()
    Source((0, 10, 20), (4, 13, 25), read_shard).take(np.array([21, 2]))
    assert read == [0, 2]  # a shard without wanted rows is not opened


@pytest.mark.parametrize("rule", [*EVERY_RULE, "crfiqa-script", "insightface-script"])
@pytest.mark.parametrize(("features", "media"), [("unit", "none"), ("raw", "weighted")])
def test_the_order_of_a_templates_faces_moves_no_bit(
    source: Make, context: Make, rule: str, features: str, media: str
) -> None:
    options = {"features": features, "media": media}
    if "script" in rule or rule == "inverse-variance":
        options = {
            "features": "raw" if rule == "inverse-variance" and features == "raw" else "unit"
        }
    made = Set(source, context, seed=8, templates=6, faces=300)
    rng = np.random.default_rng(8)
    # Different faces in each template: of two of equal quality, a rule that chooses takes the
    # earlier one.
    faces = rng.permutation(300).reshape(6, 50)
    made.members = [(t, int(f), f"m{f % 7}") for t in range(6) for f in faces[t]]
    before = made.fuse(rule, **options)
    made.members = [made.members[i] for i in rng.permutation(300)]
    assert made.fuse(rule, **options).digest() == before.digest()


def test_a_weight_below_0_is_refused(
    source: Make, context: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        registry, "_parts", {"fusion rule": dict(registry.available("fusion rule"))}
    )
    rules.weight_rule("negative")(lambda faces: -np.ones(len(faces.template)))
    with pytest.raises(InvalidInput, match="gave a weight of -1: a weight is 0 or more"):
        Set(source, context).fuse("negative")
