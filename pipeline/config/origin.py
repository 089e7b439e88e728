"""What a run was asked for by, so that reports of other overrides or other configs stay apart.

Two configs may have the same name.

A run's folder holds the report of the last run. `run.json` beside it says whose that is. Before the
report of another config or of other overrides is replaced, it is copied to `FOLDER+WHAT`, where
WHAT names them.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from pipeline.system.atomic_text import replace_text
from pipeline.system.canonical_json import canonical, key_of
from pipeline.system.regular_file import read_regular

_RECORD = "run.json"
# overrides that change no result, or the folder itself
_ELSEWHERE = r"(run|name|benchmark|models\.folders)(\.|$)"
_LONGEST = 120  # characters of a label; a folder's name has at most 255 bytes


@dataclass(frozen=True)
class Origin:
    """A config file, and the overrides (FIELD=VALUE) that may change its results or its report."""

    file: Path | None = None
    overrides: tuple[str, ...] = ()

    @classmethod
    def of(cls, file: Path, overrides: Sequence[str]) -> Origin:
        """Return the origin of a config file and all overrides of the command line.

        Of two overrides of one field the last counts.
        """
        last = {text.partition("=")[0]: text for text in overrides}
        kept = (text for name, text in last.items() if not re.match(_ELSEWHERE, name))
        return cls(file.parent.resolve() / file.name, tuple(sorted(kept)))

    def of_benchmark(self, name: str) -> Origin:
        """Return this origin without the overrides of other benchmarks."""
        own = f"benchmarks.{name}."
        return Origin(
            self.file,
            tuple(
                o for o in self.overrides if o.startswith(own) or not o.startswith("benchmarks.")
            ),
        )

    @property
    def command(self) -> str:
        """Return what a user wrote after the verb."""
        return " ".join(
            [
                self.file.name if self.file else "a config",
                *(f"--set {text}" for text in self.overrides),
            ]
        )

    def label(self, name: str) -> str:
        """Return what tells this origin from others of configs called `name`, as a folder name."""
        stem = [self.file.stem] if self.file and self.file.stem != name else []
        text = ",".join([*stem, *self.overrides]) or "plain"
        safe = re.sub(r"[^A-Za-z0-9._=,-]+", "_", text)[:_LONGEST]
        return safe if safe == text else f"{safe}-{key_of(text)[:8]}"


class _Record(BaseModel):
    """The record in a run folder that says whose report it holds.

    `config` is relative to the folder, so that both may move.
    """

    model_config = ConfigDict(extra="forbid")

    config: str | None
    overrides: tuple[str, ...]
    files: list[str]

    def origin(self, folder: Path) -> Origin:
        return Origin(
            Path(os.path.normpath(folder / self.config)) if self.config else None, self.overrides
        )


def kept_apart(
    folder: Path,
    name: str,
    origin: Origin,
    make: Callable[[], list[Path]],
    tell: Callable[[str], None],
) -> list[Path]:
    """Return the report's files that `make` writes into `folder`.

    Those of another origin are first copied out of the way.
    """
    former = _read(folder)
    if former is not None and (whose := former.origin(folder)) != origin:
        aside = _aside(folder, name, whose)
        files = [
            folder / file
            for file in former.files
            if file == Path(file).name and (folder / file).is_file()
        ]
        if files:
            aside.mkdir(parents=True, exist_ok=True)
            for file in files:
                shutil.copy2(file, aside)
            _write(aside, whose, former.files)
            tell(f"{folder} held the report of `{whose.command}`, which is now kept in {aside}.")
    made = make()
    _write(folder, origin, [file.name for file in made if file.parent == folder])
    return made


def report_folder(folder: Path, name: str, origin: Origin) -> Path:
    """Return where an origin's report is: in its `folder`, or beside it if that holds another's."""
    found = _read(folder)
    return (
        folder if found is None or found.origin(folder) == origin else _aside(folder, name, origin)
    )


def _aside(folder: Path, name: str, origin: Origin) -> Path:
    return folder.with_name(f"{folder.name}+{origin.label(name)}")


def _read(folder: Path) -> _Record | None:
    """Return a folder's record; None if there is none, or it is damaged."""
    try:
        return _Record.model_validate_json(read_regular(folder / _RECORD))
    except (OSError, ValueError):
        return None


def _write(folder: Path, origin: Origin, files: list[str]) -> None:
    config = os.path.relpath(origin.file, folder) if origin.file else None
    replace_text(
        folder / _RECORD,
        canonical({"config": config, "overrides": origin.overrides, "files": files}),
    )
