"""The folders explain the program: rooms in an order, imports that run down it only, and no circle
of files.
"""

from __future__ import annotations

import ast
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Each imports only what stands above it. CONTRIBUTING.md says what they are for.
ROOMS = (
    *(
        "pipeline.errors",
        "pipeline.system",
        "pipeline.files",
        "pipeline.config",
        "pipeline.core",
        "pipeline.store",
    ),
    *("pipeline.plan", "pipeline.run", "pipeline.session", "pipeline.cli"),
    *(
        "stages.shipped_files",
        "stages.exact",
        "stages.metrics",
        "stages.tables",
        "stages.datasets",
        "stages.datasets.ijb",
    ),
    *(
        "stages.networks",
        "stages.models",
        "stages.detectors",
        "stages.faces",
        "stages.quality",
        "stages.fusion",
        "stages.matching",
        "stages.evaluation",
    ),
    *(
        "stages.draw",
        "stages.results",
        "stages.explain",
        "stages.summary",
        "stages.report",
        "stages.commands",
        "stages.builtin",
    ),
)
MOST_FILES = 14


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def modules() -> dict[str, Path]:
    return {
        name_of(path): path
        for folder in ("pipeline", "stages")
        for path in (ROOT / folder).rglob("*.py")
    }


@cache
def imports() -> dict[str, set[str]]:
    """Of each module the modules of ours that it imports, wherever in it."""
    return {name: set(imported(path)) - {name} for name, path in modules().items()}


def imported(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            parts = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [part if part in modules() else node.module for part in parts]
    return [name for name in found if name in modules()]


def room_of(name: str) -> str:
    return max((room for room in ROOMS if f"{name}.".startswith(f"{room}.")), key=len)


def test_no_circle_of_files() -> None:
    try:
        TopologicalSorter(imports()).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


def test_imports_run_down_the_rooms_only() -> None:
    place = {room: i for i, room in enumerate(ROOMS)}
    upward = [
        f"{name} imports {other}"
        for name, others in imports().items()
        for other in others
        if {name, other}.isdisjoint({"pipeline", "stages"})
        and place[room_of(other)] > place[room_of(name)]
    ]
    assert not upward


def test_the_engine_knows_nothing_of_faces() -> None:
    assert not [
        name
        for name, others in imports().items()
        if name.startswith("pipeline") and "stages" in str(others)
    ]


FOLDERS = sorted({path.parent.relative_to(ROOT).as_posix() for path in modules().values()})


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_room_has_more_files_than_can_be_seen_at_once(folder: str) -> None:
    assert len(list((ROOT / folder).glob("*.py"))) <= MOST_FILES


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_room_says_in_a_line_what_it_is_for(folder: str) -> None:
    said = ast.get_docstring(ast.parse((ROOT / folder / "__init__.py").read_text(encoding="utf-8")))
    assert said is not None
    assert said.split("\n")[0].endswith(".")


# The ways back up: from a run to its plan and store, from a number to the stage that made it.
DEEPER = {"plan", "session", "reader", "stage"}


def test_whoever_formats_a_report_reads_what_was_derived_and_nothing_below_it() -> None:
    """`stages.report` gets plain data; only what registers a report asks for it to be derived."""
    read = {
        f"{path.name}: .{node.attr}"
        for path in (ROOT / "stages/report").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in DEEPER
    }
    assert not read
