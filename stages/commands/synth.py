"""The verb `synth`: sets of IJB-C's shape, made from a seed, as tables or as IJB-C's files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pipeline.cli.terminal import AsJson, emit, say, warn
from pipeline.errors import UsageError, cannot_write

if TYPE_CHECKING:
    from stages.detectors.detected_faces import Detector

synth_app = typer.Typer(
    help="Write a set of IJB-C's shape from a seed: tables, or IJB-C's own files.",
    epilog="Example: qfuse synth ijbc janus --scale 0.1 --seed 7",
    no_args_is_help=True,
)
Scale = Annotated[
    float,
    typer.Option(
        min=0.0005,
        max=4,
        metavar="X",
        help="Size of the set; 1 is that of IJB-C: 469,375 faces, 3,531 subjects.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, metavar="N", help="The same seed gives the same bytes.")]
Dimension = Annotated[
    int, typer.Option(min=2, max=4096, metavar="N", help="Length of an embedding.")
]


@synth_app.command("tables", epilog="Example: qfuse synth tables tables.h5 --scale 0.1 --seed 7")
def synth_tables(
    out: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="The HDF5 file to write, for the reader `tables`."),
    ],
    scale: Scale = 0.02,
    seed: Seed = 0,
    dimension: Dimension = 128,
    as_json: AsJson = False,
) -> None:
    """Write a set of IJB-C's shape at embedding level, as tables.

    It has identities, media, templates, and noise that grows as quality falls.
    """
    from stages.commands.destination import need_absent, need_name
    from stages.datasets.synthetic import SynthOptions, synthesise
    from stages.datasets.tables_file import write_tables

    need_name(out, "synth tables writes HDF5", ".h5", ".hdf5")
    need_absent(out)
    options = SynthOptions(scale=scale, seed=seed, dimension=dimension)
    tables = synthesise(options)
    try:
        write_tables(out, tables, {"made by": "qfuse synth", **options.model_dump()})
    except OSError as error:
        raise cannot_write(out, error) from None
    counts = {name: batch.rows for name, batch in tables.items()}
    if as_json:
        emit({"path": str(out), "tables": counts})
        return
    say(f"wrote {out}: {', '.join(f'{rows:,} {name}' for name, rows in counts.items() if rows)}")
    say(
        "next: `qfuse init set.yaml --kind tables`, and in it set dataset.path to this file's"
        " folder"
    )


@synth_app.command(
    "ijbc", epilog="Example: qfuse synth ijbc janus --scale 0.1 --seed 7 --layout both"
)
def synth_ijbc(
    out: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", help="The folder to write, with package/ or nist/ or both inside."
        ),
    ],
    scale: Scale = 0.02,
    seed: Seed = 0,
    dimension: Dimension = 128,
    layout: Annotated[
        Literal["package", "nist", "both"],
        typer.Option(
            help="Write the common package (reader `ijb`), NIST's tree (`ijb_nist`), or both."
        ),
    ] = "package",
    faces: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="A folder or zip of SUBJECT/photo.jpg: write crops of these, no embeddings.",
        ),
    ] = None,
    models: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="The folder with the detector's weights; needed with --faces."
        ),
    ] = None,
    detector: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of --faces; default: the first whose file is there."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a set in the layouts of IJB-C's own files, at a chosen scale.

    It has X times IJB-C's subjects, templates, faces and comparisons, with embeddings and quality
    scores.

    A small set has fewer pairs of templates than X asks for: below 0.23, it lists every pair. With
    --faces, the photographs of the chosen subjects decide how many templates there are.
    """
    from stages.commands.destination import need_absent, need_folder
    from stages.datasets.ijb.protocol import manifest
    from stages.datasets.ijb.write import write_set

    need_folder(out)
    need_absent(out)
    if (faces is None) != (models is None):
        raise UsageError(
            "--faces needs --models, the folder of the detector's weights, and --models needs"
            " --faces."
        )
    image = None
    if faces is not None and models is not None:
        from pipeline.files.file_tree import open_files
        from stages.commands.ijb_photographs import from_photographs

        made, image = from_photographs(
            open_files(faces), _detector(models, detector), scale, seed, warn
        )
    else:
        from stages.commands.ijb_photographs import from_noise
        from stages.datasets.synthetic import SynthOptions

        made = from_noise(SynthOptions(scale=scale, seed=seed, dimension=dimension))
    try:
        write_set(out, made, layout, image)
    except OSError as error:
        raise cannot_write(out, error) from None
    counts = made.counts()
    if as_json:
        emit({"path": str(out), "layout": layout, "counts": counts})
        return
    say(f"wrote {out}: {', '.join(f'{count:,} {name}' for name, count in counts.items())}")
    published = manifest("ijbc").counts
    whole = all(counts[what] == n for what, n in published.items())
    part = [] if whole else ["counts: any"]
    beside = ["embeddings: embeddings.npy", "quality: quality.npy"] if made.beside else []
    if layout != "nist":
        say(_next("ijb", f"{out}/package", part + beside))
    if layout != "package":  # without images it is not whole either
        say(_next("ijb_nist", f"{out}/nist", part if image is not None else ["counts: any"]))


def _next(reader: str, path: str, options: list[str]) -> str:
    given = f", options: {{{', '.join(options)}}}" if options else ""
    return f"next: in a config, dataset: {{reader: {reader}, path: {path}{given}}}"


def _detector(folder: Path, name: str | None) -> Detector:
    from pipeline.core.numerics import PROFILES
    from pipeline.core.stage import Context
    from stages.detectors.opening import detector_named
    from stages.faces.sampling import usable_detector
    from stages.models.catalogue import all_cards

    context = Context(PROFILES["cpu-fp32"], None, (folder,))
    chosen = name or usable_detector(all_cards(context), context.model_folders)
    return detector_named(context, chosen)
