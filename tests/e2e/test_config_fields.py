"""What each field of a config re-keys: one row of a table a field, and no field without a row.

Plans are made over a small folder and nothing is run: a key is decided before anything is computed.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

from pipeline.config.config import (
    Config,
    DatasetConfig,
    ModelsConfig,
    ReportConfig,
    RunConfig,
    StepConfig,
)
from pipeline.core.numerics import Profile, profile_of
from pipeline.core.registry import lookup
from pipeline.core.schema import Batch
from pipeline.core.stage import Context
from pipeline.errors import InvalidInput
from pipeline.run.runner import Runner
from pipeline.session import open_session
from stages.datasets.tables_file import write_tables
from stages.quality.quality import Quality, QualityOptions
from stages.quality.reference_statistics import reference_content
from stages.results.report_options import ReportOptions
from stages.tables.tables import ProtocolLists, build_tables

STEPS = (
    *(
        "align",
        "degrade",
        "embed",
        "quality",
        "statistics",
        "fuse",
        "compare",
        "evaluate_verification",
    ),
    *("search", "evaluate_identification", "evaluate_pooled_script"),
    *(
        "template_quality",
        "qmagface",
        "compare_faces",
        "evaluate_discard",
        "evaluate_discard_identification",
    ),
)
ALL = set(STEPS)
DISCARDED = {"evaluate_discard", "evaluate_discard_identification"}
EVALUATIONS = {
    "evaluate_verification",
    "evaluate_identification",
    "evaluate_pooled_script",
    *DISCARDED,
}
FUSED = {"fuse", "compare", "search", "qmagface", *EVALUATIONS}
# what depends on which faces make a template
GROUPED = {"template_quality", "compare_faces", *FUSED}
SCORED = {"quality", "statistics", "template_quality", *FUSED}
IDENTIFIED = {
    "search",
    "evaluate_identification",
    "evaluate_pooled_script",
    "evaluate_discard_identification",
}
NOTHING: set[str] = set()
REFUSED = {"refused"}  # alone: another field has to be the same

CONFIG: dict[str, Any] = {
    "name": "fields",
    "dataset": {
        "reader": "folder",
        "path": "faces",
        "options": {"probe_fraction": 0.5, "left_out": 0.25},
    },
    "steps": {
        **{step: {} for step in STEPS},
        "embed": {"inputs": {"crops": "degrade"}},
        "quality": {"inputs": {"crops": "degrade"}},
        "fuse": {"options": {"rule": "quality-minmax"}},
        "qmagface": {"options": {"alpha": 0.1, "beta": 0.2}},
        "evaluate_discard": {"inputs": {"quality": "template_quality"}},
    },
    "report": {"options": {}},
}

# field → (new value, the steps whose keys change)
TABLE: dict[str, tuple[Any, set[str]]] = {
    "name": ("other", NOTHING),
    "description": ("words", NOTHING),
    "benchmark": (
        "another",
        NOTHING,
    ),  # a data set of the same bytes has the same keys, whatever the benchmark is called
    "dataset.reader": ("folder again", NOTHING),  # a reader enters through its tables
    "dataset.path": ("moved/elsewhere", NOTHING),
    "dataset.options.root": ("wrapped", NOTHING),  # the same faces below another folder
    "dataset.options.extensions": (["jpg"], ALL),  # the .png go
    "dataset.options.templates": ("face", GROUPED),
    "dataset.options.media": ("folder", GROUPED),
    "dataset.options.probe_fraction": (0.25, GROUPED),
    "dataset.options.left_out": (
        0.5,
        GROUPED - {"fuse", "template_quality"},
    ),  # who is enrolled stands in the roles
    "dataset.options.seed": (1, GROUPED),
    "dataset.shard_rows": ({"faces": 4}, ALL),
    "numerics": ({"threads": 2}, ALL),
    "numerics.profile": ("cpu-bf16", ALL),
    "numerics.name": ("mine", NOTHING),
    "numerics.device": ("cuda", ALL),
    "numerics.precision": ("bf16", ALL),
    "numerics.compute_batch": (16, ALL),
    "numerics.threads": (2, ALL),
    "numerics.engine": ("openvino", ALL - {"align", "degrade"}),  # what ONNX graphs compute
    "models.cards": (["cards.yaml"], NOTHING),  # a card that no step names
    "models.folders": (["weights"], NOTHING),
    "steps.fuse.stage": ("fuse", NOTHING),
    "steps.fuse.inputs": ({"quality": "quality"}, NOTHING),  # the default, written out
    "steps.embed.inputs": (
        {"crops": "align.crops"},
        {"embed", "compare_faces", "template_quality", *FUSED},
    ),
    "steps.embed.numerics": (
        {"threads": 2},
        {"embed", "compare_faces", "template_quality", *FUSED},
    ),
    "steps.fuse.numerics": ({"threads": 2}, NOTHING),  # its sums are exact
    "steps.search.numerics": (
        {"threads": 2},
        NOTHING,
    ),  # the threads find the candidates, whose scores are exact
    "steps.fuse.stored": (True, NOTHING),
    "steps.align.options.detector": ("yunet_640", ALL),
    "steps.align.options.pick": ("largest", ALL),
    "steps.align.options.score_threshold": (0.7, ALL),
    "steps.align.options.nms_threshold": (0.4, ALL),
    "steps.align.options.border": (0.1, ALL),
    "steps.align.options.max_side": (512, ALL),
    "steps.align.options.max_pixels": (1000, ALL),
    "steps.degrade.options.fraction": (0.5, ALL - {"align"}),
    "steps.degrade.options.seed": (1, ALL - {"align"}),
    "steps.embed.options.model": (
        "mobilefacenet",
        {"embed", "compare_faces", "template_quality", *FUSED},
    ),
    "steps.embed.options.flip": ("none", {"embed", "compare_faces", "template_quality", *FUSED}),
    "steps.quality.options.method": ("crfiqa_s", SCORED),
    "steps.quality.options.seed": (1, NOTHING),  # of the method random alone
    "steps.fuse.options.rule": ("mean", FUSED),
    "steps.statistics.options.reference": ("reference.json", {"statistics", *FUSED}),
    "steps.template_quality.options.of": ("mean", {"template_quality", "qmagface", *DISCARDED}),
    "steps.template_quality.options.faces": (
        "scored",
        {"template_quality", "qmagface", *DISCARDED},
    ),
    "steps.compare_faces.options.rule": ("mean", {"compare_faces"}),
    "steps.qmagface.options.alpha": (0.3, {"qmagface"}),
    "steps.qmagface.options.beta": (0.3, {"qmagface"}),
    "steps.fuse.options.fallback": ("none", FUSED),
    "steps.fuse.options.features": ("raw", FUSED),
    "steps.fuse.options.media": ("mean", FUSED),
    "steps.search.options.k": (5, IDENTIFIED),
    "steps.search.options.gallery": ("reference", REFUSED),  # it is the evaluations' too
    "steps.search.options.backend": ("torch", NOTHING),  # both back ends give the same list
    "steps.evaluate_verification.options.fmr": ([0.01], {"evaluate_verification"}),
    "steps.evaluate_verification.options.half": ("choose", {"evaluate_verification"}),
    "steps.evaluate_verification.options.templates": (True, {"evaluate_verification"}),
    "steps.evaluate_verification.options.enrolled": ("none", {"evaluate_verification"}),
    "steps.evaluate_verification.options.replicates": (10, {"evaluate_verification"}),
    "steps.evaluate_verification.options.seed": (1, {"evaluate_verification"}),
    "steps.evaluate_verification.options.level": (0.9, {"evaluate_verification"}),
    "steps.evaluate_identification.options.fpir": ([0.2], {"evaluate_identification"}),
    "steps.evaluate_identification.options.ranks": ([1], {"evaluate_identification"}),
    "steps.evaluate_identification.options.gallery": ("reference", REFUSED),
    "steps.evaluate_identification.options.half": ("choose", {"evaluate_identification"}),
    "steps.evaluate_identification.options.templates": (True, {"evaluate_identification"}),
    "steps.evaluate_identification.options.replicates": (10, {"evaluate_identification"}),
    "steps.evaluate_identification.options.seed": (1, {"evaluate_identification"}),
    "steps.evaluate_identification.options.level": (0.9, {"evaluate_identification"}),
    "steps.evaluate_discard.options.fmr": ([0.01], {"evaluate_discard"}),
    "steps.evaluate_discard.options.limits": ([0.1], {"evaluate_discard"}),
    "steps.evaluate_discard.options.pair": ("mean", {"evaluate_discard"}),
    "steps.evaluate_discard.options.unscored": ("left_out", {"evaluate_discard"}),
    "steps.evaluate_discard.options.rule": ("nearest", {"evaluate_discard"}),
    "steps.evaluate_discard.options.discard": ("joint", {"evaluate_discard"}),
    "steps.evaluate_discard.options.threshold": ("recomputed", {"evaluate_discard"}),
    "steps.evaluate_discard.options.fnmr": ([0.05], {"evaluate_discard"}),
    "steps.evaluate_discard.options.legacy": (False, {"evaluate_discard"}),
    "steps.evaluate_discard.options.det_at": ([0.5], {"evaluate_discard"}),
    "steps.evaluate_discard.options.half": ("choose", {"evaluate_discard"}),
    "steps.evaluate_discard.options.replicates": (10, {"evaluate_discard"}),
    "steps.evaluate_discard.options.seed": (1, {"evaluate_discard"}),
    "steps.evaluate_discard.options.level": (0.9, {"evaluate_discard"}),
    "steps.evaluate_discard_identification.options.fpir": (
        [0.2],
        {"evaluate_discard_identification"},
    ),
    "steps.evaluate_discard_identification.options.limits": (
        [0.1],
        {"evaluate_discard_identification"},
    ),
    "steps.evaluate_discard_identification.options.gallery": ("reference", REFUSED),
    "steps.evaluate_discard_identification.options.half": (
        "choose",
        {"evaluate_discard_identification"},
    ),
    "steps.evaluate_discard_identification.options.replicates": (
        10,
        {"evaluate_discard_identification"},
    ),
    "steps.evaluate_discard_identification.options.seed": (1, {"evaluate_discard_identification"}),
    "steps.evaluate_discard_identification.options.level": (
        0.9,
        {"evaluate_discard_identification"},
    ),
    "steps.evaluate_pooled_script.options.targets": ([0.2], {"evaluate_pooled_script"}),
    "steps.evaluate_pooled_script.options.gallery": ("reference", REFUSED),
    "report.kind": ("html", NOTHING),
    "report.options.title": ("A title", NOTHING),
    "report.options.average": ([], NOTHING),
    "report.options.baseline": ({"rule": "mean"}, NOTHING),
    "report.options.fmr": ([0.01], NOTHING),
    "report.options.crops": (0, NOTHING),
    "report.options.pairs": (0, NOTHING),
    "report.options.choose": (None, NOTHING),
    "report.options.method": ("lightqnet", NOTHING),
    "run.store": ("another/store", NOTHING),
    "run.folder": ("another/run", NOTHING),
    "run.workers": (7, NOTHING),
    "run.dask": ("local:3", NOTHING),
    "run.max_failures": (0.1, NOTHING),
    "run.memory": (2.5, NOTHING),
    "run.mixed_instruction_sets": (True, NOTHING),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen subjects with a few files each: bytes that only their digests matter of."""
    root = tmp_path_factory.mktemp("fields")
    for subject in range(16):
        for image in range(2 + subject % 3):
            _write(root / f"faces/s{subject:02d}/video/{image}.{'png' if image == 1 else 'jpg'}")
        _write(root / f"faces/s{subject:02d}/still.jpg")
    for place in ("moved/elsewhere", "wrapping/wrapped"):
        shutil.copytree(root / "faces", root / place)
    (root / "reference.json").write_text(json.dumps(reference()))
    (root / "cards.yaml").write_text(
        "unused: {kind: recognition, architecture: onnx, file: unused.onnx, dimension: 4, licence:"
        " none}\n"
    )
    _register_a_second_folder_reader()
    return root


