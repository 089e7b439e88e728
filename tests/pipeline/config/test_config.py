"""What `config` makes of YAML: merged, expanded, overridden, validated; or one sentence saying what
is wrong.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.config.config import Config, load_config, read_yaml
from pipeline.errors import InvalidInput, QfuseError, UsageError

LEAST = "name: run\ndataset: {reader: toy}\nsteps: {embed: {options: {flip: none}}}\n"


def load(folder: Path, text: str = LEAST, *overrides: str) -> Config:
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    return load_config(folder / "config.yaml", overrides)


def refused(folder: Path, text: str, *overrides: str) -> str:
    with pytest.raises(InvalidInput) as caught:
        load(folder, text, *overrides)
    return str(caught.value)


def test_the_least_config_takes_every_default(tmp_path: Path) -> None:
    config = load(tmp_path)
    assert config.name == "run"
    assert config.numerics == "cpu-fp32"
    assert config.run.max_failures == 0.5
    assert config.steps["embed"].options == {"flip": "none"}


def test_relative_paths_start_at_the_config_file(tmp_path: Path) -> None:
    assert load(tmp_path).resolve("images") == tmp_path / "images"
    assert load(tmp_path).resolve("/images") == Path("/images")


def test_a_tilde_is_the_home_folder_and_an_unknown_users_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert load(tmp_path).resolve("~/images") == Path("/home/ada/images")
    assert load(tmp_path).resolve("~no-such-user/images") == tmp_path / "~no-such-user/images"


def test_a_config_that_extends_another_merges_mappings_and_replaces_the_rest(
    tmp_path: Path,
) -> None:
    (tmp_path / "base.yaml").write_text(
        LEAST
        + "factors: {rule: [mean, best]}\nrun: {workers: 3, max_failures: 0.1}\ndescription: base\n"
    )
    text = (
        "extends: base.yaml\nfactors: {rule: [best]}\nrun: {workers: 4}\nsteps: {embed: {options:"
        " {size: 2}}}\n"
    )
    config = load(tmp_path, text)
    assert config.factors == {"rule": ["best"]}
    assert (config.run.workers, config.run.max_failures) == (4, 0.1)
    assert config.steps["embed"].options == {"flip": "none", "size": 2}
    assert config.description == "base"


def test_null_removes_what_the_base_says(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(LEAST + "report: {}\nrun: {workers: 3}\n")
    config = load(tmp_path, "extends: base.yaml\nreport: null\nrun: {workers: null}\n")
    assert config.report is None
    assert config.run.workers is None


def test_extends_is_relative_to_the_file_that_says_it(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "base.yaml").write_text("extends: ../root.yaml\n")
    (tmp_path / "root.yaml").write_text(LEAST)
    assert load(tmp_path, "extends: deep/base.yaml\nname: leaf\n").name == "leaf"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("extends: config.yaml\n", "leads back to itself"),
        ("extends: other.yaml\n", "leads back to itself"),
        ("extends: [a.yaml, b.yaml]\n", "`extends` takes one path"),
        ("extends: no.yaml\n", "no.yaml does not exist"),
        ("extends: .\n", "is a folder"),
        ('extends: "a\\0b"\n', "cannot be read as text"),
        (f"extends: {'x' * 5000}\n", "cannot be read as text"),
    ],
)
def test_an_extends_that_leads_nowhere_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "other.yaml").write_text("extends: config.yaml\n")
    assert sentence in refused(tmp_path, text)


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("steps.embed.options.flip=add", "add"),
        ("steps.embed.options.flip=3", 3),
        ("steps.embed.options.flip=[1, 2]", [1, 2]),
        ("steps.embed.options.flip=null", None),
        ("steps.embed.options.flip=", None),
        ("steps.embed.options.flip=power(p=2)", "power(p=2)"),
        ("steps.embed.options.flip=${FLIP:-add}", "add"),
    ],
)
def test_an_override_is_read_as_yaml(tmp_path: Path, override: str, value: object) -> None:
    assert load(tmp_path, LEAST, override).steps["embed"].options["flip"] == value


def test_an_override_makes_sections_that_are_absent_and_the_last_one_wins(tmp_path: Path) -> None:
    config = load(tmp_path, LEAST, "steps.fuse.options.rule=best", "run.workers=2", "run.workers=3")
    assert config.steps["fuse"].options == {"rule": "best"}
    assert config.run.workers == 3


def test_an_override_of_null_removes_a_step_or_a_factor(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        LEAST + "factors: {rule: [mean], seed: [0]}\n",
        "steps.embed=null",
        "factors.seed=null",
    )
    assert "embed" not in config.steps
    assert list(config.factors) == ["rule"]
    assert "unknown step 'embd': did you mean 'embed'?" in refused(
        tmp_path, LEAST, "steps.embd=null"
    )


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("run.workers=x", "run.workers: expected a whole number (found 'x')"),
        ("run.memory=-1", "run.memory: expected more than 0 (found -1)"),
        (
            "run.mixed_instruction_sets=7",
            "run.mixed_instruction_sets: expected true or false (found 7)",
        ),
        (
            "name=a b",
            (
                "name: expected letters, digits, '.', - and _, the first a letter or a digit (found"
                " 'a b')"
            ),
        ),
        ("factors.rule=[]", "factors.rule: expected at least 1 value (found [])"),
        (
            "factors.rule=[[1]]",
            "factors.rule.0: expected text or a number or true or false (found [1])",
        ),
        ("numerics=5", "numerics: expected text or a section of fields (found 5)"),
        ("models.folders=x", "models.folders: expected a list (found 'x')"),
        ("report={kind: 3}", "report.kind: expected text (found 3)"),
    ],
)
def test_what_a_field_expects_is_said_in_plain_words(
    tmp_path: Path, override: str, sentence: str
) -> None:
    assert sentence in refused(tmp_path, LEAST, override)


@pytest.mark.parametrize("override", ["flip", "=3", ""])
def test_an_override_without_field_or_value_is_a_usage_error(tmp_path: Path, override: str) -> None:
    with pytest.raises(UsageError, match="FIELD=VALUE"):
        load(tmp_path, LEAST, override)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("name.first=x", "'name' is not a section"),
        ("steps.embed.opt.flip=x", "did you mean 'options'?"),
        ("rum.workers=3", "did you mean 'run'?"),
        ("base=/", "unknown key 'base'"),
        ("run.workers=[", "not valid YAML"),
        ("name={a: 1, a: 2}", "given twice"),
    ],
)
def test_an_override_that_does_not_fit_is_refused(
    tmp_path: Path, override: str, sentence: str
) -> None:
    assert sentence in refused(tmp_path, LEAST, override)


def test_environment_variables_are_put_in_wherever_a_text_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROOT", "/data")
    monkeypatch.delenv("ABSENT", raising=False)
    text = (
        "name: run\ndataset: {reader: toy, path: '${ROOT}/lfw', options: {parts: ['a${ABSENT:-b}c',"
        " '${ABSENT:-}', 3]}}\nsteps: {}\n"
    )
    config = load(tmp_path, text)
    assert config.dataset.path == "/data/lfw"
    assert config.dataset.options["parts"] == ["abc", "", 3]


def test_an_environment_variable_without_value_or_default_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ABSENT", raising=False)
    assert "environment variable ABSENT is not set" in refused(
        tmp_path, LEAST + "description: ${ABSENT}\n"
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("step: {}\n", "step: unknown key 'step': did you mean 'steps'?"),
        ("numeric: x\n", "did you mean 'numerics'?"),
        ("run: {worker: 2}\n", "run.worker: unknown key 'worker': did you mean 'workers'?"),
        (
            "report: {optoins: {}}\n",
            "report.optoins: unknown key 'optoins': did you mean 'options'?",
        ),
        ("models: {folder: []}\n", "did you mean 'folders'?"),
        (
            "zzz: 1\n",
            "known are: dataset, description, factors, models, name, numerics, report, run, steps",
        ),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_valid_one(
    tmp_path: Path, text: str, sentence: str
) -> None:
    assert sentence in refused(tmp_path, LEAST + text)


@pytest.mark.parametrize("step", ["embed", "stage", "options"])
def test_an_unknown_key_of_a_step_is_refused_whatever_the_steps_name(
    tmp_path: Path, step: str
) -> None:
    sentence = refused(
        tmp_path, f"name: run\ndataset: {{reader: toy}}\nsteps: {{{step}: {{input: {{}}}}}}\n"
    )
    assert f"steps.{step}.input: unknown key 'input': did you mean 'inputs'?" in sentence


def test_all_wrong_fields_are_told_at_once(tmp_path: Path) -> None:
    text = (
        "name: '?'\ndataset: {path: 3}\nsteps: {embed: 5}\nrun: {workers: 0, max_failures:"
        " 2}\nzzz: 1\n"
    )
    sentence = refused(tmp_path, text)
    for field in (
        "name: ",
        "dataset.reader: ",
        "dataset.path: ",
        "steps.embed: ",
        "run.workers: ",
        "run.max_failures: ",
        "zzz",
    ):
        assert field in sentence
    assert "(found 2)" in sentence


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("description: a\ndescription: b\n", "key 'description' given twice"),
        ("factors: {a: [1], b: [2], a: [3]}\n", "key 'a' given twice"),
        ("factors: {? [1] : [2]}\n", "not valid YAML"),
        ("factors: &f {a: [1]}\nreport: *f\n", "aliases (*name) are not used here"),
        ("description: *undefined\n", "aliases (*name) are not used here"),
        ("description: !!python/object:os.system ls\n", "not valid YAML"),
        ("description: !!int ''\n", "not valid YAML"),
        ("description: !!bool perhaps\n", "not valid YAML"),
        ("description: !!timestamp then\n", "not valid YAML"),
        ("description: [\n", "not valid YAML"),
        ("---\nname: second\n", "not valid YAML"),
        (f"description: {'[' * 5000}\n", "not valid YAML"),
        (f"description: {'x' * 256_001}\n", "larger than 256 kB"),
        ("run: {workers: 9223372036854775808}\n", "a whole number of more than 64 bits"),
        (f"run: {{workers: 0x{'f' * 5000}}}\n", "a whole number of more than 64 bits"),
        (f"? 0x{'f' * 5000}\n: 1\n", "a whole number of more than 64 bits"),
        (f"description: 1{':59' * 400}.5\n", "not valid YAML"),
        ("run: {max_failures: .nan}\n", "nan is not a setting"),
        ("dataset: {reader: x, options: {border: .inf}}\n", "inf is not a setting"),
        ('description: "a\\0b"\n', "is not text"),
        ('description: "\\ud800"\n', "is not text"),
        ("factors: {rule: []}\n", "factors.rule"),
        ("factors: {rule: [1, '1']}\n", "factors.rule: a factor's values have to differ"),
        ("factors: {rule: [1, true]}\n", "(1, 1.0 and true are one)"),
        ("factors: {rule: [0.5, 2, 2.0]}\n", "(1, 1.0 and true are one)"),
    ],
)
def test_what_is_ambiguous_or_no_config_is_refused(
    tmp_path: Path, text: str, sentence: str
) -> None:
    keep = [
        line for line in LEAST.splitlines() if not text.startswith(line.partition(":")[0] + ":")
    ]
    assert sentence in refused(tmp_path, "\n".join([*keep, text]))


@pytest.mark.parametrize("step", ["a.b", "'a[b]'", "a b", "''"])
def test_a_step_is_named_so_that_inputs_and_overrides_can_name_it(
    tmp_path: Path, step: str
) -> None:
    assert "steps." in refused(
        tmp_path, f"name: run\ndataset: {{reader: toy}}\nsteps: {{{step}: {{}}}}\n"
    )


def test_an_asterisk_in_prose_is_no_alias(tmp_path: Path) -> None:
    assert (
        load(tmp_path, LEAST + "description: the *best* rule # or the *mean*\n").description
        == "the *best* rule"
    )


@pytest.mark.parametrize("text", ["", "3", "[a]", "just words", "null"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    assert "expected a mapping" in refused(tmp_path, text)


def test_a_file_that_is_absent_or_not_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="does not exist"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "image.yaml").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(InvalidInput, match="cannot be read as text"):
        read_yaml(tmp_path / "image.yaml")


def test_a_device_or_a_pipe_is_no_config_and_nobody_waits_for_its_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in ("pipe", "/dev/zero"):
        assert "is not a regular file; give the path of a config" in refused(
            tmp_path, f"extends: {path}\n{LEAST}"
        )


def test_a_file_too_large_to_be_a_config_is_not_read_to_its_end(tmp_path: Path) -> None:
    with (tmp_path / "large.yaml").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(InvalidInput, match="larger than 256 kB"):
        load_config(tmp_path / "large.yaml")


@pytest.mark.parametrize("length", [20, 1200])
def test_very_many_files_that_extend_each_other_are_refused(tmp_path: Path, length: int) -> None:
    for i in range(length):
        (tmp_path / f"{i}.yaml").write_text(f"extends: {i + 1}.yaml\n")
    (tmp_path / f"{length}.yaml").write_text(LEAST)
    if length == 20:
        assert load_config(tmp_path / "0.yaml").name == "run"
    else:
        with pytest.raises(InvalidInput, match="leads through more than 20 files"):
            load_config(tmp_path / "0.yaml")


def test_an_override_of_a_field_without_end_is_refused_in_short(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected FIELD=VALUE") as caught:
        load(tmp_path, LEAST, "x." * 3000 + "x=1")
    assert len(str(caught.value)) < 300


def test_of_very_many_wrong_fields_twenty_are_told(tmp_path: Path) -> None:
    sentence = refused(tmp_path, LEAST + "".join(f"k{i}: 1\n" for i in range(30)))
    assert "k19: unknown key" in sentence
    assert "k20" not in sentence
    assert sentence.endswith("; and 10 more")


@pytest.mark.parametrize("name", ["a/b", "..", "", "-x", "a\nb", "a b"])
def test_a_name_that_cannot_be_a_folder_is_refused(tmp_path: Path, name: str) -> None:
    assert "name: " in refused(tmp_path, yaml.safe_dump({**yaml.safe_load(LEAST), "name": name}))


KEYS = [*Config.model_fields, "extends", "zzz"]
WORDS = [
    *KEYS,
    "$a",
    "${A}",
    ".nan",
    "1e999",
    "null",
    "!!int",
    "!!set",
    "2001-99-99",
    "<<",
    *"~*&!|>-?:,[]{}#%@`'\"\\ \n\t",
]


@given(st.text(max_size=60) | st.lists(st.sampled_from(WORDS), max_size=25).map("".join))
@example("!!int : 3")
@settings(max_examples=50, deadline=None)
def test_arbitrary_text_is_a_config_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "arbitrary.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    with suppress(QfuseError):
        load_config(path)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=2)
    ),
    max_leaves=5,
)


@given(
    st.dictionaries(st.sampled_from(KEYS), VALUES),
    st.dictionaries(st.sampled_from(["a", "stage"]), VALUES),
)
@settings(max_examples=50, deadline=None)
def test_arbitrary_values_are_a_config_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, top: dict[str, object], steps: dict[str, object]
) -> None:
    path = tmp_path_factory.getbasetemp() / "arbitrary.yaml"
    path.write_text(
        yaml.safe_dump({**yaml.safe_load(LEAST), "steps": steps, **top}), encoding="utf-8"
    )
    with suppress(QfuseError):
        load_config(path)
