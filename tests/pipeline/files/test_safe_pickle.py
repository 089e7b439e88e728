"""What `safe_pickle` and `image_pack` promise: a pack of images as files, and nothing else of any
pickle.
"""

from __future__ import annotations

import codecs
import copyreg
import hashlib
import io
import os
import pickle
import pickletools
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_sets import pack, pairs, python2_pack
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InvalidInput
from pipeline.files import image_pack as packs
from pipeline.files import safe_pickle
from pipeline.files.digests import UNREADABLE
from pipeline.files.file_tree import open_files
from pipeline.files.safe_pickle import Bytes1D, Chunk, load


def one_row(face: bytes) -> np.ndarray:
    """The bytes as an array (1, n), which some packs hold."""
    return np.frombuffer(face, np.uint8)[None]


FACES, MATED = (
    [b"face a", b"face b" * 60, b"\x00\xff\x80", b"", b"face a", b"."],
    [True, False, True],
)
FORMS: dict[str, Callable[[], bytes]] = {
    **{
        f"{form}, protocol {p}": lambda p=p, form=form: pack(FACES, MATED, p, form)
        for p in range(2, 6)
        for form in ("bytes", "numpy")
    },  # type: ignore[misc]
    "bytes, Python 2": lambda: python2_pack(FACES, MATED),
    "numpy, Python 2": lambda: python2_pack(FACES, MATED, "numpy"),
    "numpy, before 2.0": lambda: pack(FACES, MATED, 2, "numpy").replace(
        b"numpy._core.", b"numpy.core."
    ),
    "truth values of NumPy's": lambda: pickle.dumps((FACES, [np.bool_(each) for each in MATED]), 4),
    "truth values as numbers": lambda: pickle.dumps((FACES, [int(each) for each in MATED]), 2),
    **{
        f"truth values as an array of {kind}": lambda kind=kind: pickle.dumps(
            (FACES, np.array(MATED, kind)), 4
        )
        for kind in ("<i8", "<i4", "u1")
    },  # type: ignore[misc]
    "a list of two": lambda: pickle.dumps([tuple(FACES), tuple(MATED)], 3),
    "unframed": lambda: pickletools.optimize(pack(FACES, MATED, 4)),
    **{
        f"{form}, protocol {p}": lambda p=p, turned=turned: pickle.dumps(
            ([turned(each) for each in FACES], MATED), p
        )
        for p in range(2, 6)
        for form, turned in {"one row": one_row, "one column": lambda each: one_row(each).T}.items()
    },  # type: ignore[misc]
    **{
        f"bytearrays, protocol {p}": lambda p=p: pickle.dumps(
            ([bytearray(e) for e in FACES], MATED), p
        )
        for p in range(2, 6)
    },
}


def plain(value: Any, data: bytes) -> Any:
    """What `load` returned, as the pickle module would return it."""
    if isinstance(value, Chunk):
        held = value.of(data[value.start : value.stop])
        return held.decode() if value.kind == "text" else held
    if isinstance(value, Bytes1D):
        assert value.chunk is not None
        return np.frombuffer(plain(value.chunk, data), value.dtype).tolist()
    return (
        type(value)(plain(each, data) for each in value)
        if isinstance(value, list | tuple)
        else value
    )


def written(folder: Path, data: bytes) -> Path:
    path = folder / "some.bin"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("form", FORMS)
def test_a_pack_in_every_form_is_files_in_its_order(tmp_path: Path, form: str) -> None:
    found = open_files(written(tmp_path, FORMS[form]()))
    assert found.names() == [f"images/{i:07d}" for i in range(6)] + ["pairs.txt"]
    assert [found.read(f"images/{i:07d}") for i in range(6)] == FACES
    assert found.read("./pairs.txt") == b"1\n0\n1\n"


@pytest.mark.parametrize("form", FORMS)
def test_digests_are_those_of_what_is_read(tmp_path: Path, form: str) -> None:
    found = open_files(written(tmp_path, FORMS[form]()))
    assert found.digests(found.names()) == [
        hashlib.sha256(found.read(name)).hexdigest() for name in found.names()
    ]