def reference() -> dict[str, Any]:
    """A reference set of the quality measure of CONFIG."""
    scored = Quality(QualityOptions(), Context(profile_of("cpu-fp32")))
    row = {name: np.array([0.5]) for name in ("minimum", "maximum", "mean", "deviation")}
    batch = Batch({"count": np.array([9]), **row, "percentiles": np.linspace(0, 1, 101)[None]})
    return reference_content("other", scored.measure, batch)


def _write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("/".join(path.parts[-3:]).encode())


def _register_a_second_folder_reader() -> None:
    from pipeline.core.registry import available, register

    if "folder again" not in available("reader"):
        again = type("FolderAgain", (lookup("reader", "folder"),), {"name": "folder again"})
        register("reader", "folder again")(again)


def keys(config: dict[str, Any], root: Path) -> dict[str, set[str]]:
    """Config step → the keys of all its artifacts, over every cell and shard."""
    session = open_session(
        Config.model_validate({**config, "base": root}), store=root / "store", readonly=True
    )
    found: dict[str, set[str]] = {}
    for step in session.plan.steps.values():
        found.setdefault(step.base, set()).update(
            key for task in step.tasks for key in task.keys.values()
        )
    return found


def with_field(field: str, value: Any) -> dict[str, Any]:
    config = copy.deepcopy(CONFIG)
    *parents, last = field.split(".")
    section = config
    for name in parents:
        if isinstance(section.get(name), str):  # `numerics: cpu-fp32` may become a mapping
            section[name] = {}
        section = section.setdefault(name, {})
    section[last] = value
    if field == "dataset.options.root":
        config["dataset"]["path"] = "wrapping"
    return config


