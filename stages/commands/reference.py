"""The verb `qfuse steps`: every step, reader and rule with its options, and the config's schema."""

from __future__ import annotations

import ast
import inspect
import sys
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.terminal import AsJson, emit, say, show
from pipeline.errors import InvalidInput, unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table


PART_KINDS = {
    "stage": "step",
    "reader": "reader",
    "fusion rule": "fusion rule",
    "score rule": "score rule",
}


def steps(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="A step, reader or rule.")
    ] = None,
    schema: Annotated[
        bool,
        typer.Option(
            "--schema",
            help="Print the JSON Schema of configs, for editors that complete and check YAML.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the steps, readers and rules that configs may name, or describe one.

    The description of one has its options and their defaults.
    """
    if schema:
        emit(config_schema())
        return
    if name is None:
        found = list_parts()
        if as_json:
            emit(found)
        else:
            rows = [(each["kind"], each["name"], each["what"]) for each in found]
            show(_parts_table(("kind", "name", "what it is for"), rows, ("kind", "name")))
        return
    parts = describe_part(name)
    if as_json:
        emit(parts)
        return
    for part in parts:
        say(f"{part['kind']} {part['name']}: {part['what']}")
        for label, text in (("reads", ", ".join(part["reads"])), ("about", part["about"])):
            if text:
                say(f"\n{label}: {text}")
        if part["options"]:
            say("")
            headings = ["option", "default", "may be"]
            if any(o.get("what") for o in part["options"]):  # rules have no more to say
                headings.append("what it is")
            options: list[tuple[str, ...]] = [
                (o["name"], _default_text(o["default"]), o["may be"], o.get("what", ""))
                for o in part["options"]
            ]
            show(_parts_table(headings, [row[: len(headings)] for row in options], ("option",)))


def _default_text(default: Any) -> str:
    if default is None:
        return ""
    return ", ".join(map(str, default)) if isinstance(default, list | tuple) else str(default)


def list_parts() -> list[dict[str, str]]:
    """Return kind, name and purpose of every part that a config may name."""
    from pipeline.core.registry import available

    return [
        {"kind": word, "name": name, "what": _purpose(word, part)}
        for kind, word in PART_KINDS.items()
        for name, part in sorted(available(kind).items())
    ]


def describe_part(name: str) -> list[dict[str, Any]]:
    """Return what is known of the parts of a name, mostly one.

    Raises InvalidInput with the nearest name for an unknown one.
    """
    from pipeline.core.registry import available

    bare = name.partition("(")[0]  # quality-power(p=2) is the rule quality-power
    found = [
        (word, available(kind)[bare])
        for kind, word in PART_KINDS.items()
        if bare in available(kind)
    ]
    if not found:
        raise InvalidInput(
            unknown(
                "step, reader or rule",
                name,
                {each for kind in PART_KINDS for each in available(kind)},
            )
        )
    return [_described(word, bare, part) for word, part in found]


def _described(kind: str, name: str, part: Any) -> dict[str, Any]:
    rule = not hasattr(part, "Options")
    options = _parameters(part) if rule else _option_fields(part.Options)
    about = "" if rule else inspect.cleandoc(part.Options.__doc__ or "")
    if rule or kind == "reader":
        reads = []
    else:
        reads = [f"{key} from {step}" for key, step in getattr(part, "inputs", {}).items()]
    return {
        "kind": kind,
        "name": name,
        "what": _purpose(kind, part),
        "reads": reads,
        "about": about,
        "options": options,
    }


def _purpose(kind: str, part: Any) -> str:
    """Return the first sentence of a part's docstring: of fusion rules, mostly a formula."""
    text = " ".join(
        (inspect.getdoc(getattr(part, "function", part)) or "").split("\n\n")[0].split()
    )
    if kind == "fusion rule" and not part.vectors:
        return f"weight: {text[0].lower()}{text[1:]}"
    return text


def _parameters(rule: Any) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "default": p.default,
            "may be": p.refusal(float("nan")).removeprefix("a finite "),
        }
        for name, p in rule.parameters.items()
    ]


def _option_fields(options: Any) -> list[dict[str, Any]]:
    schema = options.model_json_schema()
    defined = schema.get("$defs", {})
    said = field_docstrings(options)
    return [
        {
            "name": name,
            "default": field.get("default"),
            "may be": _may_be(field, defined),
            "what": said.get(name, ""),
        }
        for name, field in schema.get("properties", {}).items()
    ]


def field_docstrings(options: Any) -> dict[str, str]:
    """Return the docstring below each field of a model, inherited ones too, by the field's name.

    They are read from the source, and only here: importing a class need not parse it.
    """
    said: dict[str, str] = {}
    for cls in reversed(options.__mro__):
        said |= _docstrings_of_module(cls.__module__).get(cls.__name__, {})
    return {name: said[name] for name in options.model_fields if name in said}


