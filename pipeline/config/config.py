"""YAML → a validated `Config`.

A config may extend another (`extends: base.yaml`; mappings merge, null removes), have several
`benchmarks`, each merged over the rest of the file and a config of its own, name environment
variables (`${NAME:-default}`) and be overridden field by field (`--set
steps.embed.options.flip=none`). Unknown keys are refused with the nearest valid one. The `run`
section holds execution settings only: nothing in it enters a key.
"""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Hashable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    model_serializer,
)

from pipeline.config.layers import Layers, Override, extended, layers, overridden
from pipeline.config.origin import Origin
from pipeline.errors import InvalidInput, UsageError, counted, in_words, unknown
from pipeline.system.regular_file import NotRegular, open_regular

Scalar = str | int | float | bool
MAX_CHARACTERS = 256_000  # a page of text has a hundredth of that; reading so many takes seconds
MAX_EXTENDED = 20  # files, one extending the next
MAX_DEPTH = 50  # parts of an override's field
_SHOWN = 20  # wrong fields told at once
_CODE = Path(__file__).resolve().parents[2]
_SHIPPED = (_CODE / "configs", _CODE / "stages/data/configs")  # in a checkout, and installed


def _distinct(values: list[Scalar]) -> list[Scalar]:
    if min(len({str(value) for value in values}), len(set(values))) < len(values):
        raise ValueError(
            "a factor's values have to differ as text, because they name its cells, and as numbers"
            " (1, 1.0 and true are one)"
        )
    return values