@pytest.mark.parametrize("field", TABLE)
def test_a_field_re_keys_these_steps_and_no_others(folder: Path, field: str) -> None:
    value, expected = TABLE[field]
    if expected is REFUSED:
        with pytest.raises(InvalidInput, match=r"search\.gallery is '\w+', and \w+\.gallery is"):
            keys(with_field(field, value), folder)
        return
    before, after = keys(CONFIG, folder), keys(with_field(field, value), folder)
    assert {step for step in STEPS if before[step] != after[step]} == expected


def test_every_field_of_a_config_is_in_the_table() -> None:
    sections = {"dataset", "dataset.options", "models", "steps", "report", "report.options", "run"}
    assert set(every_field()) <= {*TABLE, *sections, "factors"}  # a test of its own varies a factor


def every_field() -> Iterator[str]:
    yield from _fields(Config, "", without=("base",))
    for section, model in (
        ("dataset", DatasetConfig),
        ("models", ModelsConfig),
        ("report", ReportConfig),
        ("run", RunConfig),
    ):
        yield from _fields(model, f"{section}.")
    yield from _fields(Profile, "numerics.")
    yield from _fields(ReportOptions, "report.options.")
    yield from _fields(lookup("reader", "folder").Options, "dataset.options.")
    for step in STEPS:
        yield from _fields(lookup("stage", step).Options, f"steps.{step}.options.")
    yield from _fields(StepConfig, "steps.fuse.", without=("options", "numerics"))


