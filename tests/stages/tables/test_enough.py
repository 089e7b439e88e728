"""A run that could only find rates over nothing is refused beforehand, with the option to set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pipeline.core.schema import Batch
from pipeline.errors import InvalidInput
from stages.evaluation.discard import DiscardOptions, EvaluateDiscard
from stages.evaluation.discard_identification import (
    DiscardIdentificationOptions,
    EvaluateDiscardIdentification,
)
from stages.evaluation.identification import EvaluateIdentification, IdentificationOptions
from stages.evaluation.pooled_script import EvaluatePooledScript, PooledScriptOptions
from stages.evaluation.verification import EvaluateVerification, VerificationOptions
from stages.matching.compare import Compare
from stages.matching.compare_faces import CompareFaces, CompareFacesOptions
from stages.matching.qmagface import QMagFace, QMagFaceOptions
from stages.matching.search import Search, SearchOptions
from stages.metrics.subjects import in_second_half
from stages.tables.enough import need_both_kinds
from stages.tables.tables import ProtocolLists, build_tables, singletons

Make = Callable[..., Any]
STAGES_1_1 = [
    Compare,
    lambda _, context: CompareFaces(CompareFacesOptions(), context),
    lambda _, context: QMagFace(QMagFaceOptions(alpha=0, beta=1), context),
    lambda _, context: EvaluateVerification(VerificationOptions(), context),
    lambda _, context: EvaluateDiscard(DiscardOptions(), context),
]
STAGES_1_N = [
    (Search, SearchOptions),
    (EvaluateIdentification, IdentificationOptions),
    (EvaluateDiscardIdentification, DiscardIdentificationOptions),
    (EvaluatePooledScript, PooledScriptOptions),
]
EVALUATIONS_1_N = STAGES_1_N[1:]
GALLERY, PROBE = "gallery", "probe"


def tables(
    subjects: str, pairs: Any = (), roles: Any = (), all_pairs: Any = None
) -> dict[str, Batch]:
    """One template for each letter of `subjects`, a dash for one without; roles are given template
    by template.
    """
    names = [f"t{i}" for i in range(len(subjects))]
    whose = [letter.strip("-") for letter in subjects]
    found = ProtocolLists(
        face_id=names,
        path=names,
        sha256=names,
        subject=whose,
        comparison_a=[names[a] for a, _ in pairs],
        comparison_b=[names[b] for _, b in pairs],
        mated=[whose[a] == whose[b] for a, b in pairs],
        role_template=names[: len(roles)],
        role=list(roles),
        all_pairs=all_pairs,
        **singletons(names, whose),
    )
    return build_tables(found, "a set")


@pytest.mark.parametrize("make", STAGES_1_1)
def test_no_comparison_at_all_is_refused_with_the_option_that_makes_some(
    context: Make, make: Make
) -> None:
    with pytest.raises(
        InvalidInput,
        match=r"has no 1:1 comparison, .* dataset\.options\.probe_fraction, such as 0\.5",
    ):
        make(None, context()).fits(tables("aab"))


@pytest.mark.parametrize("make", STAGES_1_1[3:])
@pytest.mark.parametrize(("subjects", "lacking"), [("aaa", "non-mated"), ("abc", "mated")])
@pytest.mark.parametrize("form", ["list", "product", "triangle"])
def test_an_evaluation_of_one_kind_of_comparisons_is_refused(
    context: Make, make: Make, subjects: str, lacking: str, form: str
) -> None:
    given: dict[str, Any] = {
        "list": {"pairs": [(0, 1), (0, 2)]},
        "product": {"roles": ["reference", PROBE, PROBE], "all_pairs": ("reference", PROBE)},
        "triangle": {"roles": ["face"] * 3, "all_pairs": ("face", "face")},
    }[form]
    with pytest.raises(
        InvalidInput, match=f"of [23] comparisons none is {lacking}, so no error rate is defined"
    ):
        make(None, context()).fits(tables(subjects, **given))


def test_templates_without_a_subject_make_no_mated_pair_of_two_roles() -> None:
    made = tables(
        "--ab", roles=["reference", PROBE, "reference", PROBE], all_pairs=("reference", PROBE)
    )
    with pytest.raises(InvalidInput, match="none is mated"):
        need_both_kinds(made, "all", "evaluate_verification")


@pytest.mark.parametrize("listed", [True, False])
def test_a_half_without_mated_comparisons_is_refused_by_its_name(listed: bool) -> None:
    letters = "abcdefghijklmnop"
    first = next(c for c in letters if not in_second_half([c])[0])
    x, y = [c for c in letters if in_second_half([c])[0]][:2]
    form: dict[str, Any] = {"pairs": [(0, 1), (0, 2), (2, 3)]}
    if not listed:
        form = {"roles": ["face"] * 4, "all_pairs": ("face", "face")}
    made = tables(first * 2 + x + y, **form)
    need_both_kinds(made, "all", "evaluate_verification")
    with pytest.raises(
        InvalidInput,
        match=r"none is mated with both subjects in the half 'report' \(evaluate_verification",
    ):
        need_both_kinds(made, "report", "evaluate_verification")


@pytest.mark.parametrize(("stage", "options"), STAGES_1_N)
@pytest.mark.parametrize(
    ("roles", "message"),
    [
        ([], r"no template of the data set has a role, .* dataset\.options\.probe_fraction"),
        ([GALLERY, GALLERY], "and none is a 'probe', so nobody is searched for"),
        (["reference", PROBE], r"gallery: unknown role 'gallery'"),
    ],
)
def test_a_search_of_nobody_or_for_nobody_is_refused(
    context: Make, stage: Make, options: Make, roles: Any, message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        stage(options(), context()).fits(tables("aa", roles=roles))


@pytest.mark.parametrize(("stage", "options"), EVALUATIONS_1_N)
def test_probes_without_any_mate_in_the_gallery_are_refused(
    context: Make, stage: Make, options: Make
) -> None:
    with pytest.raises(
        InvalidInput,
        match=rf"no probe is of a subject that is enrolled as 'gallery' \({stage.name}.gallery",
    ):
        stage(options(), context()).fits(tables("ab-", roles=[GALLERY, PROBE, PROBE]))


def test_error_versus_discard_at_an_fpir_needs_probes_without_a_mate(context: Make) -> None:
    made = tables("aab", roles=[GALLERY, PROBE, GALLERY])
    EvaluateIdentification(IdentificationOptions(), context()).fits(made)  # the closed set is there
    with pytest.raises(
        InvalidInput,
        match=r"every probe is of a subject that is enrolled .*dataset\.options\.left_out",
    ):
        EvaluateDiscardIdentification(DiscardIdentificationOptions(), context()).fits(made)


@pytest.mark.parametrize(("stage", "options"), EVALUATIONS_1_N)
def test_an_evaluation_of_another_gallery_than_was_searched_is_refused_with_both_options(
    context: Make, stage: Make, options: Make
) -> None:
    made = tables("aabc", roles=[GALLERY, PROBE, PROBE, "gallery_1"])
    evaluation = stage(options(), context())
    evaluation.above = {"candidates": Search(SearchOptions(gallery="gallery_1"), context())}
    with pytest.raises(
        InvalidInput,
        match=rf"set {stage.name}.gallery to 'gallery_1', or search.gallery to 'gallery'",
    ):
        evaluation.fits(made)
    evaluation.above = {"candidates": Search(SearchOptions(), context())}
    evaluation.fits(made)
