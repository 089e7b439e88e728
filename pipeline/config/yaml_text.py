"""Text → values: YAML as configs are written in it, and the environment variables named in it."""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import InvalidInput
from pipeline.system.regular_file import NotRegular, open_regular

MAX_CHARACTERS = 256_000  # a hundred pages of text; reading as many takes seconds


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a key given twice is an error, not a silent choice, and so is an alias.

    A page of aliases of aliases would unfold to more than any memory holds. A whole number of more
    than 64 bits is refused too: no key can hold it, and one of thousands of digits fits no message.
    """

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            problem = (
                "aliases (*name) are not used here; write the value out, or quote a text that"
                " starts with *"
            )
            raise yaml.composer.ComposerError(None, None, problem, self.get_mark())
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable) or key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r:.60} given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        value: int = super().construct_yaml_int(node)
        if not -(2**63) <= value < 2**63:
            problem = "a whole number of more than 64 bits; quote it where it is a text"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return value


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def parse_yaml(text: str, where: str, kind: str = "config") -> Any:
    if len(text) > MAX_CHARACTERS:
        raise InvalidInput(
            f"{where}: larger than {MAX_CHARACTERS // 1000} kB; a {kind} is a page of text."
        )
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  a SafeLoader
    # The last five come from scalars that do not fit their tag, such as `!!int ""`, or an
    # impossible date.
    except (
        yaml.YAMLError,
        RecursionError,
        ValueError,
        LookupError,
        AttributeError,
        TypeError,
        ArithmeticError,
    ) as error:
        raise InvalidInput(f"{where}: not valid YAML ({' '.join(str(error).split())}).") from None


def read_yaml(path: Path, kind: str = "config") -> Any:
    """Return a YAML file's value.

    Raises InvalidInput, which asks for a `kind`, where it is missing or not YAML.
    """
    try:
        with io.TextIOWrapper(open_regular(path), encoding="utf-8") as file:
            text = file.read(MAX_CHARACTERS + 1)
    except FileNotFoundError:
        raise InvalidInput(f"{path} does not exist; give the path of a {kind} (.yaml).") from None
    except NotRegular as error:
        raise InvalidInput(
            f"{path}: {error.strerror}; give the path of a {kind} (.yaml)."
        ) from None
    except (OSError, ValueError) as error:
        raise InvalidInput(
            f"{str(path)!r} cannot be read as text ({error}); give the path of a {kind} (.yaml)."
        ) from None
    return parse_yaml(text, str(path), kind)


_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


def with_variables(value: Any, where: str) -> Any:
    """Return `value` with environment variables put in.

    Raises InvalidInput for what no key or path can hold.
    """
    if isinstance(value, dict):
        return {name: with_variables(item, where) for name, item in value.items()}
    if isinstance(value, list):
        return [with_variables(item, where) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidInput(f"{where}: {value} is not a setting; give a finite number.")
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        found = os.environ.get(match[1], match[2])
        if found is None:
            raise InvalidInput(
                f"{where}: the environment variable {match[1]} is not set, and there is no default."
            )
        return found

    value = _VARIABLE.sub(replace, value)
    if re.search(r"[\0\ud800-\udfff]", value):
        raise InvalidInput(
            f"{where}: {value!r:.60} is not text: it holds NUL, half a surrogate pair or what is"
            " not UTF-8."
        )
    return value