def _fields(model: type[BaseModel], prefix: str, without: tuple[str, ...] = ()) -> Iterator[str]:
    return (f"{prefix}{name}" for name in model.model_fields if name not in without)


def test_every_stage_is_in_the_table() -> None:
    from pipeline.core.registry import available

    without_options = {"detector_scores"}  # it needs a data set that brings such scores
    found = {
        name for name, stage in available("stage").items() if stage.__module__.startswith("stages.")
    }
    assert found == ALL | without_options


def test_one_more_value_of_a_factor_leaves_the_others_artifacts_alone(folder: Path) -> None:
    config = with_field("steps.fuse.options.rule", "$rule")
    one, two = (
        {**config, "factors": {"rule": rules}} for rules in (["mean"], ["mean", "quality-linear"])
    )
    before, after = keys(one, folder), keys(two, folder)
    assert all(before[step] <= after[step] for step in STEPS)
    assert {step for step in STEPS if before[step] != after[step]} == FUSED


def test_a_weight_rule_that_needs_no_quality_does_not_depend_on_the_quality_method(
    folder: Path,
) -> None:
    config = with_field("steps.fuse.options.rule", "mean")
    before = keys(config, folder)
    config["steps"]["quality"]["options"] = {"method": "detector-score"}
    after = keys(config, folder)
    assert {step for step in STEPS if before[step] != after[step]} == {
        "quality",
        "statistics",
        "template_quality",
        "qmagface",
        *DISCARDED,
    }


def test_a_subject_label_that_is_mended_re_embeds_nothing(folder: Path, tmp_path: Path) -> None:
    # The same photographs below another name: paths and subjects change, bytes do not.
    shutil.copytree(folder / "faces", tmp_path / "faces")
    shutil.move(tmp_path / "faces" / "s15", tmp_path / "faces" / "s99")
    config = copy.deepcopy(CONFIG)
    before, after = keys(config, folder), keys(config, tmp_path)
    assert before["align"] == after["align"]


def test_faces_added_at_the_end_re_key_the_last_shard_and_what_depends_on_it(
    folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder / "faces", tmp_path / "faces")
    config = with_field("dataset.shard_rows", {"faces": 8})
    before = shards(config, tmp_path)
    (tmp_path / "faces" / "s99").mkdir()
    (tmp_path / "faces" / "s99" / "new.jpg").write_bytes(b"new")
    after = shards(config, tmp_path)
    for step in ("align", "embed"):
        assert len(before[step]) > 4
        assert before[step][:-1] == after[step][: len(before[step]) - 1]
        assert before[step][-1] != after[step][len(before[step]) - 1]


