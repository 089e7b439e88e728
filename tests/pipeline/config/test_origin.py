"""A run's folder: where it is, and that no report of another config or of other overrides is lost
in it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cli.config_benchmarks import store_of
from pipeline.cli.store import store_gc
from pipeline.config.config import config_of, load_config, load_layers
from pipeline.config.origin import Origin, kept_apart, report_folder
from pipeline.errors import UsageError
from pipeline.session import other_store
from pipeline.store.store import Store

ROOT = Path(__file__).resolve().parents[3]
PLAIN = "name: people\ndataset: {reader: toy, path: files}\nsteps: {measure: {}}\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a config, seen from a folder beside it."""
    (tmp_path / "project").mkdir()
    (tmp_path / "project/people.yaml").write_text(PLAIN)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "project"


def test_store_and_runs_are_beside_the_config_whatever_the_working_folder(project: Path) -> None:
    config = load_config(Path("../project/people.yaml"))
    assert config.store_folder() == project / ".qfuse/store"
    assert config.run_folder() == project / ".qfuse/runs/people"
    assert store_of(Path("../project/people.yaml")) == project / ".qfuse/store"


def test_relative_paths_of_the_run_section_start_at_the_config_and_absolute_ones_stay(
    project: Path,
) -> None:
    (project / "scheduler.json").write_text("{}")
    config = load_config(
        project / "people.yaml",
        ["run.store=s", "run.folder=/elsewhere/r", "run.dask=scheduler.json"],
    )
    assert config.store_folder() == project / "s"
    assert config.run_folder() == Path("/elsewhere/r")
    assert config.cluster == str(project / "scheduler.json")


def test_a_config_that_ships_with_qfuse_keeps_its_store_and_runs_in_the_working_folder(
    project: Path,
) -> None:
    config = load_config(ROOT / "configs/demo.yaml")
    assert config.store_folder() == Path.cwd() / ".qfuse/store"
    assert config.run_folder() == Path.cwd() / ".qfuse/runs/demo"


def test_a_store_in_the_working_folder_is_told_of_until_the_config_has_its_own(
    project: Path,
) -> None:
    config = load_config(project / "people.yaml")
    assert other_store(config, None) is None
    Store(Path.cwd() / ".qfuse/store")
    told = other_store(config, None)
    assert told is not None
    assert f"give --store {Path.cwd() / '.qfuse/store'}" in told
    assert other_store(config, Path("any")) is None
    Store(project / ".qfuse/store")
    assert other_store(config, None) is None


def test_gc_takes_the_store_of_its_configs_and_wants_one_chosen_if_they_have_several(
    project: Path,
) -> None:
    Path("other.yaml").write_text(PLAIN)
    with pytest.raises(UsageError, match=r"have stores of their own .* choose one with --store"):
        store_gc([project / "people.yaml", Path("other.yaml")])


def made(
    folder: Path, text: str, names: tuple[str, ...] = ("report.html", "numbers.json")
) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text(text)
    return [folder / name for name in names]


def asked(project: Path, *overrides: str, file: str = "people.yaml") -> Origin:
    return Origin.of(project / file, overrides)


def reported(project: Path, origin: Origin, text: str) -> list[str]:
    """Write a report of `text` into the run's folder; return what is told."""
    folder, told = project / "runs/people", list[str]()
    kept_apart(folder, "people", origin, lambda: made(folder, text), told.append)
    return told


def report_of(project: Path, origin: Origin) -> str:
    return (report_folder(project / "runs/people", "people", origin) / "numbers.json").read_text()


def test_reports_of_other_overrides_and_of_other_configs_of_the_name_are_kept_and_found(
    project: Path,
) -> None:
    runs = [
        (asked(project), "plain"),
        (asked(project, "steps.a.options.flip=none"), "none"),
        (asked(project, "steps.a.options.flip=add", "factors.rule=[a, b]"), "add"),
        (asked(project, file="copy.yaml"), "copy"),
        (asked(project, "steps.a.options.flip=none", file="copy.yaml"), "copy, none"),
    ]
    for origin, text in runs:
        reported(project, origin, text)
    assert [report_of(project, origin) for origin, _ in runs] == [text for _, text in runs]
    assert (project / "runs/people+steps.a.options.flip=none/report.html").read_text() == "none"


def test_a_report_that_makes_way_is_told_with_what_it_was_asked_for_by_and_its_place(
    project: Path,
) -> None:
    assert reported(project, asked(project, "steps.a.options.flip=none"), "none") == []
    (told,) = reported(project, asked(project), "plain")
    assert "of `people.yaml --set steps.a.options.flip=none`" in told
    assert str(project / "runs/people+steps.a.options.flip=none") in told


def test_a_report_of_the_same_config_and_overrides_is_replaced_in_its_place(project: Path) -> None:
    # The order of overrides, and those that change no result, are no difference; the last of one
    # field counts.
    first = asked(project, "a.b=1", "c.d=0", "c.d=2", "run.workers=1", "models.folders=[x]")
    again = asked(project, "c.d=2", "a.b=1", "run.workers=2")
    reported(project, first, "old")
    assert reported(project, again, "new") == []
    assert [path.name for path in (project / "runs").iterdir()] == ["people"]


def test_a_report_that_cannot_be_made_takes_nothing_away(project: Path) -> None:
    reported(project, asked(project), "plain")

    def fail() -> list[Path]:
        raise ValueError("no such option")

    with pytest.raises(ValueError, match="no such option"):
        kept_apart(
            project / "runs/people", "people", asked(project, "a.b=1"), fail, lambda told: None
        )
    assert report_of(project, asked(project)) == "plain"


@pytest.mark.parametrize(
    "damage",
    [b"", b"\xff", b"[]", b'{"config": 1}', b'{"config":null,"overrides":[],"files":["../x"]}'],
)
def test_a_damaged_record_costs_nothing_but_the_copy(project: Path, damage: bytes) -> None:
    made(project / "runs/people", "old")
    (project / "runs/x").write_text("not a file of the report")
    (project / "runs/people/run.json").write_bytes(damage)
    reported(project, asked(project), "new")
    assert report_of(project, asked(project)) == "new"
    assert sorted(path.name for path in (project / "runs").iterdir()) == ["people", "x"]


def test_a_project_that_moved_knows_its_reports(project: Path) -> None:
    reported(project, asked(project), "plain")
    project.rename(project.with_name("moved"))
    moved = project.with_name("moved")
    assert reported(moved, asked(moved), "again") == []


@pytest.mark.parametrize("value", ["../../x", "a/b", "[" + "mean, " * 99 + "]", "\x1b[31m", "ü"])
def test_the_name_of_a_kept_folder_is_plain_and_tells_any_two_values_apart(
    project: Path, value: str
) -> None:
    labels = {asked(project, f"a.b={value}{more}").label("people") for more in ("", "'")}
    assert len(labels) == 2
    assert all(len(label) < 150 and label.isascii() and "/" not in label for label in labels)


def test_overrides_of_other_benchmarks_are_none_of_a_benchmark(project: Path) -> None:
    (project / "two.yaml").write_text(PLAIN + "benchmarks: {one: {}, two: {}}\n")
    found = load_layers(
        project / "two.yaml",
        ["benchmarks.two=null", "benchmarks.one.numerics=cpu-bf16", "factors={}"],
    )
    config = config_of(found, "one")
    assert config.origin.overrides == ("benchmarks.one.numerics=cpu-bf16", "factors={}")
    assert len(config.origin_of_all.overrides) == 3
