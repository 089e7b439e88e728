"""Model cards: what a weight file is, what it wants to be fed and what it answers.

A card is data (`data_manifests/models.yaml`); this module reads it, finds the file it names, and
reads that file once: the bytes whose digest is checked are the bytes that become a model. It
imports no inference library, so plans and listings stay light.

Conventions: `mean` and `std` are in pixel units, 0…255, in the card's own channel order; a network
is fed (x − mean) / std. A card without `sha256` describes a model whose weights each user brings: a
card of the same name, in a file that the config lists under `models.cards`, adds the digest.
"""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from pipeline.config.validation import explained, no_boolean
from pipeline.config.yaml_text import read_yaml
from pipeline.errors import InvalidInput, in_words, unknown
from pipeline.system.regular_file import read_regular

Finite = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
Positive = Annotated[float, Field(ge=1e-6, le=1e6, allow_inf_nan=False)]

CRFIQA_EMBEDDING = 512


class Part(BaseModel):
    """One of several files that are joined: a `member` of the package, and its digest and size."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    _numbers = field_validator("*", mode="before")(no_boolean)

    member: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(gt=0)


class Origin(BaseModel):
    """Where a file is published: a `member` of a `package` (name==version), or a `url`.

    `sha256` and `bytes` are of what is published, if `mend` makes another file of it: a graph
    without the inputs that a runtime refuses (stages/models/graph_mending). In place of a member,
    `parts` names several state dicts by the prefix that each gets: they are joined into one file
    (stages/models/joining).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    _numbers = field_validator("*", mode="before")(no_boolean)

    package: str | None = Field(
        default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.+!]+$"
    )
    member: str | None = None
    url: str | None = Field(default=None, pattern=r"^https://\S+$")
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    bytes: int | None = Field(default=None, gt=0)
    mend: bool = False
    parts: dict[str, Part] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        places = (self.url is not None, self.member is not None, bool(self.parts))
        if sum(places) != 1 or (self.url is None) != (self.package is not None):
            raise ValueError("needs a package with its member or its parts, or a url, and not both")
        return self


class ModelCard(BaseModel):
    """One model; `dimension` is the length of what its `kind` answers, 1 for a quality score."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    _numbers = field_validator("*", mode="before")(no_boolean)

    name: str
    kind: Literal["recognition", "quality", "detector"]
    architecture: str
    file: str
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    bytes: int | None = Field(default=None, gt=0)
    colour: Literal["rgb", "bgr"] = "rgb"
    input_size: int = Field(default=112, gt=0, le=4096)
    mean: tuple[Finite, Finite, Finite] = (127.5, 127.5, 127.5)
    std: tuple[Positive, Positive, Positive] = (127.5, 127.5, 127.5)
    input_name: str | None = None
    output_name: str | None = None
    dimension: int = Field(gt=0, le=65_536)
    higher_is_better: bool = True
    licence: str
    page: str = ""  # where it is described
    training: str = ""  # the data that it was trained on
    scored: str = ""  # by how much it parts mated from non-mated, or clean from degraded, here
    notes: str = ""
    origin: Origin | None = None

    @field_validator("file")
    @classmethod
    def _bare_name(cls, value: str) -> str:
        if not value or Path(value).name != value or value == ".." or "\\" in value:
            raise ValueError(
                "must be a bare file name; the folders to look in are an option of the run"
            )
        return value

    @field_validator("file", "licence", "page", "training", "scored", "notes")
    @classmethod
    def _one_line(cls, value: str) -> str:
        """A card is printed: a line break or another control character would break the print."""
        if any(not character.isprintable() for character in value.rstrip("\n")):
            raise ValueError("must be one line of printable text")
        return value.rstrip("\n")

    @property
    def embedding_dimension(self) -> int | None:
        """Length of the embedding this model yields; None for one that yields none."""
        if self.architecture.startswith("crfiqa"):
            return CRFIQA_EMBEDDING
        return self.dimension if self.kind == "recognition" else None

    @property
    def has_quality(self) -> bool:
        """Whether one forward of this model yields a quality score."""
        return self.kind == "quality"


def read_cards(path: Path) -> dict[str, ModelCard]:
    """Return the cards of a YAML file {name: {field: value, …}, …} by name, in its order.

    Raises InvalidInput, naming every bad field, if the file is not of that form.
    """
    raw = read_yaml(path, "file of model cards")
    if not isinstance(raw, dict):
        raise InvalidInput(
            f"model cards {path}: expected a mapping from model name to card, found"
            f" {in_words(raw)}."
        )
    cards, problems = {}, []
    for name, fields in raw.items():
        if not isinstance(fields, dict):
            problems.append(f"{name!s:.60}: expected a mapping of fields, found {in_words(fields)}")
            continue
        try:
            cards[str(name)] = ModelCard.model_validate({"name": str(name), **fields})
        except ValidationError as error:
            problems += [f"{name!s:.60}.{sentence}" for sentence in explained(ModelCard, error)]
    if problems:
        raise InvalidInput(f"model cards {path}: " + "; ".join(problems))
    return cards


def card_named(cards: Mapping[str, ModelCard], name: str) -> ModelCard:
    """Return the card called `name`; else raise InvalidInput, suggesting the nearest name."""
    if name not in cards:
        raise InvalidInput(unknown("model", name, cards))
    return cards[name]


def how_to_declare(card: ModelCard) -> str:
    """Return what to do about a card that declares no digest, without a full stop."""
    add = shlex.join(["qfuse", "models", "add", card.file, "--name", card.name])
    return (
        f"obtain {card.file}, and `{add}` writes a card that has it (into a card of your own, write"
        " it yourself)"
    )


def find_weights(card: ModelCard, folders: Sequence[Path]) -> Path:
    """Return the path of the card's file in the first of `folders` that holds it.

    Raises InvalidInput if none does; nothing is ever downloaded.
    """
    for folder in folders:
        if os.path.isfile(folder / card.file):  # to which a name too long to exist is no error
            return folder / card.file
    looked = ", ".join(str(folder) for folder in folders) or "no folder: none was given"
    if card.origin is not None:
        raise InvalidInput(
            f"model {card.name!r} needs the file {card.file}; looked in {looked}. `qfuse models"
            f" fetch {card.name}` fetches it (licence: {card.licence})."
        )
    raise InvalidInput(
        f"model {card.name!r} needs the file {card.file}; looked in {looked}. It is not downloaded"
        f" for you (licence: {card.licence}): obtain it, accept its terms and put it into one of"
        " these folders."
    )


@dataclass(frozen=True)
class WeightFile:
    """The bytes of a weight file, read once, and where they came from."""

    path: Path
    data: bytes = field(repr=False)


def read_weights(path: Path, sha256: str | None) -> WeightFile:
    """Return the bytes of `path`, whose digest is `sha256` (64 hex digits; None: any).

    Raises InvalidInput if they cannot be read or have another digest.
    """
    try:
        data = read_regular(path)
    except OSError as error:
        raise InvalidInput(f"weight file {path} cannot be read ({error.strerror}).") from error
    found = hashlib.sha256(data).hexdigest()
    if sha256 is not None and found != sha256.lower():
        raise InvalidInput(
            f"weight file has another digest than declared: expected sha256 {sha256}, found"
            f" {found}, at {path}; fetch the declared file again or, if this one is meant, declare"
            " its digest."
        )
    return WeightFile(path, data)
