"""The verbs of models: list, show, fetch, check, tune, add and convert."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.terminal import AsJson, emit, say, show, warn
from pipeline.errors import InvalidInput, UsageError
from stages.commands import check_model, tune_models
from stages.commands.known_models import Folders, Name, OfConfig, surroundings

if TYPE_CHECKING:
    from stages.models.cards import ModelCard

models_app = typer.Typer(
    help="List, show, fetch, check, tune, add and convert models.",
    epilog="Example: qfuse models list --folder weights",
    no_args_is_help=True,
)


@models_app.command("list", epilog="Example: qfuse models list --folder weights")
def list_models(folder: Folders = None, config: OfConfig = None, as_json: AsJson = False) -> None:
    """Show every model card, and say whether its weights are found.

    The weights must also have the digest that the card declares.
    """
    from stages.models.catalogue import all_cards
    from stages.report.text_table import text_table

    context = surroundings(folder, config)
    folders = context.model_folders
    rows = [_row(card, folders) for card in all_cards(context).values()]
    if as_json:
        emit([{**row, "found": str(row["found"]) if row["found"] else None} for row in rows])
        return
    table = text_table()
    for column in ("model", "kind", "there"):
        table.add_column(column, no_wrap=True)
    table.add_column("licence")
    for row in rows:
        there = row["state"]
        if there == "no" and row["origin"]:
            there = "can be fetched"
        table.add_row(row["name"], row["kind"], there, row["licence"])
    show(table)
    say(f"looked for in: {', '.join(map(str, folders))}")
    say(
        "`qfuse models show NAME` names a model's file and where it is from, `qfuse models fetch"
        " NAME` fetches what can be fetched; for a file of your own, `qfuse models add FILE`."
    )


@models_app.command("show", epilog="Example: qfuse models show edgeface_xxs")
def show_model(
    name: Name, folder: Folders = None, config: OfConfig = None, as_json: AsJson = False
) -> None:
    """Show all that is known of a model: what it is fed, what it gives, its licence and source."""
    from stages.models.cards import card_named
    from stages.models.catalogue import all_cards
    from stages.models.fetching import place

    context = surroundings(folder, config)
    card = card_named(all_cards(context), name)
    row = _row(card, context.model_folders)
    if as_json:
        emit({**row, "found": str(row["found"]) if row["found"] else None})
        return
    size = "" if card.kind == "detector" else f" {card.input_size} × {card.input_size} pixels,"
    scale = f"{card.colour.upper()},{size} {_scale(card)}"
    size_of = f", {card.bytes:,} bytes" if card.bytes else ""
    facts = {
        "kind": card.kind,
        "architecture": card.architecture,
        "is fed": scale,
        "gives": _gives(card),
        "file": f"{row['found'] or card.file}{size_of} ({_there(row)})",
        "sha256": card.sha256 or "not declared: describe your file with `qfuse models add FILE`",
        "licence": card.licence,
        "trained on": card.training,
        "scored": card.scored,
        "page": card.page,
        "fetched from": place(card.origin) if card.origin else "",
        "notes": card.notes,
    }
    for fact, value in facts.items():
        if value:
            say(f"{fact:<13} {value}")


@models_app.command("fetch", epilog="Example: qfuse models fetch sface --accept-licence")
def fetch_model(
    name: Name,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--folder",
            metavar="FOLDER",
            help="Where to put the file; default: the first folder of `qfuse models list`.",
        ),
    ] = None,
    local: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="Take this file of yours; fetch nothing."),
    ] = None,
    accept: Annotated[
        bool, typer.Option("--accept-licence", metavar="", help="Accept the licence unasked.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Fetch the weights of a model from where its card says that they are published.

    Shows the licence and asks first. The file must have the size and the digest of the card.
    """
    from stages.models.cards import card_named
    from stages.models.catalogue import all_cards
    from stages.models.fetching import already_there, fetch, place

    context = surroundings([folder] if folder else None)
    card = card_named(all_cards(context), name)
    target = context.model_folders[0]
    path = already_there(card, target, local)
    if path is None:
        from_where = f" from {place(card.origin)}" if card.origin and local is None else ""
        if not accept:
            _need_acceptance(name, f"{card.licence};{from_where}" if from_where else card.licence)
        if from_where and not as_json:
            size = f" ({card.bytes:,} bytes)" if card.bytes else ""
            say(f"fetching {card.file}{size}{from_where} …")
        path = fetch(card, target, local)
    if as_json:
        emit({"model": name, "path": str(path), "sha256": card.sha256})
        return
    say(f"{path}: {path.stat().st_size:,} bytes, with the digest of the card")


