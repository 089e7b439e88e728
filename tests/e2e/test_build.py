"""`qfuse build` (templates for other programs) and `qfuse reference` (statistics for other data
sets).
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from e2e.conftest import CONFIG, Answer, command, commands

from stages.datasets.synthetic import SynthOptions, synthesise
from stages.datasets.tables_file import write_tables
from stages.tables.tables import ProtocolLists, build_tables, singletons

Qfuse = Callable[..., Answer]
ROOT = Path(__file__).parents[2]
MINMAX = ("--set", "steps.fuse.options.rule=quality-minmax")


def columns(path: Path) -> dict[str, Any]:
    """Everything in a file of templates, by plain h5py."""
    with h5py.File(path) as file:
        found = {name: file[name][:] for name in ("status", "embedding", "used", "fallback")}
        found |= {
            name: file[name].asstr()[:]
            for name in ("template_id", "subject", "members/face_id", "members/media")
        }
        return {
            **found,
            **{f"members/{n}": file["members"][n][:] for n in ("template", "weight")},
            **dict(file.attrs),
        }


def test_build_writes_templates_members_and_weights_and_says_how_fast(
    qfuse: Qfuse, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    built = qfuse("build", "c.yaml", "out/t.h5", "--set", "steps.fuse.options.rule=quality-linear")
    assert built.code == 0, built.err
    assert "out/t.h5: 23 templates of 469 faces (fuse)" in built.out
    assert "fused 23 templates, " in built.out
    found = columns(tmp_path / "out/t.h5")
    assert found["format"] == "qfuse-templates/1"
    assert found["fuse.rule"] == "quality-linear"
    assert (found["status"] == 0).all()
    assert found["template_id"][0] == "t000000"
    assert len(found["members/weight"]) == len(found["members/face_id"]) == 469
    again = qfuse("build", "c.yaml", "out/t.h5", "--set", "steps.fuse.options.rule=quality-linear")
    assert "all templates were in the store already" in again.out


def test_the_weights_in_the_file_are_those_of_its_templates(qfuse: Qfuse, tmp_path: Path) -> None:
    assert qfuse("build", "c.yaml", "t.h5", *MINMAX).code == 0
    found = columns(tmp_path / "t.h5")
    (stored,) = (tmp_path / ".qfuse/store/embed").glob("??/*.h5")
    with h5py.File(stored) as file:
        unit = file["embedding"][:].astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    for template in range(23):
        rows = found["members/template"] == template
        summed = (found["members/weight"][rows, None] * unit[rows]).sum(axis=0)
        np.testing.assert_allclose(
            found["embedding"][template], summed / np.linalg.norm(summed), atol=1e-5
        )
    with h5py.File(tmp_path / "t.h5") as file:
        quality = file["members/quality"][:]
    scaled = (quality - quality.min()) / (quality.max() - quality.min())
    first = found["members/template"] == 0
    np.testing.assert_allclose(
        found["members/weight"][first], scaled[first] / scaled[first].max(), atol=1e-6
    )


def test_what_is_built_stands_alone_and_a_view_says_which_templates_are_gone(
    tmp_path: Path,
) -> None:
    (tmp_path / "c.yaml").write_text(CONFIG)
    built = [("copy.h5",), ("same.hdf5", "--copy"), ("view.h5", "--view")]
    assert {
        answer.code
        for answer in commands(tmp_path, [("build", "c.yaml", *words) for words in built]).values()
    } == {0}
    view, copied = columns(tmp_path / "view.h5"), columns(tmp_path / "copy.h5")
    assert np.array_equal(view["embedding"], copied["embedding"])
    assert (tmp_path / "copy.h5").read_bytes() == (tmp_path / "same.hdf5").read_bytes()
    (tmp_path / ".qfuse/store").rename(tmp_path / "moved")
    gone, kept = columns(tmp_path / "view.h5"), columns(tmp_path / "copy.h5")
    assert set(gone["status"].tolist()) == {json.loads(gone["statuses"])["gone"]}
    assert np.isnan(gone["embedding"]).all()
    assert gone["view"] == str(tmp_path / ".qfuse/store")
    assert "view" not in kept
    assert np.array_equal(kept["embedding"], copied["embedding"])


def test_a_view_that_may_not_be_read_here_is_refused_and_a_copy_is_written(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(CONFIG + "run: {workers: 1}\n")
    cut = ("--set", "dataset.shard_rows={templates: 1}")
    few = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (75,"
        " resource.getrlimit(resource.RLIMIT_NOFILE)[1]))\n"
    )
    view, copied = commands(
        tmp_path, [("build", "c.yaml", "t.h5", *cut, *more) for more in (["--view"], [])], few
    ).values()
    assert (
        view.code,
        "shards is read with as many files open at once, and `ulimit -n` is 75" in view.err,
    ) == (6, True)
    assert copied.code == 0, copied.err
    assert (columns(tmp_path / "t.h5")["status"] == 0).all()


def test_a_file_is_of_the_form_that_its_name_says_or_refused(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(CONFIG)
    lines = [
        ("build", "c.yaml", "t.csv"),
        ("build", "c.yaml", "t.npz", "--view"),
        ("synth", "tables", "t.parquet", "--scale", "0.0005"),
        ("reference", "c.yaml", "r.yaml"),
        ("quality", "calibrate", "c.yaml", "--name", "a", "-o", "a.h5"),
        ("quality", "apply", "a.json", "c.yaml", "-o", "a.xlsx"),
        ("init", "new.toml"),
    ]
    for line, answer in commands(tmp_path, lines).items():
        assert answer.code == 2, line
        assert re.search(r" writes [A-Z0-9]+: give a name that ends in ", answer.err), line
    assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"]


OUT = {  # a verb and all that it is asked, but for the name of its file
    "build": ("build", "c.yaml"),
    "reference": ("reference", "c.yaml"),
    "calibrate": ("quality", "calibrate", "c.yaml", "--name", "a", "-o"),
    "apply": ("quality", "apply", "a.json", "c.yaml", "-o"),
    "tables": ("synth", "tables", "--scale", "0.0005"),
    "init": ("init",),
}
ENDINGS = {
    "build": ".h5 or .hdf5",
    "reference": ".json",
    "calibrate": ".json",
    "apply": ".csv or .txt",
}
ENDINGS |= {"tables": ".h5 or .hdf5", "init": ".yaml or .yml"}


def test_a_name_without_the_suffix_of_its_form_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(CONFIG)
    answers = commands(tmp_path, [(*words, "out") for words in OUT.values()])
    for verb, answer in zip(OUT, answers.values(), strict=True):
        said = f": give a name that ends in {ENDINGS[verb]}, such as NAME"
        assert (answer.code, said in answer.err, " writes " in answer.err) == (2, True, True), verb
    assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"]


def test_an_empty_name_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(CONFIG)
    answers = commands(tmp_path, [(*words, "") for words in OUT.values()])
    for verb, answer in zip(OUT, answers.values(), strict=True):
        said = f"give the name of a file that ends in {ENDINGS[verb]}."
        assert (answer.code, said in answer.err) == (2, True), verb


def test_a_folder_that_is_not_there_is_asked_for_and_not_made(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(CONFIG)
    names = {verb: f"my out/x{ending.partition(' ')[0]}" for verb, ending in ENDINGS.items()}
    lines = [(*words, names[verb]) for verb, words in OUT.items()] + [
        ("synth", "ijbc", "my out/x", "--scale", "0.0005")
    ]
    for line, answer in commands(tmp_path, lines).items():
        said = "expected an existing folder, and there is no my out: `mkdir -p 'my out'` makes it."
        assert (answer.code, said in answer.err) == (3, True), line
    assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"]


def test_a_place_that_is_no_folder_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(CONFIG)
    (tmp_path / "file").write_text("")
    (tmp_path / "nowhere").symlink_to("/nonexistent")
    for place, kind in (("file", "a file"), ("nowhere", "a link that leads nowhere")):
        for verb, words in OUT.items():
            answer = command(tmp_path, *words, f"{place}/x{ENDINGS[verb].partition(' ')[0]}")
            assert (answer.code, f"{place} is {kind} and should be a folder" in answer.err) == (
                3,
                True,
            ), (verb, place)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.yaml", "file", "nowhere"]


def test_nothing_is_written_into_the_data_set_or_the_store(tmp_path: Path) -> None:
    (tmp_path / "people/anna").mkdir(parents=True)
    (tmp_path / ".qfuse/store").mkdir(parents=True)
    (tmp_path / "link").symlink_to("people")
    (tmp_path / "c.yaml").write_text(
        "name: c\ndataset: {reader: folder, path: people}\nsteps: {quality: {}, fuse: {}}\n"
    )
    places = dict.fromkeys(("people/t.h5", "people/anna/t.h5", "link/t.h5"), "which is only read")
    places[".qfuse/store/t.h5"] = "lies in the store"
    for place, said in places.items():
        answer = command(tmp_path, "build", "c.yaml", place)
        assert (answer.code, said in answer.err) == (3, True), place
    line = ("quality", "calibrate", "c.yaml", "--name", "a", "-o", "people/a.json")
    assert "lies in the data set" in command(tmp_path, *line).err


def test_a_config_inside_its_data_set_may_be_built_beside_it(tmp_path: Path) -> None:
    write_tables(tmp_path / "tables.h5", synthesise(SynthOptions(scale=0.001, dimension=8)))
    (tmp_path / "c.yaml").write_text(
        CONFIG.replace("reader: synthetic, options: {scale: 0.001}", "reader: tables, path: .")
    )
    answer = command(tmp_path, "build", "c.yaml", "t.h5")
    assert answer.code == 0, answer.err


def test_a_file_of_templates_tells_what_made_it(qfuse: Qfuse, tmp_path: Path) -> None:
    assert qfuse("build", "c.yaml", "t.h5", *MINMAX).code == 0
    assert qfuse("build", "c.yaml", "v.h5", "--view", *MINMAX).code == 0
    found = columns(tmp_path / "t.h5")
    assert found["qfuse"] == version("qfuse")
    assert (found["config"], found["dataset.reader"], found["dataset.options"]) == (
        "small",
        "synthetic",
        '{"scale":0.001}',
    )
    assert list((tmp_path / ".qfuse/store/ingest.faces").glob(f"??/{found['dataset.key']}.json"))
    told = {name: json.loads(value) for name, value in found.items() if name.startswith("steps.")}
    assert told.keys() == {"steps.embed", "steps.quality", "steps.statistics", "steps.fuse"}
    (receipt,) = (
        json.loads(path.read_text()) for path in (tmp_path / ".qfuse/store/embed").glob("??/*.json")
    )
    preimage = receipt["provenance"]["preimage"]
    assert told["steps.embed"] == {
        name: preimage[name] for name in ("stage", "version", "options", "identity", "numerics")
    }
    assert "options" not in told["steps.fuse"]  # they are attributes of their own
    seen = columns(tmp_path / "v.h5")
    assert {name: seen[name] for name in told} == {name: found[name] for name in told}


def test_a_file_of_templates_names_the_weights_that_made_it(tmp_path: Path, shared: Path) -> None:
    with zipfile.ZipFile(shared / "data/lfw.zip") as photographs:
        name = next(name for name in photographs.namelist() if name.endswith(".jpg"))
        (tmp_path / "people/anna").mkdir(parents=True)
        (tmp_path / "people/anna/1.jpg").write_bytes(photographs.read(name))
    steps = "steps: {align: {}, embed: {options: {model: edgeface_xs}}, fuse: {}}\n"
    head = (
        "name: c\ndataset: {reader: folder, path: people}\nmodels: {folders:"
        f" ['{shared}/models']}}\n"
    )
    (tmp_path / "c.yaml").write_text(head + steps)
    assert command(tmp_path, "build", "c.yaml", "t.h5").code == 0
    found = columns(tmp_path / "t.h5")
    assert (found["dataset.path"], found["dataset.reader"]) == ("people", "folder")
    for step, model, file in (
        ("align", "detector", "yunet_n_320_320.onnx"),
        ("embed", "model", "edgeface_xs.onnx"),
    ):
        told = json.loads(found[f"steps.{step}"])
        assert (
            told["identity"]["sha256"]
            == hashlib.sha256((shared / "models" / file).read_bytes()).hexdigest()
        )
        assert told["options"][model] in ("yunet_320", "edgeface_xs")
        assert told["numerics"]["backends"].keys() >= {"opencv"}


def test_several_cells_are_files_of_their_own_and_where_chooses(
    qfuse: Qfuse, tmp_path: Path
) -> None:
    text = (tmp_path / "c.yaml").read_text().replace("rule: mean", "rule: $rule")
    (tmp_path / "c.yaml").write_text(text + "factors: {rule: [mean, top-k(k=2)]}\n")
    built = qfuse("build", "c.yaml", "t.h5", "--json").json
    assert [Path(one["path"]).name for one in built["files"]] == [
        "t-rule=mean.h5",
        "t-rule=top-k_k=2.h5",
    ]
    assert built["fused"] == 46
    assert qfuse("build", "c.yaml", "one.h5", "--where", "rule=mean").code == 0
    assert columns(tmp_path / "one.h5")["step"] == "fuse[rule=mean]"
    refused = qfuse("build", "c.yaml", "x.h5", "--where", "rule=maen")
    assert (refused.code, "did you mean 'mean'" in refused.err) == (2, True)


def test_a_config_without_the_step_is_refused(tmp_path: Path) -> None:
    head = "name: d\ndataset: {reader: synthetic, options: {scale: 0.001}}\n"
    (tmp_path / "d.yaml").write_text(
        head + "steps: {embed: {options: {model: given, flip: none}}}\n"
    )
    answers = commands(
        tmp_path, [("build", "d.yaml", "out.h5"), ("reference", "d.yaml", "out.json")]
    )
    for step, answer in zip(("fuse", "statistics"), answers.values(), strict=True):
        assert answer.code == 3
        said = (
            f"d has no `{step}` step: add `{step}: {{}}` to its steps, as a line of its own below"
            " `steps:`"
        )
        assert said in answer.err
        assert f"or give --set 'steps.{step}={{}}'" in answer.err


def test_a_step_that_is_missing_may_be_given_as_the_error_says(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(CONFIG.replace("  statistics: {}\n", ""))
    assert (
        "give --set 'steps.statistics={}'" in command(tmp_path, "reference", "c.yaml", "r.json").err
    )
    answer = command(tmp_path, "reference", "c.yaml", "r.json", "--set", "steps.statistics={}")
    assert answer.code == 0, answer.err


def test_the_example_in_the_help_of_reference_has_the_step_that_it_needs(tmp_path: Path) -> None:
    said = " ".join(command(tmp_path, "reference", "--help").out.split())
    example = re.search(r"Example: qfuse reference (\S+) lightqnet\.json", said)
    assert example is not None
    assert "\n  statistics:" in (ROOT / example[1]).read_text()


def test_the_help_of_build_says_that_it_replaces_a_file_of_templates(tmp_path: Path) -> None:
    said = re.sub(r"[^\w.,]+", " ", command(tmp_path, "build", "--help").out)
    assert "An existing file of templates is replaced." in said


def test_only_what_is_chosen_is_computed_and_a_wrong_choice_computes_nothing(
    qfuse: Qfuse, tmp_path: Path
) -> None:
    text = (tmp_path / "c.yaml").read_text().replace("rule: mean", "rule: $rule")
    (tmp_path / "c.yaml").write_text(text + "factors: {rule: [mean, best, quality-linear]}\n")
    assert qfuse("build", "c.yaml", "x.h5", "--where", "rule=maen").code == 2
    assert not (tmp_path / ".qfuse/store/embed").exists()
    assert qfuse("build", "c.yaml", "t.h5", "--where", "rule=mean", "--json").json["fused"] == 23
    assert not (tmp_path / ".qfuse/store/quality").exists()


def test_a_file_that_is_no_file_of_templates_is_never_replaced(
    qfuse: Qfuse, tmp_path: Path
) -> None:
    (tmp_path / "notes.h5").write_text("mine")
    answer = qfuse("build", "c.yaml", "notes.h5")
    assert (answer.code, "exists and is not a file of templates" in answer.err) == (3, True)
    assert (tmp_path / "notes.h5").read_text() == "mine"


def test_cells_without_factors_have_files_of_their_own(qfuse: Qfuse, tmp_path: Path) -> None:
    text = (tmp_path / "c.yaml").read_text()
    (tmp_path / "c.yaml").write_text(text + "  other: {stage: fuse, options: {rule: best}}\n")
    built = qfuse("build", "c.yaml", "t.h5", "--json").json
    assert sorted(Path(one["path"]).name for one in built["files"]) == ["t-fuse.h5", "t-other.h5"]


def test_a_view_reads_a_store_whose_name_has_a_per_cent_sign(qfuse: Qfuse, tmp_path: Path) -> None:
    assert qfuse("build", "c.yaml", "t.h5", "--view", "--store", "50%%b/store").code == 0
    assert (columns(tmp_path / "t.h5")["status"] == 0).all()


def test_a_file_that_cannot_be_written_is_a_sentence(qfuse: Qfuse, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    answer = qfuse("build", "c.yaml", "file/t.h5")
    assert (answer.code, "file/t.h5 cannot be written" in answer.err) == (3, True)


# Reference sets


def use(reference: str) -> tuple[str, ...]:
    return ("--set", f"steps.statistics.options.reference={reference}", *MINMAX)


def test_a_set_weighed_by_its_own_reference_file_has_the_same_templates(
    qfuse: Qfuse, tmp_path: Path
) -> None:
    assert qfuse("build", "c.yaml", "self.h5", *MINMAX).code == 0
    written = qfuse("reference", "c.yaml", "r.json", *MINMAX)
    assert "wrote r.json: given of 469 faces" in written.out
    assert qfuse("build", "c.yaml", "named.h5", *use("r.json")).code == 0
    assert np.array_equal(
        columns(tmp_path / "self.h5")["embedding"], columns(tmp_path / "named.h5")["embedding"]
    )
    assert qfuse("reference", "c.yaml", "r.json").code == 3  # never overwritten
    assert (
        "takes its statistics from a file already"
        in qfuse("reference", "c.yaml", "s.json", *use("r.json")).err
    )


def test_another_reference_file_changes_the_templates_and_only_its_bytes_are_in_the_key(
    qfuse: Qfuse, tmp_path: Path
) -> None:
    assert qfuse("reference", "c.yaml", "r.json").code == 0
    assert qfuse("run", "c.yaml", *use("r.json")).code == 0
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "r.json").rename(tmp_path / "elsewhere/q.json")
    assert qfuse("run", "c.yaml", *use("elsewhere/q.json"), "--json").json["ran"] == []
    found = json.loads((tmp_path / "elsewhere/q.json").read_text())
    (tmp_path / "wide.json").write_text(json.dumps({**found, "minimum": -1.0}))
    assert "fuse" in qfuse("run", "c.yaml", *use("wide.json"), "--json").json["ran"]


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "measure.json": (
        {"measure": {"method": "lightqnet"}},
        "was scored by 'lightqnet', and the faces are by 'given'",
    ),
    "format.json": ({"format": "x"}, "is not a reference file of format qfuse-reference/1"),
    "lacking.json": (
        {"mean": None, "percentiles": [1, 2]},
        "mean, percentiles should hold the finite numbers",
    ),
    "falling.json": ({"percentiles": list(range(101, 0, -1))}, "percentiles should hold"),
    "count.json": ({"count": True}, "count should hold"),
}
CONTENTS = {
    "empty": b"",
    "list": b"[1]",
    "deep": b"{" * 5000,
    "bytes": b"\xff\xfe",
    "large": b"0" * (2 << 20),
}


def test_what_is_no_reference_file_or_does_not_fit_is_refused(qfuse: Qfuse, tmp_path: Path) -> None:
    assert qfuse("reference", "c.yaml", "r.json").code == 0
    found = json.loads((tmp_path / "r.json").read_text())
    for name, (change, _) in CHANGES.items():
        (tmp_path / name).write_text(json.dumps({**found, **change}))
    for name, content in CONTENTS.items():
        (tmp_path / name).write_bytes(content)
    expected = {name: said for name, (_, said) in CHANGES.items()} | dict.fromkeys(
        CONTENTS, "reference file"
    )
    expected["absent.json"] = "`qfuse reference CONFIG FILE` writes one"
    answers = commands(tmp_path, [("check", "c.yaml", *use(name)) for name in expected])
    for said, answer in zip(expected.values(), answers.values(), strict=True):
        assert answer.code == 3
        assert said in answer.err


def test_a_set_without_a_quality_score_is_no_reference_set(qfuse: Qfuse, tmp_path: Path) -> None:
    faces = [f"f{i}" for i in range(3)]
    found = ProtocolLists(
        face_id=faces,
        path=[""] * 3,
        sha256=[""] * 3,
        subject=faces,
        columns={
            "embedding": np.eye(3, dtype=np.float32),
            "quality": np.full(3, np.nan, np.float32),
        },
        **singletons(faces, faces),
    )
    write_tables(tmp_path / "tables.h5", build_tables(found, "a set"))
    steps = "steps: {quality: {options: {method: given}}, statistics: {}}\n"
    (tmp_path / "d.yaml").write_text(
        "name: d\ndataset: {reader: tables, path: .}\nrun: {max_failures: 1}\n" + steps
    )
    answer = qfuse("reference", "d.yaml", "r.json")
    assert (answer.code, "d has no face with a quality score" in answer.err) == (
        3,
        True,
    ), answer.err
    assert not (tmp_path / "r.json").exists()
