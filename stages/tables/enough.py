"""enough: whether a data set holds what a step compares, searches or counts.

All of it is asked before anything runs.

A rate over no trials is not defined, so a run that could find nothing else is refused, with the
option to set. Only what the tables say is counted here: trials that are lost as templates fail are
counted by the evaluations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from pipeline.core.schema import Array, Batch
from pipeline.core.stage import Stage
from pipeline.errors import InvalidInput
from stages.metrics.subjects import Half, in_second_half
from stages.tables.comparisons import Comparisons, need_role, role_rows
from stages.tables.pair_layouts import Listed, Product

# comparisons of a list that are looked at together: mostly the first have all that is looked for
COMPARISONS_AT_ONCE = 1 << 20
ADVICE = (
    "give the data set some (reader `folder`: dataset.options.probe_fraction, such as 0.5, with two"
    " images or more of a subject; `tables`: the tables comparisons or pairings), or leave out the"
    " steps that compare."
)


def need_comparisons(tables: Mapping[str, Batch]) -> None:
    """Raise InvalidInput if there is nothing to compare 1:1."""
    if not Comparisons.of(tables).rows:
        raise InvalidInput(f"the data set has no 1:1 comparison, and a step compares: {ADVICE}")


def need_both_kinds(tables: Mapping[str, Batch], half: Half, stage: str) -> None:
    """Raise InvalidInput if an evaluation would have no mated or no non-mated comparison."""
    need_comparisons(tables)
    lacking = [
        kind
        for kind, some in zip(("mated", "non-mated"), _has_both_kinds(tables, half), strict=True)
        if not some
    ]
    if lacking:
        within = "" if half == "all" else f" with both subjects in the half {half!r} ({stage}.half)"
        raise InvalidInput(
            f"{stage}: of {Comparisons.of(tables).rows:,} comparisons none is"
            f" {' and none '.join(lacking)}{within}, so no error rate is defined: mated ones need"
            " two templates of one subject, non-mated ones two subjects. Correct the subjects or"
            " the list of the data set, or leave out this step."
        )


def need_searched(tables: Mapping[str, Batch], gallery: str, where: str) -> None:
    """Raise InvalidInput if no template is enrolled under the role `gallery`, or none is a probe.

    `where` names the option that gives the role.
    """
    if not tables["roles"].rows:
        raise InvalidInput(
            "no template of the data set has a role, so nobody is enrolled or a probe, and a step"
            " searches: set dataset.options.probe_fraction (reader `folder`), give the table roles"
            " (`tables`), or leave out the search."
        )
    need_role(tables["roles"], gallery, where)
    if not len(role_rows(tables["roles"], "probe")):
        raise InvalidInput(
            f"{where}: templates are enrolled as {gallery!r}, and none is a 'probe', so nobody is"
            " searched for: give the data set probes, or leave out the search."
        )


def need_mates(
    tables: Mapping[str, Batch], gallery: str, half: Half, stage: str, open_set: bool = False
) -> None:
    """Raise InvalidInput if no probe has a mate in the gallery.

    For an `open_set`, also if every probe has one.
    """
    enrolled = set(_subjects_in_role(tables, gallery, "all"))
    within = "" if half == "all" else f" of the half {half!r} ({stage}.half)"
    if enrolled.isdisjoint(_subjects_in_role(tables, "probe", half)):
        raise InvalidInput(
            f"{stage}: no probe{within} is of a subject that is enrolled as {gallery!r}"
            f" ({stage}.gallery), so no rate of identification is defined: name the gallery that"
            " holds their mates, or mend the subjects."
        )
    if open_set and enrolled.issuperset(_subjects_in_role(tables, "probe", half)):
        raise InvalidInput(
            f"{stage}: every probe{within} is of a subject that is enrolled as {gallery!r}, and a"
            " threshold at an FPIR needs probes of others: leave subjects out of the gallery"
            " (dataset.options.left_out), or leave out this step."
        )


def need_same_gallery(stage: Stage) -> None:
    """Raise InvalidInput if an evaluation names another gallery than the search that it reads."""
    above = stage.above.get("candidates")
    searched = getattr(above and above.options, "gallery", None)
    asked = getattr(stage.options, "gallery", None)
    if searched is not None and searched != asked:
        raise InvalidInput(
            f"search.gallery is {searched!r}, and {stage.name}.gallery is {asked!r}: who has a mate"
            f" follows from the gallery that was searched, so set {stage.name}.gallery to"
            f" {searched!r}, or search.gallery to {asked!r}."
        )


def _has_both_kinds(tables: Mapping[str, Batch], half: Half) -> tuple[bool, bool]:
    """Whether there is a mated comparison, and a non-mated one, among those that are evaluated."""
    found = Comparisons.of(tables)
    if isinstance(found.form, Listed):
        subjects = tables["templates"]["subject"].tolist()
        inside = np.array(
            [half == "all" or kept for kept in map(_is_in_half(half), subjects)], bool
        )
        mated = found.listed["mated"]
        return _has_kind(found.form, mated, inside, True), _has_kind(
            found.form, mated, inside, False
        )
    if isinstance(found.form, Product):
        one, other = (set(_subjects_of(tables, rows, half)) for rows in (found.a, found.b))
        return not one.isdisjoint(other), bool(one and other) and len(one | other) > 1
    every = list(_subjects_of(tables, found.form.role, half))
    return len(every) > len(set(every)), len(set(every)) > 1


def _has_kind(form: Listed, mated: Array, inside: Array, kind: bool) -> bool:
    """Whether a comparison of a kind is of two templates `inside`."""
    cuts = (
        slice(start, start + COMPARISONS_AT_ONCE)
        for start in range(0, form.size, COMPARISONS_AT_ONCE)
    )
    return any(
        bool(((mated[cut] == kind) & inside[form.a[cut]] & inside[form.b[cut]]).any())
        for cut in cuts
    )


def _subjects_in_role(tables: Mapping[str, Batch], role: str, half: Half) -> Iterator[str]:
    return _subjects_of(tables, role_rows(tables["roles"], role), half)


def _subjects_of(tables: Mapping[str, Batch], rows: Array, half: Half) -> Iterator[str]:
    """Yield the subjects of templates, those left out that have none or are not in the half."""
    return filter(_is_in_half(half), tables["templates"]["subject"][rows].tolist())


def _is_in_half(half: Half) -> Callable[[str], bool]:
    """Return a function that says whether a subject is evaluated.

    A template without a subject is in no half.
    """
    if half == "all":
        return bool
    return lambda name: bool(name) and bool(in_second_half([name])[0]) == (half == "report")
