"""Templates as one HDF5 file, for other programs: plain h5py reads all of it.

    /                      attributes: format "qfuse-templates/1", config, step, and every option of the fuse step
    /template_id           (T,) text
    /subject               (T,) text; empty where it is not known
    /status                (T,) uint8: 0 = usable; every other code is in the attribute `statuses`; 255 = its shard is gone
    /embedding             (T, d) float32 of unit length; nan where the template is not usable
    /used                  (T,) int32: faces with a weight above 0
    /fallback              (T,) bool: its weights vanished, so its faces count equally
    /members/template      (M,) int64, row of the template, sorted
    /members/face_id       (M,) text
    /members/media         (M,) text
    /members/weight        (M,) float64: what the face counted for, at most 1 in a template; nan where it was not usable
    /members/quality       (M,) float32, where the rule weighs by quality
    /members/detector_score  (M,) float32, where it weighs by that

The columns of templates are views of the store's own shards (HDF5 virtual data sets), or copies of them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline import hdf5
from pipeline.errors import InvalidInput
from pipeline.graph import Step
from pipeline.runner import Runner
from pipeline.schema import Array, Batch, Status
from pipeline.session import Session
from stages.fuse import WEIGHED_BY, Fuse
from stages.tables import FUSED

FORMAT = "qfuse-templates/1"
_GONE: Mapping[str, Any] = {"status": 255, "embedding": np.nan}  # what a view shows of a shard that was deleted


@dataclass(frozen=True)
class Written:
    """A file of templates that was written, and what it holds."""

    path: Path
    step: str
    templates: int
    faces: int
    status: dict[str, int]
    fallback: int


def need_ours(path: Path) -> None:
    """Raise InvalidInput where something other than a file of templates is at `path`."""
    if not os.path.exists(path):
        return
    try:
        with h5py.File(path) as file:
            ours = file.attrs.get("format") == FORMAT
    except (OSError, RuntimeError, KeyError, ValueError):
        ours = False
    if not ours:
        raise InvalidInput(f"{path} exists and is no file of templates; give another name, so that nothing is lost.")


def write_templates(path: Path, session: Session, step: Step, copied: bool) -> Written:
    """Write the stored templates of a fuse step; the file appears at `path` when it is complete.

    Raises CorruptArtifact where a shard is damaged, OSError where the file cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    tables, fused = session.dataset.tables, _fused(session, step)
    try:
        with h5py.File(partial, "w", libver=hdf5.LIBVER, track_order=False) as file:
            options = step.stage.options.model_dump(mode="json")
            statuses = json.dumps({status.name.lower(): int(status) for status in Status})
            named = {"format": FORMAT, "config": session.config.full_name, "step": step.name, "statuses": statuses}
            file.attrs.update({**{f"fuse.{name}": str(value) for name, value in options.items()}, **named})
            for name in ("template_id", "subject"):
                _text(file, name, tables["templates"][name])
            for field in FUSED.fields:
                if copied:
                    _numbers(file, field.name, fused[field.name])
                else:
                    _view(file, field.name, session, step, fused[field.name])
            members = file.create_group("members")
            for name, column in _members(session, step).items():
                (_text if column.dtype == object else _numbers)(members, name, column)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    counts = {status.name.lower(): int((fused["status"] == status).sum()) for status in Status}
    used = {name: count for name, count in counts.items() if count}
    return Written(path, step.name, fused.rows, tables["members"].rows, used, int(fused["fallback"].sum()))


def _fused(session: Session, step: Step) -> Batch:
    """Return the templates; reading them compares every shard with its receipt."""
    return Runner(session.plan, session.store).results(step)


def _members(session: Session, step: Step) -> dict[str, Array]:
    """Return the columns of /members, as fuse itself tells them."""
    runner, dataset, stage = Runner(session.plan, session.store), session.dataset, step.stage
    if not isinstance(stage, Fuse):
        raise TypeError(f"{step.name} is no fuse step")
    columns: dict[str, list[Array]] = {}
    for task in step.tasks:
        work = runner.work(step, task)
        columns.setdefault("weight", []).append(stage.explained(work)[1])
        for key, column in WEIGHED_BY.items():
            if key in work.inputs:
                read = work.inputs[key].take(work.tables["members"]["face"], (column,))[column]
                columns.setdefault("detector_score" if key == "detections" else column, []).append(read)
    members = dataset.tables["members"]
    given = {"template": members["template"], "media": members["media"]}
    faces = dataset.tables["faces"]["face_id"][members["face"]]
    return {**given, "face_id": faces, **{name: np.concatenate(parts) for name, parts in columns.items()}}


def _view(file: h5py.File, name: str, session: Session, step: Step, values: Array) -> None:
    layout = h5py.VirtualLayout(values.shape, values.dtype)
    for task in step.tasks:
        if task.stop > task.start:
            source = str(session.store.path(step.output(""), task.keys[""]).absolute()).replace("%", "%%")  # HDF5 reads %b
            shape = (task.stop - task.start, *values.shape[1:])
            layout[task.start : task.stop] = h5py.VirtualSource(source, name, shape, values.dtype)
    file.create_virtual_dataset(name, layout, fillvalue=_GONE.get(name, 0))


def _numbers(group: h5py.Group, name: str, values: Array) -> None:
    group.create_dataset(name, data=values, **({"chunks": True, "fletcher32": True} if values.size else {}))


def _text(group: h5py.Group, name: str, values: Array) -> None:
    group.create_dataset(name, data=values, dtype=h5py.string_dtype())
