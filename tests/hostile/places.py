"""Hostile paths: what is no file, in every place where a user names one, and in a store."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from random import Random

from pipeline.config.config import load_config
from pipeline.files.digests import DigestCache
from pipeline.files.file_tree import open_files
from pipeline.plan.last_plan import recalled
from pipeline.run.events import Events
from pipeline.store.store import Store
from pipeline.system.atomic_text import is_free
from stages.datasets.ijb.lists import read_csv, read_list
from stages.datasets.ijb.npy import read_array
from stages.datasets.lfw import LfwOptions, LfwReader
from stages.datasets.problems import Problems
from stages.datasets.tables_file import TablesOptions, TablesReader
from stages.fusion.templates_file import need_templates_file
from stages.models.cards import read_cards, read_weights
from stages.quality.calibration import read_reference, read_scores
from stages.results.finished_runs import find_run

from . import tables

ODD = ("pipe", "socket", "/dev/zero", "/dev/full", "folder", "nowhere", "loop", "long")


def put(kind: str, path: Path) -> Path:
    """Lay something that is no file at `path`, and return where it lies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        here = os.open(path.parent, os.O_RDONLY)
        with socket.socket(socket.AF_UNIX) as made:
            # a socket's name is at most 108 bytes long
            made.bind(f"/proc/self/fd/{here}/{path.name}")
        os.close(here)
    elif kind == "folder":
        path.mkdir()
    elif kind == "long":
        return path.with_name("x" * 300)
    else:
        path.symlink_to(path.name if kind == "loop" else kind)
    return path


def _listed(path: Path) -> object:
    problems = Problems(path.parent)
    files = open_files(path.parent)
    found = [
        read_list(files, path.name, {"a": "id"}, problems),
        read_csv(files, path.name, {"A": "id"}, problems),
        read_array(files, path.name, (None, 4), problems),
    ]
    problems.refuse()
    return found


def _in_tree(path: Path) -> object:
    files = open_files(path.parent)
    found = [files.names(), files.digests([path.name])]
    try:
        found.append(list(files.read(path.name)))
    except FileNotFoundError:
        return found
    raise AssertionError("what is no file was read")


def _pairs(path: Path) -> object:
    (path.parent / "Ann").mkdir()
    (path.parent / "Ann/Ann_0001.jpg").write_bytes(b"")
    return LfwReader(LfwOptions(pairs=path.name)).read(open_files(path.parent))


def _tables(path: Path) -> object:
    reader = TablesReader(TablesOptions(file=path.name))
    return reader.sources(open_files(path.parent)), reader.read(open_files(path.parent))


def _extended(path: Path) -> object:
    (path.parent / "c.yaml").write_text(f"extends: {path.name}\n")
    return load_config(path.parent / "c.yaml")


def _digested(path: Path) -> object:
    (path.parent / "file").write_bytes(b"x")
    return DigestCache(path).digest(path.parent / "file")


def _stored(root: Path) -> object:
    store = Store(root, readonly=True)
    return store.check_artifact(root / f"{_ARTIFACT}.json"), store.read("toy", tables.KEY)


PLACES: dict[str, Callable[[Path], object]] = {
    "config": load_config,
    "extends": _extended,
    "data set": open_files,
    "file of a data set": _in_tree,
    "tables": _tables,
    "pairs": _pairs,
    "lists and arrays": _listed,
    "cards": read_cards,
    "weights": lambda path: read_weights(path, None),
    "reference": read_reference,
    "scores": lambda path: read_scores(path, "quality"),
    "run": find_run,
    "events": lambda path: Events(path.parent).close(),
    "former plan": recalled,
    "output": is_free,
    "templates": need_templates_file,
    "digests": _digested,
    "store": lambda path: Store(path),
    "artifact": lambda path: _stored(path.parents[2]),
    "receipt": lambda path: _stored(path.parents[2]),
    "marker": lambda path: _stored(path.parent),
}
_ARTIFACT = f"toy/{tables.KEY[:2]}/{tables.KEY}"
_NAMES = {
    "events": "events.jsonl",
    "artifact": f"{_ARTIFACT}.h5",
    "receipt": f"{_ARTIFACT}.json",
    "marker": "format.json",
}


def laid(place: str, kind: str, folder: Path) -> Path:
    """Lay something that is no file where a place names one, with what belongs beside it; return
    its path.
    """
    if place in ("artifact", "receipt", "marker"):
        for name, data in zip((".h5", ".json"), tables.stored(), strict=False):
            (folder / _ARTIFACT).parent.mkdir(parents=True, exist_ok=True)
            (folder / f"{_ARTIFACT}{name}").write_bytes(data)
        (folder / "format.json").write_bytes(tables.stored()[2])
        if kind != "long":
            (folder / _NAMES[place]).unlink()
    return put(kind, folder / _NAMES.get(place, "x"))


def places(rng: Random, folder: Path) -> Callable[[], object]:
    """Something that is no file, where a file is expected."""
    place = rng.choice(list(PLACES))
    path = laid(place, rng.choice(ODD), folder / "in")
    return lambda: PLACES[place](path)
