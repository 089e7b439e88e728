"""What both readers of IJB-B and IJB-C promise of copies that are not whole, and of comparisons
that are listed twice.
"""

from __future__ import annotations

import janus
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from janus import PAIRS, Tree, package, read, read_nist

from pipeline.core.schema import Batch
from pipeline.errors import InvalidInput
from stages.datasets.ijb import protocol as protocol
from stages.datasets.problems import Problems

HEAD = "TEMPLATE_ID,SUBJECT_ID,FILENAME,SIGHTING_ID,FACE_X,FACE_Y,FACE_WIDTH,FACE_HEIGHT\n"
NIST = {
    "ijbc_1N_gallery_G1.csv": HEAD + "3,Ada,img/1.png,,1,2,30,40\n3,Ada,img/2.png,,1,2,30,40\n",
    "ijbc_1N_gallery_G2.csv": HEAD + "20,Bob,img/3.png,,1,2,30,40\n",
    "ijbc_1N_probe_mixed.csv": HEAD + "7,Ada,img/7.png,,1,2,30,40\n21,Bob,img/1.png,,50,2,30,40\n",
    "ijbc_11_G1_G2_matches.csv": "3,7\n3,21\n20,21\n",
}
COUNTS = {
    "templates": 4,
    "comparisons": 3,
    "mated": 2,
    "non-mated": 1,
    "gallery_1": 1,
    "gallery_2": 1,
    "probe": 2,
}


def nist(lacking: tuple[str, ...] = (), **others: str) -> Tree:
    """NIST's tree with its images but those; `others` replace a list by the end of its name."""
    lists = {
        name: next((new for end, new in others.items() if name.endswith(f"{end}.csv")), old)
        for name, old in NIST.items()
    }
    images = {
        f"images/img/{n}.png": f"pixels {n}" for n in (1, 2, 3, 7) if f"{n}.png" not in lacking
    }
    return Tree(lists | images)


def refused(reading: object, tree: object, **options: object) -> str:
    with pytest.raises(InvalidInput) as caught:
        reading(tree, **options)
    return str(caught.value)


def publish(monkeypatch: pytest.MonkeyPatch, counts: dict[str, int]) -> None:
    """Let the published counts be these."""
    of = protocol.manifest("ijbc")
    monkeypatch.setattr(
        protocol, "manifest", lambda name: of.model_copy(update={"counts": {**of.counts, **counts}})
    )


def without(tree: Tree, *names: str) -> Tree:
    return Tree({name: data for name, data in tree.content.items() if name not in names})


# -- missing images
# --------------------------------------------------------------------------------------------------


def test_lacking_images_of_a_package_are_told_with_all_other_differences() -> None:
    said = refused(
        read, without(package(), "loose_crop/12.jpg", "loose_crop/15.jpg"), counts="published"
    )
    assert "loose_crop/: 2 of 7 images are missing, the first 12.jpg" in said
    assert "this is not the whole of ijbc: faces: expected 469,375, found 7" in said
    assert said.count("set dataset.options.counts to any") == 1


def test_a_package_whose_counts_are_right_is_refused_where_images_lack(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish(monkeypatch, {"faces": 7, "templates": 5, "comparisons": 5, "mated": 2, "non-mated": 3})
    assert read(package(), counts="published")["faces"].rows == 7
    said = refused(read, without(package("a/"), "a/loose_crop/10.jpg"), counts="published")
    assert (
        "a/loose_crop/: 1 of 7 images is missing, the first 10.jpg; complete the copy, or set"
        in said
    )
    assert "not the whole" not in said


def test_no_image_has_to_be_there_where_embeddings_are_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish(monkeypatch, {"faces": 7, "templates": 5, "comparisons": 5, "mated": 2, "non-mated": 3})
    beside = {"e.npy": janus.npy(np.ones((7, 2), np.float32))}
    assert (
        read(package(crops=False, **beside), counts="published", embeddings="e.npy")["faces"].rows
        == 7
    )


def test_with_any_counts_lacking_images_are_taken_as_they_are() -> None:
    assert read(without(package(), "loose_crop/12.jpg"), counts="any")["faces"]["sha256"][2] == ""
    assert read_nist(nist(("3.png",)), counts="any")["faces"].rows == 5


def test_lacking_images_of_the_nist_tree_are_told_each_once() -> None:
    said = refused(read_nist, nist(("1.png", "7.png")), counts="published")
    assert "images/: 2 of 4 images are missing, the first img/1.png" in said
    assert "this is not the whole of ijbc" in said
    assert "images: 4 of 4 images are missing, the first img/1.png" in refused(
        read_nist, nist(("1.png", "2.png", "3.png", "7.png")), counts="published"
    )


# -- counts of the nist tree
# -------------------------------------------------------------------------------------------


def test_a_partial_nist_tree_is_refused_with_every_difference_unless_any_counts_do() -> None:
    with pytest.raises(InvalidInput) as caught:
        janus.IjbNistReader(janus.IjbNistReader.Options()).read(nist())
    said = str(caught.value)
    assert (
        "subjects of gallery_1: expected 1,772, found 1; subjects of gallery_2: expected 1,759,"
        " found 1" in said
    )
    assert "probes: expected 19,593, found 2; templates: expected 23,124, found 4" in said
    assert "comparisons: expected 15,658,489, found 3; mated: expected 19,557, found 2" in said
    assert "set dataset.options.counts to any" in said
    assert "faces" not in said


def test_a_nist_tree_whose_counts_are_right_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, COUNTS)
    assert read_nist(nist(), counts="published")["templates"].rows == 4