@cache
def _docstrings_of_module(name: str) -> dict[str, dict[str, str]]:
    """Return the docstrings below annotated names, by class; none of what is not ours to parse."""
    if name.partition(".")[0] in ("builtins", "pydantic"):
        return {}
    try:
        made = ast.parse(inspect.getsource(sys.modules[name]))
    except (OSError, TypeError, SyntaxError, KeyError):  # made in a notebook
        return {}
    said: dict[str, dict[str, str]] = {}
    for cls in made.body:
        if not isinstance(cls, ast.ClassDef):
            continue
        for field, below in pairwise(cls.body):
            match (field, below):
                case (
                    ast.AnnAssign(target=ast.Name(id=named)),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ):
                    said.setdefault(cls.name, {})[named] = inspect.cleandoc(text)
    return said


def _may_be(field: dict[str, Any], defined: dict[str, Any]) -> str:
    """Say in words what a field of a JSON Schema may hold."""
    if "$ref" in field:
        inner = defined[field["$ref"].rpartition("/")[2]]
        if "properties" in inner:
            return f"a section of {', '.join(inner['properties'])}"
        return _may_be(inner, defined)
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(_may_be(each, defined) for each in field["anyOf"]))
    if "enum" in field or "const" in field:
        return " or ".join(map(str, field.get("enum", [field.get("const")])))
    if field.get("type") == "array":
        each: dict[str, Any] = field.get("items") or next(iter(field.get("prefixItems", [{}])), {})
        return f"a list: {_may_be(each, defined)}"
    words = {
        "integer": "a whole number",
        "number": "a number",
        "string": "text",
        "boolean": "true or false",
    }
    words |= {"null": "null", "object": "a section"}
    bounds = {
        "minimum": "from",
        "exclusiveMinimum": "above",
        "maximum": "up to",
        "exclusiveMaximum": "below",
    }
    said = [words.get(str(field.get("type")), "anything")]
    return " ".join(
        [*said, *(f"{word} {field[bound]:g}" for bound, word in bounds.items() if bound in field)]
    )


def _parts_table(
    headings: Sequence[str], rows: Sequence[tuple[str, ...]], narrow: tuple[str, ...]
) -> Table:
    from stages.report.text_table import text_table

    table = text_table()
    for heading in headings:
        table.add_column(heading, no_wrap=heading in narrow, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def config_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of config files, with all installed options.

    It is for completion and early warning: a value may also be a factor's `$name` or an
    environment's `${NAME}`, and null removes what a config extends. `qfuse check` is the judge.
    """
    from pipeline.config.config import Config
    from pipeline.core.registry import available

    schema = Config.model_json_schema()
    defined: dict[str, Any] = schema["$defs"]
    step = defined["StepConfig"]
    # plug-ins that are installed are among them
    step["properties"]["stage"]["anyOf"][0] = {"enum": sorted(available("stage"))}
    known = {
        name: _step(name, part.Options, step, defined)
        for name, part in sorted(available("stage").items())
    }
    readers = [
        _reader(name, part.Options, defined) for name, part in sorted(available("reader").items())
    ]
    properties = {
        name: field
        for name, field in schema["properties"].items()
        if name not in ("base", "benchmark")
    }
    properties["steps"] = {
        "type": "object",
        "properties": known,
        "additionalProperties": _or_null(step),
    }
    reader = {"anyOf": [{"enum": sorted(available("reader"))}, _FACTOR_NAME]}
    properties["dataset"] = {
        "type": "object",
        "properties": {**defined["DatasetConfig"]["properties"], "reader": reader},
        "allOf": readers,
    }
    partly = {
        "type": "object",
        "properties": {k: v for k, v in properties.items() if k not in ("name", "models", "run")},
    }
    properties |= {
        "extends": {"type": "string"},
        "benchmarks": {"type": "object", "additionalProperties": partly},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A config of qfuse",
        "type": "object",
        "properties": {name: _or_null(field) for name, field in properties.items()},
        "additionalProperties": False,
        "$defs": {
            name: field
            for name, field in defined.items()
            if name not in ("StepConfig", "DatasetConfig")
        },
    }


def _step(name: str, options: Any, step: dict[str, Any], defined: dict[str, Any]) -> dict[str, Any]:
    given = _options_schema(options, defined)
    return _or_null({**step, "properties": {**step["properties"], "options": given}, "title": name})


def _reader(name: str, options: Any, defined: dict[str, Any]) -> dict[str, Any]:
    named = {"properties": {"reader": {"const": name}}, "required": ["reader"]}
    return {"if": named, "then": {"properties": {"options": _options_schema(options, defined)}}}


def _options_schema(options: Any, defined: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a part's options, of which each may be a factor's name as well."""
    schema = options.model_json_schema(ref_template="#/$defs/{model}")
    defined |= schema.pop("$defs", {})
    fields = schema.get("properties", {})
    for name, text in field_docstrings(options).items():
        fields[name]["description"] = text
    return {
        **schema,
        "properties": {
            name: {"anyOf": [field, _FACTOR_NAME, {"type": "null"}]}
            for name, field in fields.items()
        },
    }


_FACTOR_NAME = {"type": "string", "pattern": r"\$"}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}
