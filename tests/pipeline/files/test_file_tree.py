"""What `pipeline.files.file_tree` promises: a data set's files by relative name, and never one from
outside it.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machine import no_more_files, public_folder, unprivileged

from pipeline.errors import InvalidInput, ResourceRefused
from pipeline.files import file_tree
from pipeline.files.digests import UNREADABLE, DigestCache
from pipeline.files.file_tree import Files, Folder, open_files

TREE = {"a.txt": b"a" * 300, "b/c.bin": bytes(range(256)) * 3, "b/d/e": b""}


def folder(root: Path) -> Files:
    for name, data in TREE.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return open_files(root)


def packed(path: Path, tree: dict[str, bytes] = TREE, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in tree.items():
            archive.writestr(name, data)
    return path


def made(kind: str, root: Path) -> Files:
    return folder(root / "tree") if kind == "folder" else open_files(packed(root / "tree.zip"))


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_a_folder_and_a_zip_of_it_give_the_same_names_and_bytes(tmp_path: Path, kind: str) -> None:
    found = made(kind, tmp_path)
    assert found.names() == sorted(TREE)
    assert {name: found.read(name) for name in found.names()} == TREE


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_a_name_is_read_however_it_is_spelt(tmp_path: Path, kind: str) -> None:
    assert made(kind, tmp_path).read("./b//./c.bin") == TREE["b/c.bin"]


@pytest.mark.parametrize("kind", ["folder", "zip"])
@pytest.mark.parametrize("name", ["none", "b", "b/none", "a.txt/b", "x" * 5000])
def test_what_is_no_file_is_not_found(tmp_path: Path, kind: str, name: str) -> None:
    with pytest.raises(FileNotFoundError):
        made(kind, tmp_path).read(name)


@pytest.mark.parametrize("kind", ["folder", "zip"])
@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../secret", "b/../../secret", "..", ".", "", "b\\c.bin", "a\0.txt"]
)
def test_a_name_that_points_outside_is_never_read(tmp_path: Path, kind: str, name: str) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    with pytest.raises(InvalidInput, match="points outside the data set"):
        made(kind, tmp_path).read(name)


def test_a_link_is_followed_inside_the_root_and_never_out_of_it(tmp_path: Path) -> None:
    found = folder(tmp_path / "tree")
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "tree" / "inside").symlink_to("a.txt")
    (tmp_path / "tree" / "outside").symlink_to(tmp_path / "secret")
    (tmp_path / "tree" / "up").symlink_to("..")
    assert found.read("inside") == TREE["a.txt"]
    for name in ("outside", "up/secret"):
        with pytest.raises(InvalidInput, match="links to a file outside the data set"):
            found.read(name)


def test_links_that_lead_nowhere_or_round_in_a_circle_are_not_found(tmp_path: Path) -> None:
    found = folder(tmp_path / "tree")
    (tmp_path / "tree" / "dangling").symlink_to("gone")
    (tmp_path / "tree" / "circle").symlink_to("circle")
    assert found.names() == sorted(TREE)
    for name in ("dangling", "circle", "circle/a"):
        with pytest.raises(FileNotFoundError):
            found.read(name)


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_empty_folders_below_the_root_are_met(tmp_path: Path, kind: str) -> None:
    tree = tmp_path / "tree"
    folder(tree)
    (tree / "b/void").mkdir()
    (tree / "none/deep").mkdir(parents=True)
    if kind == "zip":
        with zipfile.ZipFile(tmp_path / "tree.zip", "w") as archive:
            for path in tree.rglob("*"):
                archive.write(path, path.relative_to(tree))
    found = open_files(tmp_path / "tree.zip" if kind == "zip" else tree)
    assert found.names() == sorted(TREE)
    assert found.passed_over == {"b/void/": "an empty folder", "none/deep/": "an empty folder"}
    (tmp_path / "nothing").mkdir()
    assert open_files(tmp_path / "nothing").names() == []


def test_the_root_itself_may_be_a_link(tmp_path: Path) -> None:
    folder(tmp_path / "tree")
    (tmp_path / "link").symlink_to("tree")
    assert open_files(tmp_path / "link").read("a.txt") == TREE["a.txt"]


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    found = folder(tmp_path / "tree")
    os.mkfifo(tmp_path / "tree" / "pipe")
    assert found.names() == sorted(TREE)
    with pytest.raises(FileNotFoundError):
        found.read("pipe")


@pytest.mark.parametrize("name", ["/etc/passwd", "../out", "a/../../out", "a\\..\\out"])
def test_an_archive_with_a_member_that_climbs_out_is_refused_whole(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(InvalidInput, match="points outside the data set"):
        open_files(packed(tmp_path / "evil.zip", {"good": b"", name: b"x"}))


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_a_file_above_the_limit_is_refused_and_one_at_the_limit_is_read(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_tree, "MAX_FILE_BYTES", 300)
    found = made(kind, tmp_path)
    assert found.read("a.txt") == TREE["a.txt"]
    with pytest.raises(InvalidInput, match=r"larger than|expands to more than"):
        found.read("b/c.bin")


def test_a_member_that_hides_its_size_is_not_unpacked(tmp_path: Path) -> None:
    path = packed(tmp_path / "bomb.zip", {"bomb": bytes(50_000)})
    data = path.read_bytes()
    assert (
        data.count((50_000).to_bytes(4, "little")) == 2
    )  # in the member's own header and in the directory
    path.write_bytes(data.replace((50_000).to_bytes(4, "little"), (100).to_bytes(4, "little")))
    with pytest.raises(InvalidInput, match="damaged inside the archive"):
        open_files(path).read("bomb")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_method_that_cannot_be_stopped_on_the_way_is_refused(tmp_path: Path, method: int) -> None:
    with pytest.raises(InvalidInput, match="neither stored nor deflated"):
        open_files(packed(tmp_path / "a.zip", TREE, method)).read("a.txt")


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.zip", {"a": b"abc"}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[6] |= 1  # general purpose bit 0 (APPNOTE 4.4.4), in the member's own header …
    data[data.index(b"PK\1\2") + 8] |= 1  # … and in the directory
    path.write_bytes(data)
    with pytest.raises(InvalidInput, match="encrypted"):
        open_files(path).read("a")


def test_a_damaged_member_is_refused_and_the_others_are_read(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.zip", TREE, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[data.index(TREE["b/c.bin"]) + 100] ^= 1
    path.write_bytes(data)
    found = open_files(path)
    with pytest.raises(InvalidInput, match=r"b/c\.bin is damaged inside the archive"):
        found.read("b/c.bin")
    assert found.read("a.txt") == TREE["a.txt"]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@given(st.data())
@settings(max_examples=50, deadline=None)
def test_whatever_bit_of_an_archive_flips_no_wrong_bytes_are_read(
    tmp_path_factory: pytest.TempPathFactory, method: int, data: st.DataObject
) -> None:
    path = packed(tmp_path_factory.getbasetemp() / "flipped.zip", TREE, method)
    image = bytearray(path.read_bytes())
    bit = data.draw(st.integers(0, 8 * len(image) - 1))
    image[bit // 8] ^= 1 << bit % 8
    path.write_bytes(image)
    try:
        found = open_files(path)
    except InvalidInput:
        return
    for name in found.names():
        try:
            content = found.read(name)
        except InvalidInput:
            continue
        assert content == TREE.get(name, content)
        assert content in TREE.values()


def test_a_truncated_archive_is_refused(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.zip")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InvalidInput, match="neither a folder, a zip archive nor a pack"):
        open_files(path)


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("none", "does not exist"),
        ("text", "neither a folder, a zip archive nor a pack"),
        ("x" * 5000, "does not exist"),
    ],
)
def test_a_path_that_is_neither_folder_nor_zip_is_refused(
    tmp_path: Path, name: str, state: str
) -> None:
    (tmp_path / "text").write_text("no archive")
    with pytest.raises(InvalidInput, match=f"{state}.*set dataset.path"):
        open_files(tmp_path / name)


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_several_threads_read_at_once(tmp_path: Path, kind: str) -> None:
    found = made(kind, tmp_path)
    names = found.names() * 50
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(found.read, names)) == [TREE[name] for name in names]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_a_name_that_no_file_can_have_is_refused_and_unreadable(tmp_path: Path, kind: str) -> None:
    found = made(kind, tmp_path)
    with pytest.raises(InvalidInput, match="is not text, so no file can have that name"):
        found.read("b/\ud800.jpg")
    assert found.digests(["\ud800"]) == [UNREADABLE]


def test_a_member_without_a_name_is_refused(tmp_path: Path) -> None:
    data = packed(tmp_path / "a.zip", {"x": b"words"}, zipfile.ZIP_STORED).read_bytes()
    local, central = data.find(b"PK\1\2"), data.find(b"PK\5\6")
    cut = data[: central - 1] + data[central:]  # the name of one letter, from the directory
    cut = cut[: local + 28] + b"\0\0" + cut[local + 30 :]
    end = cut.find(b"PK\5\6")
    (tmp_path / "a.zip").write_bytes(
        cut[: end + 12] + (end - local).to_bytes(4, "little") + cut[end + 16 :]
    )
    with pytest.raises(InvalidInput, match="the name '' points outside"):
        open_files(tmp_path / "a.zip")


def test_an_archive_whose_members_share_their_bytes_is_refused(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.zip", {"a": bytes(1 << 20), "b": bytes(1 << 20)})
    data = path.read_bytes()
    second = data.rfind(b"PK\1\2")
    # where the second one starts: with the first
    path.write_bytes(data[: second + 42] + bytes(4) + data[second + 46 :])
    with pytest.raises(InvalidInput, match="overlaps another member"):
        open_files(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("again", ["a.txt", "./a.txt"])
def test_an_archive_that_holds_a_name_twice_is_refused(tmp_path: Path, again: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", "one")
        archive.writestr(again, "other")
    with pytest.raises(InvalidInput, match=r"it holds 'a\.txt' twice"):
        open_files(tmp_path / "a.zip")


def test_an_offset_beyond_what_a_file_can_have_is_damage(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.zip", {"x": b"words"})
    found = open_files(path)
    assert isinstance(found, file_tree.Zip)
    found._info["x"].header_offset = 2**64 - 1  # as its extra field of 64 bits may say
    with pytest.raises(InvalidInput, match="x is damaged inside the archive"):
        found.read("x")


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_digests_are_those_of_the_bytes_and_empty_for_what_is_no_file(
    tmp_path: Path, kind: str
) -> None:
    names = [*TREE, "none", "b"]
    assert made(kind, tmp_path).digests(names) == [*map(sha256, TREE.values()), "", ""]


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_a_file_above_the_limit_asked_for_is_unreadable_and_without_a_limit_has_a_digest(
    tmp_path: Path, kind: str
) -> None:
    found, names = made(kind, tmp_path), ["a.txt", "b/c.bin"]
    assert found.digests(names, limit=300) == [sha256(TREE["a.txt"]), UNREADABLE]
    assert found.digests(names) == [sha256(TREE[name]) for name in names]


def test_what_leads_out_of_a_folder_or_may_not_be_read_is_unreadable() -> None:
    with public_folder() as root:
        found = folder(root / "tree")
        (root / "tree" / "outside").symlink_to("/etc/passwd")
        (root / "tree" / "shut").write_bytes(b"abc")
        (root / "tree" / "shut").chmod(0)
        with unprivileged():
            assert found.digests(["outside", "shut", "../tree/a.txt"]) == [UNREADABLE] * 3
            with pytest.raises(InvalidInput, match=r"shut cannot be read .*; fix its permissions"):
                found.read("shut")


def test_what_is_damaged_inside_an_archive_is_unreadable(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.zip", TREE, zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(TREE["b/c.bin"], TREE["b/c.bin"][::-1]))
    assert open_files(path).digests(["a.txt", "b/c.bin"]) == [sha256(TREE["a.txt"]), UNREADABLE]


def test_a_digest_stays_that_of_the_first_reading(tmp_path: Path) -> None:
    found = folder(tmp_path)
    before = found.digests(["a.txt"])
    (tmp_path / "a.txt").write_bytes(b"changed")
    assert found.digests(["a.txt"]) == before
    assert open_files(tmp_path).digests(["a.txt"]) == [sha256(b"changed")]


def test_the_digest_of_a_whole_archive_is_told_to_those_who_ask(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.zip")
    found = open_files(path, DigestCache(None))
    assert isinstance(found, file_tree.Zip)
    assert found.sha256 == sha256(path.read_bytes())


def test_what_the_machine_fails_to_read_is_neither_unreadable_nor_absent(tmp_path: Path) -> None:
    """Of a process's own memory nothing can be read at 0: an input/output error as of a failing
    disk.
    """
    found = Folder(Path("/proc/self"))
    for ask in (found.read, lambda name: found.digests([name])):
        with pytest.raises(
            ResourceRefused, match=r"/mem cannot be read \(Input/output error\): check the disk"
        ):
            ask("mem")
    tree = folder(tmp_path)
    for ask in (tree.read, lambda name: tree.digests([name])):
        with (
            no_more_files(),
            pytest.raises(ResourceRefused, match=r"Too many open files.*raise `ulimit -n`"),
        ):
            ask("a.txt")
    with no_more_files(), pytest.raises(ResourceRefused, match="Too many open files"):
        tree.names()
    assert tree.digests(["a.txt"]) == [sha256(TREE["a.txt"])]


def test_an_archive_that_the_machine_fails_to_read_is_not_damaged(tmp_path: Path) -> None:
    found = made("zip", tmp_path)
    assert isinstance(found, file_tree.Zip)
    with open("/proc/self/mem", "rb") as failing:
        os.dup2(failing.fileno(), found._zip.fp.fileno())
    with pytest.raises(ResourceRefused, match=r"tree.zip cannot be read \(Input/output error\)"):
        found.digests(["a.txt"])
