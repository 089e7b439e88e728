"""What is measured is the same work: both ways agree, on a list of comparisons of the density that
is claimed.
"""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import discard, set_to_set
from benchmarks.material import MATED, NONMATED, PRODUCT, Material, compare_all
from pipeline.core.schema import Array


@pytest.fixture(scope="module")
def made() -> Material:
    return Material.make(0.01)


def pairs(made: Material) -> Array:
    return made.listed["a"] * len(made.subject) + made.listed["b"]


def test_the_list_is_of_references_and_probes_without_repeats_and_says_what_is_mated(
    made: Material,
) -> None:
    listed = made.listed
    assert np.isin(listed["a"], made.roles("reference")).all()
    assert np.isin(listed["b"], made.roles("probe")).all()
    assert len(np.unique(pairs(made))) == listed.rows
    assert ((made.subject[listed["a"]] == made.subject[listed["b"]]) == listed["mated"]).all()


def test_the_list_holds_the_share_of_all_pairs_that_ijb_c_lists(made: Material) -> None:
    possible = len(made.roles("reference")) * len(made.roles("probe"))
    assert made.listed["mated"].sum() == round(possible * MATED / PRODUCT)
    assert (~made.listed["mated"]).sum() == round(possible * NONMATED / PRODUCT)


def test_the_galleries_share_no_template_and_hold_every_reference(made: Material) -> None:
    enrolled = np.concatenate([made.roles(name) for name in set_to_set.GALLERIES])
    assert sorted(enrolled) == sorted(made.roles("reference"))


def test_both_ways_give_the_same_numbers(made: Material) -> None:
    told = {}
    for row in set_to_set.rows(made, replicates=3):
        ours = row.ours()
        if callable(row.common):
            theirs = row.common()
            told[row.name] = row.compared(theirs, ours)
            if isinstance(ours, np.ndarray):
                assert np.nanmax(np.abs(theirs - ours)) < 1e-6, row.name
    assert len(told) == 6
    assert any("false matches identical" in sentence for sentence in told.values())
    assert any(sentence.startswith("100 % of ranks identical") for sentence in told.values())


def test_both_ways_give_the_same_error_versus_discard(made: Material) -> None:
    told = []
    for row in discard.rows(made, compare_all(made.data, made.fused), replicates=3):
        ours = row.ours()
        if callable(row.common):
            theirs = row.common()
            np.testing.assert_allclose(theirs, ours[:, : theirs.shape[1]], atol=1e-12)
            told.append(row.compared(theirs, ours))
    assert len(told) == 3
    assert sum("1 of 20 steps timed" in sentence for sentence in told) == 2
