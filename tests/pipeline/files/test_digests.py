"""What `pipeline.files.digests` promises: one text for one value, differences as sentences, file
digests remembered.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from machine import public_folder, unprivileged

from pipeline.errors import ResourceRefused
from pipeline.files import digests
from pipeline.files.digests import UNREADABLE, DigestCache
from pipeline.system.canonical_json import changed_fields, key_of

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


def shuffled(value: object) -> object:
    """The same value with the keys of every mapping in another order."""
    if isinstance(value, dict):
        return {key: shuffled(value[key]) for key in reversed(value)}
    return [shuffled(item) for item in value] if isinstance(value, list) else value


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@given(JSON)
@settings(max_examples=50, deadline=None)
def test_the_order_of_keys_does_not_change_a_key(value: object) -> None:
    assert key_of(shuffled(value)) == key_of(value)


def test_a_key_is_the_sha256_of_compact_sorted_json() -> None:
    # printf '%s' '{"a":[1,2.5,null],"é":"x"}' | sha256sum
    assert key_of({"é": "x", "a": [1, 2.5, None]}) == sha256('{"a":[1,2.5,null],"é":"x"}'.encode())


def test_nan_is_no_key() -> None:
    with pytest.raises(ValueError, match="not JSON"):
        key_of({"threshold": float("nan")})


def test_a_text_that_is_not_utf8_has_a_key() -> None:
    assert key_of("\udcff") != key_of("\udcfe")


def test_equal_pre_images_have_no_difference() -> None:
    assert changed_fields({"a": {"b": [1, 2, 3, 4]}}, {"a": {"b": [1, 2, 3, 4]}}) == []


def test_a_difference_names_the_field_the_old_and_the_new_value() -> None:
    old = {"options": {"flip": "none", "size": 1}, "version": 1}
    new = {"options": {"flip": "add", "size": 1}, "version": 2}
    assert changed_fields(old, new) == ["options.flip: none → add", "version: 1 → 2"]


def test_a_field_that_comes_or_goes_is_a_difference() -> None:
    assert changed_fields({"a": 1}, {"b": None}) == ["a: 1 → (absent)", "b: (absent) → null"]


def test_long_values_are_shortened_in_a_difference() -> None:
    assert changed_fields({"k": "0" * 64}, {"k": "1" * 64}) == [f"k: {'0' * 12}… → {'1' * 12}…"]
    assert changed_fields({"k": list(range(9))}, {"k": list(range(8))}) == ["k changed"]


@given(JSON, JSON)
@example(1, True)
@example(0.0, -0.0)
@settings(max_examples=50, deadline=None)
def test_a_difference_is_found_exactly_where_keys_differ(a: object, b: object) -> None:
    assert (changed_fields({"v": a}, {"v": b}) == []) == (key_of(a) == key_of(b))


def test_a_file_digest_is_its_sha256(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"abc")
    # FIPS 180-4, the example 'abc'
    assert (
        DigestCache(None).digest(file)
        == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def test_an_unchanged_file_is_not_read_again_also_by_another_process(tmp_path: Path) -> None:
    file, cache = tmp_path / "a", tmp_path / "digests.sqlite"
    file.write_bytes(b"old")
    DigestCache(cache).digest(file)
    reads = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digests, "file_digest", reads.append)
        assert DigestCache(cache).digest(file) == sha256(b"old")
    assert reads == []


def test_a_file_that_is_written_over_and_whose_time_is_set_back_is_read_again(
    tmp_path: Path,
) -> None:
    file, cache = tmp_path / "a", tmp_path / "digests.sqlite"
    file.write_bytes(b"old")
    before = file.stat()
    DigestCache(cache).digest(file)
    # until the clock of the file system has moved on
    while file.stat().st_ctime_ns == before.st_ctime_ns:
        file.write_bytes(b"new")
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = file.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (
        before.st_size,
        before.st_mtime_ns,
        before.st_ino,
    )
    assert DigestCache(cache).digest(file) == sha256(b"new")


@pytest.mark.parametrize("change", ["size", "time", "inode"])
def test_a_file_whose_size_time_or_inode_changed_is_read_again(tmp_path: Path, change: str) -> None:
    file, cache = tmp_path / "a", tmp_path / "digests.sqlite"
    file.write_bytes(b"old")
    stat = file.stat()
    DigestCache(cache).digest(file)
    if change == "inode":
        (tmp_path / "b").write_bytes(b"new")
        os.replace(tmp_path / "b", file)
    else:
        file.write_bytes(b"newer" if change == "size" else b"new")
    later = 1 if change == "time" else 0
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + later))
    assert DigestCache(cache).digest(file) == sha256(file.read_bytes())


def test_digests_come_in_the_order_of_the_files(tmp_path: Path) -> None:
    files = [tmp_path / name for name in "cab"]
    for file in files:
        file.write_bytes(file.name.encode())
    cache = DigestCache(tmp_path / "digests.sqlite")
    cache.digest(files[1])
    assert cache.digests(files) == [sha256(name.encode()) for name in "cab"]


@pytest.mark.parametrize(
    "damage", [b"", b"no database at all" * 100, b"SQLite format 3\0" + b"\xff" * 4000]
)
def test_a_damaged_cache_costs_time_and_never_an_answer(tmp_path: Path, damage: bytes) -> None:
    file, cache = tmp_path / "a", tmp_path / "digests.sqlite"
    file.write_bytes(b"abc")
    DigestCache(cache).digest(file)
    cache.write_bytes(damage)
    assert DigestCache(cache).digest(file) == sha256(b"abc")
    assert DigestCache(cache).digest(file) == sha256(b"abc")
    assert remembered(cache) == {os.path.realpath(file): sha256(b"abc")}  # and by then it is mended


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE file_digest; CREATE TABLE file_digest (path TEXT PRIMARY KEY, sha256 TEXT)",
        "INSERT INTO file_digest VALUES (CAST(x'ff' AS TEXT), 'a', 'b', 'c')",
        "INSERT INTO file_digest VALUES (1, NULL, 2.5, x'00ff')",
    ],
    ids=["another table", "no UTF-8", "other types"],
)
def test_a_cache_that_holds_other_things_is_mended(
    tmp_path: Path, statement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, cache = tmp_path / "a", tmp_path / "digests.sqlite"
    file.write_bytes(b"abc")
    DigestCache(cache).digest(file)
    with closing(sqlite3.connect(cache)) as db, db:
        db.executescript(statement)
    for _ in range(2):
        assert DigestCache(cache).digest(file) == sha256(b"abc")
    monkeypatch.setattr(
        "pipeline.files.digests.file_digest", lambda path: pytest.fail("it is read again")
    )
    assert DigestCache(cache).digest(file) == sha256(b"abc")


def test_whatever_is_in_the_place_of_the_cache_costs_time_and_never_an_answer(
    tmp_path: Path,
) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("folder", "pipe", "loop"):
        assert DigestCache(tmp_path / name).digest(tmp_path / "a") == sha256(b"abc")


def remembered(cache: Path) -> dict[str, str]:
    with closing(sqlite3.connect(cache)) as db:
        return dict(db.execute("SELECT path, sha256 FROM file_digest"))


def test_a_flipped_bit_in_the_cache_is_never_taken_for_a_digest(tmp_path: Path) -> None:
    files = [tmp_path / f"face {i}" for i in range(3)]
    for file in files:
        file.write_bytes(file.name.encode())
    expected = [sha256(file.name.encode()) for file in files]
    cache = tmp_path / "digests.sqlite"
    DigestCache(cache).digests(files)
    image = cache.read_bytes()
    # One bit of every second byte in use of the page that holds the rows, and of every one of the
    # file's header.
    page = 4096 * next(
        i for i in range(len(image) // 4096) if expected[0].encode() in image[4096 * i :][:4096]
    )
    used = [page + i for i in range(4096) if image[page + i]][::2]
    for at in [*range(100), *used]:
        changed = bytearray(image)
        changed[at] ^= 1 << at % 8
        cache.write_bytes(changed)
        assert DigestCache(cache, readonly=True).digests(files) == expected


def test_a_row_that_another_wrote_for_another_file_is_not_believed(tmp_path: Path) -> None:
    file, cache = tmp_path / "a", tmp_path / "digests.sqlite"
    file.write_bytes(b"abc")
    DigestCache(cache).digest(file)
    with closing(sqlite3.connect(cache)) as db, db:
        db.execute("UPDATE file_digest SET sha256 = ?", (sha256(b"another"),))
    assert DigestCache(cache).digest(file) == sha256(b"abc")
    assert remembered(cache) == {os.path.realpath(file): sha256(b"abc")}


def test_a_cache_whose_folder_vanished_is_not_made_anew(tmp_path: Path) -> None:
    file, folder = tmp_path / "a", tmp_path / "store"
    file.write_bytes(b"abc")
    folder.mkdir()
    cache = DigestCache(folder / "digests.sqlite")
    # as where a disk was unmounted: the folder is there, and empty
    (folder / "digests.sqlite").unlink()
    assert cache.digest(file) == sha256(b"abc")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("table", ["digest", "file_digest"])
def test_a_cache_of_another_layout_costs_time_and_never_an_answer(
    tmp_path: Path, table: str
) -> None:
    file, cache = tmp_path / "a", tmp_path / "digests.sqlite"
    file.write_bytes(b"abc")
    with sqlite3.connect(cache) as db:
        db.execute(f"CREATE TABLE {table} (something INTEGER)")
    db.close()
    for _ in range(2):
        assert DigestCache(cache).digest(file) == sha256(b"abc")


def test_a_locked_cache_is_read_and_the_answer_still_comes(tmp_path: Path) -> None:
    file, cache = tmp_path / "a", tmp_path / "digests.sqlite"
    file.write_bytes(b"abc")
    DigestCache(cache).digest(file)
    db = sqlite3.connect(cache, isolation_level=None)
    db.execute("BEGIN EXCLUSIVE")
    try:
        assert DigestCache(cache, readonly=True).digest(file) == sha256(b"abc")
    finally:
        db.close()


def test_a_read_only_cache_is_used_and_not_written(tmp_path: Path) -> None:
    known, fresh, cache = tmp_path / "known", tmp_path / "fresh", tmp_path / "digests.sqlite"
    known.write_bytes(b"known")
    fresh.write_bytes(b"fresh")
    DigestCache(cache).digest(known)
    before = cache.read_bytes()
    assert DigestCache(cache, readonly=True).digests([known, fresh]) == [
        sha256(b"known"),
        sha256(b"fresh"),
    ]
    assert cache.read_bytes() == before


def test_a_cache_may_be_named_relative_to_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a").write_bytes(b"abc")
    for _ in range(2):
        assert DigestCache(Path("odd #?% name")).digest(Path("a")) == sha256(b"abc")


def test_a_file_name_that_is_not_utf8_is_digested_every_time_and_the_others_once(
    tmp_path: Path,
) -> None:
    files = [tmp_path / os.fsdecode(name) for name in (b"\xff.jpg", b"good.jpg")]
    for file in files:
        file.write_bytes(b"abc")
    for _ in range(2):
        assert DigestCache(tmp_path / "digests.sqlite").digests(files) == [sha256(b"abc")] * 2
    assert remembered(tmp_path / "digests.sqlite") == {os.path.realpath(files[1]): sha256(b"abc")}


def test_what_is_no_file_has_no_digest_and_the_others_have(tmp_path: Path) -> None:
    (tmp_path / "good").write_bytes(b"abc")
    (tmp_path / "folder").mkdir()
    (tmp_path / "circle").symlink_to("circle")
    os.mkfifo(tmp_path / "pipe")
    paths = [tmp_path / name for name in ("folder", "gone", "circle", "pipe", "good/none", "good")]
    assert DigestCache(tmp_path / "digests.sqlite").digests(paths) == [
        "",
        "",
        "",
        "",
        "",
        sha256(b"abc"),
    ]


def test_a_file_without_permission_is_unreadable_until_it_has_one() -> None:
    cache = DigestCache(None)
    with public_folder() as folder:
        (folder / "a").write_bytes(b"abc")
        for mode, digest in ((0, UNREADABLE), (0o644, sha256(b"abc"))):
            (folder / "a").chmod(mode)
            with unprivileged():
                assert cache.digest(folder / "a") == digest


def test_a_file_that_the_machine_fails_to_read_is_no_unreadable_one(tmp_path: Path) -> None:
    (tmp_path / "good").write_bytes(b"abc")
    cache = tmp_path / "digests.sqlite"
    with pytest.raises(
        ResourceRefused, match=r"/mem cannot be read \(Input/output error\): check the disk"
    ):
        DigestCache(cache).digests([tmp_path / "good", Path("/proc/self/mem")])
    assert sqlite3.connect(cache).execute("SELECT sha256 FROM file_digest").fetchall() == [
        (sha256(b"abc"),)
    ]
