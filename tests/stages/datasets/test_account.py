"""account: what a reader has not used of a folder, and what is doubtful about what it has, in
sentences.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import janus
import pytest
from bench_sets import adience, tinyface, tree, xqlfw
from machine import public_folder, unprivileged

from pipeline.config.validation import validate
from pipeline.core.registry import lookup
from pipeline.errors import InvalidInput
from pipeline.files.file_tree import open_files
from stages.datasets.folder import FolderOptions, FolderReader


def made(root: Path, *names: str) -> None:
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(str(number).encode())


def notes(folder: Path, **options: object) -> list[str]:
    reader, files = FolderReader(FolderOptions(**options)), open_files(folder)  # type: ignore[arg-type]
    return reader.notes(files, reader.read(files))


def test_nothing_is_said_where_every_file_is_used(tmp_path: Path) -> None:
    made(tmp_path, "ann/1.jpg", "ann/deep/2.PNG", "bob/1.jfif")
    assert notes(tmp_path) == []


@pytest.mark.parametrize(
    "name",
    [
        "pbm",
        "pnm",
        "tif",
        "tiff",
        "jpe",
        "jfif",
        "pgm",
        "ppm",
        "gif",
        "heic",
        "heif",
        "webp",
        "bmp",
    ],
)
def test_every_suffix_of_what_can_be_decoded_is_read(tmp_path: Path, name: str) -> None:
    made(tmp_path, f"ann/1.{name}", "bob/1.jpg")
    assert notes(tmp_path) == []


def test_files_that_are_passed_over_are_counted_by_reason(tmp_path: Path) -> None:
    made(
        tmp_path,
        "ann/1.jpg",
        "ann/a.mov",
        "ann/b.mov",
        "bob/1.jpg",
        "bob/@eaDir/1.jpg/THUMB.jpg",
        ".hidden/x.jpg",
        "bob/x",
    )
    assert notes(tmp_path) == [
        "2 files are used, 5 are passed over: 2 hidden, or a system's own (as .hidden/x.jpg), "
        "2 of suffix .mov (as ann/a.mov), 1 without a suffix (as bob/x)."
    ]


def test_subjects_of_whom_nothing_is_used_are_named(tmp_path: Path) -> None:
    made(tmp_path, "ann/1.jpg", *(f"p{i}/1.mov" for i in range(7)), "readme.txt")
    assert (
        notes(tmp_path)[1]
        == "Nothing is used of p0 (of suffix .mov), p1 (of suffix .mov), p2 (of suffix .mov), p3"
        " (of suffix .mov), p4 (of suffix .mov) and 2 more. Convert their files, or name their"
        " suffixes in dataset.options.extensions."
    )


def test_a_folder_one_level_too_high_names_the_option_that_mends_it(tmp_path: Path) -> None:
    made(tmp_path, "base/ann/1.jpg", "base/bob/1.jpg", "notes.txt")
    assert notes(tmp_path)[1:] == [
        "All images are of one subject, base; if the folders in it are the subjects, set"
        " dataset.options.root to base."
    ]
    assert notes(tmp_path, root="base") == [
        "2 files are used, 1 is passed over: 1 not below dataset.options.root (base/) (as"
        " notes.txt)."
    ]


def test_subjects_whose_every_image_lies_deeper_may_be_albums_unless_folders_are_media(
    tmp_path: Path,
) -> None:
    made(tmp_path, "2024/ann/1.jpg", "2024/bob/1.jpg", "2025/ann/1.jpg", "2025/carl/1.jpg")
    assert [note.partition(";")[0] for note in notes(tmp_path)] == [
        "Every image lies in a folder below its subject's (as in 2024/ann, of the subject 2024)"
    ]
    assert notes(tmp_path, media="folder") == []
    made(tmp_path / "2025", "5.jpg", "6.jpg")
    assert notes(tmp_path)[1:] == []


def test_an_image_in_no_subjects_folder_is_passed_over(tmp_path: Path) -> None:
    made(tmp_path, "ann/1.jpg", "stray.jpg", "readme.txt", "bob/1.jpg")
    assert notes(tmp_path) == [
        "2 files are used, 2 are passed over: 1 in no subject's folder (as stray.jpg), 1 of suffix"
        " .txt (as readme.txt)."
    ]


def test_subjects_of_one_image_are_said_to_have_no_probe(tmp_path: Path) -> None:
    made(tmp_path, "ann/1.jpg", "ann/2.jpg", "bob/1.jpg", "carl/1.jpg")
    assert notes(tmp_path, probe_fraction=0.5) == [
        "2 subjects have no probe: a reference takes the only image."
    ]
    assert notes(tmp_path) == []


def test_photographs_that_are_there_twice_are_told_within_and_across_subjects(
    tmp_path: Path,
) -> None:
    made(tmp_path, "ann/1.jpg", "ann/2.jpg", "bob/1.jpg", "bob/2.jpg", "carl/1.jpg")
    (tmp_path / "ann/copy.jpg").write_bytes(b"0")
    (tmp_path / "carl/ann.jpg").write_bytes(b"1")
    assert notes(tmp_path) == [
        (
            "1 photograph is there under several subjects (as ann/2.jpg and carl/ann.jpg). Their"
            " comparisons count as non-mated though they show one face: keep each once."
        ),
        (
            "1 photograph is there several times under one subject (as ann/1.jpg and ann/copy.jpg)."
            " Each counts as often as it is there."
        ),
    ]


def test_links_to_folders_are_followed_and_those_that_are_not_are_told(tmp_path: Path) -> None:
    made(tmp_path / "set", "ann/1.jpg", "ann/2.jpg")
    made(tmp_path / "pool", "1.jpg")
    made(tmp_path / "set/.pool/bob", "1.jpg")
    (tmp_path / "set/bob").symlink_to(".pool/bob")
    (tmp_path / "set/carl").symlink_to(tmp_path / "pool")
    (tmp_path / "set/dora").symlink_to("gone")
    (tmp_path / "set/ann/up").symlink_to("..")
    reader, files = FolderReader(FolderOptions()), open_files(tmp_path / "set")
    tables = reader.read(files)
    assert tables["faces"]["path"].tolist() == ["ann/1.jpg", "ann/2.jpg", "bob/1.jpg"]
    said = reader.notes(files, tables)
    assert (
        said[0]
        == "3 files are used, 4 are passed over: 1 a link in a circle, or to what another link"
        " leads to (as ann/up), 1 a link out of the data set (as carl), 1 a link that leads"
        " nowhere (as dora), 1 hidden, or a system's own (as .pool/bob/1.jpg)."
    )
    assert (
        said[1]
        == "Nothing is used of carl (a link out of the data set), dora (a link that leads nowhere)."
    )


def test_links_without_end_are_walked_in_bounded_time(tmp_path: Path) -> None:
    names = [f"p{i}" for i in range(12)]
    for name in names:
        made(tmp_path, f"{name}/1.jpg")
        for other in names:
            os.symlink(f"../{other}", tmp_path / name / f"to-{other}")
    files = open_files(tmp_path)
    assert 12 <= len(files.names()) <= 24
    assert len(files.passed_over) >= 120


def test_a_folder_one_level_too_high_is_told_where_nearly_all_images_lie_deeper(
    tmp_path: Path,
) -> None:
    made(
        tmp_path,
        *(f"base/person{i}/{k}.jpg" for i in range(3) for k in range(3)),
        "extra/cover.jpg",
    )
    assert notes(tmp_path) == [
        "9 of 10 images lie in a folder below their subject's (as in base/person0, of the subject"
        " base); if those are the subjects, set dataset.options.root to base."
    ]


SYSTEMS = [
    "@Recycle",
    "@Recently-Snapshot",
    "#snapshot",
    "#Recycle",
    "@tmp",
    "@SynoResource",
    "RECYCLER",
    "$Recycle.Bin",
]
SYSTEMS += ["Network Trash Folder", "Temporary Items", "__macosx", "@eadir", "Lost+Found", ".git"]


@pytest.mark.parametrize(
    "name", [f"{folder}/1.jpg" for folder in SYSTEMS] + ["bob/SYNOFILE_THUMB_M.jpg"]
)
def test_what_a_system_keeps_for_itself_is_no_person_whatever_its_case(
    tmp_path: Path, name: str
) -> None:
    made(tmp_path, "ann/1.jpg", "bob/1.jpg", name)
    said = f"2 files are used, 1 is passed over: 1 hidden, or a system's own (as {name})."
    assert notes(tmp_path) == [said]


@pytest.mark.parametrize("name", ["Thumbs.db", "desktop.ini", ".DS_Store"])
def test_files_of_a_system_are_not_told_by_their_suffix(tmp_path: Path, name: str) -> None:
    made(tmp_path, "ann/1.jpg", f"ann/{name}", "bob/1.jpg")
    assert notes(tmp_path) == [
        f"2 files are used, 1 is passed over: 1 hidden, or a system's own (as ann/{name})."
    ]


def zipped(folder: Path) -> Path:
    with zipfile.ZipFile(folder.with_suffix(".zip"), "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    return folder.with_suffix(".zip")


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_people_of_whom_there_is_an_empty_folder_or_hidden_files_only_are_named(
    tmp_path: Path, kind: str
) -> None:
    made(tmp_path / "set", "ann/1.jpg", "bob/.1.jpg", "carl/1.jpg")
    (tmp_path / "set/dora").mkdir()
    (tmp_path / "set/emil/deep").mkdir(parents=True)
    assert notes(zipped(tmp_path / "set") if kind == "zip" else tmp_path / "set") == [
        (
            "2 files are used, 3 are passed over: 2 an empty folder (as dora/), 1 hidden, or a"
            " system's own (as bob/.1.jpg)."
        ),
        (
            "Nothing is used of bob (hidden, or a system's own), dora (an empty folder), emil (an"
            " empty folder)."
        ),
    ]


@pytest.mark.parametrize(
    ("names", "shown"),
    [(("Ann", "ann"), "Ann and ann"), (("Zoe\u0308", "Zo\u00eb"), r"'Zoe\u0308' and 'Zo\xeb'")],
)
def test_two_spellings_of_one_name_are_told(
    tmp_path: Path, names: tuple[str, str], shown: str
) -> None:
    made(tmp_path, *(f"{name}/1.jpg" for name in (*names, "bob")))
    (said,) = notes(tmp_path)
    assert said.startswith(
        "2 subjects have names that differ from another's only in upper and lower case, or in how"
        " accents"
    )
    assert f"(as {shown}). Each is a subject of its own" in said


def test_a_name_that_is_not_utf_8_is_passed_over_unless_it_is_an_images(tmp_path: Path) -> None:
    made(tmp_path, "ann/1.jpg", "bob/1.jpg")
    (tmp_path / os.fsdecode(b"ann/caf\xe9.txt")).write_bytes(b"")
    assert notes(tmp_path) == [
        r"2 files are used, 1 is passed over: 1 of suffix .txt (as ann/caf\udce9.txt)."
    ]
    (tmp_path / os.fsdecode(b"ann/caf\xe9.jpg")).write_bytes(b"")
    with pytest.raises(InvalidInput, match="is not UTF-8; rename the file"):
        notes(tmp_path)


def test_images_that_are_links_out_of_the_data_set_are_told(tmp_path: Path) -> None:
    made(tmp_path / "pool", "1.jpg", "2.jpg")
    made(tmp_path / "set", "ann/1.jpg", "bob/1.jpg")
    for number in (1, 2):
        (tmp_path / f"set/bob/link{number}.jpg").symlink_to(tmp_path / f"pool/{number}.jpg")
    (said,) = notes(tmp_path / "set")
    assert said.startswith(
        "2 images of those used cannot be read, so nothing comes of them (as bob/link1.jpg: "
    )
    assert said.endswith(
        "'bob/link1.jpg' links to a file outside the data set; such a file is never read)."
    )


def test_an_image_without_permission_is_told() -> None:
    with public_folder() as root:
        made(root / "set", "ann/1.jpg", "bob/1.jpg")
        (root / "set/bob/1.jpg").chmod(0)
        with unprivileged():
            (said,) = notes(root / "set")
    assert said.startswith(
        "1 image of those used cannot be read, so nothing comes of it (as bob/1.jpg: "
    )
    assert "fix its permissions" in said


# -- readers of a protocol
# ---------------------------------------------------------------------------------------------


def notes_of(name: str, folder: Path, **options: Any) -> list[str]:
    cls = lookup("reader", name)
    reader, files = (
        cls(validate(cls.Options, {"counts": "any", **options}, "dataset.options")),
        open_files(folder),
    )
    found: list[str] = reader.notes(files, reader.read(files))
    return found


def an_ijb(folder: Path) -> Path:
    return janus.package(lists=True).write(folder)


def a_nist(folder: Path) -> Path:
    head = "TEMPLATE_ID,SUBJECT_ID,FILENAME,FACE_X,FACE_Y,FACE_WIDTH,FACE_HEIGHT\n"
    rows = {
        "gallery_G1": "3,Ada,img/1.png",
        "gallery_G2": "20,Bob,img/2.png",
        "probe_mixed": "7,Ada,img/1.png",
    }
    lists = {
        f"protocol/ijbc_1N_{name}.csv": f"{head}{row},1,2,30,40\n" for name, row in rows.items()
    }
    lists["protocol/ijbc_11_G1_G2_matches.csv"] = "3,7\n20,7\n"
    return tree(folder, {**lists, "images/img/1.png": b"1", "images/img/2.png": b"2"})


SETS: dict[
    str, tuple[Any, dict[str, Any], str, str]
] = {  # how to make it, options, an image beside, why it is passed over
    "xqlfw": (xqlfw, {}, "xqlfw_aligned_112/Person_A/cover.jpg", "not called NAME/NAME_0001"),
    "lfw": (
        xqlfw,
        {"pairs": "xqlfw_pairs.txt", "faces": "pairs"},
        "extra/extra_0001.jpg",
        "not in xqlfw_pairs.txt",
    ),
    "adience": (
        lambda root: adience(root, [{"1@N1": 2}]),
        {"folds": [0]},
        "aligned/1@N1/x.jpg",
        "not in the lists",
    ),
    "tinyface": (
        tinyface,
        {},
        "Training_Set/1_1.jpg",
        "not in Gallery_Match/, Gallery_Distractor/ or Probe/",
    ),
    "ijb": (an_ijb, {}, "loose_crop/99.jpg", "not in the lists"),
    "ijb_nist": (a_nist, {}, "images/img/99.png", "not in the lists"),
}


@pytest.mark.parametrize("reader", SETS)
def test_every_reader_of_images_counts_what_it_passes_over_by_reason(
    tmp_path: Path, reader: str
) -> None:
    make, options, stray, why = SETS[reader]
    make(tmp_path)
    before = len(open_files(tmp_path).names())
    lists = notes_of(reader, tmp_path, **options)
    tree(tmp_path, {stray: b"stray", "clip.avif": b"", "@eaDir/1.jpg": b""})
    (tmp_path / "gone.jpg").symlink_to("nowhere")
    (said,) = notes_of(reader, tmp_path, **options)
    assert f" {why} (as " in said
    for other in (
        "1 of suffix .avif (as clip.avif)",
        "1 a link that leads nowhere (as gone.jpg)",
        "@eaDir/1.jpg",
    ):
        assert other in said
    used, passed = counts(said)
    assert used + passed == before + 4
    assert lists == [] or counts(lists[0])[0] == used


def counts(said: str) -> tuple[int, int]:
    """How many files are used, and how many are passed over."""
    words = said.split()
    return int(words[0]), int(words[words.index("used,") + 1])


def test_where_every_file_is_in_the_protocol_or_one_of_its_lists_nothing_is_said(
    tmp_path: Path,
) -> None:
    assert notes_of("xqlfw", xqlfw(tmp_path / "x")) == []
    assert notes_of("tinyface", tinyface(tmp_path / "t")) == []
    assert notes_of("ijb", an_ijb(tmp_path / "i")) == []
    assert notes_of("ijb_nist", a_nist(tmp_path / "n")) == []


def test_embeddings_and_qualities_beside_the_lists_are_used(tmp_path: Path) -> None:
    tree(an_ijb(tmp_path), {"q.txt": "1\n" * 7})
    assert notes_of("ijb", tmp_path, quality="q.txt") == []
    assert notes_of("ijb", tmp_path)[0].endswith("passed over: 1 of suffix .txt (as q.txt).")


def test_what_lies_beside_the_sub_folder_of_a_set_is_told_as_such(tmp_path: Path) -> None:
    tinyface(tmp_path / "aligned")
    tree(tmp_path, {"other/1.jpg": b"1"})
    (said,) = notes_of("tinyface", tmp_path, root="aligned")
    assert "1 not below dataset.options.root (aligned/) (as other/1.jpg)" in said


def test_templates_of_lfw_name_people_of_whom_nothing_is_usable(tmp_path: Path) -> None:
    made(
        tmp_path / "lfw",
        *(f"{name}/{name}_000{i}.jpg" for name in ("A", "B") for i in range(1, 5)),
        "C/C_0001.jpg",
    )
    made(tmp_path / "lfw", "D/D_1.jpg", "E/E_0001.avif", "F/.hidden")
    (tmp_path / "lfw/B/B_0004.jpg").write_bytes((tmp_path / "lfw/A/A_0001.jpg").read_bytes())
    cls = lookup("reader", "lfw_templates")
    reader, files = (
        cls(validate(cls.Options, {"min_images": 4}, "dataset.options")),
        open_files(tmp_path),
    )
    assert reader.notes(files, reader.read(files)) == [
        (
            "8 files are used, 4 are passed over: 1 hidden, or a system's own (as lfw/F/.hidden), 1"
            " not called NAME/NAME_0001 (as lfw/D/D_1.jpg), 1 not chosen"
            " (dataset.options.min_images, max_images, identities) (as lfw/C/C_0001.jpg), 1 of"
            " suffix .avif (as lfw/E/E_0001.avif)."
        ),
        (
            "Nothing is used of D (not called NAME/NAME_0001), E (of suffix .avif), F (hidden, or a"
            " system's own). Convert their files to JPEG or PNG."
        ),
        (
            "1 photograph is there under several subjects (as lfw/A/A_0001.jpg and"
            " lfw/B/B_0004.jpg). Their comparisons count as non-mated though they show one face:"
            " keep each once."
        ),
    ]
