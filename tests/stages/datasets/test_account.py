"""account: what a folder reader has not used, and what is doubtful about what it has, in sentences."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.files import open_files
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


@pytest.mark.parametrize("name", ["tif", "tiff", "jpe", "jfif", "pgm", "ppm", "gif", "heic", "heif", "webp", "bmp"])
def test_every_suffix_of_what_can_be_decoded_is_read(tmp_path: Path, name: str) -> None:
    made(tmp_path, f"ann/1.{name}", "bob/1.jpg")
    assert notes(tmp_path) == []


def test_files_that_are_passed_over_are_counted_by_reason(tmp_path: Path) -> None:
    made(tmp_path, "ann/1.jpg", "ann/a.mov", "ann/b.mov", "bob/1.jpg", "bob/@eaDir/1.jpg/THUMB.jpg", ".hidden/x.jpg", "bob/x")
    assert notes(tmp_path) == [
        "2 files are used, 5 are passed over: 2 hidden, or a system's own (as .hidden/x.jpg), "
        "2 of suffix .mov (as ann/a.mov), 1 without a suffix (as bob/x)."
    ]


def test_subjects_of_whom_nothing_is_used_are_named(tmp_path: Path) -> None:
    made(tmp_path, "ann/1.jpg", *(f"p{i}/1.mov" for i in range(7)), "readme.txt")
    assert notes(tmp_path)[1] == (
        "Nothing is used of p0 (of suffix .mov), p1 (of suffix .mov), p2 (of suffix .mov), p3 (of suffix .mov), "
        "p4 (of suffix .mov) and 2 more. Convert their files, or name their suffixes in dataset.options.extensions."
    )


def test_a_folder_one_level_too_high_names_the_option_that_mends_it(tmp_path: Path) -> None:
    made(tmp_path, "base/ann/1.jpg", "base/bob/1.jpg", "notes.txt")
    assert notes(tmp_path)[1:] == [
        "All images are of one subject, base; if the folders in it are the subjects, set dataset.options.root to base."
    ]
    assert notes(tmp_path, root="base") == [
        "2 files are used, 1 is passed over: 1 not below dataset.options.root (base/) (as notes.txt)."
    ]


def test_subjects_whose_every_image_lies_deeper_may_be_albums_unless_folders_are_media(tmp_path: Path) -> None:
    made(tmp_path, "2024/ann/1.jpg", "2024/bob/1.jpg", "2025/ann/1.jpg", "2025/carl/1.jpg")
    assert [note.partition(";")[0] for note in notes(tmp_path)] == [
        "Every image lies in a folder below its subject's (as in 2024/ann, of the subject 2024)"
    ]
    assert notes(tmp_path, media="folder") == []
    (tmp_path / "2025/1.jpg").write_bytes(b"another")
    assert notes(tmp_path) == []


def test_an_image_in_no_subjects_folder_is_passed_over(tmp_path: Path) -> None:
    made(tmp_path, "ann/1.jpg", "stray.jpg", "readme.txt", "bob/1.jpg")
    assert notes(tmp_path) == [
        "2 files are used, 2 are passed over: 1 in no subject's folder (as stray.jpg), 1 of suffix .txt (as readme.txt)."
    ]


def test_subjects_of_one_image_are_said_to_have_no_probe(tmp_path: Path) -> None:
    made(tmp_path, "ann/1.jpg", "ann/2.jpg", "bob/1.jpg", "carl/1.jpg")
    assert notes(tmp_path, probe_fraction=0.5) == ["2 subjects have no probe: a reference takes the only image."]
    assert notes(tmp_path) == []


def test_photographs_that_are_there_twice_are_told_within_and_across_subjects(tmp_path: Path) -> None:
    made(tmp_path, "ann/1.jpg", "ann/2.jpg", "bob/1.jpg", "bob/2.jpg", "carl/1.jpg")
    (tmp_path / "ann/copy.jpg").write_bytes(b"0")
    (tmp_path / "carl/ann.jpg").write_bytes(b"1")
    assert notes(tmp_path) == [
        "1 photograph is there under several subjects (as ann/2.jpg and carl/ann.jpg). Their comparisons count as non-mated "
        "though they show one face: keep each once.",
        "1 photograph is there several times under one subject (as ann/1.jpg and ann/copy.jpg). Each counts as often "
        "as it is there.",
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
    assert said[0] == (
        "3 files are used, 4 are passed over: 1 a link in a circle, or to what another link leads to (as ann/up), "
        "1 a link out of the data set (as carl), 1 a link that leads nowhere (as dora), "
        "1 hidden, or a system's own (as .pool/bob/1.jpg)."
    )
    assert said[1] == "Nothing is used of carl (a link out of the data set), dora (a link that leads nowhere)."


def test_links_without_end_are_walked_in_bounded_time(tmp_path: Path) -> None:
    names = [f"p{i}" for i in range(12)]
    for name in names:
        made(tmp_path, f"{name}/1.jpg")
        for other in names:
            os.symlink(f"../{other}", tmp_path / name / f"to-{other}")
    files = open_files(tmp_path)
    assert 12 <= len(files.names()) <= 24
    assert len(files.passed_over) >= 120
