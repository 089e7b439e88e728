"""Which comparisons two rules decide otherwise: what a plain loop over all of them finds."""

from __future__ import annotations

from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.evaluation.numbers import number_half
from stages.explain.changed_decisions import Evaluated, choose
from stages.tables.tables import ProtocolLists, build_tables

Tables = dict[str, Any]
TEMPLATES = 14


def tables_of(
    subjects: list[str], pairs: list[tuple[int, int]] | None, seed: int = 0, one_role: bool = False
) -> Tables:
    """Tables of templates, one face each: a list of pairs or, without one, the first nine with all
    others, or all pairs.
    """
    names = [f"t{i}" for i in range(len(subjects))]
    faces = {
        "face_id": names,
        "path": [""] * len(names),
        "sha256": [""] * len(names),
        "subject": subjects,
    }
    members = {"member_template": names, "member_face": names, "member_media": names}
    if pairs is None:
        order = np.random.default_rng(seed).permutation(len(names))  # roles in no order of rows
        compared: dict[str, Any] = {
            "role_template": [names[i] for i in order],
            "role": ["face" if one_role else "reference" if i < 9 else "probe" for i in order],
            "all_pairs": ("face", "face") if one_role else ("reference", "probe"),
        }
    else:
        compared = {
            "comparison_a": [names[a] for a, _ in pairs],
            "comparison_b": [names[b] for _, b in pairs],
            "mated": [subjects[a] == subjects[b] for a, b in pairs],
        }
    return build_tables(
        ProtocolLists(**faces, **members, template_id=names, template_subject=subjects, **compared),
        "a set",
    )


def plain(tables: Tables, scores: Any, thresholds: Any, most: int, half: str) -> dict[str, Any]:
    """The same, comparison by comparison."""
    subject, inside = tables["templates"]["subject"], number_half(tables["templates"], half)[0] >= 0  # type: ignore[arg-type]
    listed, roles = tables["comparisons"], tables["roles"]
    if listed.rows:
        rows = list(zip(listed["a"], listed["b"], strict=True))
    elif "face" in roles["role"]:
        rows = list(combinations(roles["template"], 2))
    else:
        sides = (roles["template"][roles["role"] == role] for role in ("reference", "probe"))
        rows = list(product(*sides))
    met: dict[str, list[tuple[float, int, Any]]] = {"won": [], "lost": [], "false": []}
    for n, (a, b) in enumerate(rows):
        told = bool(listed.rows) or (subject[a] != "" and subject[b] != "")
        if not (inside[a] and inside[b] and told):
            continue
        mated = bool(listed["mated"][n]) if listed.rows else subject[a] == subject[b]
        one, other = (float(score[n]) for score in scores)
        gain = (one - thresholds[0]) - (other - thresholds[1])
        who = [subject[t] or f"template {t}" for t in (a, b)]
        if mated and one >= thresholds[0] and other < thresholds[1]:
            met["won"].append((-gain, n, who[0]))
        if mated and one < thresholds[0] and other >= thresholds[1]:
            met["lost"].append((gain, n, who[0]))
        if not mated and one >= thresholds[0]:
            met["false"].append((-one, n, tuple(sorted(who))))
    chosen = {}
    for name, each in met.items():
        groups: list[Any] = []
        kept = [
            n for _, n, group in sorted(each) if group not in groups and not groups.append(group)
        ]  # type: ignore[func-returns-value]
        chosen[name] = tuple(kept[: most if name == "won" else (most + 1) // 2]), len(each)
    return chosen


@pytest.mark.parametrize("form", ["list", "product", "triangle"])
@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    most=st.integers(1, 4),
    half=st.sampled_from(["all", "choose", "report"]),
)
def test_the_comparisons_chosen_are_those_of_a_plain_loop(
    form: str, seed: int, most: int, half: Any
) -> None:
    rng = np.random.default_rng(seed)
    subjects = rng.choice(
        ["", "ann", "bob", "cid", "dan"], TEMPLATES, p=[0.1, 0.3, 0.3, 0.15, 0.15]
    ).tolist()
    every = [(a, b) for a in range(TEMPLATES) for b in range(a)]
    pairs = [every[i] for i in rng.permutation(len(every))[:60]] if form == "list" else None
    tables = tables_of(subjects, pairs, seed, form == "triangle")
    evaluated = Evaluated.of(tables, half)
    # many are equal
    scores = rng.integers(-8, 8, (2, evaluated.comparisons.rows)).astype(np.float32) / 8
    scores[rng.random(scores.shape) < 0.05] = np.nan
    found = choose(evaluated, scores, (0.25, -0.125), most)
    assert {name: (each.numbers, each.of) for name, each in found.items()} == plain(
        tables, scores, (0.25, -0.125), most, half
    )


def test_a_threshold_holds_as_a_score_of_32_bits_does() -> None:
    evaluated = Evaluated.of(tables_of(["ann", "ann"], [(0, 1)]))
    scores = np.array([[0.1], [0.0]], np.float32)  # the first is above 0.1 as a float64
    assert choose(evaluated, scores, (0.1, 0.1), 1)["won"].numbers == (0,)
    assert choose(evaluated, scores, (float(np.float32(0.1)), 0.1), 1)["won"].numbers == (0,)


@pytest.mark.parametrize(
    "thresholds", [(np.nan, np.nan), (np.inf, np.inf), (np.nan, 0.0), (0.0, np.nan)]
)
def test_without_a_threshold_nothing_is_won_or_lost(thresholds: tuple[float, float]) -> None:
    evaluated = Evaluated.of(tables_of(["ann", "ann"], [(0, 1)]))
    found = choose(evaluated, np.array([[0.5], [-0.5]], np.float32), thresholds, 3)
    assert [each.of for each in found.values()] == [0, 0, 0]
