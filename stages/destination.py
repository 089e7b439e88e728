"""Where a verb may write its file: under a name of the file's form, in a folder that is there, and not among what is read."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from pipeline.config import Config
from pipeline.errors import InvalidInput, ResourceRefused, UsageError
from pipeline.files import is_free
from pipeline.regular import obstacle
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
    """Raise InvalidInput where the folder that a file or a folder is going to be written into is not there, or no folder.

    Raises ResourceRefused where nothing may be written into it.
    """
    folder = path.parent
    if blocked := obstacle(folder):
        raise InvalidInput(f"{path} cannot be written: {blocked}.")
    if not folder.is_dir():
        make = f"mkdir -p {shlex.quote(str(folder))}"
        raise InvalidInput(f"{path}: expected an existing folder, and there is no {folder}: `{make}` makes it.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ResourceRefused(f"{path} cannot be written: no permission to write into {folder}; give another folder.")


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
