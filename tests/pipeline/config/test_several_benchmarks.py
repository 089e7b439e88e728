"""What a config of several benchmarks is: each merged, overridden, chosen or left out; or one
sentence on what is wrong.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.config import Config, config_of, load_config, load_layers
from pipeline.errors import InvalidInput, QfuseError, UsageError

REST = """\
name: all
dataset: {reader: toy, path: files, shard_rows: {faces: 4}}
factors: {power: [1, 2]}
steps: {measure: {}, power: {options: {power: $power}}}
report: {kind: pages, options: {a: 1}}
run: {folder: /runs/all}
"""
TWO = (
    REST
    + "benchmarks:\n  second: {dataset: {path: more}, report: null}\n  first: {factors: {power:"
    " [3]}}\n"
)


def load(folder: Path, text: str, *overrides: str) -> dict[str, Config]:
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    found = load_layers(folder / "config.yaml", overrides)
    return {name: config_of(found, name) for name in found.benchmarks or [""]}


def refused(folder: Path, text: str, *overrides: str, kind: type[QfuseError] = InvalidInput) -> str:
    with pytest.raises(kind) as caught:
        load(folder, text, *overrides)
    return str(caught.value)


def test_a_benchmark_is_the_rest_of_the_file_with_its_own_fields_merged_over_it(
    tmp_path: Path,
) -> None:
    configs = load(tmp_path, TWO)
    assert list(configs) == ["second", "first"]  # as in the file
    second, first = configs.values()
    assert (second.dataset.path, second.dataset.shard_rows) == ("more", {"faces": 4})
    assert (second.report, second.factors) == (None, {"power": [1, 2]})
    assert (first.dataset.path, first.factors) == ("files", {"power": [3]})
    assert first.report is not None


def test_a_benchmark_has_a_run_folder_and_a_name_below_the_configs(tmp_path: Path) -> None:
    second, _ = load(tmp_path, TWO).values()
    assert second.run_folder() == Path("/runs/all/second")
    assert (second.name, second.benchmark, second.full_name) == ("all", "second", "all · second")


def test_a_config_without_benchmarks_says_nothing_of_them(tmp_path: Path) -> None:
    (plain,) = load(tmp_path, REST).values()
    assert plain.run_folder() == Path("/runs/all")
    assert plain.full_name == "all"
    assert "benchmark" not in plain.model_dump()
    assert load(tmp_path, TWO)["first"].model_dump()["benchmark"] == "first"


def test_one_benchmark_is_chosen_by_the_command_line_or_the_file(tmp_path: Path) -> None:
    expected = load(tmp_path, TWO)["first"]
    for text, overrides in ((TWO, ["benchmark=first"]), (TWO + "benchmark: ${WHICH:-first}\n", [])):
        assert load(tmp_path, text, *overrides) == {"first": expected}
        assert load_config(tmp_path / "config.yaml", overrides) == expected


def test_where_one_config_is_needed_and_none_is_chosen_the_names_are_told(tmp_path: Path) -> None:
    load(tmp_path, TWO)
    sentence = (
        r"config.yaml has the benchmarks second, first: choose one with --set benchmark=second\."
    )
    with pytest.raises(UsageError, match=sentence):
        load_config(tmp_path / "config.yaml")
    assert (
        load_config(tmp_path / "config.yaml", ["benchmarks.second=null"]).benchmark == "first"
    )  # the only one


def test_a_benchmark_that_is_null_is_left_out(tmp_path: Path) -> None:
    assert list(load(tmp_path, TWO, "benchmarks.second=null")) == ["first"]
    assert list(load(tmp_path, TWO + "  third:\n")) == ["second", "first"]
    assert list(load(tmp_path, TWO, "benchmarks=null")) == [""]
    assert "every one is left out" in refused(
        tmp_path, TWO, "benchmarks.second=null", "benchmarks.first=null"
    )
    assert "every one is left out" in refused(tmp_path, REST + "benchmarks: {}\n")


def test_the_command_line_has_the_last_word_over_a_benchmarks_own_fields(tmp_path: Path) -> None:
    second, first = load(tmp_path, TWO, "dataset.path=third", "factors.power=[4]").values()
    assert second.dataset.path == first.dataset.path == "third"
    assert second.factors == first.factors == {"power": [4]}


def test_an_override_may_be_for_one_benchmark(tmp_path: Path) -> None:
    configs = load(tmp_path, TWO, "benchmarks.first.dataset.path=third")
    assert {name: config.dataset.path for name, config in configs.items()} == {
        "second": "more",
        "first": "third",
    }


@pytest.mark.parametrize("override", ["benchmarks.frist=null", "benchmarks.frist.description=x"])
def test_an_override_for_a_benchmark_that_is_not_there_is_refused(
    tmp_path: Path, override: str
) -> None:
    said = refused(tmp_path, TWO, override, kind=UsageError)
    assert "benchmarks.frist: unknown benchmark 'frist': did you mean 'first'" in said


def test_benchmarks_of_a_config_that_extends_another_are_merged_with_its(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(TWO)
    text = "extends: base.yaml\nbenchmarks: {second: null, first: {description: x}, third: {}}\n"
    configs = load(tmp_path, text)
    assert list(configs) == ["first", "third"]
    assert (configs["first"].factors, configs["first"].description) == ({"power": [3]}, "x")


def test_a_null_of_a_config_that_extends_another_removes_what_all_benchmarks_have(
    tmp_path: Path,
) -> None:
    (tmp_path / "base.yaml").write_text(TWO)
    configs = load(tmp_path, "extends: base.yaml\nbenchmarks: {first: {steps: {power: null}}}\n")
    assert list(configs["first"].steps) == ["measure"]
    assert list(configs["second"].steps) == ["measure", "power"]


@pytest.mark.parametrize(
    "field", ["name", "run", "extends", "benchmarks", "benchmark", "models", "base"]
)
def test_what_stands_for_all_benchmarks_is_refused_in_one(tmp_path: Path, field: str) -> None:
    sentence = refused(tmp_path, REST + f"benchmarks: {{a: {{{field}: x}}}}\n")
    assert (
        f"benchmarks.a.{field}: a benchmark cannot have its own `{field}`; it may have dataset,"
        " description," in sentence
    )


@pytest.mark.parametrize(
    ("benchmarks", "sentence"),
    [
        ("[a, b]", "benchmarks: expected a mapping of names to partial configs (found ['a', 'b'])"),
        ("{a: 3}", "benchmarks.a: expected a section of fields (found 3)"),
        (
            "{a: {dataste: {}}}",
            "benchmarks.a.dataste: unknown key 'dataste': did you mean 'dataset'?",
        ),
        ("{a: {3: {}}}", "benchmarks.a.3: unknown key '3': known are: dataset, description"),
        *(
            (f"{{{name}: {{}}}}", "is not a valid name: use letters, digits")
            for name in ("a.b", "../a", "a/b", "'a b'", "''", "1", "on", '"a\\n"')
        ),
    ],
)
def test_benchmarks_that_are_none_are_refused(
    tmp_path: Path, benchmarks: str, sentence: str
) -> None:
    assert sentence in refused(tmp_path, REST + f"benchmarks: {benchmarks}\n")


def test_a_choice_of_what_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "unknown benchmark 'frist': did you mean 'first'?" in refused(
        tmp_path, TWO, "benchmark=frist", kind=UsageError
    )
    assert "there is no 'first' to choose" in refused(
        tmp_path, REST, "benchmark=first", kind=UsageError
    )
    assert "expected the name of one benchmark" in refused(tmp_path, TWO, "benchmark=[first]")
    assert "expected the name of one benchmark" in refused(
        tmp_path, REST + "benchmark: {first: {}}\n"
    )


def test_a_misspelt_list_of_benchmarks_is_told_from_other_keys(tmp_path: Path) -> None:
    assert "unknown key 'benchmarsk': did you mean 'benchmarks'?" in refused(
        tmp_path, REST + "benchmarsk: {a: {}}\n"
    )


def test_what_is_wrong_with_one_benchmark_is_not_wrong_with_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ABSENT", raising=False)
    (tmp_path / "config.yaml").write_text(TWO.replace("path: more", "path: '${ABSENT}'"))
    found = load_layers(tmp_path / "config.yaml")
    assert config_of(found, "first").dataset.path == "files"
    with pytest.raises(InvalidInput, match="variable ABSENT is not set"):
        config_of(found, "second")


WORDS = st.sampled_from(["a", "b", "dataset", "steps", "path", "", "1"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(WORDS | st.integers(), inner, max_size=2)
    ),
    max_leaves=5,
)


@given(VALUES, VALUES)
@settings(max_examples=60, deadline=None)
def test_arbitrary_benchmarks_are_configs_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, benchmarks: Any, chosen: Any
) -> None:
    path = tmp_path_factory.getbasetemp() / "study.yaml"
    text = yaml.safe_dump({**yaml.safe_load(REST), "benchmarks": benchmarks, "benchmark": chosen})
    path.write_text(text, encoding="utf-8")
    with suppress(QfuseError):
        found = load_layers(path)
        for name in found.benchmarks:
            config_of(found, name)
