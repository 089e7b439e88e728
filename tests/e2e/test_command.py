"""Every verb of the command, as a script meets it (`--json`, exit codes) and as a reader does
(help, tables, advice).
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from e2e.conftest import CONFIG, REPORT, START, Answer, command, commands

from pipeline.system.instruction_sets import instruction_set, lacks_bf16

Qfuse = Callable[..., Answer]
Looks = dict[tuple[str, ...], Answer]
BEST = ("--set", "steps.fuse.options.rule=best")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the small config has run; tests that only look share it."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "c.yaml").write_text(CONFIG + REPORT)
    ran = command(folder, "run", "c.yaml", "--json").json["ran"]
    assert set(ran) == {
        "embed",
        "quality",
        "statistics",
        "fuse",
        "compare",
        "evaluate_verification",
    }
    return folder


@pytest.fixture(scope="module")
def looks(finished: Path) -> Looks:
    """What is said of the finished run, by words; none of them changes it."""
    lines: list[tuple[str, ...]] = [
        ("run", "c.yaml"),
        ("run", "c.yaml", "--json"),
        ("plan", "c.yaml"),
        ("plan", "c.yaml", *BEST),
        ("plan", "c.yaml", *BEST, "--json"),
        ("why", "c.yaml", "fuse"),
        ("why", "c.yaml", "fuse", *BEST),
        ("why", "c.yaml", "fuse", *BEST, "--json"),
        ("why", "c.yaml", "compare", *BEST),
        ("status", "c.yaml"),
        ("status", "c.yaml", "--json"),
        ("store", "list"),
        ("store", "list", "--json"),
        ("store", "verify", "--json"),
    ]
    return commands(finished, lines)


def test_the_version_is_told(qfuse: Qfuse) -> None:
    assert re.fullmatch(r"qfuse \d+\.\d+\.\d+\S*\n", qfuse("--version").out)


# -- run, plan, why, status, check, report
# ----------------------------------------------------------------------------


def test_a_second_run_computes_nothing_and_says_so(finished: Path, looks: Looks) -> None:
    assert looks["run", "c.yaml", "--json"].json["ran"] == []
    said = looks["run", "c.yaml"].out
    assert f"nothing to do: all that small asks for is in {finished / '.qfuse/store'}" in said
    assert f"report: {finished / '.qfuse/runs/small/report.html'}" in said


def test_run_until_a_step_stops_there(qfuse: Qfuse) -> None:
    ran = qfuse("run", "c.yaml", "--until", "embed", "--json").json
    assert ran["ran"] == ["embed"]
    assert ran["report"] == []
    assert ran["steps"]["embed"]["rows"] == 469


def test_plan_says_what_would_run_and_why(looks: Looks) -> None:
    steps = {step["step"]: step for step in looks["plan", "c.yaml", *BEST, "--json"].json["steps"]}
    assert {name for name, step in steps.items() if step["status"] == "run"} == {
        "fuse",
        "compare",
        "evaluate_verification",
    }
    assert "options.rule: mean → best" in steps["fuse"]["reason"]
    said = looks["plan", "c.yaml", *BEST].out
    assert "options.rule: mean → best" in said
    assert "3 shards to run" in said
    assert "nothing to do" in looks["plan", "c.yaml"].out


def test_why_names_the_field_that_changed(looks: Looks) -> None:
    (row,) = looks["why", "c.yaml", "fuse", *BEST, "--json"].json
    assert row["rows"] == [0, 23]
    assert "options.rule: mean → best" in row["reason"]
    assert "options.rule: mean → best" in looks["why", "c.yaml", "fuse", *BEST].out
    assert "fuse changed" in looks["why", "c.yaml", "compare", *BEST].out
    assert "nothing to run" in looks["why", "c.yaml", "fuse"].out


def test_status_counts_what_is_stored(looks: Looks) -> None:
    steps = {step["step"]: step for step in looks["status", "c.yaml", "--json"].json["steps"]}
    assert steps["embed"] == {
        "step": "embed",
        "status": "present",
        "stored": 1,
        "shards": 1,
        "rows": {"ok": 469},
    }
    assert re.search(r"embed +present +1/1 +469 ok", looks["status", "c.yaml"].out)


def test_status_adds_up_the_cells_of_a_step_and_shows_each_on_demand(
    qfuse: Qfuse, tmp_path: Path
) -> None:
    (tmp_path / "c.yaml").write_text(
        CONFIG.replace("rule: mean", "rule: $rule") + "factors: {rule: [mean, best]}\n"
    )
    assert "fuse (2 cells)" in qfuse("status", "c.yaml").out
    assert "fuse[rule=best]" in qfuse("status", "c.yaml", "--all").out


def test_check_counts_tables_and_steps_and_writes_nothing(qfuse: Qfuse, tmp_path: Path) -> None:
    checked = qfuse("check", "c.yaml", "--json").json
    assert checked["problems"] == []
    assert checked["tables"]["faces"] == 469
    assert checked["steps"] == 6
    assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"]


def test_check_tells_all_problems_at_once(qfuse: Qfuse, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "name: c\ndataset: {reader: folder, path: nowhere}\nnumerics: cpu-fp23\nfactors: {rule:"
        " [maen, bset]}\nsteps: {align: {}, embed: {options: {flip: sideways}}, quality: {}, fuse:"
        " {options: {rule: $rule}}}\nreport: {kind: htlm}\n"
    )
    answer = qfuse("check", "c.yaml", "--json")
    assert answer.code == 3
    for said in (
        "nowhere does not exist",
        "unknown numerics profile 'cpu-fp23'",
        "'maen': did you mean 'mean'?",
        "'bset': did you mean 'best'?",
        "steps.embed.options: flip: ",
        "yunet_n_320_320.onnx; looked in no folder",
        "lightqnet-dm050.onnx; looked in no folder",
        "unknown report 'htlm'",
    ):
        assert said in answer.err
    assert len(json.loads(answer.out)["problems"]) == 8


def test_what_is_wrong_with_one_step_or_the_data_set_hides_no_weights_and_no_other_step(
    qfuse: Qfuse, tmp_path: Path
) -> None:
    (tmp_path / "c.yaml").write_text(
        "name: c\ndataset: {reader: folder, path: nowhere}\nfactors: {rule: [mean]}\nsteps: {align:"
        " {options: {pick: any}}, embed: {}, quality: {}, compar: {}, fuse: {options: {media:"
        " all}}}\nrun: {dask: nowhere}\n"
    )
    problems = json.loads(qfuse("check", "c.yaml", "--json").out)["problems"]
    for said in (
        "nowhere does not exist",
        "unknown stage 'compar': did you mean 'compare'?",
        "factors.rule: no step uses it",
        "steps.align.options: pick: ",
        "edgeface_xxs.onnx; looked in no folder",
        "lightqnet-dm050.onnx; looked in no folder",
        "steps.fuse.options: media: ",
        "(or run.dask) nowhere: expected local:N",
    ):
        assert [said in problem for problem in problems].count(True) == 1, said
    assert len(problems) == 8


def test_missing_weights_do_not_hide_what_the_data_set_lacks(qfuse: Qfuse, tmp_path: Path) -> None:
    steps = (
        "  search: {options: {gallery: nobody}}\n  more: {stage: quality}\n  align: {options:"
        " {detector: none}}\n"
    )
    (tmp_path / "c.yaml").write_text((tmp_path / "c.yaml").read_text() + steps)
    answer = qfuse("check", "c.yaml")
    assert "search.gallery" in answer.err
    assert "'nobody'" in answer.err
    assert "lightqnet-dm050.onnx; looked in no folder" in answer.err


def test_a_step_that_the_options_of_another_read_is_asked_for_by_name(
    qfuse: Qfuse, tmp_path: Path
) -> None:
    text = (
        (tmp_path / "c.yaml")
        .read_text()
        .replace("  statistics: {}\n", "")
        .replace("rule: mean", "rule: quality-minmax")
    )
    (tmp_path / "c.yaml").write_text(text)
    said = (
        "steps.fuse, with these options (rule: quality-minmax), reads a step 'statistics', and"
        " there is none: add "
    )
    assert f"{said}`statistics: {{}}` to its steps" in qfuse("plan", "c.yaml").err


def test_a_cluster_that_is_none_is_refused_where_nothing_is_to_be_computed(qfuse: Qfuse) -> None:
    assert qfuse("run", "c.yaml", "--until", "embed").code == 0
    for words in (("--dask", "foo"), ("--set", "run.dask=foo")):
        answer = qfuse("run", "c.yaml", "--until", "embed", *words)
        assert (
            answer.code,
            "foo: expected local:N, an address such as tcp://HOST:8786" in answer.err,
        ) == (2, True)


def test_more_processes_than_one_machine_is_asked_for_are_refused(qfuse: Qfuse) -> None:
    answer = qfuse("run", "c.yaml", "--dask", "local:257")
    assert (answer.code, "local:257: 256 processes are the most" in answer.err) == (2, True)


def test_check_tells_a_factor_that_is_none_beside_what_else_is_wrong(qfuse: Qfuse) -> None:
    answer = qfuse(
        "check", "c.yaml", "--set", "steps.fuse.options.rule=$rulle", "--set", "run.dask=foo"
    )
    assert answer.code == 3
    assert "unknown factor 'rulle'" in answer.err + answer.out
    assert "foo: expected local:N" in answer.err + answer.out


def test_what_is_stored_needs_no_cluster(qfuse: Qfuse) -> None:
    assert qfuse("run", "c.yaml", "--until", "embed").code == 0
    assert qfuse("run", "c.yaml", "--until", "embed", "--dask", "gone.json").code == 0


def test_check_tells_wrong_fields_as_json_too(qfuse: Qfuse) -> None:
    answer = qfuse(
        "check", "c.yaml", "--json", "--set", "dataset.optins={}", "--set", "run.workers=0"
    )
    assert answer.code == 3
    (problem,) = json.loads(answer.out)["problems"]
    assert "dataset.optins" in problem
    assert "run.workers" in problem


def test_report_writes_a_lost_page_again(finished: Path) -> None:
    page = finished / ".qfuse/runs/small/report.html"
    page.unlink()
    assert command(finished, "report", "c.yaml", "--json").json[0] == str(page)
    assert page.stat().st_size > 1000


def test_report_before_the_run_says_what_to_do_first(qfuse: Qfuse) -> None:
    answer = qfuse("report", "c.yaml", "--set", "report={}")
    assert answer.code == 3
    assert "`qfuse run c.yaml` first" in answer.err


def test_the_report_follows_its_options_and_the_results_without_computing(
    qfuse: Qfuse, tmp_path: Path
) -> None:
    (tmp_path / "c.yaml").write_text(CONFIG + REPORT)
    page = tmp_path / ".qfuse/runs/small/report.html"
    assert qfuse("run", "c.yaml").code == 0
    assert "Another title" not in page.read_text()
    assert (
        qfuse("run", "c.yaml", "--set", "report.options.title=Another title", "--json").json["ran"]
        == []
    )
    assert "Another title" in page.read_text()
    qfuse("run", "c.yaml", "--set", "description=In other words", "--json")
    assert "In other words" in page.read_text()  # whatever of the config the page shows
    assert qfuse("run", "c.yaml", *BEST).code == 0
    of_best = page.read_text()
    assert (
        qfuse("run", "c.yaml", "--json").json["ran"] == []
    )  # stored, but the page is of other results
    assert page.read_text() != of_best


def test_a_run_with_other_overrides_keeps_the_former_report_beside_its_own_and_diff_compares_them(
    tmp_path: Path,
) -> None:
    (tmp_path / "c.yaml").write_text(CONFIG + REPORT)
    (tmp_path / "sub").mkdir()
    lines = [
        ("run", "c.yaml"),
        ("run", "c.yaml", *BEST),
        ("diff", "small+c", "small"),
        ("status", "c.yaml", *BEST),
    ]
    _, best, diff, status = commands(tmp_path, lines).values()
    kept = tmp_path / ".qfuse/runs/small+c"
    assert f"/small held the report of `c.yaml`, which is now kept in {kept}." in best.err
    assert "steps.fuse.options.rule  mean → best" in diff.out
    below = command(tmp_path / "sub", "status", "../c.yaml", *BEST)
    assert (below.code, below.out) == (0, status.out)
    assert f"store: {tmp_path / '.qfuse/store'}\n" in below.out


def test_an_interrupted_run_exits_with_130_and_the_same_command_finishes_it(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        CONFIG.replace("scale: 0.001", "scale: 0.02").replace("replicates: 20", "replicates: 4000")
    )
    events = tmp_path / ".qfuse/runs/small/events.jsonl"
    with subprocess.Popen(
        [*START, "run", "c.yaml"], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as child:
        while child.poll() is None and not (
            events.is_file() and '"committed"' in events.read_text()
        ):
            time.sleep(0.01)
        child.send_signal(signal.SIGINT)
        error = child.communicate()[1]
    assert child.returncode == 130, error
    assert (
        error.strip()
        == "qfuse: interrupted: every finished shard is kept; the same command continues from"
        " there."
    )
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / ".qfuse/store").glob("*/??/*.h5")}
    assert kept
    assert (
        command(
            tmp_path, "run", "c.yaml", "--set", "steps.evaluate_verification.options.replicates=20"
        ).code
        == 0
    )
    assert all(path.stat().st_mtime_ns == then for path, then in kept.items())


def test_store_list_counts_artifacts_rows_and_bytes(finished: Path, looks: Looks) -> None:
    outputs = {row["output"]: row for row in looks["store", "list", "--json"].json}
    assert outputs["embed"]["artifacts"] == 1
    assert outputs["embed"]["rows"] == 469
    stored = sum(path.stat().st_size for path in (finished / ".qfuse/store/embed").glob("??/*.h5"))
    assert outputs["embed"]["bytes"] == stored
    assert re.search(r"embed +1 +469 ", looks["store", "list"].out)


def test_store_verify_counts_what_it_checked(finished: Path, looks: Looks) -> None:
    answer = looks["store", "verify", "--json"].json
    assert answer["problems"] == []
    assert answer["checked"] == len(list((finished / ".qfuse/store").glob("*/??/*.json")))


# -- models, synth, init, doctor
# --------------------------------------------------------------------------------------


def test_models_list_says_which_weights_are_there_and_whether_they_are_the_declared_ones(
    qfuse: Qfuse, tmp_path: Path
) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/edgeface_xs.onnx").write_bytes(b"something else")
    cards = {
        card["name"]: card for card in qfuse("models", "list", "--folder", "weights", "--json").json
    }
    assert (cards["edgeface_xs"]["found"], cards["edgeface_xs"]["state"]) == (
        "weights/edgeface_xs.onnx",
        "other bytes",
    )
    assert (cards["edgeface_xxs"]["found"], cards["edgeface_xxs"]["state"]) == (None, "no")
    assert all(card["licence"] for card in cards.values())
    said = qfuse("models", "list", "--folder", "weights").out
    assert "qfuse models fetch NAME" in said
    assert "looked for in: weights" in said


def test_models_list_finds_shared_weights(qfuse: Qfuse, shared: Path) -> None:
    cards = {
        card["name"]: card
        for card in qfuse("models", "list", "--json", env={"QFUSE_SHARED": str(shared)}).json
    }
    assert cards["edgeface_xxs"]["state"] == cards["yunet_320"]["state"] == "yes"


def test_synth_gives_the_same_bytes_for_the_same_seed_and_others_for_another(
    qfuse: Qfuse, tmp_path: Path
) -> None:
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        made = qfuse(
            "synth",
            "tables",
            f"{name}.h5",
            "--scale",
            0.001,
            "--seed",
            seed,
            "--dimension",
            16,
            "--json",
        ).json
        assert made["tables"]["faces"] == 469
    a, b, c = ((tmp_path / f"{name}.h5").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_synth_does_not_replace_a_file(qfuse: Qfuse, tmp_path: Path) -> None:
    (tmp_path / "tables.h5").write_text("precious")
    answer = qfuse("synth", "tables", "tables.h5", "--scale", 0.001)
    assert answer.code == 3
    assert "exists already" in answer.err
    assert (tmp_path / "tables.h5").read_text() == "precious"


def test_a_synthetic_set_runs_through_the_config_for_tables(qfuse: Qfuse) -> None:
    assert qfuse("synth", "tables", "tables.h5", "--scale", 0.001, "--dimension", 16).code == 0
    assert qfuse("init", "t.yaml", "--kind", "tables").code == 0
    assert qfuse("check", "t.yaml").code == 0
    ran = qfuse("run", "t.yaml", "--json").json
    assert "fuse[rule=quality-linear]" in ran["ran"]
    assert ran["failed"] == []
    assert Path(ran["report"][0]).is_file()


@pytest.mark.parametrize("kind", ["folder", "tables", "lfw", "templates", "synthetic"])
def test_init_writes_a_config_with_its_own_name_and_advice(
    qfuse: Qfuse, tmp_path: Path, kind: str
) -> None:
    (tmp_path / "deep").mkdir()
    said = qfuse("init", "deep/my faces.yaml", "--kind", kind).out
    assert "`qfuse check deep/my faces.yaml`" in said
    written = (tmp_path / "deep/my faces.yaml").read_text()
    assert written.startswith("# ")
    assert "\nname: my-faces\n" in written
    again = qfuse("init", "deep/my faces.yaml")
    assert again.code == 3
    assert "exists already; give another name" in again.err
    assert (tmp_path / "deep/my faces.yaml").read_text() == written


def test_the_synthetic_config_checks_as_it_is_written(qfuse: Qfuse) -> None:
    assert qfuse("init", "s.yaml", "--kind", "synthetic").code == 0
    assert qfuse("check", "s.yaml", "--json").json["problems"] == []


@pytest.mark.parametrize("kind", ["lfw", "templates"])
def test_the_lfw_configs_check_as_they_are_written(
    qfuse: Qfuse, tmp_path: Path, shared: Path, kind: str
) -> None:
    assert qfuse("init", "l.yaml", "--kind", kind).code == 0
    written = Path(tmp_path / "l.yaml").read_text()
    assert "\nmodels: {folders: [models]}\n" in written
    assert "QFUSE_SHARED" not in written
    (tmp_path / "models").symlink_to(shared / "models")
    words = (
        ("--set", "factors.seed=[0]", "--set", "dataset.options.identities=20")
        if kind == "templates"
        else ()
    )
    words = (*words, "--set", f"dataset.path={shared}/data/lfw.zip")
    assert qfuse("check", "l.yaml", *words, "--json").json["problems"] == []


def test_doctor_says_what_cannot_be_done_without_weights(qfuse: Qfuse, tmp_path: Path) -> None:
    answer = qfuse("doctor", env={"QFUSE_SHARED": str(tmp_path / "nowhere")})
    assert answer.code == 0
    assert "no detector model is here" in answer.out
    assert "`qfuse models fetch sface`" in answer.out


def test_doctor_tells_versions_weights_and_problems(qfuse: Qfuse, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models/edgeface_xs.onnx").touch()
    facts = qfuse("doctor", "--json", env={"QFUSE_SHARED": str(tmp_path / "nowhere")}).json
    assert facts["python"] == sys.version.split()[0]
    assert facts["h5py"] != "absent"
    assert facts["instructions"] == instruction_set(("torch", "onnxruntime", "opencv", "numpy"))
    assert (facts["bf16"] == "yes") is not lacks_bf16()
    assert facts["weights"] == ["edgeface_xs"]
    assert facts["problems"] == []  # the tests need all that a job needs


def test_run_tells_of_a_store_in_the_working_folder_that_is_not_the_configs(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there/c.yaml").write_text(CONFIG)
    assert command(tmp_path / "there", "run", "c.yaml", "--until", "embed").code == 0
    (tmp_path / "there/.qfuse").rename(tmp_path / ".qfuse")
    told = command(tmp_path, "run", "there/c.yaml", "--until", "embed").err
    assert "which is this config's, but one in the working folder" in " ".join(told.split())


def test_a_run_whose_config_asks_for_no_report_says_how_to_get_its_numbers(
    qfuse: Qfuse, tmp_path: Path
) -> None:
    answer = qfuse("run", "c.yaml")
    assert (
        answer.code,
        answer.out.count("so no number is shown: add `report: {}` to it and run it again"),
    ) == (0, 1)
    answer = qfuse("run", "c.yaml", "--set", "report={options: {crops: 0}}")
    assert "no number is shown" not in answer.out
    assert "EER" in answer.out
