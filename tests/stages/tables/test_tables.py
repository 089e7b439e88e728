"""Tables: ids become rows, what does not fit together is refused by name, and all pairs are
numbered row by row.
"""

from __future__ import annotations

import re
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.schema import Batch
from pipeline.errors import InvalidInput
from stages.tables.comparisons import Comparisons, role_rows
from stages.tables.pair_layouts import Listed, Product
from stages.tables.tables import (
    GROWING,
    LAYOUT,
    FaceLayout,
    ProtocolLists,
    build_tables,
    singletons,
)

properties = settings(deadline=None, max_examples=40)


def protocol(**fields: Any) -> ProtocolLists:
    """Three faces, two templates; `fields` replace what they name."""
    given_fields = {
        "face_id": ["f0", "f1", "f2"],
        "path": ["a.jpg", "b.jpg", ""],
        "sha256": ["0" * 64, "1" * 64, ""],
        "subject": ["ada", "ada", "bob"],
        "template_id": ["bob's", "ada's"],
        "template_subject": ["bob", "ada"],
        "member_template": ["ada's", "bob's", "ada's"],
        "member_face": ["f1", "f2", "f0"],
        "member_media": ["m1", "m2", "m0"],
    }
    return ProtocolLists(**{**given_fields, **fields})


def product(references: list[int], probes: list[int]) -> dict[str, Batch]:
    return paired(
        [*((i, "reference") for i in references), *((i, "probe") for i in probes)],
        ("reference", "probe"),
    )


def paired(roles: list[tuple[int, str]], pairing: tuple[str, str]) -> dict[str, Batch]:
    names = [f"t{i}" for i in range(10)]
    found = ProtocolLists(
        face_id=names,
        path=names,
        sha256=names,
        subject=names,
        role_template=[names[i] for i, _ in roles],
        role=[role for _, role in roles],
        all_pairs=pairing,
        **singletons(names, names),
    )
    return build_tables(found, "all pairs")


def test_ids_become_rows_and_members_are_sorted_by_template() -> None:
    tables = build_tables(protocol(), "a set")
    members = tables["members"]
    assert members["template"].tolist() == [0, 1, 1]
    assert members["face"].tolist() == [2, 1, 0]  # inside a template, in the order given
    assert members["media"].tolist() == ["m2", "m1", "m0"]
    assert tables["templates"]["template_id"].tolist() == ["bob's", "ada's"]


def test_every_table_follows_its_schema_whatever_is_left_out() -> None:
    columns = {"landmarks": np.zeros((3, 5, 2), np.float32), "quality": np.zeros(3, np.float32)}
    full = protocol(
        role_template=["ada's"],
        role=["probe"],
        comparison_a=["ada's"],
        comparison_b=["bob's"],
        mated=[False],
        fold=[2],
        all_pairs=("reference", "probe"),
        columns=columns,
    )
    for found in (protocol(), full):
        tables = build_tables(found, "a set")
        assert set(tables) == set(LAYOUT.schemas)
        for name, table in tables.items():
            LAYOUT.schemas[name].check(table)


