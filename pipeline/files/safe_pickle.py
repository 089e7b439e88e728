"""Read a pickle of plain values without the pickle module.

Nothing that a file asks for is ever looked up or called. A small machine of its own runs the few
instructions (protocols 2 to 5) that write lists, tuples, bytes, truth values, numbers and arrays of
bytes, and refuses every other one by name. Bytes are not copied; a `Chunk` says where they are in
the file. So the memory that a file can cost depends on the number of its instructions, which is
limited, and not on any size that it announces.

    names      the few that NumPy arrays and Python 2's bytes are written with; each stands for code
               of this module
    lengths    are checked against what is left of the file before anything is read
    sharing    a value that is remembered and asked for again is the same value, never a copy
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from pipeline.errors import InvalidInput

MAX_INSTRUCTIONS = 1_000_000  # 14,000 images have 455,000 at most, as Python 2 and NumPy wrote them
_LONGEST_NAME = 100
ITEM_BYTES = {"u1": 1, "b1": 1, "i4": 4, "i8": 8}
_MARK = object()


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes start…stop of the file, which stand for themselves or for a text.

    They are the bytes meant, or a text in UTF-8; of kind "latin" they are a text in UTF-8 whose
    Latin-1 code are the bytes meant.
    """

    start: int
    stop: int
    kind: Literal["bytes", "text", "latin"] = "bytes"

    def of(self, data: bytes) -> bytes:
        """Return the bytes meant, `data` being what the file holds at start…stop."""
        return data.decode().encode("latin-1") if self.kind == "latin" else data


@dataclass(slots=True)
class Bytes1D:
    """A one-dimensional array that NumPy wrote, as bytes of the file.

    Its dtype is "u1" (bytes), "b1" (truth values), "i4" or "i8" (whole numbers, little-endian).

    `chunk` is None while it is being made.
    """

    dtype: str = ""
    chunk: Chunk | None = None


@dataclass(frozen=True, slots=True)
class _Name:
    """A known name that a pickle asked for; never the thing that Python has under it."""

    name: str


@dataclass(frozen=True, slots=True)
class _Dtype:
    code: str


class _Refused(Exception):
    pass


def load(data: bytes, where: str) -> Any:
    """Return what is pickled: lists, tuples, numbers, truth values, None, `Chunk` and `Bytes1D`.

    Values may share and hold each other, so whoever walks through them has to bound the depth.
    Raises InvalidInput, naming the byte, for anything else, for a file that ends early or does not
    end with the pickle, and beyond MAX_INSTRUCTIONS.
    """
    machine = _Machine(data)
    try:
        return machine.run()
    except _Refused as problem:
        raise InvalidInput(f"{where}: byte {machine.began:,} of its pickle {problem}.") from None


