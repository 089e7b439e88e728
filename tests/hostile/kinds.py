"""Every kind of hostile input by its name."""

from __future__ import annotations

from . import archives, commands, documents, pictures, places, tables, weights
from .guard import Case

KINDS: dict[str, Case] = {
    "configs": documents.config,
    "model cards": documents.cards,
    "lists of pairs": documents.pairs,
    "files of tables": tables.tables,
    "zip archives": archives.zips,
    "images": pictures.images,
    "weights": weights.weights,
    "stored artifacts": tables.store,
    "what is no file": places.places,
    "whole commands": commands.command,
}