def test_comparisons_keep_their_order_and_have_no_fold_unless_given() -> None:
    found = protocol(
        comparison_a=["ada's", "bob's"], comparison_b=["bob's", "bob's"], mated=[False, True]
    )
    listed = build_tables(found, "a set")["comparisons"]
    assert listed["a"].tolist() == [1, 0]
    assert listed["b"].tolist() == [0, 0]
    assert listed["mated"].tolist() == [False, True]
    assert listed["fold"].tolist() == [-1, -1]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"face_id": ["f0", "f1", "f0"]},
            "a set: every face needs an id of its own; given twice: face 'f0' in rows 0 and 2",
        ),
        (
            {"template_id": ["x", "x"]},
            "every template needs an id of its own; given twice: template 'x' in rows 0 and 1",
        ),
        (
            {"member_face": ["f1", "f9", "f0"]},
            "a set: members: face 'f9' in row 1 is not in the data set",
        ),
        (
            {"member_template": ["ada's", "bob's", "eve's"]},
            'members: template "eve\'s" in row 2 is not in the data set',
        ),
        ({"role_template": ["eve"], "role": ["probe"]}, "roles: template 'eve' in row 0 is not"),
        (
            {"comparison_a": ["eve"], "comparison_b": ["ada's"], "mated": [True]},
            "comparisons: template 'eve' in row 0 is not",
        ),
    ],
)
def test_ids_that_do_not_fit_together_are_named_with_their_rows(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        build_tables(protocol(**fields), "a set")
    assert message in str(caught.value)


def test_of_many_unknown_ids_ten_are_named_and_all_counted() -> None:
    found = protocol(
        comparison_a=["ada's"] * 14, comparison_b=[f"x{i}" for i in range(14)], mated=[False] * 14
    )
    with pytest.raises(InvalidInput, match=r"'x9' in row 9 .*\(and 4 more\)") as caught:
        build_tables(found, "a set")
    assert "x10" not in str(caught.value)


def test_singletons_make_each_face_a_template_and_a_medium() -> None:
    found = ProtocolLists(
        face_id=["b", "a"],
        path=["", ""],
        sha256=["", ""],
        subject=["s", "t"],
        **singletons(["b", "a"], ["s", "t"]),
    )
    tables = build_tables(found, "a set")
    assert tables["templates"]["template_id"].tolist() == ["b", "a"]
    assert tables["templates"]["subject"].tolist() == ["s", "t"]
    assert tables["members"]["face"].tolist() == tables["members"]["template"].tolist() == [0, 1]


def test_a_role_lists_its_templates_in_the_order_of_the_table() -> None:
    roles = product([4, 1, 7], [2])["roles"]
    assert role_rows(roles, "reference").tolist() == [4, 1, 7]
    assert role_rows(roles, "gallery").tolist() == []


@properties
@given(
    references=st.lists(st.integers(0, 9), min_size=1, max_size=6),
    probes=st.lists(st.integers(0, 9), min_size=1, max_size=6),
    data=st.data(),
)
def test_all_pairs_are_numbered_row_by_row(
    references: list[int], probes: list[int], data: Any
) -> None:
    comparisons = Comparisons.of(product(references, probes))
    expected = [(a, b) for a in references for b in probes]
    assert isinstance(comparisons.form, Product)
    assert comparisons.rows == len(expected)
    start = data.draw(st.integers(0, len(expected)))
    stop = data.draw(st.integers(start, len(expected)))
    a, b = comparisons.pairs(start, stop)
    assert list(zip(a.tolist(), b.tolist(), strict=True)) == expected[start:stop]


@properties
@given(references=st.integers(1, 9), probes=st.integers(1, 9), rows=st.integers(1, 30))
def test_shards_of_all_pairs_hold_whole_rows(references: int, probes: int, rows: int) -> None:
    tables = product(list(range(references)), list(range(probes)))
    shards = FaceLayout().axes(tables, {"comparisons": rows})["comparisons"].shards
    assert shards[0][0] == 0
    assert shards[-1][1] == references * probes
    for (start, stop), following in zip(shards, [*shards[1:], (shards[-1][1], 0)], strict=True):
        assert stop == following[0]
        assert start % probes == stop % probes == 0
        assert stop - start <= max(rows, probes)


@properties
@given(role=st.permutations(range(10)), count=st.integers(0, 10), data=st.data())
def test_all_pairs_of_one_role_are_each_unordered_pair_once(
    role: list[int], count: int, data: Any
) -> None:
    tables = paired([(i, "face") for i in role[:count]], ("face", "face"))
    comparisons, expected = Comparisons.of(tables), list(combinations(role[:count], 2))
    assert (comparisons.rows, isinstance(comparisons.form, Product)) == (len(expected), False)
    start = data.draw(st.integers(0, len(expected)))
    stop = data.draw(st.integers(start, len(expected)))
    a, b = comparisons.pairs(start, stop)
    assert list(zip(a.tolist(), b.tolist(), strict=True)) == expected[start:stop]
    comparisons.refuse_itself(tables)


@properties
@given(count=st.integers(0, 10), rows=st.integers(1, 30))
def test_all_pairs_of_one_role_are_cut_anywhere(count: int, rows: int) -> None:
    tables = paired([(i, "face") for i in range(count)], ("face", "face"))
    shards = FaceLayout().axes(tables, {"comparisons": rows})["comparisons"].shards
    sizes, size = [stop - start for start, stop in shards], count * (count - 1) // 2
    assert sizes == [rows] * (size // rows) + [size % rows] * (size % rows > 0 or size == 0)


@pytest.mark.parametrize(
    ("roles", "pairing", "message"),
    [
        (
            [(3, "face"), (1, "face"), (3, "face")],
            ("face", "face"),
            "'t3' is listed more than once as 'face' (1 such)",
        ),
        (
            [(1, "reference"), (2, "probe"), (1, "probe")],
            ("reference", "probe"),
            "'t1' serves as 'reference' and as 'probe'",
        ),
    ],
)
def test_all_pairs_with_one_of_a_template_with_itself_are_refused(
    roles: list[tuple[int, str]], pairing: tuple[str, str], message: str
) -> None:
    tables = paired(roles, pairing)
    with pytest.raises(InvalidInput, match=re.escape(message)):
        Comparisons.of(tables).refuse_itself(tables)


def test_a_set_that_grows_is_cut_into_small_shards_at_first_and_a_fixed_one_into_large_ones() -> (
    None
):
    ids = [f"f{i}" for i in range(3000)]
    tables = build_tables(
        protocol(face_id=ids, path=ids, sha256=ids, subject=ids, **singletons(ids, ids)), "a set"
    )

    def shards(layout: FaceLayout, asked: dict[str, int], axis: str) -> int:
        return len(layout.axes(tables, asked)[axis].shards)

    assert shards(GROWING, {}, "faces") > 3 * shards(LAYOUT, {}, "faces")
    assert shards(GROWING, {}, "templates") > 3 * shards(LAYOUT, {}, "templates")
    assert shards(GROWING, {"faces": 1024}, "faces") == shards(LAYOUT, {}, "faces")


def test_a_list_is_cut_anywhere() -> None:
    found = protocol(
        comparison_a=["ada's"] * 5,
        comparison_b=["bob's", "ada's"] * 2 + ["bob's"],
        mated=[False, True] * 2 + [False],
    )
    comparisons = Comparisons.of(build_tables(found, "a set"))
    assert isinstance(comparisons.form, Listed)
    assert (comparisons.rows, comparisons.multiple) == (5, 1)
    a, b = comparisons.pairs(1, 4)
    assert (a.tolist(), b.tolist()) == ([1, 1, 1], [1, 0, 1])


@pytest.mark.parametrize(("references", "probes"), [([], [1, 2]), ([1, 2], []), ([], [])])
def test_all_pairs_of_a_role_that_no_template_has_are_none(
    references: list[int], probes: list[int]
) -> None:
    comparisons = Comparisons.of(product(references, probes))
    assert comparisons.rows == 0
    assert [len(side) for side in comparisons.pairs(0, 0)] == [0, 0]
