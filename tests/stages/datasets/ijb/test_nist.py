"""What `stages.datasets.ijb.nist` promises, on protocols written by hand."""

from __future__ import annotations

import zipfile
from pathlib import Path

import janus
import numpy as np
import pytest
from janus import Tree, read_nist

from pipeline.config.validation import validate
from pipeline.errors import InvalidInput
from pipeline.files.file_tree import open_files
from stages.datasets.ijb.nist import IjbNistReader
from stages.tables.tables import LAYOUT

HEAD = "TEMPLATE_ID,SUBJECT_ID,FILENAME,SIGHTING_ID,FACE_X,FACE_Y,FACE_WIDTH,FACE_HEIGHT\n"
GALLERY_1 = HEAD + "3,Ada,img/1.png,s1,1,2,30,40\n3,Ada,img/2.png,s1,5,6,30,40.5\n"
GALLERY_2 = HEAD + "20,Bob,img/3.png,,1,2,30,40\n"
PROBES = (
    HEAD
    + "7,Ada,frames/9_00012.png,,1,2,30,40\n"
    + "21,Bob,img/1.png,,50,2,30,40\n"
    + "7,Ada,frames/9_00013.png,,1,2,30,40\n"
)
MATCHES = "3,7\n3,21\n20,21\n"
LISTS = {
    "protocol/ijbc_1N_gallery_G1.csv": GALLERY_1,
    "protocol/ijbc_1N_gallery_G2.csv": GALLERY_2,
    "protocol/ijbc_1N_probe_mixed.csv": PROBES,
    "protocol/ijbc_11_G1_G2_matches.csv": MATCHES,
}
IMAGES = {
    f"images/{name}": f"pixels of {name}"
    for name in ("img/1.png", "img/2.png", "frames/9_00012.png")
}


def tree(**others: str | None) -> Tree:
    """The tree; `others` replace a list by the end of its name (gallery_G1, probe_mixed, matches),
    None removes it.
    """
    content = dict(LISTS)
    for end, data in others.items():
        (name,) = (name for name in content if name.endswith(f"{end}.csv"))
        content[name] = data
    return Tree({name: data for name, data in content.items() if data is not None} | IMAGES)


def refused(files: object, **options: object) -> str:
    with pytest.raises(InvalidInput) as caught:
        read_nist(files, **options)
    return str(caught.value)


def test_tables_fit_the_layout() -> None:
    tables = read_nist(tree())
    for name, schema in LAYOUT.schemas.items():
        schema.check(tables[name])


def test_a_face_is_a_box_in_an_image() -> None:
    faces = read_nist(tree())["faces"]
    assert faces["face_id"].tolist()[:2] == ["img/1.png[1,2,30,40]", "img/2.png[5,6,30,40.5]"]
    assert "img/1.png[50,2,30,40]" in faces["face_id"]
    assert faces["box"][1].tolist() == [5, 6, 30, 40.5]
    assert faces.rows == 6


def test_media_are_sightings_else_the_video_of_a_frame_else_the_image() -> None:
    media = {
        template: [m for _, m in faces]
        for template, faces in janus.members(read_nist(tree())).items()
    }
    assert media == {
        "3": ["s1"] * 2,
        "7": ["video:9"] * 2,
        "20": ["image:img/3.png"],
        "21": ["image:img/1.png"],
    }


def test_images_are_found_where_they_lie_and_missing_ones_have_no_digest() -> None:
    files = tree()
    faces = read_nist(files)["faces"]
    assert set(faces["path"]) >= {"images/img/1.png", "images/img/3.png"}
    assert faces["sha256"].tolist() == files.digests(faces["path"])
    assert faces["sha256"][faces["path"] == "images/img/3.png"].tolist() == [""]


def test_images_in_two_places_are_told_apart_by_the_option_images() -> None:
    files = tree()
    files.content["copy/img/1.png"] = b"other pixels"
    assert "lie in several folders: 'copy', 'images'; set dataset.options.images" in refused(files)
    assert read_nist(files, images="copy")["faces"]["path"][0] == "copy/img/1.png"


def test_roles_and_subjects_are_those_of_the_lists() -> None:
    tables = read_nist(tree())
    roles = ("gallery_1", "gallery_2", "gallery", "probe")
    assert [janus.having(tables, role) for role in roles] == [
        ["3"],
        ["20"],
        ["3", "20"],
        ["7", "21"],
    ]
    assert janus.subjects(tables) == {"3": "Ada", "7": "Ada", "20": "Bob", "21": "Bob"}
    assert tables["faces"]["subject"].tolist() == ["Ada", "Ada", "Bob", "Ada", "Bob", "Ada"]


