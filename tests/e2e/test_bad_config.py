"""Configs and command lines that are wrong, through the real command: an exit code, and a sentence
that names the place.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from e2e.conftest import CONFIG, Answer, commands

Qfuse = Callable[..., Answer]

OVERRIDES = [
    ("dataset.optins={}", 3, "dataset.optins: unknown key 'optins': did you mean 'options'?"),
    (
        "steps.fuse.options.rul=best",
        3,
        "steps.fuse.options: rul: unknown key 'rul': did you mean 'rule'?",
    ),
    (
        "steps.fuse.options.rule=quality-linaer",
        3,
        "unknown fusion rule 'quality-linaer': did you mean 'quality-linear'?",
    ),
    (
        "steps.fuse.inputs.embedings=embed",
        3,
        "unknown input 'embedings': did you mean 'embeddings'?",
    ),
    ("steps.fusee={}", 3, "unknown stage 'fusee': did you mean 'fuse'?"),
    ("steps.embed.options.model=$modle", 3, "steps.embed: unknown factor 'modle'"),
    ("factors.rule=[mean]", 3, "factors.rule: no step uses it; write $rule where it should go"),
    ("dataset.options.scale=many", 3, "dataset.options: scale: "),
    ("dataset.options.scale=many", 3, "(found 'many')"),
    (
        "dataset.shard_rows=0",
        3,
        "dataset.shard_rows: expected a section of fields, as {faces: 1024} (found 0)",
    ),
    ("factors=3", 3, "factors: expected a section of fields, as {rule: [mean, best]} (found 3)"),
    ("dataset=", 3, "dataset: expected a section of fields (found nothing)"),
    ("steps.fuse=3", 3, "steps.fuse: expected a section of fields (found 3)"),
    ("steps.fues=null", 3, "--set steps.fues=null: unknown step 'fues': did you mean 'fuse'?"),
    (
        "steps.fuse.options.rule=quality_linear",
        3,
        "unknown fusion rule 'quality_linear': did you mean 'quality-linear'?",
    ),
    ("dataset.shard_rows.faces=0", 3, "shard_rows.faces: expected 1 or more (found 0)"),
    ("run.workers=0", 3, "run.workers: "),
    ("numerics=cpu-fp23", 3, "unknown numerics profile 'cpu-fp23': did you mean 'cpu-fp32'?"),
    ("name=../up", 3, "name: "),
    ("steps.fuse", 2, "--set 'steps.fuse': expected FIELD=VALUE"),
    ("=3", 2, "--set '=3': expected FIELD=VALUE"),
    ("run.workers=99999999999999999999", 3, "a whole number of more than 64 bits"),
    (f"{'x.' * 2000}x=1", 2, "expected FIELD=VALUE, as in"),
    ("name.first=x", 3, "'name' is not a section"),
    (
        "dataset={reader: folder, path: gone}",
        3,
        "gone does not exist; set dataset.path to the folder or the .zip",
    ),
    (
        "dataset={reader: folder, path: c.yaml}",
        3,
        "c.yaml is neither a folder, a zip archive nor a pack of pairs (.bin); set dataset.path",
    ),
    ("dataset={reader: folder}", 3, "set dataset.path to the folder or the .zip that holds them"),
    (
        "dataset={reader: tables, path: .}",
        3,
        "tables.h5: no such file; set dataset.options.file to its name",
    ),
]


NO_CONFIGS = [
    ("missing", None, "does not exist; give the path of a config"),
    ("empty", b"", "expected a mapping of keys to values, found nothing"),
    ("list", b"- a\n- b\n", "expected a mapping of keys to values, found ['a', 'b']"),
    ("broken", b"name: [\n", "not valid YAML"),
    ("binary", b"\x7fELF\x02\x01\x01\x00\xd0\xff", "cannot be read as text"),
    ("twice", b"name: a\nname: b\n", "key 'name' given twice"),
    ("lacking", b"name: a\n", "dataset: required, but not given; steps: required, but not given"),
    ("orphan", b"extends: base.yaml\n", "base.yaml"),
    ("digits", b"? 0x" + b"f" * 5000 + b"\n: 1\n", "a whole number of more than 64 bits"),
    (
        "device",
        b"extends: /dev/zero\n",
        "/dev/zero: a device is not a regular file; give the path of a config",
    ),
    (
        "variable",
        b"name: ${NOT_SET_ANYWHERE}\n",
        "the environment variable NOT_SET_ANYWHERE is not set",
    ),
]

WORDS = [
    (("why", "c.yaml", "fues"), "unknown step 'fues': did you mean 'fuse'?"),
    (("run", "c.yaml", "--until", "fues"), "--until: unknown step 'fues': did you mean 'fuse'?"),
    (("plan", "c.yaml", "--until", "fues"), "--until: unknown step 'fues': did you mean 'fuse'?"),
    (
        ("init", "d.yaml", "--kind", "foldr"),
        "unknown kind of config 'foldr': did you mean 'folder'?",
    ),
    (("store", "gc"), "name every config whose artifacts are to be kept"),
    (("rum", "c.yaml"), "'rum'"),
    (("run",), "CONFIG"),
    (("run", "c.yaml", "--worker", "2"), "--workers"),
    (("run", "c.yaml", "--workers", "0"), "--workers"),
]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], Answer]:
    folder = tmp_path_factory.mktemp("words")
    (folder / "c.yaml").write_text(CONFIG)
    for name, content, _ in NO_CONFIGS:
        if content is not None:
            (folder / f"{name}.yaml").write_bytes(content)
    lines = [("plan", "c.yaml", "--set", override) for override, _, _ in OVERRIDES]
    lines += [("plan", f"{name}.yaml") for name, _, _ in NO_CONFIGS]
    return commands(folder, [*lines, ("plan", "."), *(words for words, _ in WORDS)])


@pytest.mark.parametrize(("override", "code", "said"), OVERRIDES)
def test_a_wrong_field_is_told_with_where_and_what_to_do(
    answers: dict, override: str, code: int, said: str
) -> None:
    answer = answers["plan", "c.yaml", "--set", override]
    assert (answer.code, said in answer.err) == (code, True), answer.err


@pytest.mark.parametrize(("name", "content", "said"), NO_CONFIGS)
def test_a_file_that_is_no_config_is_refused(
    answers: dict, name: str, content: bytes | None, said: str
) -> None:
    answer = answers["plan", f"{name}.yaml"]
    assert (answer.code, said in answer.err, f"{name}.yaml" in answer.err) == (
        3,
        True,
        name not in ("orphan", "device"),
    ), answer.err


def test_a_folder_is_no_config(answers: dict) -> None:
    answer = answers["plan", "."]
    assert answer.code == 3
    assert "director" in answer.err or "folder" in answer.err


@pytest.mark.parametrize(("words", "said"), WORDS)
def test_words_that_the_command_does_not_know_exit_with_2(
    answers: dict, words: tuple[str, ...], said: str
) -> None:
    assert (answers[words].code, said in answers[words].err) == (2, True), answers[words].err


def test_a_report_option_that_does_not_exist_is_refused_before_anything_runs(
    qfuse: Qfuse, tmp_path: Path
) -> None:
    answer = qfuse("run", "c.yaml", "--set", "report.kind=htlm")
    assert answer.code == 3
    assert "unknown report 'htlm': did you mean 'html'?" in answer.err
    assert not (tmp_path / ".qfuse/store/embed").exists()


UNSPLIT = """\
name: unsplit
dataset: {reader: folder, path: faces, options: {templates: face}}
steps:
  embed: {options: {model: given, flip: none}}
  compare: {inputs: {templates: embed}}
  evaluate_verification: {}
"""


def test_comparing_a_folder_that_is_not_split_is_refused_with_the_option_that_splits_it(
    qfuse: Qfuse, tmp_path: Path
) -> None:
    (tmp_path / "faces/ann").mkdir(parents=True)
    for name in "ab":
        (tmp_path / "faces/ann" / f"{name}.png").write_bytes(name.encode())
    (tmp_path / "d.yaml").write_text(UNSPLIT)
    answer = qfuse("check", "d.yaml")
    assert answer.code == 3
    assert answer.err.count("the data set has no 1:1 comparison, and a step compares") == 1
    assert "dataset.options.probe_fraction" in answer.err