def test_what_a_pack_does_not_hold_is_not_found(tmp_path: Path) -> None:
    found = open_files(written(tmp_path, pack(FACES, MATED)))
    for name in ("images/0000006", "images", "../some.bin", "none"):
        assert found.digests([name]) == [""]
        with pytest.raises(FileNotFoundError):
            found.read(name)


def test_an_image_above_the_limit_has_no_digest(tmp_path: Path) -> None:
    found = open_files(written(tmp_path, pack(FACES, MATED)))
    assert [digest == UNREADABLE for digest in found.digests(found.names()[:3], 10)] == [
        False,
        True,
        False,
    ]


def test_a_pack_cut_short_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, pack(FACES, MATED))
    found = open_files(path)
    os.truncate(path, 5)
    with pytest.raises(InvalidInput, match="changed while it was read"):
        found.read("images/0000001")


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.binary(max_size=300)
    | st.text(max_size=300),
    lambda inner: st.lists(inner, max_size=5) | st.lists(inner, max_size=5).map(tuple),
)


@settings(deadline=None)
@given(VALUES, st.integers(2, 5))
def test_plain_values_are_read_as_the_pickle_module_reads_them(value: Any, protocol: int) -> None:
    data = pickle.dumps(value, protocol)
    assert plain(load(data, "p"), data) == value


@given(st.binary(max_size=40).map(lambda data: np.frombuffer(data, np.uint8)), st.integers(2, 5))
def test_arrays_of_bytes_are_read_as_the_pickle_module_reads_them(
    value: np.ndarray, protocol: int
) -> None:
    data = pickle.dumps([value, value > 9], protocol)
    assert plain(load(data, "p"), data) == [value.tolist(), (value > 9).tolist()]


class Asks:
    """Pickled as a call of whatever it was given."""

    def __init__(self, *asked: Any) -> None:
        self.asked = asked

    def __reduce__(self) -> Any:
        return self.asked


HOSTILE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "os.system": (
        lambda proof: Asks(os.system, (f"touch {proof}",)),
        "asks for posix.system, which no pack",
    ),
    "eval": (
        lambda proof: Asks(eval, (f"open({str(proof)!r}, 'w')",)),
        r"asks for (builtins|__builtin__)\.eval, which no",
    ),
    "open": (lambda proof: Asks(open, (str(proof), "w")), r"asks for _?io\.open, which no"),
    "getattr": (
        lambda proof: Asks(getattr, (b"", "hex")),
        r"asks for (builtins|__builtin__)\.getattr",
    ),
    "other codecs": (lambda proof: Asks(codecs.encode, ("a", "rot13")), "encodes something else"),
    "a class": (lambda proof: Path(proof), r"asks for pathlib(\._local)?\.(Posix)?Path"),
    "an array of objects": (lambda proof: np.array([None]), r"is of type 'O8'"),
    "an array of three dimensions": (
        lambda proof: np.zeros((1, 2, 1), np.uint8),
        "more or less than one dimension",
    ),
    "a bytearray of a number": (
        lambda proof: Asks(bytearray, (1 << 40,)),
        "makes bytes of something",
    ),
    "an array of numbers whose bytes are turned round": (
        lambda proof: np.zeros(3, ">i8"),
        "is not a plain one of bytes",
    ),
    "an array of floats": (lambda proof: np.zeros(3), r"is of type 'f8'"),
    "an image of two dimensions": (
        lambda proof: np.zeros((2, 3), np.uint8),
        "an array of 2 × 3 bytes; an image should be the bytes of its file, not its pixels",
    ),
    "a dictionary": (lambda proof: {"a": 1}, "instruction EMPTY_DICT"),
    "a set": (lambda proof: {1}, r"asks for __builtin__\.set|instruction EMPTY_SET"),
    "a float": (lambda proof: 1.5, "instruction BINFLOAT"),
    "a large number": (lambda proof: 1 << 100, "more than 8 bytes"),
}


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("what", HOSTILE)
def test_whatever_else_a_pickle_asks_for_is_refused_by_name_and_not_done(
    tmp_path: Path, what: str, protocol: int
) -> None:
    proof = tmp_path / "done"
    make, message = HOSTILE[what]
    path = written(tmp_path, pickle.dumps(([b"", make(proof)], [True]), protocol))
    with pytest.raises(InvalidInput, match=f"some.bin: byte .*({message})"):
        open_files(path)
    assert not proof.exists()


