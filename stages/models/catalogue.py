"""Model names → cards → opened models.

A process opens a model once for each pair of weights and numerics profile.
"""

from __future__ import annotations

import fcntl
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import yaml

from pipeline.config.yaml_text import read_yaml
from pipeline.core.numerics import Profile
from pipeline.core.stage import Context
from pipeline.errors import InvalidInput, cannot_write
from pipeline.system.atomic_text import replace_text
from pipeline.system.regular_file import read_regular
from stages.models.cards import (
    ModelCard,
    WeightFile,
    card_named,
    find_weights,
    how_to_declare,
    read_cards,
    read_weights,
)
from stages.shipped_files import resource

T = TypeVar("T")
_opened: dict[Any, Any] = {}
_lock = threading.Lock()
_cards: dict[Any, dict[str, ModelCard]] = {}

# The file of cards in a folder of weights, which `qfuse models add` writes.
OWN_CARDS = "cards.yaml"
# What of a card never changes a number.
_PROSE = {"name", "file", "bytes", "licence", "page", "training", "scored", "notes", "origin"}


def all_cards(context: Context) -> dict[str, ModelCard]:
    """Return the built-in cards and those of the config, which may replace built-in ones."""
    beside = [folder / OWN_CARDS for folder in reversed(context.model_folders)]
    paths = (
        resource("data_manifests/models.yaml"),
        *(path for path in beside if os.path.isfile(path)),
        *context.model_cards,
    )
    known = tuple((path, _changed(path)) for path in paths)
    if known not in _cards:
        _cards[known] = {name: card for path in paths for name, card in read_cards(path).items()}
    return _cards[known]


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def card(context: Context, name: str, kinds: tuple[str, ...]) -> ModelCard:
    """Return the card of a model of one of these kinds.

    Raises InvalidInput with the nearest name if there is none, or if it is of another kind.
    """
    every = all_cards(context)
    cards = {key: value for key, value in every.items() if value.kind in kinds}
    if name in every and name not in cards:
        raise InvalidInput(
            f"model {name!r} is of kind {every[name].kind}, and here one of kind"
            f" {' or '.join(kinds)} is needed: {', '.join(cards)}."
        )
    return card_named(cards, name)


def identity(found: ModelCard) -> dict[str, Any]:
    """Return what of a card decides numbers: digest, preprocessing, outputs."""
    return found.model_dump(mode="json", exclude=_PROSE)


def backends(found: ModelCard, profile: Profile) -> tuple[str, ...]:
    """Return the libraries that compute this model under a numerics profile."""
    engine = {"onnx": profile.engine, "scrfd": "onnxruntime", "yunet": "opencv"}.get(
        found.architecture, "torch"
    )
    return tuple(dict.fromkeys((engine, "opencv")))


def open_once(
    context: Context, found: ModelCard, make: Callable[[WeightFile], T], options: str = ""
) -> T:
    """Return what `make` opens of the card's checked weights; from memory if made before.

    `options` distinguishes models that `make` would open differently from the same weights.
    """
    if found.sha256 is None:
        raise InvalidInput(
            f"model {found.name!r} has no sha256 on its card, so its file cannot be trusted:"
            f" {how_to_declare(found)}; name its folder in models.folders of the config."
        )
    name = (repr(identity(found)), context.profile, options)
    with _lock:
        if name not in _opened:
            path = find_weights(found, context.model_folders)
            _opened[name] = make(read_weights(path, found.sha256))
        opened: T = _opened[name]
        return opened


def forget() -> None:
    """Open models anew from now on; those that are in use stay so."""
    with _lock:
        _opened.clear()


def add_card(path: Path, name: str, fields: Mapping[str, Any], replace: bool = False) -> None:
    """Write a card into a file of cards, behind those that it has; it need not exist.

    With `replace` a card of this name goes first. Raises InvalidInput if the file has a card of
    this name, or is none of cards; ResourceRefused if it cannot be written.
    """
    try:
        with _alone(path.parent):
            there = path.exists()
            text = read_regular(path).decode("utf-8") if there else ""
            known = read_yaml(path, "file of model cards") or {} if there else {}
            if known:
                read_cards(path)  # refuses what is no file of cards
            if name in known and not replace:
                raise InvalidInput(
                    f"{path} has a card {name!r} already: give another --name, or --replace."
                )
            if name in known:
                text = re.sub(rf"(?m)^{re.escape(name)}:.*\n(?:[ \t#].*\n|\n)*", "", f"{text}\n")
                known = {each: card for each, card in known.items() if each != name}
            added = yaml.safe_dump({name: dict(fields)}, sort_keys=False, allow_unicode=True)
            behind = f"{text.rstrip()}\n\n{added}" if text.strip() else added
            if not _holds(behind, {**known, name: dict(fields)}):
                # A file in another style, such as JSON: written anew, without its comments.
                behind = yaml.safe_dump({**known, name: dict(fields)}, sort_keys=False)
            replace_text(path, behind)
    except OSError as error:
        raise cannot_write(path, error) from None


def _holds(text: str, wanted: Mapping[str, Any]) -> bool:
    try:
        return bool(yaml.safe_load(text) == wanted)
    except yaml.YAMLError:
        return False


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process at a time change what is in a folder."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
