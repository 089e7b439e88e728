"""diff: two runs side by side; a difference is paired where the replicates drew the same subjects,
and says so where not.
"""

from __future__ import annotations

import copy
import json
import math
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from pipeline.errors import InvalidInput, UsageError
from pipeline.session import Results, plain
from stages.metrics import bootstrap
from stages.report import diff_text
from stages.report.report import write_report
from stages.results.diff import ABSENT, Change, Compared, Diff, changes, diff, mover
from stages.results.finished_runs import RecordedNumber, Run, find_run
from stages.results.quantities import Quantity
from stages.results.rule_table import Difference

Make = Callable[..., Run]
TINY: dict[str, Any] = {
    "name": "tiny",
    "dataset": {"reader": "synthetic", "options": {"scale": 0.004, "dimension": 8}},
    "factors": {"method": ["given", "feature-norm"], "rule": ["mean", "quality-linear"]},
    "steps": {
        "embed": {"options": {"model": "given", "flip": "none"}},
        "quality": {"options": {"method": "$method"}},
        "statistics": {},
        "fuse": {"options": {"rule": "$rule"}},
        "compare": {},
        "evaluate_verification": {"options": {"fmr": [1e-1, 1e-2], "replicates": 50}},
    },
    "report": {},
}


@pytest.fixture(scope="module")
def make(runs: Callable[..., Results], tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Run the tiny config with fields overridden, as in make(steps__fuse__options__media="mean"),
    and write its report.
    """
    made: dict[str, Run] = {}

    def run(report: Mapping[str, Any] | None = None, **fields: Any) -> Run:
        name = json.dumps([report, fields], sort_keys=True)
        if name not in made:
            config = copy.deepcopy(TINY)
            for path, value in fields.items():
                *sections, last = path.split("__")
                section = config
                for part in sections:
                    section = section[part]
                section[last] = value
            page = write_report(runs(config, tmp_path_factory.mktemp("run")), report or {})[0]
            made[name] = find_run(page.parent)
        return made[name]

    return run


@pytest.fixture(scope="module")
def tiny(make: Make) -> Run:
    return make()


@pytest.fixture(scope="module")
def weighted(make: Make) -> Run:
    return make(name="weighted", steps__fuse__options__media="weighted")


@pytest.fixture(scope="module")
def redrawn(make: Make) -> Run:
    return make(steps__evaluate_verification__options__seed=1)


def stored(run: Run, factors: Mapping[str, Any]) -> Mapping[Quantity, np.ndarray]:
    row = next(i for i, row in enumerate(run.record.rows) if row.factors == factors)
    drawn = run.drawn(row, "evaluate_verification")
    assert drawn is not None
    return drawn.replicates


def interval(replicates: np.ndarray) -> tuple[float, ...]:
    return tuple(map(float, bootstrap.interval(replicates)))


# -- differences
# --------------------------------------------------------------------------------------------------


def test_a_paired_difference_is_that_of_the_replicates(tiny: Run, weighted: Run) -> None:
    found = diff(tiny, weighted)
    assert len(found.compared) == len(tiny.record.table)
    for c in found.compared:
        assert c.unpaired == ""
        assert c.difference.value == (c.b.value or 0) - (c.a.value or 0)
        if c.a.low is not None:
            drawn = stored(weighted, c.factors)[c.quantity] - stored(tiny, c.factors)[c.quantity]
            assert (c.difference.low, c.difference.high) == pytest.approx(
                interval(drawn), abs=1e-12
            )


def test_what_is_drawn_gives_the_intervals_of_the_table_averaged_rows_included(make: Make) -> None:
    averaged = make(report={"average": "method", "baseline": {"rule": "mean"}})
    cells = {row.factors["rule"]: len(row.evaluations) for row in averaged.record.rows}
    assert cells == {"mean": 1, "quality-linear": 2}
    for i, row in enumerate(averaged.record.rows):
        for quantity, line in averaged.lines(i).items():
            if line.low is not None and line.value not in (0, 1):  # those reach to a bound
                found = interval(stored(averaged, row.factors)[quantity])
                assert found == pytest.approx((line.low, line.high), abs=1e-12)


def test_of_unequal_numbers_of_replicates_the_smaller_serves(tiny: Run, make: Make) -> None:
    more = make(
        steps__fuse__options__media="mean", steps__evaluate_verification__options__replicates=80
    )
    for c in diff(tiny, more).compared:
        if c.a.low is not None:
            drawn = stored(more, c.factors)[c.quantity][:50] - stored(tiny, c.factors)[c.quantity]
            assert c.unpaired == ""
            assert (c.difference.low, c.difference.high) == pytest.approx(
                interval(drawn), abs=1e-12
            )


def test_replicates_of_other_halves_of_the_subjects_are_not_paired(make: Make) -> None:
    a, b = (make(steps__evaluate_verification__options__half=half) for half in ("choose", "report"))
    found = [c for c in diff(a, b).compared if not math.isnan(c.difference.low)]
    assert {c.unpaired for c in found} == {"they are over other halves of the subjects"}


def test_replicates_of_other_seeds_are_not_paired(tiny: Run, redrawn: Run) -> None:
    found = [c for c in diff(tiny, redrawn).compared if c.a.low is not None]
    assert {c.unpaired for c in found} == {"their replicates were drawn with other seeds"}
    for c in found:
        assert c.difference.value == 0
        assert c.difference.low <= 0 <= c.difference.high
        assert not c.difference.clear


def test_replicates_over_other_subjects_are_not_paired(tiny: Run, make: Make) -> None:
    other = make(dataset__options={"scale": 0.004, "dimension": 8, "seed": 1})
    found = diff(tiny, other)
    assert not found.same_data
    assert {c.unpaired for c in found.compared if c.a.low is not None} == {
        "they are over other comparisons or subjects"
    }


def test_without_the_store_the_difference_is_unpaired_and_the_reason_is_given(
    weighted: Run, tiny: Run, tmp_path: Path
) -> None:
    record = json.loads((weighted.folder / "numbers.json").read_text())
    (tmp_path / "numbers.json").write_text(json.dumps({**record, "store": str(tmp_path / "gone")}))
    found = [c for c in diff(tiny, find_run(tmp_path)).compared if c.a.low is not None]
    assert {c.unpaired for c in found} == {"the replicates of B are not in the store any more"}


def test_a_run_that_was_moved_with_its_store_is_paired_still(
    weighted: Run, tiny: Run, tmp_path: Path
) -> None:
    record = json.loads((weighted.folder / "numbers.json").read_text())
    shutil.copytree(record["store"], tmp_path / "store")
    (tmp_path / "runs/moved").mkdir(parents=True)
    (tmp_path / "runs/moved/numbers.json").write_text(
        json.dumps({**record, "store": str(tmp_path / "gone")})
    )
    assert {c.unpaired for c in diff(tiny, find_run(tmp_path / "runs/moved")).compared} == {""}


def test_exchanging_the_runs_turns_every_difference_round(
    tiny: Run, weighted: Run, redrawn: Run
) -> None:
    for other in (weighted, redrawn):
        for c, turned in zip(diff(tiny, other).compared, diff(other, tiny).compared, strict=True):
            d = turned.difference
            mirrored = (-d.value, -d.high, -d.low)
            assert (c.difference.value, c.difference.low, c.difference.high) == pytest.approx(
                mirrored, nan_ok=True, abs=1e-12
            )
            assert c.direction == -turned.direction


@settings(deadline=None, max_examples=50)
@given(values=st.lists(st.floats(0, 1), min_size=6, max_size=6))
def test_an_unpaired_interval_holds_the_difference_and_adds_variances(values: list[float]) -> None:
    (low_a, a, high_a), (low_b, b, high_b) = sorted(values[:3]), sorted(values[3:])
    low, high = mover(a, low_a, high_a, b, low_b, high_b)
    assert low <= b - a <= high
    assert (b - a - low) ** 2 == pytest.approx((b - low_b) ** 2 + (high_a - a) ** 2, abs=1e-12)
    assert (high - b + a) ** 2 == pytest.approx((high_b - b) ** 2 + (a - low_a) ** 2, abs=1e-12)


@pytest.mark.parametrize(
    ("metric", "low", "high", "few", "direction"),
    [
        ("tar", 0.01, 0.03, False, 1),
        ("tar", -0.03, -0.01, False, -1),
        ("eer", 0.01, 0.03, False, -1),
        ("eer", -0.03, -0.01, False, 1),
        ("tar", -0.01, 0.03, False, 0),
        ("tar", 0.01, 0.03, True, 0),
        ("tar", math.nan, math.nan, False, 0),
        ("comparisons_lost", 1, 2, False, -1),
        ("comparisons_unlabelled", 1, 2, False, 0),
    ],
)
def test_the_direction_of_a_clear_difference_is_the_metrics(
    metric: str, low: float, high: float, few: bool, direction: int
) -> None:
    line = RecordedNumber(
        step="e",
        kind="1:1",
        metric=metric,
        target=None,
        threshold_rule="",
        value=0.5,
        low=0.4,
        high=0.6,
        few=few,
    )
    d = Difference((low + high) / 2, low, high, few)
    assert Compared({}, line.quantity, line, line, d, "").direction == direction


def test_equal_numbers_with_other_replicates_are_not_the_same() -> None:
    line = RecordedNumber(
        step="e",
        kind="1:1",
        metric="eer",
        target=None,
        threshold_rule="",
        value=0.5,
        low=0.4,
        high=0.6,
        few=False,
    )
    for low, high, same in ((0.0, 0.0, True), (-0.1, 0.1, False)):
        assert Compared({}, line.quantity, line, line, Difference(0.0, low, high), "").same is same


# -- what differs beside numbers
# --------------------------------------------------------------------------------------


def test_the_fields_that_differ_are_named_with_old_and_new(tiny: Run, weighted: Run) -> None:
    found = [
        (c.field, c.old, c.new, c.changes_numbers)
        for c in diff(tiny, weighted).fields
        if not c.field.startswith("run.")
    ]
    assert found == [
        ("name", "tiny", "weighted", False),
        ("steps.fuse.options.media", ABSENT, "weighted", True),
    ]


def test_a_field_that_is_equal_is_no_change_and_one_is_not_true() -> None:
    assert list(changes({"a": {"b": [1, 2]}}, {"a": {"b": [1, 2]}})) == []
    assert list(changes({"a": 1}, {"a": True})) == [Change("a", 1, True)]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (["mean", "best", "norm"], ["mean", "top-k"], "factors.rule  − best, norm; + top-k"),
        ([1, 2], [2, 1], "factors.rule  the same in another order"),
        ("a" * 60, "b", f"factors.rule  {'a' * 22}…{'a' * 14} → b"),
        ("a" * 30 + "b" + "a" * 30, "a" * 61, f"factors.rule  {'a' * 30}b{'a' * 30} → {'a' * 61}"),
        (ABSENT, {}, "factors.rule  (not given) → {}"),
    ],
)
def test_a_change_is_written_so_that_it_is_seen(tiny: Run, old: Any, new: Any, said: str) -> None:
    found = Diff(tiny, tiny, (Change("factors.rule", old, new),), (), ((), ()), (), (), (), ())
    assert said in [line.strip() for line in diff_text.heading(found)]


def test_rows_that_only_one_run_has_are_listed(tiny: Run, make: Make) -> None:
    other = make(factors={"method": ["given"], "rule": ["mean", "best"]})
    found = diff(tiny, other)
    assert sorted(row["method"] for row in found.only_a) == ["feature-norm", "given"]
    assert list(found.only_b) == [{"method": "given", "rule": "best"}]
    assert {tuple(c.factors.items()) for c in found.compared} == {(("rule", "mean"),)}
    assert any(line == "only in B: best · given" for line in diff_text.heading(found))


def test_runs_without_a_row_in_common_say_so(tiny: Run, make: Make) -> None:
    other = make(factors={"rule": ["best"], "method": ["given"]})
    assert list(diff_text.legend(diff(tiny, other))) == [
        "no row of A has the factors of a row of B, so no number is compared"
    ]


def test_equal_runs_are_said_to_be_equal(tiny: Run, make: Make) -> None:
    found = diff(tiny, make(name="again"))
    assert all(c.same for c in found.compared)
    assert list(diff_text.legend(found)) == [
        f"all {len(found.compared)} numbers are the same in both, to the last digit and replicate"
    ]


def test_a_config_that_has_changed_since_its_run_is_told(
    tiny: Run, weighted: Run, tmp_path: Path
) -> None:
    path = tmp_path / "c.yaml"
    config = {**TINY, "run": {"folder": str(tiny.folder)}}
    path.write_text(yaml.safe_dump({**config, "numerics": "cpu-bf16"}))
    said = list(diff_text.heading(diff(find_run(path), weighted)))
    assert "   its config has changed since this run (numerics): what follows is of the run" in said
    path.write_text(yaml.safe_dump(config))
    assert not any(
        "has changed" in line for line in diff_text.heading(diff(find_run(path), weighted))
    )


# -- which runs
# --------------------------------------------------------------------------------------------------


def test_a_run_is_found_by_folder_by_name_by_record_and_by_config(
    tiny: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny.folder, tmp_path / ".qfuse/runs/tiny")
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(TINY))
    for given_as in ("tiny", ".qfuse/runs/tiny", ".qfuse/runs/tiny/numbers.json", "c.yaml"):
        assert find_run(Path(given_as)).folder == tmp_path / ".qfuse/runs/tiny"
    with pytest.raises(InvalidInput, match="unknown run 'tinny': did you mean 'tiny'"):
        find_run(Path("tinny"))


def test_a_folder_of_something_else_hides_no_run(
    tiny: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny.folder, tmp_path / ".qfuse/runs/tiny")
    (tmp_path / "tiny").mkdir()  # of photographs, say
    assert find_run("tiny").folder == tmp_path / ".qfuse/runs/tiny"


@pytest.mark.parametrize(
    ("other", "what"), [("tiny", "a file"), ("tiny/numbers.json", "a run's folder")]
)
def test_a_name_that_is_also_another_run_here_is_refused_with_how_to_name_either(
    tiny: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str, what: str
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny.folder, tmp_path / ".qfuse/runs/tiny")
    (tmp_path / other).parent.mkdir(exist_ok=True)
    shutil.copy(tiny.folder / "numbers.json", tmp_path / other)
    said = (
        f"'tiny' is the name of a run, .qfuse/runs/tiny, and of {what} here: write .qfuse/runs/tiny"
        " for the run, or ./tiny"
    )
    with pytest.raises(UsageError, match=re.escape(said)):
        find_run("tiny")
    assert find_run(".qfuse/runs/tiny").folder == tmp_path / ".qfuse/runs/tiny"
    if "/" in other:
        assert find_run("./tiny").folder == tmp_path / "tiny"


def test_named_runs_are_looked_for_in_the_folder_that_is_given(tiny: Run, tmp_path: Path) -> None:
    shutil.copytree(tiny.folder, tmp_path / "elsewhere/tiny")
    assert find_run("tiny", tmp_path / "elsewhere").folder == tmp_path / "elsewhere/tiny"
    with pytest.raises(
        InvalidInput,
        match=f"did you mean 'tiny'.*looked for in {tmp_path}/elsewhere; `--runs FOLDER`",
    ):
        find_run("tinny", tmp_path / "elsewhere")


def test_a_run_is_not_compared_with_itself(tiny: Run) -> None:
    with pytest.raises(InvalidInput, match="the same run"):
        diff(tiny, find_run(tiny.folder / "numbers.json"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "holds no numbers.json"),
        ("{", "cannot be read"),
        ("[]", "`qfuse report CONFIG` writes it again"),
        ('{"table": []}', "older qfuse"),
        ('{"table": [], "rows": 3}', "rows: expected a list"),
    ],
)
def test_a_record_that_is_not_whole_is_refused_in_a_sentence(
    tmp_path: Path, text: str | None, said: str
) -> None:
    if text is not None:
        (tmp_path / "numbers.json").write_text(text)
    with pytest.raises(InvalidInput, match=said):
        find_run(tmp_path)


def test_a_config_that_has_not_run_is_told_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("c.yaml")
    path.write_text(yaml.safe_dump(TINY))
    with pytest.raises(InvalidInput, match=r"`qfuse run c.yaml` first"):
        find_run(path)
    path.write_text(
        yaml.safe_dump({name: value for name, value in TINY.items() if name != "report"})
    )
    with pytest.raises(InvalidInput, match=r"add `report: \{\}` to it"):
        find_run(path)


# -- text and JSON
# --------------------------------------------------------------------------------------------------


def printed(found: Diff, width: int, every: bool = False) -> list[str]:
    console = Console(width=width, markup=False, highlight=False)
    with console.capture() as capture:
        console.print(diff_text.numbers_table(found, every))
    return capture.get().splitlines()


@pytest.mark.parametrize("width", [100, 120])
def test_where_it_gets_narrow_names_give_way_and_no_number(
    tiny: Run, redrawn: Run, width: int
) -> None:
    for line in printed(diff(tiny, redrawn), width):
        assert len(line) <= width
        assert line.count("[") == line.count("]")
        assert "…" not in line.partition("…")[2]


def test_the_headline_comes_alone_and_all_is_shown_when_asked_for(tiny: Run, redrawn: Run) -> None:
    found = diff(tiny, redrawn)
    headline, every = diff_text.quantities(found, False), diff_text.quantities(found, True)
    assert headline == [named.quantity for named in tiny.record.headline]
    assert every[: len(headline)] == headline
    assert set(every) == {line.quantity for line in tiny.record.table}
    labels = [line.strip() for line in printed(found, 120, every=True)]
    assert all(q.label in labels for q in every)


def test_clear_differences_come_first_then_the_largest(tiny: Run, weighted: Run) -> None:
    found = diff(tiny, weighted)
    quantity, *_ = diff_text.quantities(found, False)
    lines = printed(found, 120, every=True)
    first = next(i for i, line in enumerate(lines) if line.strip() == quantity.label) + 1
    shown = [line.split("  ")[1] for line in lines[first : first + len(tiny.record.rows)]]
    rows = sorted(
        (c for c in found.compared if c.quantity == quantity),
        key=lambda c: (not c.difference.clear, -abs(c.difference.value)),
    )
    assert shown == [diff_text.name_of(c.factors) for c in rows]


def test_json_holds_every_number_of_both(tiny: Run, weighted: Run, redrawn: Run) -> None:
    for other, paired in ((weighted, True), (redrawn, False)):
        record = json.loads(
            json.dumps(plain(diff_text.to_json(diff(tiny, other))), allow_nan=False)
        )
        assert len(record["numbers"]) == len(tiny.record.table)
        for number in record["numbers"]:
            if number["a"]["low"] is not None:
                assert number["difference"]["paired"] is paired
                assert isinstance(number["difference"]["overlap"], bool)
