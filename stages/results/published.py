"""published: what was published of the set and model of a run, beside what the run found.

The published numbers are in data_manifests/published.yaml.

Conventions
    A row has a published number if the reader and all counts of its data set, model and flip,
    and fusion rule are those of the entry, and its scores are cosines of fused templates of whole
    images, over all subjects. The back end, detector and fallback that made them may be any:
    differences of those are what a reader wants to see.
    Difference   seen − published. The published number is taken as exact, so the interval is that
                 of what was seen.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from pipeline.config.validation import validate
from pipeline.config.yaml_text import read_yaml
from pipeline.errors import InvalidInput, in_words
from pipeline.plan.graph import Step
from pipeline.session import Results
from stages.fusion import rules
from stages.models import catalogue
from stages.results.quantities import Quantity
from stages.results.rule_table import Cell, Entry, Row
from stages.shipped_files import resource
from stages.tables.comparisons import Comparisons

MANIFEST = "data_manifests/published.yaml"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PublishedSet(_Part):
    """The data set, by its reader and its counts."""

    reader: str
    counts: dict[Literal["faces", "templates", "comparisons", "mated"], int] = Field(min_length=1)


class PublishedModel(_Part):
    """The model, by the name of its card and, if known, by the digest of its weights."""

    card: str
    flip: Literal["none", "add", "concat"]
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")


class Published(_Part):
    """One published row: `values` by target.

    `means` says what the row is, `source` where it was printed.
    """

    set: PublishedSet
    model: PublishedModel
    rule: str
    metric: str
    threshold_rule: Literal["at_most", "nearest", "script"]
    values: dict[float, float] = Field(min_length=1)
    means: str = Field(min_length=1)
    source: str = Field(min_length=1)

    @field_validator("rule")
    @classmethod
    def _known(cls, label: str) -> str:
        try:
            rules.fusion_rule_named(label)
        except InvalidInput as error:
            raise ValueError(str(error)) from None
        return label

    @field_validator("values")
    @classmethod
    def _shares(cls, values: dict[float, float]) -> dict[float, float]:
        if not all(0 <= number <= 1 for pair in values.items() for number in pair):
            raise ValueError("targets and values are fractions, from 0 to 1")
        return values


@dataclass(frozen=True)
class PublishedNumber:
    """One published number beside the one that was seen.

    The bounds of the latter are nan if nothing was resampled.
    """

    entry: Published
    factors: Mapping[str, Any]
    quantity: Quantity
    published: float
    seen: Entry

    @property
    def difference(self) -> tuple[float, float, float]:
        """Seen − published, and its interval."""
        value, low, high = (
            end - self.published for end in (self.seen.value, self.seen.low, self.seen.high)
        )
        return value, low, high

    def record(self) -> dict[str, Any]:
        """Return what numbers.json holds; what is not defined is null."""
        q, e, (difference, low, high) = self.quantity, self.seen, self.difference
        numbers = {"seen": e.value, "seen_low": e.low, "seen_high": e.high}
        numbers |= {"difference": difference, "difference_low": low, "difference_high": high}
        return {
            "factors": dict(self.factors),
            **{"step": q.step, "metric": q.metric, "target": q.target, "threshold_rule": q.rule},
            "published": self.published,
            **{name: None if math.isnan(value) else value for name, value in numbers.items()},
            **{"few": e.few, "means": self.entry.means, "source": self.entry.source},
        }


def read_published(path: Path) -> dict[str, Published]:
    """Return the entries of a YAML file by name. Raises InvalidInput, naming the wrong fields."""
    raw = read_yaml(path, "file of published numbers")
    if not isinstance(raw, dict):
        raise InvalidInput(
            f"{path}: expected a mapping from names to published rows, found {in_words(raw)}."
        )
    return {
        str(name): validate(Published, fields, f"{path}, {name!s:.60}")
        for name, fields in raw.items()
    }


def published_numbers(results: Results, rows: Sequence[Row]) -> list[PublishedNumber]:
    """Return the published numbers that rows of a run have a number for, entry by entry."""
    own = [
        entry
        for entry in read_published(resource(MANIFEST)).values()
        if _is_set(results, entry.set)
    ]
    return [line for entry in own for row in rows for line in _of_row(results, row, entry)]


def _of_row(results: Results, row: Row, entry: Published) -> Iterator[PublishedNumber]:
    for q, seen in row.entries.items():
        cells = [cell for cell in row.cells if cell.step.base == q.step]
        if (q.metric, q.rule) == (entry.metric, entry.threshold_rule) and all(
            _is_made_so(results, c, entry) for c in cells
        ):
            for target, value in entry.values.items():
                if q.target is not None and math.isclose(q.target, target):
                    yield PublishedNumber(entry, row.factors, q, value, seen)


def _is_set(results: Results, wanted: PublishedSet) -> bool:
    dataset = results.session.config.dataset
    if dataset.reader != wanted.reader:
        return False
    tables = results.session.dataset.tables
    counts = {name: tables[name].rows for name in ("faces", "templates")}
    counts["comparisons"] = Comparisons.of(tables).rows
    # of a list; of all pairs nothing is known
    counts["mated"] = int(tables["comparisons"]["mated"].sum())
    return all(counts[name] == count for name, count in wanted.counts.items())


def _is_made_so(results: Results, cell: Cell, entry: Published) -> bool:
    """Whether a cell's scores are made as an entry's were.

    That is: cosines of templates fused by the entry's rule from the entry's model's embeddings of
    whole images.
    """
    if (
        evaluated := cell.step.stage
    ).name != "evaluate_verification" or evaluated.options.half != "all":
        return False
    compare = _above(results, cell.step, "scores", "compare")
    fuse = _above(results, compare, "templates", "fuse")
    embed = _above(results, fuse, "embeddings", "embed")
    if fuse is None or embed is None or results.upstream(embed, "degrade"):
        return False
    return _same_rule(fuse.stage.options.rule, entry.rule) and _is_model(embed, entry.model)


def _above(results: Results, step: Step | None, name: str, stage: str) -> Step | None:
    """Return the step that an input names; None if it runs another stage."""
    if step is None or name not in step.inputs:
        return None
    above = results.plan.steps[step.inputs[name].step]
    return above if above.stage.name == stage else None


def _same_rule(label: str, other: str) -> bool:
    """Whether two labels name one rule with the same parameters, defaults written out or not."""
    names = [each.partition("(")[0].strip() for each in (label, other)]
    return (
        names[0] == names[1]
        and rules.fusion_rule_named(label).identity == rules.fusion_rule_named(other).identity
    )


def _is_model(embed: Step, wanted: PublishedModel) -> bool:
    options = embed.stage.options
    if (options.model, options.flip) != (wanted.card, wanted.flip):
        return False
    if wanted.sha256 is None:
        return True
    return (
        catalogue.card(embed.stage.context, options.model, ("recognition", "quality")).sha256
        == wanted.sha256
    )