@pytest.mark.parametrize("what", list(COUNTS))
def test_each_count_of_the_nist_tree_is_compared(
    monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    publish(monkeypatch, COUNTS | {what: 99})
    assert "expected 99, found" in refused(read_nist, nist(), counts="published")


def test_lists_of_which_nothing_is_published_are_not_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish(monkeypatch, {"gallery_1": 1, "gallery_2": 1})
    tree = nist()
    tree.content["ijbc_1N_probe_img.csv"] = NIST["ijbc_1N_probe_mixed.csv"].encode()
    assert (
        read_nist(tree, counts="published", probes="img", comparisons="none")["templates"].rows == 4
    )
    ends = {
        "gallery_G1.csv": "1N_gallery_G1",
        "gallery_G2.csv": "1N_gallery_G2",
        "probes.csv": "1N_probe_mixed",
    }
    test4 = {f"protocols/test4/{name}": NIST[f"ijbc_{own}.csv"] for name, own in ends.items()}
    images = {name: data for name, data in nist().content.items() if name.endswith(".png")}
    assert (
        read_nist(Tree(test4 | images), counts="published", comparisons="none")["templates"].rows
        == 4
    )


def test_covariate_faces_and_comparisons_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, {**COUNTS, "comparisons": 99, "mated": 99, "non-mated": 99})
    tree = nist()
    tree.content["ijbc_11_covariate_matches.csv"] = b"3,50\n"
    tree.content["ijbc_11_covariate_probe_reference.csv"] = (
        HEAD + "50,Ada,img/1.png,,1,2,3,4\n"
    ).encode()
    assert read_nist(tree, counts="published", comparisons="covariates")["templates"].rows == 5


# -- media that are derived
# --------------------------------------------------------------------------------------------


def test_a_sighting_and_a_video_of_one_name_are_two_media() -> None:
    rows = (
        "7,Ada,img/7.png,9,1,2,30,40\n"
        "7,Ada,frames/9_1.png,,1,2,30,40\n"
        "7,Ada,frames/9_2.png,,1,2,30,40\n"
    )
    media = [
        medium
        for _, medium in janus.members(read_nist(nist(probe_mixed=HEAD + rows, matches="3,7\n")))[
            "7"
        ]
    ]
    assert media == ["9", "video:9", "video:9"]


# -- comparisons listed twice
# ------------------------------------------------------------------------------------------


def test_a_comparison_that_is_listed_again_or_mirrored_is_told_with_both_lines() -> None:
    said = refused(read, package(pairs=PAIRS + "3 21 0\n7 3 1\n"))
    assert (
        "meta/ijbc_template_pair_label.txt: line 6: templates 3 and 21 are compared in line 2"
        " already" in said
    )
    assert "line 7: templates 7 and 3 are compared in line 1 already" in said
    said = refused(read_nist, nist(matches="3,7\n3,21\n21,3\n3,7\n"))
    assert (
        "ijbc_11_G1_G2_matches.csv: line 3: templates 21 and 3 are compared in line 2 already"
        in said
    )
    assert "line 4: templates 3 and 7 are compared in line 1 already" in said


def test_of_many_repeated_comparisons_the_first_ten_are_shown() -> None:
    said = refused(read, package(pairs="7 3 1\n" + "3 7 1\n" * 14))
    assert "line 11: templates 3 and 7 are compared in line 1 already (and 4 more)" in said
    assert "line 12:" not in said


def test_comparisons_of_templates_without_faces_are_told_as_such_only() -> None:
    said = refused(read, package(pairs="3 99 0\n3 99 0\n98 99 0\n99 98 0\n"))
    assert "line 2: template 99 has no face" in said
    assert "already" not in said


def test_comparisons_of_a_nist_tree_without_templates_are_told() -> None:
    said = refused(
        read_nist,
        nist(gallery_G1=HEAD, gallery_G2=HEAD, probe_mixed=HEAD, matches="3,7\n3,7\n"),
        counts="published",
    )
    assert "ijbc_11_G1_G2_matches.csv: line 1: template 3 has no face" in said
    assert "mated: expected 19,557, found 0" in said


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(-1, 4), st.integers(-1, 4)), max_size=30))
def test_as_many_are_told_as_are_listed_before(pairs: list[tuple[int, int]]) -> None:
    a, b = np.array(pairs, np.int64).reshape(-1, 2).T
    problems = Problems("here")
    protocol.need_once("list", a, b, np.arange(5) * 10, problems)
    known = [frozenset(pair) for pair in pairs if min(pair) >= 0]
    assert problems.count == len(known) - len(set(known))


def test_a_package_without_repeats_is_read_as_listed() -> None:
    tables: dict[str, Batch] = read(package(pairs="3 7 1\n7 20 0\n3 20 0\n"))
    assert tables["comparisons"].rows == 3
