"""Templates as one HDF5 file, for other programs: plain h5py reads all of it.

    /                      attributes: format "qfuse-templates/1", config, step, every option of the
                           fuse step (fuse.rule …); what it was made by: qfuse, its version;
                           dataset.reader, .path (the last part), .options and .key, the digest of
                           all that its tables came from; and steps.NAME of each step that led to
                           it (steps.embed …): as JSON the stage, version, options, identity
                           (weights by sha256) and numerics, as receipts have them
    /template_id           (T,) text
    /subject               (T,) text; empty if it is not known
    /status                (T,) uint8: 0 = usable; every other code is in the attribute `statuses`
    /embedding             (T, d) float32 of unit length; nan if the template is not usable; see
                           /fallback
    /used                  (T,) int32: faces with a weight above 0
    /fallback              (T,) bool: its weights vanished, so its faces count equally; under
                           fuse.fallback zero it is zeros
    /members/template      (M,) int64, row of the template, sorted
    /members/face_id       (M,) text
    /members/media         (M,) text
    /members/weight        (M,) float64: what the face counted for, at most 1 in a template; nan if
                           it was not usable
    /members/quality       (M,) float32, if the rule weighs by quality
    /members/detector_score  (M,) float32, if it weighs by that

The columns of templates are copies, and the file stands alone. In a view (attribute `view`: the
store's folder) they are HDF5 virtual data sets over the store's own shards, which HDF5 looks for at
that place and opens all at once. What it cannot open (moved, deleted, too many open files) it reads
without an error, as status 255, `gone` in `statuses`, with embeddings of nan, `used` 0 and
`fallback` false. The columns of /members are copies in both.
"""

from __future__ import annotations

import json
import resource
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline.core.schema import Array, Batch, Status
from pipeline.errors import InvalidInput, ResourceRefused
from pipeline.plan.graph import Step, with_all_above
from pipeline.session import Session
from pipeline.store import hdf5
from pipeline.system.atomic_text import is_free, replace_bytes
from pipeline.system.canonical_json import canonical
from stages.fusion.fuse import WEIGHED_BY, Fuse
from stages.tables.schemas import FUSED

TEMPLATES_FORMAT = "qfuse-templates/1"
MADE_BY = ("stage", "version", "options", "identity", "numerics")  # of a receipt's pre-image
GONE = 255
# what a view shows of a shard that HDF5 cannot open
_FILL: Mapping[str, Any] = {"status": GONE, "embedding": np.nan}
_OTHERS = 64  # files that a program has open beside a view's shards


@dataclass(frozen=True)
class WrittenTemplates:
    """A file of templates that was written, and what it holds."""

    path: Path
    step: str
    templates: int
    faces: int
    status: dict[str, int]
    fallback: int


def need_templates_file(path: Path) -> None:
    """Raise InvalidInput if something other than a file of templates is at `path`."""
    if is_free(path):
        return
    try:
        with hdf5.opened(path) as file:
            ours = file.attrs.get("format") == TEMPLATES_FORMAT
    except (OSError, RuntimeError, KeyError, ValueError):
        ours = False
    if not ours:
        raise InvalidInput(
            f"{path} exists and is not a file of templates; give another name, so that nothing is"
            " lost."
        )