def test_a_persistent_id_is_refused(tmp_path: Path) -> None:
    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return "elsewhere" if value == b"there" else None

    out = io.BytesIO()
    Pickler(out, 2).dump(([b"there", b""], [True]))
    with pytest.raises(
        InvalidInput, match="instruction BINPERSID, which no pack of images needs: refused"
    ):
        open_files(written(tmp_path, out.getvalue()))


def test_the_registry_of_extensions_is_refused(tmp_path: Path) -> None:
    copyreg.add_extension("os", "getcwd", 77)
    try:
        data = pickle.dumps(([Asks(os.getcwd, ()), b""], [True]), 2).replace(
            b"cposix\ngetcwd\n", b"\x82\x4d"
        )
        assert b"\x82\x4d" in data
        with pytest.raises(InvalidInput, match="instruction EXT1"):
            open_files(written(tmp_path, data))
    finally:
        copyreg.remove_extension("os", "getcwd", 77)


def test_every_other_instruction_is_refused_by_its_name() -> None:
    for op in pickletools.opcodes:
        code = op.code.encode("latin-1")
        if code not in safe_pickle._Machine.ACTS and code != b".":
            with pytest.raises(
                InvalidInput, match=f"instruction {op.name}, which no pack of images needs"
            ):
                load(b"\x80\x04" + code + b"\0" * 300, "p")


CALLS = {
    "what is no name": b"\x80\x02K\x01)R.",
    "a class of arrays": b"\x80\x02cnumpy\nndarray\n)R.",
    "a function by a word": b"\x80\x04\x8c\x08builtins\x8c\x05bytes\x93\x8c\x01a\x85R.",
    "a name without an end": b"\x80\x02c" + b"a" * 200 + b"\n\n.",
    "a name of numbers": b"\x80\x04K\x01K\x01\x93.",
    "an array of something else": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncos\nsystem\n.",
    "a state of a list": b"\x80\x02]K\x01b.",
    "appending to a tuple": b"\x80\x02)K\x01a.",
    "appending without a mark": b"\x80\x02]K\x01e.",
    "a value that was never kept": b"\x80\x02h\x05.",
    "no value": b"\x80\x02a.",
    "nothing": b"\x80\x02.",
    "two values": b"\x80\x02NN.",
    "a mark": b"\x80\x02(.",
    "a byte string of less than none": b"\x80\x02T\xff\xff\xff\xff.",
    "a second protocol": b"\x80\x02\x80\x02N.",
    "protocol 9": b"\x80\x09N.",
    "text that no bytes were": pickle.dumps(b"\xe9" * 9, 2).replace(
        "é".encode() * 9, "€".encode() * 6
    ),
    "an array longer than its bytes": pickle.dumps(np.zeros(9, np.uint8), 2).replace(
        b"K\x01K\t\x85", b"K\x01K\x0a\x85"
    ),
    "big-endian numbers": pickle.dumps(np.zeros(9, np.uint8), 2).replace(
        b"X\x01\x00\x00\x00|", b"X\x01\x00\x00\x00>"
    ),
}


@pytest.mark.parametrize("what", CALLS)
def test_nonsense_is_refused_naming_the_byte(what: str) -> None:
    with pytest.raises(InvalidInput, match=r"^p: byte \d+ of its pickle .+\.$"):
        load(CALLS[what], "p")


HUGE = [
    b"\x80\x02B\xff\xff\xff\xff",
    b"\x80\x02T\xff\xff\xff\x7f",
    b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62),
    b"\x80\x04\x8d" + struct.pack("<Q", (1 << 64) - 1),
    b"\x80\x05\x96" + struct.pack("<Q", 1 << 40),
    b"\x80\x04\x95" + struct.pack("<Q", 1 << 40),
    b"\x80\x02\x8b\xff\xff\xff\x7f",
    pickle.dumps(np.zeros(9, np.uint8), 2).replace(b"K\t\x85", b"J\xff\xff\xff\x7f\x85"),
]