def _need_acceptance(name: str, licence: str) -> None:
    """Show a licence and ask, on standard error; raise UsageError unless the answer is yes."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(
            f"{name}: {licence}. Read the licence, and accept it with --accept-licence."
        )
    warn(f"{name}: {licence}")
    try:
        accepted = typer.confirm("Do you accept this licence?", err=True)
    except typer.Abort:  # the end of input, ^D
        accepted = False
    if not accepted:
        raise UsageError(f"{name} was not fetched: its licence was not accepted.")


models_app.command("check", epilog=check_model.EXAMPLE)(check_model.check_model)
models_app.command("tune", epilog=tune_models.EXAMPLE)(tune_models.tune_models)


@models_app.command("add", epilog="Example: qfuse models add weights/my_model.onnx")
def add_model(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="An ONNX graph, or a checkpoint of a network.")
    ],
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The model's name; default: the file's, without ending."),
    ] = None,
    architecture: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of a checkpoint; default: found by names and shapes."),
    ] = None,
    colour: Annotated[
        str | None, typer.Option(metavar="ORDER", help="The order it is fed: rgb or bgr.")
    ] = None,
    licence: Annotated[
        str, typer.Option(metavar="TEXT", help="The licence of the weights.")
    ] = "as of the weights you obtained",
    replace: Annotated[
        bool,
        typer.Option("--replace", metavar="", help="Replace the card of this name in cards.yaml."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Read a weight file and write its card, digest included, into cards.yaml beside it.

    Configs find the card by the folder, which they name in models.folders.
    """
    from pydantic import ValidationError

    from pipeline.config.validation import explained
    from pipeline.core.numerics import PROFILES
    from pipeline.core.stage import Context
    from stages.models.cards import ModelCard
    from stages.models.catalogue import OWN_CARDS, add_card, all_cards
    from stages.models.recognising import recognised

    if colour not in (None, "rgb", "bgr"):
        raise UsageError(f"--colour: expected rgb or bgr, found {colour!r}.")
    fields = {**recognised(file, architecture)}
    fields["licence"] = licence
    if colour is not None:
        fields["colour"] = colour
    chosen = name or file.name.partition(".")[0]
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", chosen):
        raise UsageError(
            f"{chosen!r} is no name for a model: give --name, of letters, digits, '.', '_' and '-'."
        )
    shipped = all_cards(Context(PROFILES["cpu-fp32"])).get(chosen)
    if shipped is not None and shipped.sha256 not in (None, fields["sha256"]):
        raise InvalidInput(
            f"{chosen!r} is the name of another model that qfuse ships a card of: give another"
            " --name."
        )
    try:
        card = ModelCard.model_validate({"name": chosen, **fields})
    except ValidationError as error:
        raise InvalidInput("; ".join(f"{file}: {s}" for s in explained(ModelCard, error))) from None
    # how it is fed is said even where it is as usual: that is what is most often wrong
    fields |= {"colour": card.colour, "mean": list(card.mean), "std": list(card.std)}
    path = (file.parent / OWN_CARDS).resolve()
    add_card(path, chosen, fields, replace)
    if as_json:
        emit({"model": chosen, "cards": str(path), **fields})
        return
    fed = f"{card.colour.upper()}, {_scale(card)}"
    say(f"{chosen}: {card.architecture}, {card.kind}; it gives {_gives(card)}")
    if card.notes:
        say(card.notes)
    say(f"wrote its card into {path}; name the folder {file.parent} in models.folders of a config.")
    say(
        f"! No file says what it wants to be fed: the card says {fed}, as is usual. Find out with"
        f" `qfuse models check {chosen} --folder {file.parent} --on PHOTOGRAPHS`."
    )


@models_app.command("convert", epilog="Example: qfuse models convert net.pth net.safetensors")
def convert_model(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A checkpoint, or an ONNX graph to mend.")
    ],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="The file to write; it must not exist yet.")
    ],
    as_json: AsJson = False,
) -> None:
    """Write a checkpoint as .safetensors, or an ONNX graph as runtimes want it.

    Graphs of old exporters list their weights as inputs too, which ONNX Runtime refuses.
    """
    import hashlib

    from pipeline.errors import cannot_write
    from pipeline.system.atomic_text import replace_bytes
    from stages.commands.destination import need_absent, need_name
    from stages.models.cards import read_weights

    weights = read_weights(file, None)
    if file.suffix.lower() == ".onnx":
        from stages.models.graph_file import check_graph
        from stages.models.graph_mending import mended

        check_graph(weights)
        need_name(out, "a mended graph is an ONNX graph", ".onnx")
        need_absent(out)
        data = mended(weights.data, str(file))
    else:
        from stages.models.joining import joined

        need_name(out, "checkpoints are converted to safetensors", ".safetensors")
        need_absent(out)
        data = joined({"": weights})
    try:
        replace_bytes(out, data)
    except OSError as error:
        raise cannot_write(out, error) from None
    digest = hashlib.sha256(data).hexdigest()
    if as_json:
        emit({"path": str(out), "bytes": len(data), "sha256": digest})
        return
    say(f"wrote {out}: {len(data):,} bytes, sha256 {digest}")


def _row(card: ModelCard, folders: Sequence[Path]) -> dict[str, Any]:
    path = next((f / card.file for f in folders if os.path.isfile(f / card.file)), None)
    state = _state(path, card.sha256)
    return {**card.model_dump(mode="json"), "name": card.name, "found": path, "state": state}


def _state(path: Path | None, sha256: str | None) -> str:
    if path is None:
        return "no"
    from pipeline.files.digests import file_digest

    if sha256 is None:
        return "undeclared"
    return "yes" if file_digest(path) == sha256 else "other bytes"


def _there(row: dict[str, Any]) -> str:
    words = {
        "no": "not there",
        "undeclared": "there, of no declared digest",
        "yes": "there, with this digest",
        "other bytes": "there, with ANOTHER digest",
    }
    return words[row["state"]]


def _gives(card: ModelCard) -> str:
    if card.kind == "detector":
        return "boxes and five landmarks"
    embedding, given = card.embedding_dimension, []
    if embedding is not None:
        given.append(f"an embedding of {embedding} numbers")
    if card.has_quality:
        better = "higher" if card.higher_is_better else "lower, negated here,"
        given.append(f"a quality score ({better} = more useful)")
    return " and ".join(given)


def _scale(card: ModelCard) -> str:
    """Say what pixels are made to before a network is fed them."""
    # OpenCV passes pixels to YuNet as they are
    if card.architecture == "yunet" or (set(card.mean), set(card.std)) == ({0.0}, {1.0}):
        return "pixels 0…255 as they are"
    return f"(x − {_numbers(card.mean)}) / {_numbers(card.std)}"


def _numbers(values: tuple[float, float, float]) -> str:
    return f"{values[0]:g}" if len(set(values)) == 1 else f"({', '.join(f'{v:g}' for v in values)})"
