"""The verb `faces`: photographs of several people → a data set with a row for each face."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.terminal import AsJson, emit, say
from pipeline.errors import InvalidInput, UsageError, cannot_write, counted
from pipeline.system.signs_of_life import pulse
from stages.commands.known_models import Folders, OfConfig, surroundings

EXAMPLE = "Example: qfuse faces photographs/ faces.h5 --detector yunet_320"
SHOWN = 5  # photographs that are named


def faces(
    photographs: Annotated[
        Path, typer.Argument(metavar="PHOTOGRAPHS", help="A folder of photographs, at any depth.")
    ],
    out: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="The HDF5 file to write, in the photographs' folder or in one above it.",
        ),
    ],
    detector: Annotated[
        str | None,
        typer.Option("--detector", metavar="NAME", help="Default: the first whose file is there."),
    ] = None,
    score_threshold: Annotated[
        float,
        typer.Option(
            "--score-threshold", min=0, max=1, metavar="X", help="The least score of a face."
        ),
    ] = 0.6,
    folder: Folders = None,
    config: OfConfig = None,
    as_json: AsJson = False,
) -> None:
    """Find every face in a folder of photographs, and write a data set with a row for each.

    A row holds the photograph's path and digest, and the face's box, landmarks and score. A config
    reads the file with the reader `tables`; `align` then makes a crop of each face.
    """
    from pipeline.files.file_tree import open_files
    from stages.commands.destination import need_absent, need_name
    from stages.datasets.tables_file import write_tables
    from stages.detectors.detected_faces import DetectorOptions
    from stages.detectors.opening import detector_named
    from stages.faces.align import AlignOptions
    from stages.faces.every_face import every_face
    from stages.faces.sampling import usable_detector
    from stages.models.catalogue import all_cards

    need_name(out, "faces writes HDF5", ".h5", ".hdf5")
    need_absent(out)
    if not photographs.is_dir():
        raise InvalidInput(
            f"{photographs}: expected a folder of photographs, and it is none; an archive has to be"
            " unpacked."
        )
    context = surroundings(folder, config)
    name = detector or usable_detector(all_cards(context), context.model_folders)
    opened = detector_named(context, name, DetectorOptions(score_threshold=score_threshold))
    found = every_face(
        open_files(photographs),
        _below(photographs, out),
        opened,
        AlignOptions().max_pixels,
        lambda path: pulse.at(f"looking for faces in {path}"),
    )
    try:
        write_tables(out, found.tables, {"made by": "qfuse faces", "detector": name})
    except OSError as error:
        raise cannot_write(out, error) from None
    count = found.tables["faces"].rows
    if as_json:
        emit(
            {
                **{"path": str(out), "detector": name, "photographs": found.photographs},
                **{"faces": count, "left_out": found.left_out},
            }
        )
        return
    used = found.photographs - len(found.left_out)
    say(f"wrote {out}: {counted(count, 'face')} in {counted(used, 'photograph')}, by {name}")
    for path, reason in list(found.left_out.items())[:SHOWN]:
        say(f"left out {path}: {reason}")
    if len(found.left_out) > SHOWN:
        say(f"left out {len(found.left_out) - SHOWN:,} more (--json names all)")
    say(
        f"next: in a config, dataset: {{reader: tables, path: {out.parent}, options: {{file:"
        f" {out.name}}}}}; align: {{}} cuts every face at its landmarks, and needs no detector"
    )


def _below(photographs: Path, out: Path) -> str:
    """Return what stands before the photographs' names, seen from the folder of the file."""
    inner, outer = os.path.realpath(photographs), os.path.realpath(out.parent)
    if not Path(inner).is_relative_to(outer):
        raise UsageError(
            f"{out}: the file names photographs relative to its own folder: put it into"
            f" {photographs} or into a folder above that."
        )
    relative = os.path.relpath(inner, outer)
    return "" if relative == "." else f"{relative}/"
