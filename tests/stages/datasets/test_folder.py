"""What `stages.datasets.folder` promises, on trees of empty and tiny files."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.config import Config, DatasetConfig, validate
from pipeline.core.schema import Batch
from pipeline.errors import InvalidInput
from pipeline.files import digests
from pipeline.files.digests import UNREADABLE, DigestCache
from pipeline.files.file_tree import MAX_FILE_BYTES, Folder, open_files
from pipeline.plan.dataset import Dataset, ingest
from pipeline.store.store import Store
from stages.datasets.folder import FolderReader, identity_generator, lowest_ranked
from stages.tables.tables import LAYOUT

STILLS = [f"{subject}/{i}.jpg" for subject in ("ada", "bob", "cleo") for i in range(6)]
VIDEOS = [
    f"{subject}/video{v}/{i}.png" for subject in ("ada", "bob") for v in range(3) for i in range(4)
]


def plant(root: Path, names: list[str]) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def read(path: Path, /, **options: object) -> dict[str, Batch]:
    tables = FolderReader(validate(FolderReader.Options, options, "options")).read(open_files(path))
    for name, schema in LAYOUT.schemas.items():
        schema.check(tables[name])
    return tables


def faces_of(tables: dict[str, Batch]) -> dict[str, set[str]]:
    """Template id → ids of its faces."""
    made: dict[str, set[str]] = {}
    for template, face in zip(
        tables["members"]["template"], tables["members"]["face"], strict=True
    ):
        made.setdefault(tables["templates"]["template_id"][template], set()).add(
            tables["faces"]["face_id"][face]
        )
    return made


def having(tables: dict[str, Batch], role: str) -> set[str]:
    roles = tables["roles"]
    return set(tables["templates"]["template_id"][roles["template"][roles["role"] == role]])


def test_a_subject_is_one_template_of_all_its_images(tmp_path: Path) -> None:
    made = faces_of(read(plant(tmp_path, STILLS + VIDEOS)))
    assert sorted(made) == ["ada", "bob", "cleo"]
    assert made["ada"] == {name for name in STILLS + VIDEOS if name.startswith("ada/")}


def test_without_probes_nothing_is_compared(tmp_path: Path) -> None:
    tables = read(plant(tmp_path, STILLS))
    assert tables["roles"].rows == tables["pairings"].rows == 0


def test_a_face_can_be_a_template_of_its_own(tmp_path: Path) -> None:
    tables = read(plant(tmp_path, STILLS), templates="face")
    assert (
        tables["templates"]["template_id"].tolist()
        == tables["faces"]["face_id"].tolist()
        == sorted(STILLS)
    )
    assert tables["templates"]["subject"].tolist() == tables["faces"]["subject"].tolist()


def test_every_image_has_the_sha256_of_its_bytes(tmp_path: Path) -> None:
    faces = read(plant(tmp_path, STILLS))["faces"]
    assert faces["sha256"].tolist() == [
        hashlib.sha256(path.encode()).hexdigest() for path in faces["path"]
    ]


def test_an_image_that_may_not_be_read_keeps_its_row_marked_unreadable(tmp_path: Path) -> None:
    plant(tmp_path / "secret", ["x.jpg"])
    root = plant(tmp_path / "data", STILLS)
    (root / "ada" / "link.jpg").symlink_to(tmp_path / "secret" / "x.jpg")
    faces = read(root)["faces"]
    assert faces["face_id"][faces["sha256"] == UNREADABLE].tolist() == ["ada/link.jpg"]


def test_a_link_out_of_the_tree_is_a_row_and_not_the_end_of_the_run(tmp_path: Path) -> None:
    root = plant(tmp_path / "data", STILLS)
    (root / "ada" / "link.jpg").symlink_to("/etc/passwd")
    faces = ingested(root, tmp_path / "store").tables["faces"]
    assert faces["face_id"][faces["sha256"] == UNREADABLE].tolist() == ["ada/link.jpg"]


def ingested(root: Path, store: Path) -> Dataset:
    config = Config(name="faces", dataset=DatasetConfig(reader="folder", path=str(root)), steps={})
    return ingest(config, Store(store), DigestCache(None))


def test_one_reading_of_an_image_serves_its_key_and_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = plant(tmp_path / "data", STILLS)
    once: list[Path] = []

    def digest(path: Path) -> str:
        assert path not in once
        once.append(path)
        # not of its bytes: a second reading would differ
        return hashlib.sha256(path.name.encode()).hexdigest()

    monkeypatch.setattr(digests, "file_digest", digest)
    monkeypatch.setattr(Folder, "read", None)
    faces = ingested(root, tmp_path / "store").tables["faces"]
    names = [path.rpartition("/")[2] for path in faces["path"]]
    assert faces["sha256"].tolist() == [hashlib.sha256(name.encode()).hexdigest() for name in names]


def test_an_image_too_large_to_be_one_keeps_its_row_marked_unreadable(tmp_path: Path) -> None:
    root = plant(tmp_path, STILLS)
    with (root / "ada" / "large.jpg").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    faces = read(root)["faces"]
    assert faces["face_id"][faces["sha256"] == UNREADABLE].tolist() == ["ada/large.jpg"]


def test_other_and_hidden_files_are_not_faces(tmp_path: Path) -> None:
    noise = ["ada/notes.txt", "ada/._0.jpg", "__MACOSX/ada/0.jpg", ".cache/1.jpg"]
    assert read(plant(tmp_path, STILLS + noise))["faces"].rows == len(STILLS)


def test_extensions_are_an_option_and_ignore_case(tmp_path: Path) -> None:
    plant(tmp_path, ["ada/0.JPG", "ada/1.png", "ada/2.tif"])
    assert read(tmp_path, extensions=[".TIF", "jpg"])["faces"]["face_id"].tolist() == [
        "ada/0.JPG",
        "ada/2.tif",
    ]


def test_the_first_folder_below_a_subject_is_a_medium(tmp_path: Path) -> None:
    plant(tmp_path, ["ada/0.jpg", "ada/1.jpg", "ada/clip/2.jpg", "ada/clip/late/3.jpg"])
    media = read(tmp_path, media="folder")["members"]["media"]
    assert media.tolist() == ["ada/0.jpg", "ada/1.jpg", "ada/clip", "ada/clip"]


def test_by_default_every_face_is_a_medium(tmp_path: Path) -> None:
    assert len(set(read(plant(tmp_path, VIDEOS))["members"]["media"])) == len(VIDEOS)


def test_a_zip_that_wraps_the_subjects_is_read_below_its_root(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "faces.zip", "w") as archive:
        for name in STILLS:
            archive.writestr(f"wrapped/{name}", name)
    tables = read(tmp_path / "faces.zip", root="wrapped")
    assert tables["faces"]["face_id"].tolist() == sorted(STILLS)
    assert tables["faces"]["path"][0] == "wrapped/ada/0.jpg"


def test_probes_are_the_asked_fraction_and_disjoint_from_references(tmp_path: Path) -> None:
    made = faces_of(read(plant(tmp_path, STILLS), probe_fraction=1 / 3))
    assert {name: len(faces) for name, faces in made.items()} == {
        f"{subject}/{side}": size
        for subject in ("ada", "bob", "cleo")
        for side, size in (("reference", 4), ("probe", 2))
    }
    assert len(set.union(*made.values())) == len(STILLS)


def test_a_split_gives_roles_and_every_reference_with_every_probe(tmp_path: Path) -> None:
    tables = read(plant(tmp_path, STILLS), probe_fraction=0.5)
    references = {f"{subject}/reference" for subject in ("ada", "bob", "cleo")}
    assert having(tables, "reference") == having(tables, "gallery") == references
    assert having(tables, "probe") == {name.replace("reference", "probe") for name in references}
    assert tables["pairings"].rows == 1


def test_left_out_subjects_are_not_in_the_gallery(tmp_path: Path) -> None:
    tables = read(plant(tmp_path, STILLS), probe_fraction=0.5, left_out=0.34)
    assert len(having(tables, "gallery")) == 2
    assert len(having(tables, "reference")) == 3


def test_faces_as_templates_are_split_too(tmp_path: Path) -> None:
    tables = read(plant(tmp_path, STILLS), templates="face", probe_fraction=0.5)
    assert len(having(tables, "probe")) == len(having(tables, "reference")) == len(STILLS) // 2
    assert having(tables, "probe") | having(tables, "reference") == set(STILLS)


def test_frames_of_one_video_stay_on_one_side(tmp_path: Path) -> None:
    tables = read(plant(tmp_path, VIDEOS), media="folder", probe_fraction=0.5)
    sides: dict[str, set[int]] = {}
    for template, medium in zip(
        tables["members"]["template"], tables["members"]["media"], strict=True
    ):
        sides.setdefault(medium, set()).add(int(template))
    assert {len(templates) for templates in sides.values()} == {1}


def test_a_subject_with_one_image_is_a_reference_only(tmp_path: Path) -> None:
    tables = read(plant(tmp_path, [*STILLS, "zoe/0.jpg"]), probe_fraction=0.5)
    assert "zoe/reference" in having(tables, "reference")
    assert "zoe/probe" not in having(tables, "probe")


def test_adding_a_subject_changes_no_other_split(tmp_path: Path) -> None:
    before = faces_of(read(plant(tmp_path, STILLS), probe_fraction=0.5))
    after = faces_of(read(plant(tmp_path, [f"aaa/{i}.jpg" for i in range(5)]), probe_fraction=0.5))
    assert {**before, **after} == after


def test_a_tree_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidInput,
        match=r"no image .* in a folder below it; .* Move images into a folder a subject",
    ):
        read(plant(tmp_path, ["ada/readme.txt", "stray.jpg"]))


@pytest.mark.parametrize(
    ("media", "said"),
    [
        ("face", "no subject has two images to split: give"),
        ("folder", "two media to split: set dataset.options.media to face"),
    ],
)
def test_probes_that_nobody_can_give_are_refused(tmp_path: Path, media: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        read(plant(tmp_path, ["ada/0.jpg", "bob/0.jpg"]), probe_fraction=0.5, media=media)


@settings(deadline=None, max_examples=50)
@given(st.sets(st.text(max_size=4), max_size=12), st.integers(0, 12), st.integers(0, 5))
def test_the_lowest_ranked_do_not_depend_on_order(names: set[str], count: int, seed: int) -> None:
    chosen = lowest_ranked(sorted(names), count, seed, "x")
    assert chosen == lowest_ranked(sorted(names, reverse=True), count, seed, "x")
    assert len(chosen) == min(count, len(names))


def test_identities_and_purposes_draw_independently() -> None:
    draws = {
        identity_generator(*key).integers(1 << 60)
        for key in [(0, "a", "x"), (0, "a", "y"), (0, "b", "x"), (1, "a", "x")]
    }
    assert len(draws) == 4
