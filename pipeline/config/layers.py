"""The parts that make a config: what it extends, its benchmarks, the command line's overrides.

All of them are plain mappings that nobody has validated yet. Mappings merge, null removes, and the
later one wins: the file over what it extends, a benchmark over the rest of its file, `--set` over
both, so that the command line has the last word.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import InvalidInput, UsageError, in_words, unknown

Layer = dict[str, Any]
# the fields that a benchmark may have of its own
PARTIAL = ("dataset", "description", "factors", "numerics", "report", "steps")
# the fields that hold for all benchmarks of a file
_COMMON = ("base", "benchmark", "benchmarks", "extends", "models", "name", "run")
MAX_BENCHMARKS = 100  # each is a run of its own
# as of steps: it names a folder, and `--set benchmarks.NAME.…` names it
_NAME = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Override:
    """A value of the command line, and where it goes."""

    field: tuple[str, ...]
    value: Any


@dataclass(frozen=True)
class Layers:
    """The parts of one config, not merged yet.

    `benchmarks` are in the order of the file: none of a plain config, one where one was chosen.
    """

    path: Path
    common: Layer
    benchmarks: dict[str, Layer]
    chosen: bool
    overrides: tuple[Override, ...]
    as_typed: tuple[str, ...] = ()  # every override of the command line as it was written

    @property
    def several(self) -> bool:
        """Whether the file has benchmarks (one, perhaps) and none of them was chosen."""
        return bool(self.benchmarks) and not self.chosen

    def merged(self, benchmark: str = "") -> Layer:
        """Return the parts merged: with one benchmark's, or without any.

        Raises InvalidInput for what is not a section.
        """
        data = self.common
        if benchmark:
            data = {**merge(data, self.benchmarks[benchmark]), "benchmark": benchmark}
        self._need_removed()
        return overridden(data, self.overrides)

    def _need_removed(self) -> None:
        """Raise InvalidInput for a step or factor to be removed that no part of the config has."""
        for kind, name in (o.field for o in self.overrides if _removes(o)):
            parts = (part.get(kind) for part in (self.common, *self.benchmarks.values()))
            known = {str(each) for part in parts if isinstance(part, dict) for each in part}
            if name not in known:
                raise InvalidInput(
                    f"--set {kind}.{name}=null: {unknown(kind.removesuffix('s'), name[:60], known)}"
                )

    def only_benchmark(self) -> str:
        """Return the name of the only benchmark, "" of a plain config.

        Raises UsageError if there are several.
        """
        if len(self.benchmarks) > 1:
            names, first = ", ".join(self.benchmarks), next(iter(self.benchmarks))
            raise UsageError(
                f"{self.path} has the benchmarks {names}: choose one with --set benchmark={first}."
            )
        return next(iter(self.benchmarks), "")


def layers(
    path: Path,
    data: Layer,
    overrides: Iterable[Override],
    expand: Callable[[Any], Any],
    as_typed: tuple[str, ...] = (),
) -> Layers:
    """Return the parts of what a file says, with `benchmark` and `benchmarks` taken out of it.

    `expand` puts variables in.

    Raises InvalidInput for benchmarks that are not valid, UsageError if one is chosen that is not
    there.
    """
    overrides = tuple(overrides)
    early = [o for o in overrides if o.field[0] in ("benchmark", "benchmarks")]
    common = overridden(data, early)
    given, chosen = common.pop("benchmarks", None), expand(common.pop("benchmark", None))
    if isinstance(chosen, dict | list):
        raise InvalidInput(
            f"{path}: benchmark: expected the name of one benchmark; several stand in `benchmarks`."
        )
    known = data.get("benchmarks")
    for name in (o.field[1] for o in early if len(o.field) > 1):
        if isinstance(known, dict) and name not in known:
            raise UsageError(f"--set benchmarks.{name}: {unknown('benchmark', name[:60], known)}")
    benchmarks = {} if given is None else _benchmarks_of(path, given)
    if name := "" if chosen is None else str(chosen):
        if not benchmarks:
            raise UsageError(f"{path} has no `benchmarks`, so there is no {name!r:.60} to choose.")
        if name not in benchmarks:
            raise UsageError(f"{path}: {unknown('benchmark', name[:60], benchmarks)}")
        benchmarks = {name: benchmarks[name]}
    return Layers(
        path,
        common,
        benchmarks,
        bool(name),
        tuple(o for o in overrides if o not in early),
        as_typed,
    )


def _benchmarks_of(path: Path, given: Any) -> dict[str, Layer]:
    """Return the benchmarks of a file without those set to null.

    Raises InvalidInput for names and fields that they cannot have.
    """
    if not isinstance(given, dict):
        raise InvalidInput(
            f"{path}: benchmarks: expected a mapping of names to partial configs (found"
            f" {in_words(given)})"
        )
    if len(given) > MAX_BENCHMARKS:
        raise InvalidInput(
            f"{path}: {len(given):,} benchmarks, and a file may have {MAX_BENCHMARKS}: make several"
            " files."
        )
    for name, partial in given.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InvalidInput(
                f"{path}: benchmarks: {name!r:.60} is not a valid name: use letters, digits, - and"
                " _, in quotes if YAML does not take it for text."
            )
        where = f"{path}: benchmarks.{name}"
        if not isinstance(partial, dict | None):
            raise InvalidInput(f"{where}: expected a section of fields (found {in_words(partial)})")
        for field in partial or ():
            if field in _COMMON:
                raise InvalidInput(
                    f"{where}.{field}: a benchmark cannot have its own `{field}`; it may have"
                    f" {_listed()}."
                )
            if field not in PARTIAL:
                raise InvalidInput(f"{where}.{field}: {unknown('key', str(field), PARTIAL)}")
    kept = {name: partial for name, partial in given.items() if partial is not None}
    if not kept:
        raise InvalidInput(
            f"{path}: benchmarks: every one is left out; leave one, or take `benchmarks` out."
        )
    return kept


def _listed() -> str:
    return f"{', '.join(PARTIAL[:-1])} and {PARTIAL[-1]}"


def extended(base: Layer, over: Layer) -> Layer:
    """Return a file's parts merged over those of what it extends.

    A null of a benchmark is kept until what it removes has been merged in.
    """
    merged = merge(base, over)
    former, given = base.get("benchmarks"), over.get("benchmarks")
    if isinstance(former, dict) and isinstance(given, dict):
        merged["benchmarks"] = merge(former, given, keep=True)
    return merged


def merge(base: Layer, over: Layer, keep: bool = False) -> Layer:
    """Return `over` merged over `base`, and change neither.

    With `keep`, nulls stay: they remove something later.
    """
    merged = dict(base)
    for name, value in over.items():
        if value is None and not keep:
            merged.pop(name, None)
        elif isinstance(value, dict) and isinstance(merged.get(name), dict):
            merged[name] = merge(merged[name], value, keep)
        else:
            merged[name] = value
    return merged


def overridden(data: Layer, overrides: Iterable[Override]) -> Layer:
    """Return `data` with every override in its place, `data` unchanged.

    Raises InvalidInput for what is not a section.
    """
    data = dict(data)
    for override in overrides:
        section, (*parents, last) = data, override.field
        for part in parents:
            child = section.get(part, {})
            if not isinstance(child, dict):
                raise InvalidInput(f"--set {'.'.join(override.field)}: {part!r} is not a section.")
            section[part] = child = dict(child)
            section = child
        if _removes(override):
            section.pop(last, None)
        else:
            section[last] = override.value
    return data


def _removes(override: Override) -> bool:
    """Whether an override takes a step or a factor out.

    A null elsewhere is a value, as of an option.
    """
    return (
        override.value is None
        and len(override.field) == 2
        and override.field[0] in ("steps", "factors")
    )
