"""What `stages.datasets.bin_pack` promises, on small packs of drawn faces and, whole, on crops of
real ones.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_sets import numbers, pack, pairs, python2_pack, run
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.config.validation import validate
from pipeline.core.schema import Batch, Status, text
from pipeline.core.stage import Context
from pipeline.errors import InvalidInput
from pipeline.files.digests import UNREADABLE
from pipeline.files.file_tree import Files, open_files
from stages.datasets import manifests
from stages.datasets.bin_pack import BinPackReader
from stages.faces.align import Align, AlignOptions
from stages.tables.tables import LAYOUT

A, B, C, D, E, F = (bytes([65 + i]) * 9 for i in range(6))


def packed(folder: Path, images: Sequence[bytes], mated: Sequence[bool], make: Any = pack) -> Path:
    path = folder / "some.bin"
    path.write_bytes(make(images, mated))
    return path


def read(files: Files | None, **options: object) -> dict[str, Batch]:
    return BinPackReader(validate(BinPackReader.Options, options, "options")).read(files)


def small(
    folder: Path, images: Sequence[bytes], mated: Sequence[bool], **options: object
) -> dict[str, Batch]:
    return read(open_files(packed(folder, images, mated)), **options)


def listed(tables: Mapping[str, Batch]) -> list[tuple[str, str, bool]]:
    ids, list_ = tables["templates"]["template_id"], tables["comparisons"]
    return [*zip(ids[list_["a"]], ids[list_["b"]], list_["mated"].tolist(), strict=True)]


def subjects(tables: Mapping[str, Batch]) -> dict[str, str]:
    return dict(
        zip(tables["templates"]["template_id"], tables["templates"]["subject"], strict=True)
    )


def test_tables_fit_the_layout(tmp_path: Path) -> None:
    tables = small(tmp_path, *pairs(20))
    for name, schema in LAYOUT.schemas.items():
        schema.check(tables[name])


def test_images_2i_and_2i_plus_1_are_pair_i(tmp_path: Path) -> None:
    tables = small(tmp_path, [A, B, C, D], [True, False])
    assert listed(tables) == [("0000000", "0000001", True), ("0000002", "0000003", False)]


def test_images_of_the_same_bytes_are_one_face_called_after_the_first(tmp_path: Path) -> None:
    tables = small(tmp_path, [A, B, C, A, B, D], [True, False, True])
    assert tables["faces"]["face_id"].tolist() == ["0000000", "0000001", "0000002", "0000005"]
    assert listed(tables) == [
        ("0000000", "0000001", True),
        ("0000002", "0000000", False),
        ("0000001", "0000005", True),
    ]


def test_every_face_is_a_template_of_its_own_with_its_image_and_digest(tmp_path: Path) -> None:
    files = open_files(packed(tmp_path, *pairs(20)))
    tables = read(files)
    assert LAYOUT.same_rows("faces", "templates", tables)
    faces = tables["faces"]
    assert faces["sha256"].tolist() == [
        hashlib.sha256(files.read(path)).hexdigest() for path in faces["path"]
    ]
    assert len(set(faces["sha256"])) == faces.rows


def test_every_image_can_be_a_face_of_its_own(tmp_path: Path) -> None:
    tables = small(tmp_path, [A, A, C, A], [True, False], repeated="each")
    assert listed(tables) == [("0000000", "0000001", True), ("0000002", "0000003", False)]
    assert subjects(tables) == {
        "0000000": "s0000000",
        "0000001": "s0000000",
        "0000002": "s0000002",
        "0000003": "s0000000",
    }


def test_faces_that_mated_pairs_join_are_of_one_subject(tmp_path: Path) -> None:
    tables = small(tmp_path, [A, B, C, D, B, E, A, F], [True, False, True, False])
    assert subjects(tables) == {
        "0000000": "s0000000",
        "0000001": "s0000000",
        "0000002": "s0000002",
        "0000003": "s0000003",
        "0000005": "s0000000",
        "0000007": "s0000007",
    }


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, 9)).filter(lambda p: p[0] != p[1]),
        min_size=1,
        max_size=12,
    )
)
def test_subjects_are_the_groups_that_merging_pair_by_pair_gives(
    mated: list[tuple[int, int]],
) -> None:
    group = {i: {i} for i in range(10)}
    for a, b in mated:
        for i in group[a] | group[b]:
            group[i] = group[a] | group[b]
    tables = read(Memory([bytes([65 + i]) for pair in mated for i in pair], [True] * len(mated)))
    order = list(dict.fromkeys(i for pair in mated for i in pair))
    named = dict(zip(order, tables["templates"]["subject"], strict=True))
    assert all((named[i] == named[j]) == (j in group[i]) for i in order for j in order)


class Memory:
    """A pack's files in memory; images that begin with ! cannot be read."""

    root = Path("memory.bin")

    def __init__(self, images: Sequence[bytes], mated: Sequence[bool]) -> None:
        self.content = {f"images/{i:07d}": image for i, image in enumerate(images)}
        self.content["pairs.txt"] = b"".join(b"%d\n" % each for each in mated)

    def names(self) -> list[str]:
        return list(self.content)

    def read(self, name: str) -> bytes:
        return self.content[name]

    def digests(self, names: Any, limit: int | None = None) -> list[str]:
        held = [self.content[name] for name in names]
        return [
            UNREADABLE if image.startswith(b"!") else hashlib.sha256(image).hexdigest()
            for image in held
        ]


