"""YAML → a validated `Config`.

A config may extend another (`extends: base.yaml`; mappings merge, null removes), have several
`benchmarks`, each merged over the rest of the file and a config of its own, name environment
variables (`${NAME:-default}`) and be overridden field by field (`--set
steps.embed.options.flip=none`). Unknown keys are refused with the nearest valid one. The `run`
section holds execution settings only: nothing in it enters a key.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    field_validator,
    model_serializer,
)

from pipeline.config.layers import Layers, Override, extended, layers, overridden
from pipeline.config.origin import Origin
from pipeline.config.validation import no_boolean, validate
from pipeline.config.yaml_text import parse_yaml, read_yaml, with_variables
from pipeline.errors import InvalidInput, UsageError, in_words

Scalar = str | int | float | bool
MAX_EXTENDED = 20  # files, one extending the next
MAX_DEPTH = 50  # parts of an override's field
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
    _numbers = field_validator("*", mode="before")(no_boolean)


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
    """Which report is made of the results when the run ends."""

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
    # keys of a file that are no fields here: they are gone when a config has been put together
    MERGED_KEYS: ClassVar[tuple[str, ...]] = ("benchmarks", "extends")

    @model_serializer(mode="wrap")
    def _dumped(self, dump: Any) -> dict[str, Any]:
        """Leave `benchmark` out of the dump if it is empty."""
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
        """The file and overrides it was made from; empty if it was not read from a file."""
        return self._origin.of_benchmark(self.benchmark)

    @property
    def origin_of_all(self) -> Origin:
        """Its file and all overrides, with those of other benchmarks."""
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
        """`run.dask`; the path of a scheduler file is made absolute."""
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
    """Read a config file and what it extends; of all its fields only `benchmarks` is checked.

    Raises as `load_config`.
    """
    data, as_typed = _read_extended(path, ()), tuple(overrides)
    return layers(
        path,
        data,
        [_override(text) for text in as_typed],
        lambda value: with_variables(value, str(path)),
        as_typed,
    )


def config_of(found: Layers, benchmark: str = "") -> Config:
    """Return the config of one benchmark, or of a file without benchmarks.

    Raises InvalidInput, as `load_config`.
    """
    data = found.merged(benchmark)
    if "base" in data:
        raise InvalidInput(f"{found.path}: unknown key 'base'.")
    where = str(found.path)
    config: Config = validate(
        Config, {**with_variables(data, where), "base": found.path.parent.absolute()}, where
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
    validated: _OnlyReport = validate(
        _OnlyReport, {"report": with_variables(section, where)}, where
    )
    return validated.report


class _OnlyReport(Section):
    report: ReportConfig


def _override(text: str) -> Override:
    name, separator, value = text.partition("=")
    if not separator or not name or name.count(".") >= MAX_DEPTH:
        raise UsageError(
            f"--set {text!r:.80}: expected FIELD=VALUE, as in --set steps.embed.options.flip=none."
        )
    return Override(tuple(name.split(".")), parse_yaml(value, f"--set {text}"))


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