@pytest.mark.parametrize("data", HUGE)
def test_what_is_announced_takes_no_memory(data: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInput):
            load(data + b".", "p")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_lists_of_lists_of_lists_stay_as_small_as_their_file() -> None:
    # Ten times one list in the next, twenty deep: 10^20 values to whatever walks through them.
    deep = [b"](" + (b"h" + bytes([i])) * 10 + b"eq" + bytes([i + 1]) for i in range(20)]
    tracemalloc.start()
    try:
        assert len(load(b"\x80\x02(]q\x00" + b"".join(deep) + b"t.", "p")) == 21
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_list_that_holds_itself_is_no_pack(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="image 0 should be the bytes of an image file"):
        open_files(written(tmp_path, b"\x80\x02]q\x00(h\x00h\x00e](\x88e\x86."))


def test_instructions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safe_pickle, "MAX_INSTRUCTIONS", 50)
    with pytest.raises(InvalidInput, match="beyond 50 instructions"):
        load(pickle.dumps([True] * 60, 2), "p")


def test_the_size_of_a_pack_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "MAX_PACK_BYTES", 100)
    with pytest.raises(InvalidInput, match="more than any pack of images needs"):
        open_files(written(tmp_path, pack(FACES, MATED)))


@pytest.mark.parametrize("form", ["bytes, protocol 2", "numpy, protocol 2", "numpy, protocol 5"])
def test_the_number_of_pairs_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setattr(packs, "MAX_PAIRS", 2)
    with pytest.raises(InvalidInput, match="more than 2 pairs"):
        open_files(written(tmp_path, FORMS[form]()))


@pytest.mark.parametrize("form", FORMS)
def test_a_pack_cut_anywhere_is_refused(form: str) -> None:
    data = FORMS[form]()
    for end in range(2, len(data)):
        with pytest.raises(InvalidInput, match=r"truncated or damaged|has no end"):
            load(data[:end], "p")


@pytest.mark.parametrize("form", FORMS)
def test_what_follows_a_pack_is_refused(form: str) -> None:
    with pytest.raises(InvalidInput, match="3 bytes follow"):
        load(FORMS[form]() + b"abc", "p")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (FACES, "should be a pair"),
        ((FACES, MATED, []), "should be a pair"),
        ((FACES, b"\1\0\1"), "it holds something else"),
        ((FACES[:5], MATED), "found 5 images and 3 truth values"),
        (([], []), "found 0 images and 0 truth values"),
        ((FACES, [True, None, False]), "pair 1 is not a truth value"),
        ((FACES, [True, 2, False]), "pair 1 is not a truth value"),
        ((FACES, [True, b"1", False]), "pair 1 is not a truth value"),
        (([*FACES[:5], "text"], MATED), "image 5 should be the bytes"),
        (([*FACES[:5], 7], MATED), "image 5 should be the bytes"),
        (([*FACES[:5], np.zeros(3, bool)], MATED), "image 5 should be the bytes"),
        ((FACES, np.array([0, 1, 2], np.uint8)), "pair 2 is not a truth value"),
    ],
)
def test_a_pickle_of_something_else_is_refused_saying_what_is_expected(
    tmp_path: Path, content: Any, message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        open_files(written(tmp_path, pickle.dumps(content, 4)))


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from(sorted(FORMS)),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_a_damaged_pack_is_read_or_refused_in_a_sentence(
    form: str, changes: list[tuple[float, int]]
) -> None:
    data = bytearray(FORMS[form]())
    for where, value in changes:
        data[min(int(where * len(data)), len(data) - 1)] = value
    said = ""
    try:
        images, mated = packs._parts(load(bytes(data), "p"), bytes(data), "p")
    except InvalidInput as error:
        said = str(error)
    if said:
        assert said.startswith("p: ")
        assert said.endswith(".")
    else:
        assert len(images) == 2 * len(mated)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    said = "p: byte "
    try:
        load(b"\x80\x02" + data, "p")
    except InvalidInput as error:
        said = str(error)
    assert said.startswith("p: byte ")


def test_drawn_faces_go_through_whole(tmp_path: Path) -> None:
    images, mated = pairs(10)
    found = open_files(written(tmp_path, pack(images, mated, 4, "numpy")))
    assert [found.read(name) for name in found.names()[:-1]] == images