def test_images_that_cannot_be_read_are_not_taken_for_the_same(tmp_path: Path) -> None:
    assert read(Memory([b"!", b"!", b"!", A], [True, False]))["faces"].rows == 4


def test_a_non_mated_pair_of_one_subject_is_refused_naming_the_pair(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidInput,
        match="pair 2: called non-mated, but its images 4 and 5 are joined by mated pairs",
    ):
        small(tmp_path, [A, B, B, C, A, C], [True, True, False])


def test_subjects_can_be_left_unknown(tmp_path: Path) -> None:
    tables = small(tmp_path, [A, B, B, C, A, C], [True, True, False], subjects="unknown")
    assert set(subjects(tables).values()) == {""}


@pytest.mark.parametrize(("mated", "other"), [(True, "each"), (False, "unknown")])
def test_a_pair_of_the_same_bytes_is_refused_naming_the_pair_and_the_option(
    tmp_path: Path, mated: bool, other: str
) -> None:
    with pytest.raises(
        InvalidInput, match=f"(?s)pair 1: .*images 2 and 3 are the same bytes.* to {other}"
    ):
        small(tmp_path, [A, B, C, C], [True, mated])


def test_ten_folds_of_the_same_length_follow_each_other(tmp_path: Path) -> None:
    assert small(tmp_path, *pairs(30))["comparisons"]["fold"].tolist() == [
        k for k in range(10) for _ in range(3)
    ]


def test_pairs_that_ten_does_not_divide_have_no_folds(tmp_path: Path) -> None:
    assert set(small(tmp_path, *pairs(21))["comparisons"]["fold"]) == {-1}