@pytest.mark.parametrize("subject", ["s00", "s07", "s12"])
def test_a_face_added_in_the_middle_re_keys_its_shard_and_not_all_that_follow(
    folder: Path, tmp_path: Path, subject: str
) -> None:
    shutil.copytree(folder / "faces", tmp_path / "faces")
    config = with_field("dataset.shard_rows", {"faces": 4})
    before = shards(config, tmp_path)["align"]
    (tmp_path / "faces" / subject / "new.jpg").write_bytes(b"new")
    after = shards(config, tmp_path)["align"]
    assert len(before) > 16
    assert 1 <= len(set(after) - set(before)) <= 4


def test_a_photograph_that_comes_to_a_few_hundred_or_goes_re_keys_its_shard_alone(
    tmp_path: Path,
) -> None:
    for i in range(388):
        photo = tmp_path / f"faces/s{i // 4:02d}/{i % 4}.jpg"
        photo.parent.mkdir(parents=True, exist_ok=True)
        photo.write_bytes(str(i).encode())
    before = shards(CONFIG, tmp_path)
    (tmp_path / "faces/s40/new.jpg").write_bytes(b"new")
    more = shards(CONFIG, tmp_path)
    (tmp_path / "faces/s60/2.jpg").unlink()
    less = shards(CONFIG, tmp_path)
    for step in ("align", "degrade", "embed", "quality"):
        assert len(before[step]) > 2
        assert (
            len(set(more[step]) - set(before[step])) == len(set(less[step]) - set(more[step])) == 1
        )


def shards(config: dict[str, Any], root: Path) -> dict[str, list[str]]:
    session = open_session(
        Config.model_validate({**config, "base": root}), store=root / "store", readonly=True
    )
    return {
        s.base: [next(iter(t.keys.values())) for t in s.tasks] for s in session.plan.steps.values()
    }


@pytest.mark.parametrize("step", ["compare", "search"])
def test_faces_are_not_taken_for_templates_where_a_template_holds_several(
    folder: Path, step: str
) -> None:
    config = with_field(f"steps.{step}.inputs", {"templates": "embed"})
    with pytest.raises(
        InvalidInput,
        match=(
            f"'{step}' reads templates, and 'embed' gives faces, which are not the same rows here"
        ),
    ):
        keys(config, folder)
    config["dataset"]["options"] = {"templates": "face", "probe_fraction": 0.5, "left_out": 0.5}
    keys(config, folder)


def test_templates_of_other_faces_are_never_taken_for_the_same_when_a_shard_before_them_shrinks(
    tmp_path: Path,
) -> None:
    """Of 400 faces the first goes, and templates are cut into fours again: numbers and most shards
    are as before.
    """
    rng = np.random.default_rng(0)
    ids = [f"f{i:03d}" for i in range(400)]
    faces = rng.normal(size=(400, 8)).astype(np.float32)
    config = {
        "name": "cut",
        "dataset": {"reader": "tables", "path": "set", "shard_rows": {"faces": 16, "templates": 8}},
        "steps": {
            "embed": {"options": {"model": "given", "flip": "none"}},
            "fuse": {"options": {"rule": "mean"}},
        },
    }
    for first in (0, 1):
        kept, embedding = ids[first:], faces[first:]
        template = [f"t{i // 4:02d}" for i in range(len(kept))]
        found = ProtocolLists(
            face_id=kept, path=[""] * len(kept), sha256=[""] * len(kept), subject=template,
            template_id=sorted(set(template)), template_subject=sorted(set(template)),
            member_template=template, member_face=kept, member_media=kept,
            columns={"embedding": embedding},
        )  # fmt: skip
        (tmp_path / "set").mkdir(exist_ok=True)
        write_tables(tmp_path / "set/tables.h5", build_tables(found, "test"))
        session = open_session(
            Config.model_validate({**config, "base": tmp_path}), store=tmp_path / "store"
        )
        runner = Runner(session.plan, session.store)
        runner.run()
        fused = runner.results(session.plan.steps["fuse"])["embedding"]
        unit = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
        expected = np.stack([unit[i : i + 4].sum(axis=0) for i in range(0, len(kept), 4)])
        np.testing.assert_allclose(
            fused, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-6
        )
    assert len(session.plan.steps["embed"].to_run) < len(session.plan.steps["embed"].tasks) / 2