def test_mated_follows_from_the_subjects() -> None:
    assert janus.comparisons(read_nist(tree())) == [
        ("3", "7", True),
        ("3", "21", False),
        ("20", "21", True),
    ]


def test_columns_may_have_any_order_and_case_and_others_are_not_looked_at() -> None:
    plain = read_nist(tree())
    rows = [line.split(",") for line in PROBES.splitlines()]
    turned = "".join(",".join([*reversed(row), "x"]) + "\n" for row in rows)
    turned = turned.replace("TEMPLATE_ID", "Template_Id").replace("FACE_X", "face_x")
    assert all(read_nist(tree(probe_mixed=turned))[t].digest() == plain[t].digest() for t in plain)


def test_older_lists_call_the_file_name_file() -> None:
    plain, older = (
        read_nist(tree()),
        read_nist(tree(probe_mixed=PROBES.replace("FILENAME", "FILE"))),
    )
    assert all(older[name].digest() == plain[name].digest() for name in plain)


def test_a_list_that_has_both_names_is_read_by_filename() -> None:
    both = "FILE," + PROBES.replace("\n", "\nold.png,").removesuffix("old.png,")
    assert (
        read_nist(tree(probe_mixed=both))["faces"].digest() == read_nist(tree())["faces"].digest()
    )


def test_a_list_that_has_neither_name_is_refused_naming_both() -> None:
    assert "line 1: there is no column FILENAME or FILE" in refused(
        tree(probe_mixed=PROBES.replace("FILENAME", "NAME"))
    )


def test_a_media_id_counts_before_the_sighting_and_where_it_is_blank_the_sighting_does() -> None:
    head = HEAD.replace("SIGHTING_ID", "SIGHTING_ID,MEDIA_ID")
    rows = (
        "7,Ada,img/5.png,s5,m1",
        "7,Ada,img/6.png,s6,m1",
        "7,Ada,img/7.png,s7,",
        "21,Bob,img/8.png,,",
    )
    files = tree(probe_mixed=head + "".join(f"{row},1,2,3,4\n" for row in rows))
    media = {
        template: [m for _, m in faces]
        for template, faces in janus.members(read_nist(files)).items()
    }
    assert (media["7"], media["21"]) == (["m1", "m1", "s7"], ["image:img/8.png"])


def test_a_list_may_lack_sightings_and_subjects() -> None:
    short = "TEMPLATE_ID,FILENAME,FACE_X,FACE_Y,FACE_WIDTH,FACE_HEIGHT\n7,img/7.png,1,2,3,4\n"
    tables = read_nist(tree(probe_mixed=short), comparisons="none")
    assert janus.subjects(tables)["7"] == ""
    assert janus.members(tables)["7"] == [("img/7.png[1,2,3,4]", "image:img/7.png")]
    assert "line 1: template 7 has no subject" in refused(tree(probe_mixed=short, matches="3,7\n"))


def test_another_list_of_probes_can_be_asked_for() -> None:
    files = tree(probe_mixed=None, matches="3,7\n")
    files.content["protocol/ijbc_1N_probe_video.csv"] = (
        HEAD + "7,Ada,frames/9_1.png,,1,2,3,4\n"
    ).encode()
    assert janus.having(read_nist(files, probes="video"), "probe") == ["7"]


def test_covariates_bring_faces_of_their_own() -> None:
    files = tree()
    files.content["ijbc_11_covariate_matches.csv"] = b"3,50\n50,20\n"
    files.content["ijbc_11_covariate_probe_reference.csv"] = (
        HEAD + "50,Ada,img/50.png,,1,2,3,4\n"
    ).encode()
    tables = read_nist(files, comparisons="covariates")
    assert janus.comparisons(tables) == [("3", "50", True), ("50", "20", False)]
    assert janus.having(tables, "probe") == ["7", "21"]


def test_the_test4_tree_is_read_where_there_is_no_1n() -> None:
    files = Tree(
        {
            "protocols/test4/gallery_G1.csv": GALLERY_1,
            "protocols/test4/gallery_G2.csv": GALLERY_2,
            "protocols/test4/probes.csv": PROBES,
        }
    )
    tables = read_nist(files, comparisons="none")
    for name in ("faces", "members", "templates", "roles"):
        if name != "faces":
            assert tables[name].digest() == read_nist(tree())[name].digest()
    assert tables["comparisons"].rows == 0
    both = Tree(
        {
            **files.content,
            **tree().content,
            "protocols/test4/probes.csv": HEAD + "9,Ada,img/1.png,,1,2,3,4\n",
        }
    )
    assert janus.having(read_nist(both), "probe") == ["7", "21"]
    assert janus.having(read_nist(both, protocol="test4", comparisons="none"), "probe") == ["9"]


