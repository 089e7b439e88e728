"""A config of several benchmarks, through the real command: what is printed, what is kept, exit
codes.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from e2e.conftest import CONFIG, Answer, command, commands

BENCHMARKS = (
    "benchmarks:\n  lfw: {report: {}}\n  agedb_30: {report: {}, dataset: {options: {seed: 1}}}\n"
)
GONE = "  adience: {dataset: {reader: folder, path: nowhere, options: null}}\n"
UNTIL = ("--until", "embed")
NO_ADIENCE = ("--set", "benchmarks.adience=null")
Looks = dict[tuple[str, ...], Answer]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Answer]:
    """A folder in which a study of three has run, one of which has no data; and what was said."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "c.yaml").write_text(CONFIG + BENCHMARKS + GONE)
    return folder, command(folder, "run", "c.yaml", "--json")


@pytest.fixture(scope="module")
def looks(ran: tuple[Path, Answer]) -> Looks:
    """What verbs say of it; none of them changes it."""
    lines: list[tuple[str, ...]] = [
        ("run", "c.yaml", *NO_ADIENCE),
        ("run", "c.yaml"),
        ("plan", "c.yaml", *NO_ADIENCE),
        ("plan", "c.yaml", "--json"),
        ("plan", "c.yaml", "--set", "benchmark=lfw", "--json"),
        ("status", "c.yaml", *NO_ADIENCE),
        ("status", "c.yaml", "--json"),
        ("why", "c.yaml", "fuse"),
        ("why", "c.yaml", "fuse", "--set", "benchmark=agedb_30"),
        ("report", "c.yaml"),
        ("report", "c.yaml", "--set", "benchmark=lfw", "--json"),
        ("explain", "c.yaml", "a", "b"),
        ("diff", "c.yaml", "c.yaml"),
        ("build", "c.yaml", "t.h5"),
        ("reference", "c.yaml", "r.json"),
        ("check", "c.yaml", "--json"),
        ("check", "c.yaml", *NO_ADIENCE),
        ("store", "gc", "c.yaml", "--delete"),
    ]
    return commands(ran[0], lines)


def test_a_benchmark_without_data_is_told_and_the_others_run(ran: tuple[Path, Answer]) -> None:
    folder, answer = ran
    assert answer.code == 3
    assert re.search(r"^qfuse: adience: .*nowhere does not exist", answer.err)
    assert json.loads(answer.out)["report"] == []  # only benchmarks ask for one, each of its own
    found = json.loads(answer.out)["benchmarks"]
    assert list(found) == ["lfw", "agedb_30", "adience"]
    assert "nowhere does not exist" in found["adience"]["error"]
    for name in ("lfw", "agedb_30"):
        assert "evaluate_verification" in found[name]["ran"]
        assert found[name]["report"][0] == str(folder / ".qfuse/runs/small" / name / "report.html")
        assert Path(found[name]["report"][0]).is_file()


def test_a_run_has_a_heading_for_each_benchmark(looks: Looks) -> None:
    answer = looks["run", "c.yaml", *NO_ADIENCE]
    assert answer.code == 0
    assert [line for line in answer.out.splitlines() if line.startswith("small · ")] == [
        "small · lfw",
        "small · agedb_30",
    ]
    assert looks["run", "c.yaml"].code == 3


@pytest.mark.parametrize("verb", ["plan", "status"])
def test_plan_and_status_go_over_the_benchmarks(looks: Looks, verb: str) -> None:
    said = looks[verb, "c.yaml", *NO_ADIENCE]
    assert said.code == 0
    assert said.out.startswith("small · lfw\n")
    assert "\n\nsmall · agedb_30\n" in said.out
    answer = looks[verb, "c.yaml", "--json"]
    found = json.loads(answer.out)
    assert answer.code == 3
    assert list(found) == ["lfw", "agedb_30", "adience"]
    assert list(found["adience"]) == ["error"]
    assert {step["status"] for step in found["agedb_30"]["steps"]} <= {"present", "not needed"}


def test_a_chosen_benchmark_is_planned_as_a_plain_config_is(looks: Looks) -> None:
    among = json.loads(looks["plan", "c.yaml", "--json"].out)["lfw"]
    assert looks["plan", "c.yaml", "--set", "benchmark=lfw", "--json"].json == among
    assert "nothing to run" in looks["why", "c.yaml", "fuse", "--set", "benchmark=agedb_30"].out
    assert looks["report", "c.yaml", "--set", "benchmark=lfw", "--json"].code == 0


@pytest.mark.parametrize(
    "words",
    [
        ("why", "c.yaml", "fuse"),
        ("report", "c.yaml"),
        ("explain", "c.yaml", "a", "b"),
        ("build", "c.yaml", "t.h5"),
        ("reference", "c.yaml", "r.json"),
    ],
    ids=lambda words: words[0],
)
def test_a_verb_that_needs_one_config_names_the_benchmarks(
    looks: Looks, words: tuple[str, ...]
) -> None:
    answer = looks[words]
    assert answer.code == 2
    assert (
        "c.yaml has the benchmarks lfw, agedb_30, adience: choose one with --set benchmark=lfw."
        in answer.err
    )


def test_diff_takes_the_run_of_one_benchmark(looks: Looks) -> None:
    answer = looks["diff", "c.yaml", "c.yaml"]
    assert answer.code == 2
    assert (
        "c.yaml has the benchmarks lfw, agedb_30, adience: give the run of one, as NAME/lfw."
        in answer.err
    )


def test_check_looks_at_every_benchmark(looks: Looks) -> None:
    answer = looks["check", "c.yaml", "--json"]
    found = json.loads(answer.out)["benchmarks"]
    assert answer.code == 3
    assert [len(one["problems"]) for one in found.values()] == [0, 0, 1]
    assert "adience: c.yaml: " in answer.err
    fine = looks["check", "c.yaml", *NO_ADIENCE]
    assert fine.code == 0
    assert [line.partition(": fine.")[0] for line in fine.out.splitlines()] == [
        "c.yaml · lfw",
        "c.yaml · agedb_30",
    ]


def test_gc_deletes_nothing_where_one_benchmark_cannot_be_planned(
    ran: tuple[Path, Answer], looks: Looks
) -> None:
    answer = looks["store", "gc", "c.yaml", "--delete"]
    assert answer.code == 3
    assert "benchmark adience: " in answer.err
    assert list((ran[0] / ".qfuse/store/embed").glob("??/*.h5"))


def test_gc_keeps_what_any_benchmark_needs(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(CONFIG + BENCHMARKS)
    (tmp_path / "lfw.yaml").write_text(CONFIG)
    assert command(tmp_path, "run", "c.yaml", *UNTIL, "--json").code == 0
    store = tmp_path / ".qfuse/store"
    both = set(store.glob("embed/??/*.h5"))
    assert len(both) == 2
    answers = commands(
        tmp_path,
        [
            ("store", "gc", "c.yaml", "--delete"),
            ("store", "gc", "lfw.yaml", "--json"),
            ("run", "lfw.yaml", "--json"),
        ],
    )
    assert "nothing to delete" in answers["store", "gc", "c.yaml", "--delete"].out
    assert {path.stem for path in both} & {
        Path(p).stem for p in answers["store", "gc", "lfw.yaml", "--json"].json["files"]
    }
    assert (
        "embed" not in answers["run", "lfw.yaml", "--json"].json["ran"]
    )  # a benchmark's artifacts are a plain config's
    assert set(store.glob("embed/??/*.h5")) == both