@dataclass(slots=True)
class _Machine:
    data: bytes
    at: int = 0
    began: int = 0  # where the running instruction began
    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    # texts known to be Latin-1, and their lengths in letters
    latin: dict[Chunk, tuple[Chunk, int]] = field(default_factory=dict)

    def run(self) -> Any:
        if self.data[:1] != b"\x80":
            raise _Refused("does not begin a pickle of protocol 2 or later")
        # A bounded loop, because an instruction costs memory and a file may hold any number.
        for _ in range(MAX_INSTRUCTIONS):
            self.began = self.at
            code = self.take(1)
            if code == b".":
                break
            act = self.ACTS.get(code)
            if act is None:
                name = next(
                    (op.name for op in pickletools.opcodes if op.code.encode("latin-1") == code), ""
                )
                what = f"is {code[0]:#x}, which is not an instruction"
                if name:
                    what = f"is the instruction {name}"
                raise _Refused(f"{what}, which no pack of images needs: refused")
            act(self)
        else:
            raise _Refused(
                f"is beyond {MAX_INSTRUCTIONS:,} instructions, more than any pack of images needs:"
                " refused"
            )
        if len(self.stack) != 1 or self.stack[0] is _MARK:
            raise _Refused(f"ends it with {len(self.stack)} values, and should with one")
        if self.at != len(self.data):
            raise _Refused(
                f"ends it, and {len(self.data) - self.at:,} bytes follow that are not part of it"
            )
        return self.stack[0]

    def take(self, count: int) -> bytes:
        self.need(count)
        self.at += count
        return self.data[self.at - count : self.at]

    def need(self, count: int) -> None:
        left = len(self.data) - self.at
        if count > left:
            raise _Refused(
                f"needs {count:,} bytes more, and {left:,} are left: the file is truncated or"
                " damaged"
            )

    def number(self, size: int, signed: bool = False) -> int:
        return int.from_bytes(self.take(size), "little", signed=signed)

    def pop(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise _Refused("takes a value where there is none")
        return self.stack.pop()

    def top(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise _Refused("takes a value where there is none")
        return self.stack[-1]

    def since_mark(self) -> list[Any]:
        for i in range(len(self.stack) - 1, -1, -1):
            if self.stack[i] is _MARK:
                found = self.stack[i + 1 :]
                del self.stack[i:]
                return found
        raise _Refused("looks for a mark where there is none")

    def word(self, value: Any) -> str:
        """Return a short text, of whichever kind; empty for anything else."""
        if not isinstance(value, Chunk) or value.stop - value.start > _LONGEST_NAME:
            return ""
        return self.data[value.start : value.stop].decode("ascii", "backslashreplace")

    # What the instructions do. When one is called, its code has been read.

    def protocol(self) -> None:
        version = self.number(1)
        if self.began or not 2 <= version <= 5:
            raise _Refused(
                f"announces protocol {version}; protocols 2 to 5 are read, and announced once"
            )

    def frame(self) -> None:
        self.need(self.number(8))

    def chunk(self, size: int, kind: Literal["bytes", "text"], signed: bool = False) -> None:
        count = self.number(size, signed)
        if count < 0:
            raise _Refused("announces less than no bytes")
        self.need(count)
        self.stack.append(Chunk(self.at, self.at + count, kind))
        self.at += count

    def long1(self) -> None:
        count = self.number(1)
        if count > 8:
            raise _Refused(
                "is a number of more than 8 bytes, which no pack of images needs: refused"
            )
        self.stack.append(self.number(count, signed=True))

    def append(self, values: list[Any]) -> None:
        target = self.top()
        if not isinstance(target, list):
            raise _Refused("appends to what is not a list")
        target.extend(values)

    def last(self, count: int) -> None:
        self.stack.append(tuple([self.pop() for _ in range(count)][::-1]))

    def get(self, size: int) -> None:
        place = self.number(size)
        if place not in self.memo:
            raise _Refused(f"asks for value {place:,}, which was never kept")
        self.stack.append(self.memo[place])

    def name(self) -> None:
        lines = []
        for _ in range(2):
            end = self.data.find(b"\n", self.at, self.at + _LONGEST_NAME)
            if end < 0:
                raise _Refused("asks for a name that has no end")
            lines.append(self.data[self.at : end].decode("ascii", "backslashreplace"))
            self.at = end + 1
        self.find(*lines)

    def stack_name(self) -> None:
        own, module = self.word(self.pop()), self.word(self.pop())
        self.find(module, own)

    def find(self, module: str, own: str) -> None:
        name = f"{module}.{own}"
        known = _NAMES.get(name)
        if known is None:
            shown = name.encode("unicode_escape").decode()
            raise _Refused(f"asks for {shown}, which no pack of images needs: refused")
        self.stack.append(_Name(known))

    def reduce(self) -> None:
        arguments, called = self.pop(), self.pop()
        # `called` is one of our own names or nothing: the file cannot bring a function.
        make = self.MAKERS.get(called.name) if isinstance(called, _Name) else None
        if make is None or not isinstance(arguments, tuple):
            raise _Refused("calls what is not to be called: refused")
        self.stack.append(make(self, *arguments[:5]))

    def build(self) -> None:
        state, made = self.pop(), self.top()
        if isinstance(made, _Dtype):
            # NumPy's state of a dtype: (version, byte order, no subarray, no names, no fields, …).
            order = "|" if ITEM_BYTES[made.code] == 1 else "<"
            if not (
                isinstance(state, tuple)
                and len(state) >= 5
                and self.word(state[1]) == order
                and not any(state[2:5])
            ):
                raise _Refused(
                    "describes an array that is not a plain one of bytes, truth values or whole"
                    " numbers: refused"
                )
        elif (
            isinstance(made, Bytes1D)
            and made.chunk is None
            and isinstance(state, tuple)
            and len(state) == 5
        ):
            # NumPy's state of an array: (version, shape, dtype, Fortran order, bytes).
            _, shape, dtype, _, held = state
            whole = self.line(held, dtype, shape)
            made.dtype, made.chunk = whole.dtype, whole.chunk
        else:
            raise _Refused("sets the state of what has none: refused")

    # What a call of a known name makes.

    def line(
        self,
        held: Any = None,
        dtype: Any = None,
        shape: Any = None,
        order: Any = None,
        axes: Any = None,
    ) -> Bytes1D:
        """Return an array that was pickled in several values, if it has one row or one column.

        For such an array `order` and `axes` change nothing.
        """
        if not isinstance(dtype, _Dtype) or not isinstance(held, Chunk) or held.kind == "text":
            raise _Refused(
                "is an array of something else than bytes, truth values or whole numbers: refused"
            )
        if not (
            isinstance(shape, tuple)
            and len(shape) in (1, 2)
            and all(type(side) is int for side in shape)
        ):
            raise _Refused(
                "is an array of more or less than one dimension; an image should be the bytes of"
                " its file"
            )
        count = ITEM_BYTES[dtype.code] * (shape[0] * shape[-1] if len(shape) == 2 else shape[0])
        if len(shape) == 2 and 1 not in shape:
            raise _Refused(
                f"is an array of {shape[0]:,} × {shape[1]:,} bytes; an image should be the bytes of"
                " its file, not its pixels"
            )
        if count != self.size(held):
            raise _Refused(f"is an array of {count:,} bytes, and {self.size(held):,} are there")
        return Bytes1D(dtype.code, held)

    def size(self, held: Chunk) -> int:
        if held.kind == "bytes":
            return held.stop - held.start
        return self.latin[Chunk(held.start, held.stop, "text")][1]

    def empty_array(
        self, kind: Any = None, shape: Any = None, code: Any = None, *_: Any
    ) -> Bytes1D:
        if not (isinstance(kind, _Name) and kind.name == "ndarray" and shape == (0,)):
            raise _Refused("makes something else than an array: refused")
        return Bytes1D()

    def dtype(self, code: Any = None, *_: Any) -> _Dtype:
        if (word := self.word(code)) not in ITEM_BYTES:
            raise _Refused(
                f"is of type {word!r}; arrays of bytes (u1), truth values (b1) or whole numbers"
                " (i4, i8) are read"
            )
        return _Dtype(word)

    def truth(self, dtype: Any = None, held: Any = None, *_: Any) -> bool:
        if dtype != _Dtype("b1") or not isinstance(held, Chunk) or self.size(held) != 1:
            raise _Refused("is a number of NumPy's that is not a truth value: refused")
        return held.of(self.data[held.start : held.stop]) != b"\0"

    def encoded(self, value: Any = None, code: Any = None, *_: Any) -> Chunk:
        """Bytes as Python 3 writes them in protocol 2: a text to be encoded."""
        if (
            not isinstance(value, Chunk)
            or value.kind != "text"
            or self.word(code) not in ("latin1", "latin-1")
        ):
            raise _Refused("encodes something else than text as Latin-1: refused")
        # Remembered, because a text that is asked for again would be decoded again: a small file
        # could cost hours.
        if value not in self.latin:
            try:
                size = len(self.data[value.start : value.stop].decode().encode("latin-1"))
            except UnicodeError:
                raise _Refused(
                    "is text that no bytes were written as: the file is damaged"
                ) from None
            self.latin[value] = Chunk(value.start, value.stop, "latin"), size
        return self.latin[value][0]

    def no_bytes(self, *given: Any) -> Chunk:
        if given:
            raise _Refused("makes bytes of something: refused")
        return Chunk(0, 0)

    def byte_array(self, *given: Any) -> Chunk:
        """Return a bytearray as protocols 2 to 4 write it: of nothing, bytes, or encoded text."""
        if len(given) == 1 and isinstance(given[0], Chunk) and given[0].kind != "text":
            return given[0]
        return self.encoded(*given) if len(given) == 2 else self.no_bytes(*given)

    MAKERS: ClassVar[dict[str, Callable[..., Any]]] = {
        "reconstruct": empty_array,
        "frombuffer": line,
        "dtype": dtype,
        "scalar": truth,
        "encode": encoded,
        "bytes": no_bytes,
        "bytearray": byte_array,
    }
    ACTS: ClassVar[dict[bytes, Callable[[_Machine], Any]]] = {
        b"\x80": protocol,
        b"\x95": frame,
        b"(": lambda m: m.stack.append(_MARK),
        b"N": lambda m: m.stack.append(None),
        b"\x88": lambda m: m.stack.append(True),
        b"\x89": lambda m: m.stack.append(False),
        b"J": lambda m: m.stack.append(m.number(4, signed=True)),
        b"K": lambda m: m.stack.append(m.number(1)),
        b"M": lambda m: m.stack.append(m.number(2)),
        b"\x8a": long1,
        b"C": lambda m: m.chunk(1, "bytes"),
        b"B": lambda m: m.chunk(4, "bytes"),
        b"\x8e": lambda m: m.chunk(8, "bytes"),
        b"\x96": lambda m: m.chunk(8, "bytes"),
        b"U": lambda m: m.chunk(1, "bytes"),
        b"T": lambda m: m.chunk(4, "bytes", signed=True),
        b"\x8c": lambda m: m.chunk(1, "text"),
        b"X": lambda m: m.chunk(4, "text"),
        b"\x8d": lambda m: m.chunk(8, "text"),
        b"]": lambda m: m.stack.append([]),
        b"a": lambda m: m.append([m.pop()]),
        b"e": lambda m: m.append(m.since_mark()),
        b"l": lambda m: m.stack.append(m.since_mark()),
        b")": lambda m: m.stack.append(()),
        b"t": lambda m: m.stack.append(tuple(m.since_mark())),
        b"\x85": lambda m: m.last(1),
        b"\x86": lambda m: m.last(2),
        b"\x87": lambda m: m.last(3),
        b"q": lambda m: m.memo.__setitem__(m.number(1), m.top()),
        b"r": lambda m: m.memo.__setitem__(m.number(4), m.top()),
        b"\x94": lambda m: m.memo.__setitem__(len(m.memo), m.top()),
        b"h": lambda m: m.get(1),
        b"j": lambda m: m.get(4),
        b"c": name,
        b"\x93": stack_name,
        b"R": reduce,
        b"b": build,
    }


_NAMES = {
    **{f"numpy.{core}.multiarray._reconstruct": "reconstruct" for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": "scalar" for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": "frombuffer" for core in ("core", "_core")},
    "numpy.ndarray": "ndarray",
    "numpy.dtype": "dtype",
    "_codecs.encode": "encode",
    "builtins.bytes": "bytes",
    "__builtin__.bytes": "bytes",
    "builtins.bytearray": "bytearray",
    "__builtin__.bytearray": "bytearray",
}