def test_two_lists_of_one_name_are_told_apart_by_the_option_root() -> None:
    files = tree()
    files.content |= {
        f"old/{name}": data for name, data in files.content.items() if name.endswith(".csv")
    }
    said = refused(files)
    assert "ijbc_1N_gallery_G1.csv: several files have this name: old/protocol/" in said
    assert "set dataset.options.root" in said
    assert janus.comparisons(read_nist(files, root="protocol")) == janus.comparisons(
        read_nist(tree())
    )


def test_a_folder_and_a_zip_of_it_give_the_same_tables(tmp_path: Path) -> None:
    folder = tree().write(tmp_path / "set")
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for name, data in tree().content.items():
            archive.writestr(name, data)
    expected = read_nist(tree())
    for path in (folder, tmp_path / "set.zip"):
        tables = read_nist(open_files(path))
        assert all(tables[name].digest() == expected[name].digest() for name in expected)


def test_the_same_face_of_a_template_in_two_lists_is_one_member() -> None:
    tables = read_nist(tree(probe_mixed=PROBES + "7,Ada,frames/9_00013.png,,1,2,30,40\n"))
    assert len(janus.members(tables)["7"]) == 2


def test_every_missing_list_is_named_with_the_option_that_helps() -> None:
    said = refused(tree(gallery_G2=None, matches=None))
    assert "ijbc_1N_gallery_G2.csv: there is no such file" in said
    assert (
        "ijbc_11_G1_G2_matches.csv: there is no such file; set dataset.options.comparisons to none"
        in said
    )


def test_problems_of_all_files_are_told_with_line_and_column() -> None:
    said = refused(
        tree(
            gallery_G1=GALLERY_1.replace(",5,6,", ",5,nan,"),
            gallery_G2=GALLERY_2.replace("FACE_Y,", ""),
            probe_mixed=PROBES.replace("21,Bob", "-21,Bob"),
            matches=MATCHES + "3\n",
        )
    )
    assert "gallery_G1.csv: line 3, column 'FACE_Y': expected a finite number, found 'nan'" in said
    assert "gallery_G2.csv: line 1: there is no column FACE_Y" in said
    assert (
        "probe_mixed.csv: line 3, column 'TEMPLATE_ID': expected a whole number from 0, found '-21'"
        in said
    )
    assert "matches.csv: line 4: expected 'template 1,template 2', found '3'" in said


def test_what_does_not_fit_together_is_told() -> None:
    said = refused(
        tree(
            gallery_G2=GALLERY_2 + "20,Zoe,../../x.png,,1,2,0,4\n",
            matches=MATCHES + "3,99\n7,7\n",
        )
    )
    assert "gallery_G2.csv: line 3: the name '../../x.png' points outside the data set" in said
    assert "line 3: the box should be larger than 0, found [0.0, 4.0]" in said
    assert "line 3: template 20 is of subject 'Zoe', and of 'Bob' before" in said
    assert "matches.csv: line 4: template 99 has no face" in said
    assert "line 5: template 7 is compared with itself" in said


def test_ijbb_has_file_names_of_its_own() -> None:
    renamed = {
        name.replace("ijbc", "ijbb").replace("G1", "S1").replace("G2", "S2"): data
        for name, data in tree().content.items()
    }
    assert janus.comparisons(read_nist(Tree(renamed), name="ijbb")) == janus.comparisons(
        read_nist(tree())
    )


def test_lists_that_are_empty_but_for_a_header_give_empty_tables() -> None:
    tables = read_nist(tree(gallery_G1=HEAD, gallery_G2=HEAD, probe_mixed=HEAD, matches=""))
    assert {name: batch.rows for name, batch in tables.items()} == dict.fromkeys(tables, 0)
    assert tables["faces"]["box"].shape == (0, 4)
    assert tables["comparisons"]["mated"].dtype == np.bool_


def test_sources_are_the_lists_and_the_images() -> None:
    files = tree()
    assert (
        sorted(IjbNistReader(validate(IjbNistReader.Options, {}, "")).sources(files))
        == files.names()
    )
