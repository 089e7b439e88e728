"""How a run, and other verbs, go over the benchmarks of a config: on toy stages, in this
process."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import toy
import typer
from laboratory import Lab

from pipeline.cli.config_benchmarks import attempted, check_all, live_artifacts, on_each
from pipeline.cli.run import run
from pipeline.config.config import Config, load_layers
from pipeline.core import registry
from pipeline.core.registry import register
from pipeline.errors import INTERRUPTED, Interrupted, InvalidInput, UsageError
from pipeline.session import Results
from pipeline.system.atomic_text import replace_text

Pages = list[dict[str, float]]


@pytest.fixture
def pages(toys: None) -> Iterator[Pages]:
    """A kind of report that has a page of all: for each one that is made, what it read of every
    benchmark.
    """
    made: Pages = []

    @register("report", "pages")
    def report(results: Results, options: Mapping[str, Any]) -> list[Path]:
        return [_written(results.folder / "page.txt", options)]

    @register("study report", "pages")
    def study(
        results: Sequence[tuple[str, Results]], folder: Path, options: Mapping[str, Any]
    ) -> list[Path]:
        if options.get("refuse"):
            raise InvalidInput("these have nothing in common.")
        made.append(
            {name: float(one.read(one.cells("overall")[0])["value"][0]) for name, one in results}
        )
        return [_written(folder / "all.txt", made[-1])]

    yield made
    for kind in ("report", "study report"):
        registry._parts[kind].pop("pages")


def _written(path: Path, value: Any) -> Path:
    replace_text(path, json.dumps(value))
    return path


@pytest.fixture
def study(lab: Lab, pages: Pages, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """The toy numbers, the same with another exponent, and a data set of two numbers."""
    (lab.root / "two").mkdir()
    for name, number in (("0.a", 1), ("1.b", 2)):
        (lab.root / "two" / name).write_text(str(number))
    benchmarks = {
        "toy": {},
        "cubed": {"factors": {"power": [3]}},
        "two": {"dataset": {"path": "two"}},
    }
    lab.configure(benchmarks=benchmarks, report={"kind": "pages"})
    monkeypatch.chdir(lab.root)
    toy.calls.clear()
    return lab


Run = Callable[..., Any]


@pytest.fixture
def ran(study: Lab, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the study; return the JSON that it prints, or what it says, with its exit code as
    `code`."""

    def once(*overrides: str, as_json: bool = True, **options: Any) -> Any:
        code = 0
        try:
            run(
                study.root / "config.yaml",
                list(overrides),
                study.root / "store",
                as_json=as_json,
                **options,
            )
        except typer.Exit as end:
            code = end.exit_code
        said = capsys.readouterr()
        return (json.loads(said.out) if as_json else said.out), said.err, code

    return once


def test_every_benchmark_runs_and_one_page_is_made_of_all(
    study: Lab, ran: Run, pages: Pages
) -> None:
    answer, _, code = ran()
    assert code == 0
    assert list(answer) == ["benchmarks", "report"]
    assert list(answer["benchmarks"]) == ["toy", "cubed", "two"]
    for name, one in answer["benchmarks"].items():
        assert one["report"] == [str(study.root / "run" / name / "page.txt")]
        assert (study.root / "run" / name / "plan.json").is_file()
    assert answer["report"] == [str(study.root / "run/all.txt")]
    (page,) = pages
    assert list(page) == ["toy", "cubed", "two"]
    assert page["two"] == 1 + 2


def test_what_benchmarks_have_in_common_is_computed_once(ran: Run) -> None:
    answer, _, _ = ran("benchmarks.two=null")
    assert toy.calls["measure"] == 22
    assert "measure" in answer["benchmarks"]["toy"]["ran"]
    assert answer["benchmarks"]["cubed"]["ran"] == [
        "power[power=3]",
        "total[power=3]",
        "nearest[power=3]",
    ]


