"""Hostile text: configs, model cards, lists of pairs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import yaml

from pipeline.config.config import load_config, validate
from pipeline.core.numerics import profile_of
from pipeline.core.registry import available, lookup
from pipeline.errors import InvalidInput
from pipeline.files.file_tree import open_files
from stages.datasets.lfw import LfwOptions, LfwReader
from stages.datasets.manifests import CountsCheck
from stages.models.cards import find_weights, read_cards, read_weights

from .guard import Breach
from .mutate import TEXTS, changed, damaged, odd

ROOT = Path(__file__).resolve().parents[2]
_TAGS = (
    *(
        "!!python/object/apply:os.system [touch marker]",
        "!!python/name:os.system",
        "!!int ''",
        "!!float ''",
        "!!bool x",
    ),
    *(
        "!!binary é",
        "!!timestamp x",
        "!!set {a, b}",
        "!!omap [a: 1]",
        "!!pairs [a: 1, a: 2]",
        "!!merge x",
        "!x y",
        "!!null x",
    ),
    *(
        "0001-01-01T00:00:00+10:00",
        "9999-12-31T23:59:59-10:00",
        "2026-02-30",
        "1:60:3",
        "190:20:30.15",
        "0b101",
        "0o17",
    ),
    *(
        "<<: {a: 1}",
        "? [a, b]\n: c",
        "&a [*a]",
        "*a",
        "&a {b: &b [*a, *b]}",
        "{<<: 3}",
        "= 3",
        "|\n  a",
        ">-\n\n",
        "%TAG ! x",
    ),
    *(
        "0x" + "f" * 5000,
        "9" * 5000,
        "1" + ":59" * 300,
        "1" + ":59" * 300 + ".5",
        "1e-400",
        "-.inf",
        "[" * 400,
        "{a: " * 300,
    ),
)


@cache
def _shipped(folder: str) -> tuple[str, ...]:
    return tuple(
        path.read_text(encoding="utf-8") for path in sorted((ROOT / folder).glob("*.yaml"))
    )


def _text(rng: Random, value: Any) -> str:
    """Return a value as YAML or as JSON, which YAML reads too."""
    if rng.random() < 0.5:
        return json.dumps(value)
    return yaml.safe_dump(
        value, allow_unicode=rng.random() < 0.5, default_flow_style=rng.random() < 0.2
    )


def _with_tags(rng: Random, text: str) -> str:
    """Return a document with something YAML knows, and nobody asked for, in place of values or
    lines.
    """
    lines = text.splitlines() or [""]
    for _ in range(rng.randint(1, 2)):
        at = rng.randrange(len(lines))
        name, colon, _ = lines[at].partition(":")
        lines[at] = (
            f"{name}{colon} {rng.choice(_TAGS)}" if rng.random() < 0.7 else rng.choice(_TAGS)
        )
    return "\n".join(lines)


def _document(rng: Random, shipped: tuple[str, ...]) -> bytes:
    base = rng.choice(shipped)
    if len(base) > 4000:  # two parts of a long one, for speed
        parts = base.split("\n\n")
        base = "\n\n".join(rng.choice(parts) for _ in range(2))
    kind = rng.randrange(8)
    if kind == 0:
        return damaged(rng, base.encode(), most=2)
    if kind == 1:
        return _with_tags(rng, base).encode("utf-8", "surrogatepass")
    text = _text(rng, changed(rng, yaml.safe_load(base), rng.choice((0, 0.01, 0.03, 0.1, 0.3))))
    return (_with_tags(rng, text) if kind == 2 else text).encode("utf-8", "surrogatepass")


def config(rng: Random, folder: Path) -> Callable[[], object]:
    """A config, what it extends, and overrides of the command line; then the options of its reader
    and its stages.
    """
    path = folder / "c.yaml"
    path.write_bytes(_document(rng, _shipped("configs")))
    if rng.random() < 0.2:
        _chain(rng, path)
    overrides = []
    if rng.random() < 0.2:
        field = ".".join(
            rng.choice(("steps", "embed", "options", "run", "factors", "x", "", *TEXTS))
            for _ in range(3)
        )
        if rng.random() < 0.05:
            field = "x." * 3000 + "x"
        overrides = [f"{field}={rng.choice((*_TAGS, json.dumps(odd(rng))))}"]

    def call() -> object:
        found = load_config(path, overrides)
        made: list[Any] = [found.run_folder(), found.resolve(found.run.store)]
        made.append(profile_of(found.numerics))
        made.append(
            validate(
                lookup("reader", found.dataset.reader).Options,
                found.dataset.options,
                "dataset.options",
            )
        )
        for name, step in found.steps.items():
            stage = lookup("stage", step.stage or name)
            # factors
            options = {
                key: value for key, value in step.options.items() if not str(value).startswith("$")
            }
            made.append(validate(stage.Options, options, f"steps.{name}.options").result_options())
        if found.report and found.report.kind in available("report options"):
            made.append(available("report options")[found.report.kind](found.report.options, found))
        return made

    return call


def _chain(rng: Random, path: Path) -> None:
    """Let a config extend others: a few, very many, itself, a device, a pipe that nobody writes
    to."""
    kind = rng.randrange(8)
    if kind == 0:
        last = rng.choice((3, 40, 1100))
        for i in range(last):
            path.with_name(f"e{i}.yaml").write_text(f"extends: e{i + 1}.yaml\n")
        path.with_name(f"e{last}.yaml").write_text("name: base\n")
        target = "e0.yaml"
    elif kind == 1:
        target = rng.choice(
            ("/dev/zero", "/dev/full", "/proc/self/mem", ".", "c.yaml", "/proc/self/environ")
        )
    elif kind == 2:
        target = "pipe"
        os.mkfifo(path.with_name("pipe"))
    elif kind == 3:
        path.with_name("large.yaml").write_bytes(b"x: [" + b"a," * 600_000)
        target = "large.yaml"
    elif kind == 4:
        target = json.dumps(odd(rng))
    else:
        path.with_name("base.yaml").write_bytes(_document(rng, _shipped("configs")))
        target = "base.yaml"
    path.write_bytes(
        b"extends: " + target.encode("utf-8", "surrogatepass") + b"\n" + path.read_bytes()
    )


def cards(rng: Random, folder: Path) -> Callable[[], object]:
    """A file of model cards; then the weights that its cards name, which must lie in the folder."""
    path = folder / "models.yaml"
    if rng.random() < 0.3:
        name = rng.choice(
            (
                "..",
                ".",
                "../beside/secret",
                "/etc/passwd",
                "a/b",
                "a\\b",
                "secret",
                "x" * 300,
                *TEXTS,
            )
        )
        card = {
            "kind": "quality",
            "architecture": "onnx",
            "file": name,
            "dimension": 1,
            "licence": "MIT",
        }
        path.write_bytes(
            _text(rng, {"a": changed(rng, card, 0.02)}).encode("utf-8", "surrogatepass")
        )
    else:
        path.write_bytes(_document(rng, _shipped("data_manifests")))
    (folder / "weights").mkdir()
    (folder / "weights/secret").symlink_to("loop")
    (folder / "weights/loop").symlink_to("secret")

    def call() -> object:
        found = read_cards(path)
        for card in found.values():
            try:
                read_weights(find_weights(card, [folder / "weights", folder / "none"]), card.sha256)
            except InvalidInput as refusal:
                if not str(refusal):
                    raise Breach("a refusal without a sentence") from None
        return found

    return call


_NAMES = ("Ann", "Bob", "é", "Ann Bob", "..", "Ann_0001")


def pairs(rng: Random, folder: Path) -> Callable[[], object]:
    """A list of pairs over a few images; what is read must be pairs of the images that
    are there."""
    for name in ("Ann", "Bob", "Cyd"):
        (folder / name).mkdir()
        for i in range(1, 4):
            (folder / name / f"{name}_000{i}.jpg").write_bytes(b"")
    folds, each = rng.choice((1, 2, 10)), rng.choice((1, 3))
    lines = [f"{folds}\t{each}"]
    for _ in range(folds):
        lines += [f"Ann\t{rng.randint(1, 2)}\t3" for _ in range(each)]
        lines += [f"Ann\t{rng.randint(1, 3)}\tBob\t{rng.randint(1, 3)}" for _ in range(each)]
    form = rng.choice(("LFW's", "LFW's", "bare", "flat"))
    lines = lines if form == "LFW's" else lines[1:]
    if form == "flat":
        people = [
            (rng.choice(("Ann", "Bob", "Cyd")), rng.choice(("Ann", "Bob", "Cyd"))) for _ in lines
        ]
        lines = [
            f"{a}_000{rng.randint(1, 2)} {b}/{b}_000{rng.randint(2, 3)}.jpg {int(a == b)}"
            for a, b in people
        ]
    for _ in range(rng.choice((0, 0, 1, 3))):
        at = rng.randrange(len(lines))
        parts = [
            rng.choice((*_NAMES, *TEXTS, "1", "2", "0", "99999999999", "-1", "١", "1.0"))
            for _ in range(rng.randint(0, 5))
        ]
        kind = rng.randrange(4)
        new = rng.choice(("\t", " ", "\t\t", ",")).join(parts)
        lines[at : at + (kind < 2)] = [] if kind == 0 else [new]
        lines = lines or [""]
    data = (
        rng.choice(("\n", "\n", "\n", "\r\n", "\r", "\x85", "\n\n"))
        .join(lines)
        .encode("utf-8", "surrogatepass")
    )
    if rng.random() < 0.5:
        data = damaged(rng, data, most=2)
    (folder / "pairs.txt").write_bytes(data)

    counts: CountsCheck = rng.choice(("published", "any"))

    def call() -> object:
        tables = LfwReader(LfwOptions(counts=counts)).read(open_files(folder))
        for name, schema in LfwReader.layout.schemas.items():
            schema.check(tables[name])
        comparisons = tables["comparisons"]
        assert comparisons.rows > 0
        assert not np.any(comparisons["a"] == comparisons["b"])
        subject = tables["templates"]["subject"]
        assert np.array_equal(
            subject[comparisons["a"]] == subject[comparisons["b"]], comparisons["mated"]
        )
        return tables

    return call
