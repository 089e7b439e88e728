"""`explain` and `diff` as a script meets them (`--json`, exit codes) and as a reader does."""

from __future__ import annotations

from pathlib import Path

import pytest
from e2e.conftest import CONFIG, REPORT, Answer, command, commands

Looks = dict[tuple[str, ...], Answer]
RULES = "factors: {rule: [mean, best]}\n"
HARD = "{scale: 0.004, dimension: 8}"  # large and hard enough that a change of fusion shows
CONFIGS = {
    "c.yaml": CONFIG.replace("rule: mean", "rule: $rule").replace("{scale: 0.001}", HARD)
    + RULES
    + REPORT,
    "one.yaml": CONFIG.replace("{scale: 0.001}", HARD),  # no report
    "fresh.yaml": CONFIG.replace("name: small", "name: fresh").replace("0.001", "0.002") + REPORT,
    "broken.yaml": "x: [",
}
PAIR = ("t000000", "t000016")
LINES: list[tuple[str, ...]] = [
    ("explain", "c.yaml", *PAIR),
    ("explain", "c.yaml", *PAIR, "--json"),
    ("explain", "c.yaml", *PAIR, "--where", "rule=best"),
    ("explain", "c.yaml", "t000000", "t000001", "--where", "rule=mean"),
    ("explain", "c.yaml", "t000000", "t99"),
    ("explain", "c.yaml", "t000000", "t000000"),
    ("explain", "c.yaml", *PAIR, "--where", "rule=worst"),
    ("explain", "c.yaml", *PAIR, "--set", "steps.embed.options.flip=concat"),
    ("explain", "fresh.yaml", *PAIR),
    ("explain", "gone.yaml", *PAIR),
    ("diff", "small", ".qfuse/runs/other"),
    ("diff", "small", "other", "--json"),
    ("diff", "small", "other", "--all"),
    ("diff", "c.yaml", "small"),
    ("diff", "c.yaml", "fresh.yaml"),
    ("diff", "small", "smal"),
    ("diff", ".qfuse/runs/small", "small", "--runs", ".qfuse"),
    ("diff", "small", ".qfuse/store"),
    ("diff", "small", "broken.yaml"),
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two finished runs, `small` and `other`."""
    folder = tmp_path_factory.mktemp("finished")
    for name, text in CONFIGS.items():
        (folder / name).write_text(text)
    done = commands(
        folder,
        [
            ("run", "c.yaml"),
            ("run", "c.yaml", "--set", "name=other", "--set", "steps.fuse.options.media=mean"),
        ],
    )
    assert [answer.code for answer in done.values()] == [0, 0]
    return folder


@pytest.fixture(scope="module")
def looks(finished: Path) -> Looks:
    """What is said of the finished runs, by words; none of them changes a file."""
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    answers = commands(finished, LINES)
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before
    return answers


def test_explain_shows_every_cell_and_how_to_see_the_faces_of_one(looks: Looks) -> None:
    said = looks["explain", "c.yaml", *PAIR].out
    assert "mated; row " in said
    assert "A  t000000: subject s00000, reference" in said
    assert [line.split()[0] for line in said.splitlines()[5:7]] == ["mean", "best"]
    assert "every face of one: --where rule=mean" in said
    assert max(map(len, said.splitlines())) <= 120


def test_explain_shows_the_faces_of_one_cell(looks: Looks) -> None:
    said = looks["explain", "c.yaml", *PAIR, "--where", "rule=best"].out
    cell = looks["explain", "c.yaml", *PAIR, "--json"].json["cells"][1]
    assert cell["factors"] == {"rule": "best"}
    best = [
        max(template["faces"], key=lambda face: face["weight"])["face"]
        for template in cell["templates"]
    ]
    assert all(
        any(face in line and "100.0 %" in line for line in said.splitlines()) for face in best
    )
    assert f"score {cell['score']:.6f}" in said
    assert max(map(len, said.splitlines())) <= 120


def test_explain_says_where_a_pair_is_not_among_the_comparisons(looks: Looks) -> None:
    assert (
        "not among the comparisons of this data set"
        in looks["explain", "c.yaml", "t000000", "t000001", "--where", "rule=mean"].out
    )


def test_diff_shows_fields_and_paired_differences(looks: Looks) -> None:
    said = looks["diff", "small", ".qfuse/runs/other"].out
    assert "steps.fuse.options.media  (not given) → mean" in said
    assert "changing no number: name" in said
    assert "TAR @ FMR ≤ 1e-3" in said
    assert "95 %, paired" in said
    assert "AUC" not in said
    assert "AUC" in looks["diff", "small", "other", "--all"].out
    assert max(map(len, said.splitlines())) <= 120


def test_diff_as_json_has_values_and_intervals_of_both(looks: Looks) -> None:
    record = looks["diff", "small", "other", "--json"].json
    assert record["same_data"]
    assert {number["factors"]["rule"] for number in record["numbers"]} == {"mean", "best"}
    (eer, _) = [number for number in record["numbers"] if number["metric"] == "eer"]
    assert eer["difference"]["paired"]
    assert eer["difference"]["value"] == eer["b"]["value"] - eer["a"]["value"]


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (("explain", "c.yaml", "t000000", "t99"), 3, "unknown template 't99': "),
        (("explain", "c.yaml", "t000000", "t000000"), 3, "given twice"),
        (("explain", "c.yaml", *PAIR, "--where", "rule=worst"), 2, "unknown value of rule 'worst'"),
        (
            ("explain", "c.yaml", *PAIR, "--set", "steps.embed.options.flip=concat"),
            3,
            "`qfuse run c.yaml` first",
        ),
        (("explain", "fresh.yaml", *PAIR), 3, "`qfuse run fresh.yaml` first"),
        (("explain", "gone.yaml", *PAIR), 3, "gone.yaml does not exist"),
        (("diff", "c.yaml", "small"), 3, "A and B are the same run"),
        (("diff", "c.yaml", "fresh.yaml"), 3, "`qfuse run fresh.yaml` first"),
        (("diff", "small", "smal"), 3, "did you mean 'small'"),
        (
            ("diff", ".qfuse/runs/small", "small", "--runs", ".qfuse"),
            3,
            "It was looked for in .qfuse; `--runs FOLDER`",
        ),
        (("diff", "small", ".qfuse/store"), 3, "not the folder of a finished run"),
        (("diff", "small", "broken.yaml"), 3, "broken.yaml: not valid YAML"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input_is_answered_with_a_sentence_and_its_exit_code(
    looks: Looks, line: tuple[str, ...], code: int, said: str
) -> None:
    assert (looks[line].code, looks[line].out) == (code, "")
    assert said in looks[line].err
    assert len(looks[line].err.splitlines()) == 1


def test_explain_needs_no_report(finished: Path) -> None:
    assert command(finished, "run", "one.yaml", "--set", "name=one").code == 0
    assert command(finished, "explain", "one.yaml", *PAIR, "--set", "name=one").out.startswith(
        "mated; row "
    )
