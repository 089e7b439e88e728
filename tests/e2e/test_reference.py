"""`qfuse steps`: what a config may name is listed with its options, and the schema fits every
config that ships.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from pipeline.core.registry import available
from pipeline.errors import InvalidInput
from stages.commands.reference import config_schema, describe_part, list_parts

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


def wrong(config: Any) -> list[str]:
    return [error.json_path for error in Draft202012Validator(config_schema()).iter_errors(config)]


def test_every_step_reader_and_rule_is_listed_with_what_it_is_for() -> None:
    found = {(each["kind"], each["name"]): each["what"] for each in list_parts()}
    assert {name for kind, name in found if kind == "step"} == set(available("stage"))
    assert {name for kind, name in found if kind == "fusion rule"} == set(available("fusion rule"))
    assert all(found.values()), [key for key, what in found.items() if not what]


@pytest.mark.parametrize("name", [each["name"] for each in list_parts()])
def test_every_part_is_described_with_every_option(name: str) -> None:
    for part in describe_part(name):
        kind = {"step": "stage"}.get(part["kind"], part["kind"])
        known = available(kind)[name]
        fields = known.Options.model_fields if hasattr(known, "Options") else known.parameters
        assert [option["name"] for option in part["options"]] == list(fields)
        assert all(
            option["may be"] and "anything" not in option["may be"] for option in part["options"]
        )


@pytest.mark.parametrize("name", [*available("stage"), *available("reader")])
def test_every_option_of_a_step_and_a_reader_says_what_it_is(name: str) -> None:
    for part in describe_part(name):
        assert [option["name"] for option in part["options"] if not option.get("what", "-")] == []


@pytest.mark.parametrize(
    ("dataset", "step"), [({"reader": "nope"}, {}), ({"reader": "lfw"}, {"stage": "nope"})]
)
def test_the_schema_knows_the_names_of_readers_and_steps(dataset: Any, step: Any) -> None:
    assert wrong({"name": "x", "dataset": dataset, "steps": {"embed": step}})


NUMBERS = [
    (kind, name, field)
    for kind in ("stage", "reader")
    for name, part in available(kind).items()
    for field, info in part.Options.model_fields.items()
    if info.annotation in (int, float)
]


@pytest.mark.parametrize(("kind", "name", "field"), NUMBERS)
def test_no_option_takes_true_for_a_number(kind: str, name: str, field: str) -> None:
    with pytest.raises(ValidationError, match="expected a number, which true and false are not"):
        available(kind)[name].Options.model_validate({field: True})


def test_options_are_told_in_words() -> None:
    (fuse,) = describe_part("fuse")
    assert {each["name"]: each["may be"] for each in fuse["options"]} == {
        "rule": "text",
        "features": "unit or raw",
        "media": "none or mean or weighted",
        "fallback": "equal or none or zero",
    }
    (power,) = describe_part("quality-power(p=3)")
    assert (power["what"], power["options"]) == (
        "weight: max(q, 0)^p.",
        [{"name": "p", "default": 2.0, "may be": "number above 0"}],
    )


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(
        InvalidInput,
        match="unknown step, reader or rule 'quality_linear': did you mean 'quality-linear'",
    ):
        describe_part("quality_linear")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_config_that_ships_fits_the_schema(path: Path) -> None:
    assert wrong(yaml.safe_load(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"steps": {"fuse": {"options": {"rul": "mean"}}}}, "$.steps"),
        ({"steps": {"search": {"options": {"k": "many"}}}}, "$.steps"),
        ({"dataset": {"reader": "folder", "options": {"templates": "person"}}}, "$.dataset"),
        ({"nam": "x"}, "$"),
    ],
)
def test_the_schema_finds_what_is_wrong(change: dict[str, Any], place: str) -> None:
    assert wrong({"name": "x", "dataset": {"reader": "folder"}, "steps": {}, **change}) == [place]


def test_factors_environment_names_and_null_fit_wherever_an_option_stands() -> None:
    options = {"rule": "$rule", "fallback": None}
    config = {
        "extends": "a.yaml",
        "steps": {"fuse": {"options": options}, "align": None},
        "report": None,
    }
    assert wrong(config) == []


def test_the_verb_prints_lists_descriptions_and_the_schema(qfuse: Callable[..., Any]) -> None:
    assert "quality-power" in qfuse("steps").out
    assert "none or mean or weighted" in qfuse("steps", "fuse").out
    assert json.loads(qfuse("steps", "fuse", "--json").out) == describe_part("fuse")
    assert json.loads(qfuse("steps", "--schema").out)["title"] == "A config of qfuse"
    answer = qfuse("steps", "fuze")
    assert answer.code == 3
    assert "did you mean 'fuse'" in answer.err
