"""The verbs that know of faces or of parts that configs name; an entry point adds them."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.run import run
from pipeline.cli.terminal import AsJson, StorePath, emit, say
from pipeline.errors import UsageError, counted
from pipeline.system.available import require_to_compute
from stages.commands import build, faces, models, quality, reference, runs, synth
from stages.commands.known_models import model_folders

# kind of config → the shipped one that it starts from, and what is to be done next
STARTERS = {
    "gallery": (
        "gallery",
        "set dataset.path to your folder of SUBJECT/photo.jpg, and put weights into models/",
    ),
    "folder": (
        "folder",
        "set dataset.path to your folder of SUBJECT/photo.jpg, and put weights into models/",
    ),
    "tables": (
        "tables",
        "set dataset.path to the folder of your tables.h5 (`qfuse synth tables` writes an example)",
    ),
    "ijbc": ("ijbc", "set dataset.path to the folder of the common package (meta/, loose_crop/)"),
    "ijbc_baseline": (
        "ijbc_baseline",
        "set dataset.path to the folder of the common package (meta/, loose_crop/)",
    ),
    "lfw": ("lfw", "set dataset.path to your copy of LFW, and put weights into models/"),
    "templates": (
        "lfw_templates",
        "set dataset.path to your copy of LFW, and put weights into models/",
    ),
    "synthetic": ("demo", "it needs no data"),
}


# kind of model → what is done to photographs by it
JOBS = {
    "detector": "find the faces in",
    "recognition": "compare",
    "quality": "judge the quality of",
}


def add_to(app: typer.Typer) -> None:
    """Add these verbs to the command."""
    app.command(epilog="Example: qfuse demo --store /tmp/qfuse-demo")(demo)
    app.command(
        epilog="Example: qfuse init faces.yaml && qfuse check faces.yaml && qfuse run faces.yaml"
    )(init)
    app.command(epilog="Example: qfuse doctor --json")(doctor)
    app.command(epilog="Example: qfuse steps fuse")(reference.steps)
    app.command(epilog=build.BUILD)(build.build)
    app.command(epilog=build.REFERENCE)(build.reference)
    app.command(epilog=faces.EXAMPLE)(faces.faces)
    app.command(epilog=runs.EXPLAIN)(runs.explain)
    app.command(epilog=runs.DIFF)(runs.diff)
    app.add_typer(models.models_app, name="models")
    app.add_typer(quality.quality_app, name="quality")
    app.add_typer(synth.synth_app, name="synth")


def demo(store: StorePath = None, as_json: AsJson = False) -> None:
    """Run everything on a synthetic set: no data, no weights, under a minute.

    Fuses, compares, searches, evaluates and reports on a set of IJB-C's shape.
    """
    from stages.shipped_files import resource

    run(resource("configs/demo.yaml"), store=store, as_json=as_json)


def init(
    path: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="The config to write; it must not exist yet.")
    ],
    kind: Annotated[
        str, typer.Option(metavar="KIND", help=f"What you have: {', '.join(STARTERS)}.")
    ] = "folder",
) -> None:
    """Write a commented config to start from."""
    from pipeline.errors import cannot_write, unknown
    from pipeline.system.atomic_text import replace_text
    from stages.commands.destination import need_absent, need_name
    from stages.shipped_files import resource

    if kind not in STARTERS:
        raise UsageError(f"--kind: {unknown('kind of config', kind, STARTERS)}")
    need_name(path, "init writes YAML", ".yaml", ".yml")
    need_absent(path)
    shipped, advice = STARTERS[kind]
    text = resource(f"configs/{shipped}.yaml").read_text(encoding="utf-8")
    # The other folders in which shipped configs look are not the user's own.
    text = re.sub(r"^models:\n  folders: .*$", "models: {folders: [models]}", text, flags=re.M)
    lines = text.replace("${QFUSE_SHARED:-../../shared}/data/lfw.zip", "lfw.zip").splitlines()
    name = (
        "".join(
            c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in path.stem
        ).lstrip("._-")
        or "experiment"
    )
    named = [f"name: {name}" if line.startswith("name: ") else line for line in lines]
    try:
        replace_text(path, "\n".join(named) + "\n")
    except OSError as error:
        raise cannot_write(path, error) from None
    say(f"wrote {path}: {advice}; then `qfuse check {path}` and `qfuse run {path}`.")


def doctor(as_json: AsJson = False) -> None:
    """Show what this machine has and what is missing for which job.

    Covers libraries, cores, memory, GPU and weights.
    """
    import importlib
    import shutil

    from pipeline.core.numerics import PROFILES, backend_version
    from pipeline.core.stage import Context
    from pipeline.system.instruction_sets import DEPENDENT, instruction_set, lacks_bf16
    from stages.models.catalogue import all_cards

    require_to_compute(None)
    facts: dict[str, Any] = {
        "python": sys.version.split()[0],
        "cores": len(os.sched_getaffinity(0)),
    }
    facts["memory_gib"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    facts["instructions"] = instruction_set([*sorted(DEPENDENT), "numpy"])
    if lacks_bf16():
        facts["bf16"] = (
            "no instructions for it: cpu-bf16 is five to nine times slower than cpu-fp32"
        )
    else:
        facts["bf16"] = "yes"
    facts["disk_free_gib"] = round(shutil.disk_usage(".").free / 2**30, 1)
    problems: list[str] = []
    for module, name, advice in (
        ("torch", "torch", "reinstall qfuse"),
        (
            "faiss",
            "faiss",
            "install the extra `cpu` (or `gpu`, never both); search can use torch instead",
        ),
        ("onnxruntime", "onnxruntime", "install the extra `onnx` to run ONNX models"),
        ("cv2", "opencv", "reinstall qfuse"),
        ("h5py", "h5py", "reinstall qfuse"),
        ("distributed", "distributed", "reinstall qfuse"),
    ):
        try:
            importlib.import_module(module)
            facts[name] = backend_version(name) if name != "faiss" else _faiss_version()
        except ImportError as error:
            facts[name] = "absent"
            problems.append(f"{name} does not import ({error}): {advice}.")
    if backend_version("faiss-cpu") != "absent" and backend_version("faiss-gpu") != "absent":
        problems.append(
            "faiss-cpu and faiss-gpu are both installed and overwrite each other: uninstall one."
        )
    try:
        import torch

        facts["gpu"] = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
    except ImportError:
        facts["gpu"] = "unknown"
    folders = model_folders()
    cards = all_cards(Context(PROFILES["cpu-fp32"]))
    there = [
        name
        for name, card in cards.items()
        if any(os.path.isfile(folder / card.file) for folder in folders)
    ]
    facts["weights"] = there
    facts["problems"] = problems
    kinds = {kind: [n for n, c in cards.items() if c.kind == kind] for kind in JOBS}
    lacking = {kind: names for kind, names in kinds.items() if not set(names) & set(there)}
    if as_json:
        emit(facts)
        return
    facts["weights"] = f"{', '.join(there) or 'none'} (`qfuse models list`; the demo needs none)"
    for name, value in facts.items():
        if name != "problems":
            say(f"{name:<14} {value}")
    for problem in problems:
        say(f"! {problem}")
    for kind, names in lacking.items():
        ways = [f"`qfuse models fetch {n}`" for n in names if cards[n].origin]
        way = f"{' or '.join(ways)} brings one" if ways else "bring your own (`qfuse models add`)"
        if kind == "quality":
            way += ", or use the method feature-norm or detector-score, which needs none"
        say(f"note: no {kind} model is here, so nothing can {JOBS[kind]} photographs: {way}")
    say("fine" if not problems else f"{counted(len(problems), 'problem')} to fix")


def _faiss_version() -> str:
    from pipeline.core.numerics import backend_version

    return next(
        (f"{v} ({n})" for n in ("faiss-cpu", "faiss-gpu") if (v := backend_version(n)) != "absent"),
        "unknown",
    )
