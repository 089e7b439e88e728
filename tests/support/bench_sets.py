"""Makes small sets in the exact formats of the benchmarks that have readers, of drawn faces; and
runs a config over one.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from PIL import Image

from pipeline.core.stage import Context
from pipeline.run.events import Events
from pipeline.session import Results, execute, open_session

Form = Literal["bytes", "numpy"]
# The header of Adience's lists.
ADIENCE = [
    "user_id",
    "original_image",
    "face_id",
    "age",
    "gender",
    "x",
    "y",
    "dx",
    "dy",
    "tilt_ang",
]
ADIENCE += ["fiducial_yaw_angle", "fiducial_score"]


def image(person: int, number: int, size: int = 112, kind: str = "JPEG") -> bytes:
    """An encoded image of `size` pixels: what a person's have in common, and a little noise of its
    own.
    """
    common = np.random.default_rng(person).integers(0, 256, (7, 7, 3))
    noise = np.random.default_rng((person, number)).integers(0, 60, (7, 7, 3))
    pixels = np.clip(common + noise - 30, 0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC).save(out, kind)
    return out.getvalue()


def pairs(count: int, people: int = 6) -> tuple[list[bytes], list[bool]]:
    """`count` pairs of drawn faces, mated and non-mated by turns; some images are in several."""
    images, mated = [], []
    for i in range(count):
        one = i // 2 % people
        other = one if i % 2 == 0 else (one + 1) % people
        images += [image(one, i % 3), image(other, 3 + i % 2)]
        mated.append(one == other)
    return images, mated


def pack(
    images: Sequence[bytes], mated: Sequence[bool], protocol: int = 2, form: Form = "bytes"
) -> bytes:
    """A pack as Python 3 and NumPy write it."""
    if form == "numpy":
        return pickle.dumps(
            ([np.frombuffer(each, np.uint8) for each in images], np.array(mated)), protocol
        )
    return pickle.dumps((list(images), list(mated)), protocol)


def python2_pack(images: Sequence[bytes], mated: Sequence[bool], form: Form = "bytes") -> bytes:
    """A pack as Python 2 wrote it, and with it the older NumPy: protocol 2, byte strings, modules
    by their older names.
    """
    held = [_string(each) if form == "bytes" else _old_array(each) for each in images]
    flags = b"".join(b"\x88" if each else b"\x89" for each in mated)
    return b"\x80\x02](" + b"".join(held) + b"e](" + flags + b"e\x86."


def _string(data: bytes) -> bytes:
    return b"T" + struct.pack("<i", len(data)) + data


def _old_array(data: bytes) -> bytes:
    minus = b"J\xff\xff\xff\xff"
    dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN" + minus * 2 + b"K\x00tb"
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    return (
        made
        + b"(K\x01J"
        + struct.pack("<i", len(data))
        + b"\x85"
        + dtype
        + b"\x89"
        + _string(data)
        + b"tb"
    )


def lfw_list(lines: Iterable[str], folds: int, each: int) -> str:
    """LFW's pairs.txt, and XQLFW's."""
    return "\n".join([f"{folds}\t{each}", *lines]) + "\n"


def tree(root: Path, files: Mapping[str, bytes | str]) -> Path:
    """Write files below a folder."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def xqlfw(root: Path, people: int = 3, each: int = 3) -> Path:
    """XQLFW: aligned crops by name, and two folds of one pair of each kind."""
    names = [f"Person_{chr(65 + i)}" for i in range(people)]
    images = {
        f"xqlfw_aligned_112/{name}/{name}_{k + 1:04d}.jpg": image(i, k)
        for i, name in enumerate(names)
        for k in range(each)
    }
    lines = [
        f"{names[0]}\t1\t2",
        f"{names[0]}\t1\t{names[1]}\t1",
        f"{names[1]}\t2\t3",
        f"{names[1]}\t2\t{names[2]}\t1",
    ]
    return tree(root, {**images, "xqlfw_pairs.txt": lfw_list(lines, 2, 1)})


def adience_rows(users: Mapping[str, int], first: int = 0) -> list[dict[str, Any]]:
    """Rows of one of Adience's lists: so many photographs of each user, of one person, whose number
    is that of the first.
    """
    rows: list[dict[str, Any]] = []
    for user, count in users.items():
        person = first + len(rows)
        for i in range(count):
            values = (
                user,
                f"{1000 + person + i}_ab_o.jpg",
                person,
                "(25, 32)",
                "f",
                10,
                20,
                300,
                300,
                0,
                0,
                50 + i,
            )
            rows.append(dict(zip(ADIENCE, values, strict=True)))
    return rows


def adience_list(rows: Iterable[Mapping[str, Any]]) -> str:
    """The text of a list."""
    return "".join(
        "\t".join(map(str, row)) + "\n"
        for row in [ADIENCE, *([row[name] for name in ADIENCE] for row in rows)]
    )


def adience(root: Path, folds: Sequence[Mapping[str, int]], size: int = 32) -> Path:
    """Adience: lists of the users of each fold, and both sets of images."""
    files: dict[str, bytes | str] = {}
    face = 0
    for k, users in enumerate(folds):
        rows = adience_rows(users, face)
        face += len(rows)
        files[f"fold_{k}_data.txt"] = adience_list(rows)
        for person, row in enumerate(rows):
            own = f"{row['face_id']}.{row['original_image']}"
            files[f"aligned/{row['user_id']}/landmark_aligned_face.{own}"] = image(person, 0, size)
            files[f"faces/{row['user_id']}/coarse_tilt_aligned_face.{own}"] = image(person, 1, size)
    return tree(root, files)


def tinyface(root: Path, subjects: int = 4, distractors: int = 3) -> Path:
    """TinyFace's test set: two matches and one probe of each subject, and distractors."""
    files: dict[str, bytes | str] = {}
    for i in range(subjects):
        files |= {f"Gallery_Match/{i + 1}_{k}.jpg": image(i, k, 20) for k in (1, 2)}
        files[f"Probe/{i + 1}_3.jpg"] = image(i, 3, 20)
    files |= {
        f"Gallery_Distractor/{i}_0_img_{i}.jpg": image(100 + i, 0, 20) for i in range(distractors)
    }
    return tree(root, files)


def run(folder: Path, config: str, context: Context) -> Results:
    """Run a config (YAML) in `folder` with the models of a context."""
    made = yaml.safe_load(config)
    made["models"] = {
        "folders": [*map(str, context.model_folders)],
        "cards": [*map(str, context.model_cards)],
    }
    made["run"] = {"store": str(folder / "store"), "folder": str(folder / "run"), "workers": 1}
    (folder / "c.yaml").write_text(yaml.safe_dump(made))
    session = open_session(folder / "c.yaml")
    execute(session, Events(session.folder))
    return Results(session)


def numbers(results: Results, stage: str = "evaluate_verification") -> dict[str, dict[str, Any]]:
    """Metric → its value, interval and trials; of a metric at several targets, the last."""
    (step,) = results.cells(stage)
    found = results.read(step, "numbers")
    return {
        name: {c: found[c][i] for c in ("value", "low", "high", "trials")}
        for i, name in enumerate(found["metric"])
    }
