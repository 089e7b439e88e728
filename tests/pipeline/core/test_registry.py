"""What `pipeline.core.registry` promises: names for parts, the same for built-in and third-party
ones.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.core import registry
from pipeline.core.registry import available, lookup, register
from pipeline.errors import InvalidInput

MODULE = (
    "from pipeline.core.registry import register\n\n@register('test part', 'gear')\nclass Gear:\n  "
    "  teeth = {teeth}\n"
)


@pytest.fixture(autouse=True)
def _parts_of_this_test_only() -> Iterator[None]:
    yield
    for kind in ("test part", "another test part"):
        registry._parts.pop(kind, None)


def load(path: Path, name: str) -> None:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


def test_a_decorated_part_is_found_by_its_name_and_left_as_it_is() -> None:
    @register("test part", "wheel")
    class Wheel:
        pass

    assert lookup("test part", "wheel") is Wheel
    assert available("test part") == {"wheel": Wheel}


def test_an_unknown_part_is_refused_with_the_nearest_name() -> None:
    register("test part", "wheel")(object())
    with pytest.raises(InvalidInput, match="unknown test part 'weel': did you mean 'wheel'"):
        lookup("test part", "weel")


def test_of_a_kind_that_nothing_registers_nothing_is_known() -> None:
    assert available("no such kind") == {}
    with pytest.raises(InvalidInput, match="known are: none"):
        lookup("no such kind", "x")


def test_two_parts_of_one_name_are_refused_and_the_first_stays() -> None:
    first, second = object(), object()
    register("test part", "wheel")(first)
    with pytest.raises(ValueError, match="'wheel' is registered twice"):
        register("test part", "wheel")(second)
    assert lookup("test part", "wheel") is first


def test_a_name_may_mean_one_part_of_each_kind() -> None:
    first, second = object(), object()
    register("test part", "wheel")(first)
    register("another test part", "wheel")(second)
    assert (lookup("test part", "wheel"), lookup("another test part", "wheel")) == (first, second)


def test_a_module_that_is_loaded_again_replaces_its_parts(tmp_path: Path) -> None:
    # of another length: what was compiled is told from the source by time in seconds and size
    for teeth in 7, 11:
        (tmp_path / "gears.py").write_text(MODULE.format(teeth=teeth))
        load(tmp_path / "gears.py", "gears")
    assert lookup("test part", "gear").teeth == 11


def test_two_modules_do_not_replace_each_others_parts_though_the_classes_have_one_name(
    tmp_path: Path,
) -> None:
    (tmp_path / "gears.py").write_text(MODULE.format(teeth=7))
    load(tmp_path / "gears.py", "gears")
    with pytest.raises(ValueError, match="registered twice"):
        load(tmp_path / "gears.py", "other_gears")


def test_the_built_in_parts_come_by_entry_point() -> None:
    assert {"align", "embed", "fuse"} <= set(available("stage"))
    assert "synthetic" in available("reader")


def test_a_distribution_adds_parts_by_naming_a_module_as_an_entry_point(tmp_path: Path) -> None:
    (tmp_path / "gears.py").write_text(MODULE.format(teeth=7))
    meta = tmp_path / "gears-1.0.dist-info"
    meta.mkdir()
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: gears\nVersion: 1.0\n")
    (meta / "entry_points.txt").write_text("[qfuse.plugins]\ngears = gears\n")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pipeline.core.registry import lookup; "
    )
    code += "print(lookup('test part', 'gear').teeth, lookup('stage', 'embed').name)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["7", "embed"], done.stderr