def write_templates(path: Path, session: Session, step: Step, view: bool) -> WrittenTemplates:
    """Write the stored templates of a fuse step; the file appears at `path` when it is complete.

    Raises CorruptArtifact if a shard is damaged, ResourceRefused if this process could not read a
    view, OSError if the file cannot be written.
    """
    if view:
        _need_open_files(len(step.tasks))
    tables = session.dataset.tables
    fused = _read_templates(session, step)
    members = Batch(_members(session, step))
    statuses = {status.name.lower(): int(status) for status in Status} | (
        {"gone": GONE} if view else {}
    )
    options = step.stage.options.model_dump(mode="json")

    def fill(file: h5py.File) -> None:
        named = {
            "format": TEMPLATES_FORMAT,
            "config": session.config.full_name,
            "step": step.name,
            "statuses": json.dumps(statuses),
        }
        file.attrs.update({f"fuse.{name}": str(value) for name, value in options.items()})
        file.attrs.update({**named, **_made_by(session, step)})
        if view:
            file.attrs["view"] = str(session.store.root)
        for name in ("template_id", "subject"):
            _write_text(file, name, tables["templates"][name])
        for field in FUSED.fields:
            if view:
                _write_view(file, field.name, session, step, fused[field.name])
            else:
                _write_numbers(file, field.name, fused[field.name])
        group = file.create_group("members")
        for name, column in members.items():
            (_write_text if column.dtype == object else _write_numbers)(group, name, column)

    replace_bytes(path, hdf5.image(fill, members.nbytes + (0 if view else fused.nbytes)))
    counts = {status.name.lower(): int((fused["status"] == status).sum()) for status in Status}
    used = {name: count for name, count in counts.items() if count}
    return WrittenTemplates(
        path, step.name, fused.rows, tables["members"].rows, used, int(fused["fallback"].sum())
    )


def _made_by(session: Session, step: Step) -> dict[str, str]:
    """Return what templates were made by, as attributes: the file may be found without a store."""
    section, steps = session.config.dataset, session.plan.steps
    made = {
        "qfuse": version("qfuse"),
        "dataset.reader": section.reader,
        "dataset.path": Path(section.path or "").name,
        "dataset.options": canonical(section.options),
        "dataset.key": session.dataset.key,
    }
    for one in (steps[name] for name in sorted(with_all_above(steps, [step.name]))):
        # its own are attributes already
        parts = [part for part in MADE_BY if one is not step or part != "options"]
        made[f"steps.{one.base}"] = canonical({part: one.tasks[0].preimage[part] for part in parts})
    return made


def _read_templates(session: Session, step: Step) -> Batch:
    """Return the templates; reading them compares every shard with its receipt."""
    return session.read(step)


def _members(session: Session, step: Step) -> dict[str, Array]:
    """Return the columns of /members, as fuse itself gives them."""
    dataset, stage = session.dataset, step.stage
    if not isinstance(stage, Fuse):
        raise TypeError(f"{step.name} is not a fuse step")
    columns: dict[str, list[Array]] = {}
    for task in step.tasks:
        work = session.reader.work(step, task)
        columns.setdefault("weight", []).append(stage.explained(work)[1])
        for key, column in WEIGHED_BY.items():
            if key in work.inputs:
                read = work.inputs[key].take(work.tables["members"]["face"], (column,))[column]
                columns.setdefault("detector_score" if key == "detections" else column, []).append(
                    read
                )
    members = dataset.tables["members"]
    given = {"template": members["template"], "media": members["media"]}
    faces = dataset.tables["faces"]["face_id"][members["face"]]
    return {
        **given,
        "face_id": faces,
        **{name: np.concatenate(parts) for name, parts in columns.items()},
    }


def _need_open_files(shards: int) -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if most != resource.RLIM_INFINITY and shards + _OTHERS > most:
        raise ResourceRefused(
            f"a view of {shards:,} shards is read with as many files open at once, and `ulimit -n`"
            f" is {most:,} here: leave --view out, or raise the limit wherever the view is to be"
            " read."
        )


def _write_view(file: h5py.File, name: str, session: Session, step: Step, values: Array) -> None:
    layout = h5py.VirtualLayout(values.shape, values.dtype)
    for task in step.tasks:
        if task.stop > task.start:
            # HDF5 reads %b
            source = str(session.store.path(step.output(""), task.keys[""]).absolute()).replace(
                "%", "%%"
            )
            shape = (task.stop - task.start, *values.shape[1:])
            layout[task.start : task.stop] = h5py.VirtualSource(source, name, shape, values.dtype)
    file.create_virtual_dataset(name, layout, fillvalue=_FILL.get(name, 0))


def _write_numbers(group: h5py.Group, name: str, values: Array) -> None:
    group.create_dataset(
        name, data=values, **({"chunks": True, "fletcher32": True} if values.size else {})
    )


def _write_text(group: h5py.Group, name: str, values: Array) -> None:
    group.create_dataset(name, data=values, dtype=h5py.string_dtype())
