"""What is shown in Python is true: every `>>>` of documents and docstrings, and the notebook."""

from __future__ import annotations

import doctest
import importlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
SHOWN = [
    path.name
    for path in sorted((ROOT / "docs").glob("*.md"))
    if ">>>" in path.read_text(encoding="utf-8")
]
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for folder in ("pipeline", "stages")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


def test_documents_show_python() -> None:
    assert {"metrics.md", "python.md"} <= set(SHOWN)


@pytest.mark.parametrize("name", SHOWN)
def test_every_example_of_a_document_is_true(name: str) -> None:
    blocks = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / name).read_text(encoding="utf-8"), re.DOTALL
    )
    examples = "\n".join(block for block in blocks if ">>>" in block)
    shared: dict[str, Any] = {"np": np}
    found = doctest.DocTestRunner(verbose=False)
    found.run(doctest.DocTestParser().get_doctest(examples, shared, name, name, 0))
    assert found.tries > 3
    assert found.failures == 0


def test_functions_on_arrays_show_python() -> None:
    rooms = {name.split(".")[1] for name in MODULES}
    assert {"exact", "metrics", "tables", "fusion", "quality"} <= rooms


@pytest.mark.parametrize("name", MODULES)
def test_every_example_of_a_docstring_is_true(name: str) -> None:
    found = doctest.testmod(importlib.import_module(name), extraglobs={"np": np})
    assert found.attempted > 0
    assert found.failed == 0


def test_the_notebook_runs_from_top_to_bottom_and_shows_what_weighting_is_worth(
    capsys: pytest.CaptureFixture[str],
) -> None:
    notebook = json.loads((ROOT / "examples/first_look.ipynb").read_text(encoding="utf-8"))
    shared: dict[str, Any] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []  # whoever opens it sees their own
            exec("".join(cell["source"]), shared)  # noqa: S102
    lines = capsys.readouterr().out.splitlines()
    eer = {line.split()[0]: float(line.split()[-1]) for line in lines if "EER" in line}
    assert eer["quality-linear"] < eer["mean"]
    assert lines[-1].startswith("FNMR 0.20, after 20 % discard 0.1")
