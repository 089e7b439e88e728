"""Whole commands on hostile data sets: configs that are nearly right, over images, archives and
tables that are not.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from pipeline.cli.main import main
from pipeline.cli.verbs import app
from stages.commands.models import models_app

from . import archives, documents, pictures, tables
from .guard import Breach
from .mutate import changed

_CODES = {0, 2, 3, 4, 5, 6}
_CROPS = {"align": {"options": {"detector": "none", "max_pixels": pictures.MAX_PIXELS}}}
_SCORES = {
    "embed": {"options": {"model": "given", "flip": "none"}},
    "quality": {"options": {"method": "given"}},
    "statistics": {},
    "fuse": {"options": {"rule": "quality-linear"}},
    "compare": {},
    "evaluate_verification": {"options": {"replicates": 5}},
}


def command(rng: Random, folder: Path) -> Callable[[], object]:
    """`check`, `plan`, `run` or `status`: it ends with a known exit code and, where that is not 0,
    with a sentence.
    """
    kind = rng.randrange(4)
    steps: dict[str, Any] = dict(_CROPS)
    if kind == 0:
        archives.zips(rng, folder)
        dataset: dict[str, Any] = {"reader": "folder", "path": "set.zip"}
    elif kind == 1:
        tables.tables(rng, folder)
        dataset, steps = {"reader": "tables", "path": "."}, dict(_SCORES)
    elif kind == 2:
        documents.pairs(rng, folder)
        dataset = {"reader": "lfw", "path": "."}
    else:
        (folder / "set/Ann").mkdir(parents=True)
        for i in range(rng.randint(1, 4)):
            (folder / f"set/Ann/{i}.jpg").write_bytes(pictures.photograph(rng))
        dataset = {"reader": "folder", "path": "set"}
    config: Any = {"name": "c", "dataset": dataset, "steps": steps}
    if rng.random() < 0.5:
        config = changed(rng, config, rng.choice((0.01, 0.05)))
    (folder / "c.yaml").write_text(json.dumps(config))
    (folder / "tmp").mkdir()
    verbs = rng.choice(
        (
            ["check"],
            ["check", "--json"],
            ["plan"],
            ["run"],
            ["run", "--json"],
            ["run", "--workers", "2"],
        )
    )

    def call() -> object:
        return [_ran(folder, verb, "c.yaml", *rest) for verb, *rest in (verbs, ["status"])]

    return call


def _ran(folder: Path, *words: str) -> int:
    here, arguments, out, err = Path.cwd(), sys.argv, io.StringIO(), io.StringIO()
    # `main` adds the verbs of plug-ins each time: it is made for one command a process.
    registered = [
        (group, list(group))
        for group in (
            app.registered_commands,
            app.registered_groups,
            models_app.registered_commands,
        )
    ]
    code: Any = 0
    try:
        os.chdir(folder)
        sys.argv, tempfile.tempdir = ["qfuse", *words], str(folder / "tmp")
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as end:
        code = end.code
    finally:
        os.chdir(here)
        sys.argv, tempfile.tempdir = arguments, None
        for group, before in registered:
            group[:] = before
    if code not in _CODES or "Traceback" in err.getvalue():
        raise Breach(f"qfuse {' '.join(words)} ended with {code}: {err.getvalue()[-200:]}")
    if code and not err.getvalue().strip():
        raise Breach(f"qfuse {' '.join(words)} ended with {code} and said nothing")
    return int(code)
