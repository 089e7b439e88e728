"""Where a verb may write its file: under a name of the file's form, in a folder that is there, and not among what is read."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from pipeline.config import Config
from pipeline.errors import InvalidInput, UsageError
from pipeline.files import is_free
from pipeline.session import store_root


def need_name(path: Path, form: str, *suffixes: str) -> None:
    """Raise UsageError where a name does not say that its file is of a form, InvalidInput where its folder is not there."""
    endings = " or ".join(suffixes)
    if not path.name:  # as of an empty name, which is the working folder
        raise UsageError(f"an empty name, or a folder's, is no file's: give a name that ends in {endings}.")
    if path.suffix.lower() not in suffixes:
        raise UsageError(f"{path}: {form} is written, so give a name that ends in {endings}, as NAME{suffixes[0]} does.")
    need_folder(path)


def need_folder(path: Path) -> None:
    """Raise InvalidInput where the folder is not there that a file or a folder is going to be written into."""
    if not os.path.lexists(path.parent):
        make = f"mkdir -p {shlex.quote(str(path.parent))}"
        raise InvalidInput(f"{path}: expected an existing folder, and there is no {path.parent}: `{make}` makes it.")


def absent(path: Path) -> None:
    """Raise InvalidInput where something is at `path`."""
    if not is_free(path):
        raise InvalidInput(f"{path} exists already; give another name, so that nothing is lost.")


def need_apart(path: Path, config: Config, store: Path | None) -> None:
    """Raise InvalidInput where a file would lie in the config's store, or among the files of its data set.

    A data set around the config itself is a project's folder, in which results are expected.
    """
    place, root = Path(os.path.realpath(path)), Path(os.path.realpath(store_root(config, store)))
    if place.is_relative_to(root):
        raise InvalidInput(f"{path} lies in the store {root}, where nothing but artifacts belongs: give another folder.")
    if config.dataset.path is None:
        return
    data = Path(os.path.realpath(config.resolve(config.dataset.path)))
    if place.is_relative_to(data) and not config.base.resolve().is_relative_to(data):
        raise InvalidInput(f"{path} lies in the data set {data}, which is only read: give another folder.")