def test_a_benchmark_alone_gives_what_it_gives_among_others(study: Lab, ran: Run) -> None:
    among = ran()[0]["benchmarks"]["two"]
    alone, _, _ = ran("benchmark=two")
    assert alone == {**among, "ran": [], "steps": {}}


def test_a_run_in_the_terminal_has_a_heading_for_each_benchmark_and_names_the_page_of_all_last(
    ran: Run,
) -> None:
    said, _, _ = ran(as_json=False)
    lines = said.splitlines()
    assert [line for line in lines if line.startswith("toy · ")] == [
        "toy · toy",
        "toy · cubed",
        "toy · two",
    ]
    assert lines[-1].startswith("report of toy, cubed, two: ")
    assert "nothing to do: all that toy · two asks for is in" in ran(as_json=False)[0]


def test_the_page_of_all_is_written_anew_only_where_something_changed(
    study: Lab, ran: Run, pages: Pages
) -> None:
    for _ in range(2):
        assert ran()[0]["report"] == [str(study.root / "run/all.txt")]
    assert len(pages) == 1
    ran("report.options.a=1")
    assert len(pages) == 2
    ran("benchmarks.cubed=null", "report.options.a=1")
    assert [list(page) for page in pages[2:]] == [["toy", "two"]]
    (study.root / "two/0.a").write_text("5")
    ran("benchmarks.cubed=null", "report.options.a=1")
    assert [page["two"] for page in pages[3:]] == [7.0]
    (study.root / "run/all.txt").unlink()
    ran("benchmarks.cubed=null", "report.options.a=1")
    assert len(pages) == 5


def test_no_page_of_all_where_steps_are_left_or_no_report_is_asked_for(
    ran: Run, pages: Pages
) -> None:
    assert ran(until="measure")[0]["report"] == []
    assert ran("report=null")[0]["report"] == []
    assert pages == []


def test_a_benchmarks_own_report_does_not_decide_on_the_page_of_all(ran: Run, pages: Pages) -> None:
    answer, _, _ = ran("benchmarks.toy.report=null", "benchmarks.two.report.options.b=1")
    assert len(answer["report"]) == 1
    assert answer["benchmarks"]["toy"]["report"] == []
    assert len(pages) == 1


def test_an_unknown_kind_of_report_is_told_once_before_anything_runs(ran: Run) -> None:
    with pytest.raises(InvalidInput, match="unknown report 'pagse': did you mean 'pages'"):
        ran("report.kind=pagse")
    assert not toy.calls


def test_what_one_benchmark_cannot_do_does_not_stop_the_others(
    study: Lab, ran: Run, pages: Pages
) -> None:
    answer, told, code = ran("benchmarks.cubed.dataset.path=nowhere")
    assert code == InvalidInput.exit_code
    assert told.startswith("qfuse: cubed: ")
    assert "nowhere does not exist" in told
    assert "nowhere does not exist" in answer["benchmarks"]["cubed"]["error"]
    assert list(pages[0]) == ["toy", "two"]
    said, told, code = ran("benchmarks.cubed.dataset.path=nowhere", as_json=False)
    assert (code, told.count("nowhere does not exist")) == (3, 1)
    assert "report of toy, two: " in said


def test_the_exit_code_is_that_of_the_first_error(study: Lab, ran: Run) -> None:
    (study.root / "two/0.a").write_text("?")
    wrong = ("benchmarks.two.dataset.path=two", "run.max_failures=0.1")
    assert ran(*wrong)[2] == 4
    assert ran(*wrong, "benchmarks.cubed.dataset.path=nowhere")[2] == 3


def test_where_every_benchmark_fails_there_is_no_page(ran: Run, pages: Pages) -> None:
    answer, told, code = ran("dataset.path=nowhere")
    assert (code, answer["report"], pages) == (3, [], [])
    assert [line.split(": ")[1] for line in told.splitlines()] == ["toy", "cubed", "two"]