StepName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
FactorValues = Annotated[list[Scalar], Field(min_length=1), AfterValidator(_distinct)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DatasetConfig(Section):
    """Which reader turns which files into tables, and how many rows of each axis make a shard."""

    reader: str
    path: str | None = None
    options: dict[str, Any] = {}
    shard_rows: dict[str, Annotated[int, Field(ge=1)]] = Field({}, examples=["{faces: 1024}"])


class StepConfig(Section):
    """One step of the DAG: a stage, where its inputs come from, its options."""

    stage: str | None = None
    inputs: dict[str, str] = Field({}, examples=["{quality: quality}"])
    options: dict[str, Any] = {}
    numerics: str | dict[str, Any] | None = None
    stored: bool | None = None


class ModelsConfig(Section):
    """More model cards beside the built-in ones, and the folders in which to look for weights."""

    cards: list[str] = []
    folders: list[str] = []


class RunConfig(Section):
    """Execution settings: none of them changes a number.

    Relative paths start at the config's `home`.
    """

    store: str = ".qfuse/store"
    folder: str | None = None
    workers: int | None = Field(None, ge=1, le=256)
    dask: str | None = None
    max_failures: float = Field(0.5, ge=0, le=1)
    # GB that a run may use; default: what the system says is free
    memory: float | None = Field(None, gt=0)
    # whether networks may be computed with several instruction sets, whose last bits differ
    mixed_instruction_sets: bool = False


class ReportConfig(Section):
    """What is made of the results when the run ends."""

    kind: str = "html"
    options: dict[str, Any] = {}


class Config(Section):
    """A whole experiment, on one data set.

    `benchmark`: which of its file's benchmarks it is, "" if there are none.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    description: str = ""
    dataset: DatasetConfig
    numerics: str | dict[str, Any] = "cpu-fp32"
    models: ModelsConfig = ModelsConfig()
    factors: dict[str, FactorValues] = Field({}, examples=["{rule: [mean, best]}"])
    steps: dict[StepName, StepConfig]
    report: ReportConfig | None = None
    run: RunConfig = RunConfig()
    base: Path = Path(".")  # the folder of the config file; relative paths start here
    benchmark: str = Field("", pattern=r"^[A-Za-z0-9_-]*$")
    _origin: Origin = PrivateAttr(Origin())

    @model_serializer(mode="wrap")
    def _dumped(self, dump: Any) -> dict[str, Any]:
        """A config that is no benchmark does not say so."""
        return {name: value for name, value in dump(self).items() if name != "benchmark" or value}

    @property
    def full_name(self) -> str:
        """The name that users are shown."""
        return f"{self.name} · {self.benchmark}" if self.benchmark else self.name

    def resolve(self, path: str) -> Path:
        """Return `path` relative to the config file's folder."""
        return (self.base / os.path.expanduser(path)).absolute()

    @property
    def origin(self) -> Origin:
        """What it was asked for by. Of a config that was not read from a file nothing is known."""
        return self._origin.of_benchmark(self.benchmark)

    @property
    def origin_of_all(self) -> Origin:
        """What its file was asked for by, with whatever was said of other benchmarks."""
        return self._origin

    @property
    def home(self) -> Path:
        """Where its store and its runs are: the folder of its file.

        Configs that ship with qfuse use the working folder.
        """
        base = self.base.resolve()
        return Path.cwd() if base in _SHIPPED else base

    def store_folder(self) -> Path:
        return self.home / os.path.expanduser(self.run.store)

    @property
    def cluster(self) -> str | None:
        """`run.dask`, as it is seen from any folder where it names a scheduler file."""
        file = self.home / os.path.expanduser(self.run.dask or "")
        return str(file) if os.path.isfile(file) else self.run.dask

    def run_folder(self) -> Path:
        """Return the folder of reports and logs."""
        return (
            self.home
            / os.path.expanduser(self.run.folder or f".qfuse/runs/{self.name}")
            / self.benchmark
        )


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read, merge, override and validate the config in a file.

    Of a file with several benchmarks, `benchmark` chooses one.

    Raises InvalidInput naming the file, the field, what was expected and what was found; UsageError
    for an override that is not FIELD=VALUE, and where several benchmarks are there and none is
    chosen.
    """
    found = load_layers(path, overrides)
    return config_of(found, found.only_benchmark())


def load_layers(path: Path, overrides: Sequence[str] = ()) -> Layers:
    """Read a config file and what it extends, not validated yet but for which benchmarks it has.

    Raises as `load_config`.
    """
    data, as_typed = _read_extended(path, ()), tuple(overrides)
    return layers(
        path,
        data,
        [_override(text) for text in as_typed],
        lambda value: _expand(value, str(path)),
        as_typed,
    )


def config_of(found: Layers, benchmark: str = "") -> Config:
    """Return the config of one benchmark, or of a file that has none.

    Raises InvalidInput, as `load_config`.
    """
    data = found.merged(benchmark)
    if "base" in data:
        raise InvalidInput(f"{found.path}: unknown key 'base'.")
    where = str(found.path)
    config: Config = validate(
        Config, {**_expand(data, where), "base": found.path.parent.absolute()}, where
    )
    config._origin = Origin.of(found.path, found.as_typed)
    return config


def report_of(found: Layers) -> ReportConfig | None:
    """Return the report section that stands for all benchmarks of a file.

    Raises InvalidInput if it is not valid.
    """
    overrides = [override for override in found.overrides if override.field[0] == "report"]
    section, where = overridden(found.common, overrides).get("report"), str(found.path)
    if section is None:
        return None
    validated: _OnlyReport = validate(_OnlyReport, {"report": _expand(section, where)}, where)
    return validated.report


class _OnlyReport(Section):
    report: ReportConfig


def _override(text: str) -> Override:
    name, separator, value = text.partition("=")
    if not separator or not name or name.count(".") >= MAX_DEPTH:
        raise UsageError(
            f"--set {text!r:.80}: expected FIELD=VALUE, as in --set steps.embed.options.flip=none."
        )
    return Override(tuple(name.split(".")), _parse(value, f"--set {text}"))


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
    return [
        _explain(model, same[0]) if len(same) == 1 else _explain_all(place, same)
        for place, same in found.items()
    ]


def _explain_all(location: Sequence[Any], same: Sequence[Any]) -> str:
    wanted = list(dict.fromkeys(map(_expected, same)))
    wanted = [each for each in wanted if each != "a whole number" or "a number" not in wanted]
    return f"{_at(location)}: expected {' or '.join(wanted)} (found {in_words(same[0]['input'])})"


# how pydantic calls one of several kinds
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
    """Return what a field should have held; "" for a sentence that pydantic has from us."""
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
        # two keys are no fields, because they are gone when a config is put together
        if parent is Config:
            known += get_close_matches(str(problem["loc"][-1]), ("benchmarks", "extends"), 1)
        return f"{location}: {unknown('key', str(problem['loc'][-1])[:60], known)}"
    # of a list of so many values
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


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a key given twice is an error, not a silent choice, and so is an alias.

    A page of aliases of aliases unfolds to more than any memory holds; a whole number of more than
    64 bits can be put in no key, and one of thousands of digits not even in a sentence.
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


def _parse(text: str, where: str, kind: str = "config") -> Any:
    if len(text) > MAX_CHARACTERS:
        raise InvalidInput(
            f"{where}: larger than {MAX_CHARACTERS // 1000} kB; a {kind} is a page of text."
        )
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  a SafeLoader
    # What scalars make of a tag that they do not fit, as `!!int ""` or a date before all dates: of
    # the last five.
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
    return _parse(text, str(path), kind)


def _read_extended(path: Path, children: tuple[Path, ...]) -> dict[str, Any]:
    data = read_yaml(path)
    if path.resolve() in children:
        raise InvalidInput(f"{path}: `extends` leads back to itself.")
    if len(children) > MAX_EXTENDED:
        raise InvalidInput(
            f"{path}: `extends` leads through more than {MAX_EXTENDED} files; put them together."
        )
    if not isinstance(data, dict):
        raise InvalidInput(f"{path}: expected a mapping of keys to values, found {in_words(data)}.")
    base = data.pop("extends", None)
    if base is None:
        return data
    if not isinstance(base, str):
        raise InvalidInput(f"{path}: `extends` takes one path, found {in_words(base)}.")
    return extended(_read_extended(path.parent / base, (*children, path.resolve())), data)


_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


def _expand(value: Any, where: str) -> Any:
    """Return `value` with environment variables put in.

    Raises InvalidInput for what no key or path can hold.
    """
    if isinstance(value, dict):
        return {name: _expand(item, where) for name, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, where) for item in value]
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
