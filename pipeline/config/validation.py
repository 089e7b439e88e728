"""Values → a validated model, or a sentence in plain English for every field that is wrong."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError, ValidationInfo

from pipeline.errors import InvalidInput, counted, in_words, unknown


def no_boolean(cls: Any, value: Any, info: ValidationInfo) -> Any:
    """A field validator: `true` and `false`, which Python counts as 1 and 0, are no numbers."""
    kinds = str(cls.model_fields[str(info.field_name)].annotation)
    values = value if isinstance(value, list | tuple) else [value]
    if any(isinstance(each, bool) for each in values) and not re.search("bool|Any", kinds):
        wanted = "a number" if re.search("int|float", kinds) else "text"
        raise ValueError(f"expected {wanted}, which true and false are not")
    return value


_SHOWN = 20  # wrong fields that are named; more are counted


def validate(model: type[Any], data: Any, where: str) -> Any:
    """Return `model` validated from `data`.

    Raises InvalidInput with one line for every wrong field.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines = explained(model, error)
        lines = [
            *lines[:_SHOWN],
            *([f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []),
        ]
        raise InvalidInput(f"{where}: " + "; ".join(lines)) from None


def explained(model: Any, error: ValidationError) -> list[str]:
    """Return a plain sentence for every wrong field of `model`.

    A field that may be one of several kinds is told once.
    """
    found: dict[tuple[Any, ...], list[Any]] = {}
    for problem in error.errors():
        place = problem["loc"]
        of_a_kind = (
            bool(place)
            and str(place[-1]).partition("[")[0] in _KINDS
            and problem["type"] in _KINDS_OF
        )
        found.setdefault(place[:-1] if of_a_kind else place, []).append(problem)
    lines = [
        _explain(model, same[0]) if len(same) == 1 else _explain_all(place, same)
        for place, same in found.items()
    ]
    return list(dict.fromkeys(lines))  # a list that is too short is told once


def _explain_all(location: Sequence[Any], same: Sequence[Any]) -> str:
    wanted = list(dict.fromkeys(map(_expected, same)))
    wanted = [each for each in wanted if each != "a whole number" or "a number" not in wanted]
    return f"{_at(location)}: expected {' or '.join(wanted)} (found {in_words(same[0]['input'])})"


# pydantic's names for the kinds of a field that may be one of several
_KINDS = {"str", "int", "float", "bool", "dict", "list", "tuple"}


_KINDS_OF = {
    f"{kind}_{what}" for kind in (*_KINDS, "string") for what in ("type", "parsing", "from_float")
}


_EXPECTED = {
    **{
        "string_type": "text",
        "list_type": "a list",
        "tuple_type": "a list",
        "dict_type": "a section of fields",
    },
    **dict.fromkeys(
        ("int_type", "int_parsing", "int_from_float", "int_parsing_size"), "a whole number"
    ),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    "finite_number": "a finite number",
    "invalid_key": "a name that is text",
    "greater_than": "more than {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than": "less than {lt}",
    "less_than_equal": "{le} or less",
    "literal_error": "{expected}",
}


_PATTERNS = {
    r"^[A-Za-z0-9_-]+$": "letters, digits, - and _",
    r"^[A-Za-z0-9_-]*$": "letters, digits, - and _",
    r"^[A-Za-z0-9][A-Za-z0-9._-]*$": "letters, digits, '.', - and _, the first a letter or a digit",
    r"^[0-9a-f]{64}$": "64 hexadecimal digits in lower case",
}


def _expected(problem: Any) -> str:
    """Return what a field should have held; "" if the error's message is a sentence of ours."""
    kind, given = problem["type"], problem.get("ctx", {})
    if kind == "string_pattern_mismatch":
        return _PATTERNS.get(given["pattern"], f"text of the form {given['pattern']}")
    if kind == "too_short":
        return f"at least {counted(given['min_length'], 'value')}"
    if kind == "too_long":
        return f"at most {counted(given['max_length'], 'value')}"
    shown = {
        name: f"{value:,.12g}" if isinstance(value, float) else value
        for name, value in given.items()
    }
    return str(_EXPECTED[kind]).format(**shown) if kind in _EXPECTED else ""


def _at(location: Sequence[Any]) -> str:
    return ".".join(f"{part!s:.60}" for part in location) or "the whole file"


def _explain(model: Any, problem: Any) -> str:
    location = _at(problem["loc"])
    parent = _model_at(model, problem["loc"][:-1])
    if problem["type"] == "extra_forbidden":
        fields = parent.model_fields if parent else ()
        known = [name for name in fields if name not in ("base", "benchmark")]
        known += get_close_matches(str(problem["loc"][-1]), getattr(parent, "MERGED_KEYS", ()), 1)
        key = str(problem["loc"][-1])[:60]
        within = f" An option goes below options: {{options: {{{key}: …}}}}."
        return f"{location}: {unknown('key', key, known)}{within if 'options' in fields else ''}"
    # an index is missing: a list should have more values
    if problem["type"] == "missing" and isinstance(problem["loc"][-1], int):
        return (
            f"{_at(problem['loc'][:-1])}: expected more values (found {in_words(problem['input'])})"
        )
    if problem["type"] == "missing":
        return f"{location}: required, but not given"
    found = f" (found {in_words(problem['input'])})"
    if problem["type"] in ("model_type", "dict_type"):
        info = parent.model_fields.get(problem["loc"][-1]) if parent and problem["loc"] else None
        example = f", as {info.examples[0]}" if info and info.examples else ""
        return f"{location}: expected a section of fields{example}{found}"
    if expected := _expected(problem):
        return f"{location}: expected {expected}{found}"
    return f"{location}: {problem['msg'].removeprefix('Value error, ')}{found}"


def _model_at(model: Any, location: Sequence[Any]) -> Any:
    for part in location:
        fields = getattr(model, "model_fields", {})
        annotation = fields[part].annotation if part in fields else model
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        model = next(
            (c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), model
        )
    return model if isinstance(model, type) and issubclass(model, BaseModel) else None