@pytest.mark.parametrize("name", ["lfw", "agedb_30", "cfp_fp", "calfw", "cplfw"])
def test_a_part_of_a_benchmark_is_refused_unless_any_count_is_asked_for(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(
        InvalidInput,
        match=f"not the whole of {name}: pairs: expected [67],000, found 20; .*counts to any",
    ):
        small(tmp_path, *pairs(20), name=name)
    assert small(tmp_path, *pairs(20), name=name, counts="any")["comparisons"].rows == 20


@pytest.mark.parametrize(("name", "count"), [("lfw", 6000), ("cfp_fp", 7000)])
def test_a_pack_of_the_published_counts_is_taken(name: str, count: int) -> None:
    images = [b"%d" % i for i in range(2 * count)]
    tables = read(Memory(images, [i % 20 < 10 for i in range(count)]), name=name)
    assert np.bincount(tables["comparisons"]["fold"]).tolist() == [count // 10] * 10


@pytest.mark.parametrize(
    "name", ["lfw", "agedb_30", "cfp_fp", "calfw", "cplfw", "xqlfw", "adience", "tinyface"]
)
def test_every_manifest_says_what_is_skewed_and_which_reader_reads_it(name: str) -> None:
    found = manifests.benchmark(name)
    assert found.reader in ("bin", name)
    assert len(found.bias) > 100
    assert found.licence
    assert found.source


@pytest.mark.parametrize(
    ("name", "identities", "images"),
    [("casia_webface", 10_572, 490_623), ("ms1mv2", 85_742, 5_822_653)],
)
def test_the_manifest_of_a_set_for_training_says_what_is_in_it_where_and_under_which_terms(
    name: str, identities: int, images: int
) -> None:
    found = manifests.benchmark(name)
    assert found.counts == {"identities": identities, "images": images}
    assert f"{identities},112,112" in found.layout
    assert (
        f"{images + identities + 1:,} records" in found.layout
    )  # one for each image and identity, and the first
    assert "not commercial" in found.licence
    assert found.reader is None


def test_sources_are_all_images_and_which_are_mated(tmp_path: Path) -> None:
    sources = []
    for mated in ([True, False], [False, True]):
        files = open_files(packed(tmp_path, [A, B, C, D], mated))
        names = BinPackReader(BinPackReader.Options()).sources(files)
        sources.append(dict(zip(names, files.digests(names), strict=True)))
    assert len(sources[0]) == 5
    assert {name for name in sources[0] if sources[0][name] != sources[1][name]} == {"pairs.txt"}


def test_a_folder_that_holds_a_pack_is_refused_saying_what_to_set(tmp_path: Path) -> None:
    packed(tmp_path, [A, B], [True])
    with pytest.raises(InvalidInput, match=r"set dataset\.path to the \.bin file itself"):
        read(open_files(tmp_path))
    with pytest.raises(InvalidInput, match=r"set dataset\.path"):
        read(None)


CONFIG = """
name: packed
dataset: {reader: bin, path: some.bin}
steps:
  align: {options: {detector: none}}
  embed: {options: {model: MODEL, flip: add}}
  compare: {inputs: {templates: embed}}
  evaluate_verification: {options: {fmr: [0.1], replicates: 30}}
"""


@pytest.mark.parametrize("make", [pack, python2_pack])
def test_a_pack_goes_through_to_its_numbers_with_intervals(
    tmp_path: Path, tiny: Context, make: Any
) -> None:
    images, mated = pairs(40)
    images[0] = b"no image"
    packed(tmp_path, images, mated, make)
    results = run(tmp_path, CONFIG.replace("MODEL", "tiny"), tiny)
    (align,) = results.cells("align")
    status = results.read(align, "detections")["status"]
    assert np.bincount(status)[[Status.OK, Status.UNREADABLE]].tolist() == [len(status) - 1, 1]
    found = numbers(results)
    assert found["accuracy"]["trials"] == 39
    assert found["comparisons_lost"]["value"] == 1
    assert found["eer"]["low"] <= found["eer"]["value"] <= found["eer"]["high"]


def test_crops_are_taken_as_they_are(tmp_path: Path, tiny: Context) -> None:
    images, mated = pairs(10)
    packed(tmp_path, images, mated)
    results = run(tmp_path, CONFIG.replace("MODEL", "tiny"), tiny)
    (align,) = results.cells("align")
    crops, paths = (
        results.read(align, "crops")["crop"],
        results.session.dataset.tables["faces"]["path"],
    )
    for crop, path in zip(crops, paths, strict=True):
        given = np.asarray(
            Image.open(io.BytesIO(results.session.dataset.files.read(path))).convert("RGB")
        )
        assert (crop == given).all()


def test_real_faces_in_a_pack_are_told_apart(
    tmp_path: Path, shared: Path, context: Callable[..., Context]
) -> None:
    archive = shared / "data" / "lfw.zip"
    files = open_files(archive)
    lines = [line.split("\t") for line in files.read("lfw/pairs.txt").decode().splitlines()[1:]]
    chosen = [*lines[:20], *lines[300:320]]
    ends = [
        (line[0], line[1], line[-2] if len(line) == 4 else line[0], line[-1]) for line in chosen
    ]
    paths = [
        f"lfw/{name}/{name}_{int(number):04d}.jpg"
        for end in ends
        for name, number in (end[:2], end[2:])
    ]
    stage = Align(AlignOptions(), context(archive, (shared / "models",)))
    stage.open()
    photographs = Batch({"path": text(paths), "sha256": text(files.digests(paths))})
    crops = stage.run(photographs, {}, stage.load(photographs))["crops"]["crop"]
    packed(
        tmp_path, [encoded(crop) for crop in crops], [len(line) == 3 for line in chosen], numpy_pack
    )
    results = run(
        tmp_path, CONFIG.replace("MODEL", "edgeface_xxs"), context(folders=(shared / "models",))
    )
    found = numbers(results)
    assert found["accuracy"]["trials"] == 40
    assert found["auc"]["value"] > 0.99  # on LFW whole: EER 0.70 %, data_manifests/models.yaml


def encoded(crop: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(crop).save(out, "PNG")
    return out.getvalue()


def numpy_pack(images: Sequence[bytes], mated: Sequence[bool]) -> bytes:
    return pack(images, mated, 4, "numpy")
