"""The verbs that know of faces: demo, init, synth, models, doctor. Added to the command by entry point."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline import cli
from pipeline.errors import InvalidInput, ResourceRefused, UsageError

models_app = typer.Typer(help="Know the models.", no_args_is_help=True)
Folders = Annotated[list[Path] | None, typer.Option("--folder", help="A folder with weights; default: $QFUSE_SHARED/models.")]


def add_to(app: typer.Typer) -> None:
    """Add these verbs to the command."""
    app.command(epilog="Example: qfuse demo --store /tmp/qfuse-demo")(demo)
    app.command(epilog="Example: qfuse init faces.yaml && qfuse check faces.yaml")(init)
    app.command(epilog="Example: qfuse synth set/tables.h5 --scale 0.1 --seed 7")(synth)
    app.command(epilog="Example: qfuse doctor --json")(doctor)
    models_app.command("list", epilog="Example: qfuse models list --folder weights")(models_list)
    app.add_typer(models_app, name="models")


def demo(store: cli.StorePath = None, as_json: cli.AsJson = False) -> None:
    """Fuse, compare, search, evaluate and report on a synthetic IJB-C-shaped set: no data, no weights, under a minute."""
    from stages.resources import resource

    cli.run(resource("configs/demo.yaml"), store=store, as_json=as_json)


def init(
    path: Annotated[Path, typer.Argument(help="The config to write; it must not exist yet.")],
    kind: Annotated[str, typer.Option(help="What you have: folder, lfw, templates or synthetic.")] = "folder",
) -> None:
    """Write a commented config to start from."""
    from pipeline.errors import unknown
    from stages.resources import resource

    starters = {"folder": "folder", "lfw": "lfw", "templates": "lfw_templates", "synthetic": "demo"}
    if kind not in starters:
        raise UsageError(unknown("kind of config", kind, starters))
    if path.exists():
        raise InvalidInput(f"{path} exists already; give another name, so that nothing is lost.")
    lines = resource(f"configs/{starters[kind]}.yaml").read_text(encoding="utf-8").splitlines()
    name = "".join(c if c.isalnum() or c in "._-" else "-" for c in path.stem).lstrip("._-") or "experiment"
    named = [f"name: {name}" if line.startswith("name: ") else line for line in lines]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(named) + "\n", encoding="utf-8")
    except OSError as error:
        raise ResourceRefused(f"cannot write {path} ({error.strerror}); choose another place.") from None
    cli.say(f"wrote {path}: set dataset.path, then `qfuse check {path}` and `qfuse run {path}`.")


def synth(
    out: Annotated[Path, typer.Argument(help="The HDF5 file to write, for the reader `tables`.")],
    scale: Annotated[float, typer.Option(min=0.0005, max=4, help="1 is IJB-C's size: 469,375 faces.")] = 0.02,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    dimension: Annotated[int, typer.Option(min=2, max=4096)] = 128,
    as_json: cli.AsJson = False,
) -> None:
    """Write an IJB-C-shaped set at embedding level: identities, media, templates, noise that grows as quality falls."""
    from stages.datasets.synthetic import SynthOptions, synthesise
    from stages.datasets.tables_file import write_tables

    if out.exists():
        raise InvalidInput(f"{out} exists already; give another name, so that nothing is lost.")
    options = SynthOptions(scale=scale, seed=seed, dimension=dimension)
    tables = synthesise(options)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_tables(out, tables, {"made by": "qfuse synth", **options.model_dump()})
    except OSError as error:
        raise ResourceRefused(f"cannot write {out} ({error.strerror or error}); choose another place.") from None
    counts = {name: batch.rows for name, batch in tables.items()}
    if as_json:
        cli.emit({"path": str(out), "tables": counts})
    else:
        cli.say(f"wrote {out}: {', '.join(f'{rows:,} {name}' for name, rows in counts.items() if rows)}")


def models_list(folder: Folders = None, as_json: cli.AsJson = False) -> None:
    """Show every model card, and whether its weights are where they are looked for."""
    from rich.table import Table

    from pipeline.numerics import PROFILES
    from pipeline.stage import Context
    from stages.models.catalogue import all_cards

    folders = folder or _shared_models()
    rows: list[dict[str, Any]] = []
    for name, card in all_cards(Context(PROFILES["cpu-fp32"])).items():
        found = next((str(f / card.file) for f in folders if (f / card.file).is_file()), None)
        rows.append({**card.model_dump(mode="json"), "name": name, "found": found})
    if as_json:
        cli.emit(rows)
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("model", "kind", "architecture", "dimension", "colour", "licence", "file", "found"):
        table.add_column(column, overflow="fold")
    for row in rows:
        values = [str(row[key]) for key in ("name", "kind", "architecture", "dimension", "colour", "licence", "file")]
        table.add_row(*values, "yes" if row["found"] else "no")
    cli.show(table)
    cli.say(f"weights looked for in: {', '.join(map(str, folders)) or 'no folder; give one with --folder'}")


def doctor(as_json: cli.AsJson = False) -> None:
    """Say what this machine has: libraries, cores, memory, GPU, and what is missing for which job."""
    import importlib
    import shutil

    from pipeline.numerics import backend_version

    facts: dict[str, Any] = {"python": sys.version.split()[0], "cores": len(os.sched_getaffinity(0))}
    facts["memory_gib"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    facts["disk_free_gib"] = round(shutil.disk_usage(".").free / 2**30, 1)
    problems: list[str] = []
    for module, name, advice in (
        ("torch", "torch", "reinstall qfuse"),
        ("faiss", "faiss-cpu", "install the extra `cpu` (or `gpu`, never both); search can use torch instead"),
        ("onnxruntime", "onnxruntime", "install the extra `onnx` to run ONNX models"),
        ("cv2", "opencv", "reinstall qfuse"),
        ("h5py", "h5py", "reinstall qfuse"),
        ("distributed", "distributed", "reinstall qfuse"),
    ):
        try:
            importlib.import_module(module)
            facts[name] = backend_version(name) if name != "faiss-cpu" else _faiss_version()
        except ImportError as error:
            facts[name] = "absent"
            problems.append(f"{name} does not import ({error}): {advice}.")
    if backend_version("faiss-cpu") != "absent" and backend_version("faiss-gpu") != "absent":
        problems.append("faiss-cpu and faiss-gpu are both installed and overwrite each other: uninstall one.")
    try:
        import torch

        facts["gpu"] = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
    except ImportError:
        facts["gpu"] = "unknown"
    facts["problems"] = problems
    if as_json:
        cli.emit(facts)
        return
    for name, value in facts.items():
        if name != "problems":
            cli.say(f"{name:<14} {value}")
    for problem in problems:
        cli.say(f"! {problem}")
    cli.say("fine" if not problems else f"{len(problems)} to mend")


def _faiss_version() -> str:
    from pipeline.numerics import backend_version

    return next((f"{v} ({n})" for n in ("faiss-cpu", "faiss-gpu") if (v := backend_version(n)) != "absent"), "unknown")


def _shared_models() -> list[Path]:
    shared = os.environ.get("QFUSE_SHARED")
    return [Path(shared) / "models"] if shared else []