def test_a_page_of_all_that_cannot_be_made_is_an_error_of_its_own(ran: Run) -> None:
    answer, told, code = ran("report.options.refuse=true")
    assert code == 3
    assert told == "qfuse: the report of all: these have nothing in common.\n"
    assert all("error" not in one for one in answer["benchmarks"].values())


def test_an_interruption_ends_everything_at_once(study: Lab) -> None:
    begun: list[str] = []

    def interrupted(config: Config) -> None:
        begun.append(config.benchmark)
        raise Interrupted(INTERRUPTED)

    with pytest.raises(Interrupted):
        attempted(load_layers(study.root / "config.yaml"), interrupted, quiet=True)
    assert begun == ["toy"]


def test_what_the_page_of_all_finds_damaged_is_computed_again(
    study: Lab, ran: Run, pages: Pages
) -> None:
    ran()
    damaged = next((study.root / "store" / "overall").glob("??/*.h5"))
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    # the pages of the benchmarks stay, so that nothing else reads it
    (study.root / "run/all.txt").unlink()
    answer, told, code = ran()
    assert code == 0
    assert "It was set aside" in told
    assert sum("overall" in one["ran"] for one in answer["benchmarks"].values()) >= 1
    assert pages[-1] == pages[0]


@pytest.mark.parametrize("name", ["report.of", "all.txt"])
@pytest.mark.parametrize(
    "content",
    [b"\xff", b"\0", b"", b"a" * 64, None],
    ids=["no UTF-8", "NUL", "empty", "other", "a folder"],
)
def test_a_damaged_page_of_all_is_made_again(
    study: Lab, ran: Run, pages: Pages, name: str, content: bytes | None
) -> None:
    ran()
    path = study.root / "run" / name
    path.unlink()
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    assert ran()[0]["report"] == [str(study.root / "run/all.txt")]
    assert len(pages) == 2
    ran()
    assert len(pages) == 2


# -- other verbs
# --------------------------------------------------------------------------------------------------


def test_a_verb_works_on_a_plain_config_as_it_is_and_on_several_by_name(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    def name(config: Config) -> str:
        if config.benchmark == "b":
            raise UsageError("b is shy.")
        return config.full_name

    path = lab.root / "config.yaml"
    on_each(path, None, name, as_json=True)
    assert json.loads(capsys.readouterr().out) == "toy"
    with pytest.raises(typer.Exit) as end:
        on_each(path, ["benchmarks.a={}", "benchmarks.b={}"], name, as_json=True)
    assert end.value.exit_code == 2
    said = capsys.readouterr()
    assert json.loads(said.out) == {"a": "toy · a", "b": {"error": "b is shy."}}
    assert said.err == "qfuse: b: b is shy.\n"


def test_what_any_benchmark_needs_is_kept_and_an_error_of_one_is_everybodys(
    study: Lab, ran: Run
) -> None:
    ran()
    path, store = study.root / "config.yaml", study.root / "store"
    every = live_artifacts(path, store)
    assert {name for name in every if name[0] == "overall"} == {
        (p.parent.parent.name, p.stem) for p in (store / "overall").glob("??/*.json")
    }
    os.rename(study.root / "two", study.root / "away")
    with pytest.raises(InvalidInput, match=r"^benchmark two: .*two does not exist"):
        live_artifacts(path, store)


def test_a_check_tells_what_is_wrong_by_benchmark(study: Lab) -> None:
    path = study.root / "config.yaml"
    found = check_all(
        path, ["benchmarks.cubed.dataset.path=nowhere", "benchmarks.two.factors.power=[]"]
    )
    assert [bool(one.problems) for one in found.values()] == [False, True, True]
    assert found["toy"].tables["faces"] == 22
    assert "nowhere does not exist" in found["cubed"].sentence
    assert "factors.power" in found["two"].sentence
    assert list(check_all(path, ["benchmark=toy"])) == [""]
    assert check_all(path, ["benchmarks=3"])[""].problems
