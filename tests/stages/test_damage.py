"""Damage in a store, and in the folders of runs, that any verb meets: it is mended, or counts as
absent, as in a run.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer
from e2e.conftest import CONFIG, REPORT
from typer.testing import CliRunner, Result

from pipeline.cli.verbs import app
from pipeline.store.hdf5 import read
from pipeline.store.store import Store
from stages.commands.main import add_to

Verb = Callable[..., Result]
OTHER = CONFIG.replace("name: small", "name: other").replace("rule: mean", "rule: best")


@pytest.fixture(scope="module")
def verbs() -> typer.Typer:
    if all(
        command.name != "explain" and command.callback.__name__ != "explain"
        for command in app.registered_commands
    ):
        add_to(app)
    return app


@pytest.fixture(scope="module")
def finished(verbs: typer.Typer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two configs that have been run, the templates of one, and a reference set."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "c.yaml").write_text(CONFIG + REPORT)
    (folder / "d.yaml").write_text(OTHER + REPORT)
    before = Path.cwd()
    os.chdir(folder)
    try:
        for words in (
            "run c.yaml",
            "run d.yaml",
            "build c.yaml c.h5",
            "quality calibrate c.yaml --name all -o all.json",
        ):
            assert CliRunner().invoke(verbs, words.split()).exit_code == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def qfuse(
    verbs: typer.Typer, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Verb]:
    """The command, in the finished folder, which is afterwards as it was."""
    kept = shutil.copytree(finished, tmp_path / "kept", copy_function=os.link)
    shutil.rmtree(finished)
    shutil.copytree(kept, finished)
    monkeypatch.chdir(finished)
    yield lambda words, code=0: answered(CliRunner().invoke(verbs, words.split()), code)
    shutil.rmtree(finished)
    os.rename(kept, finished)


def answered(result: Result, code: int) -> Result:
    found = getattr(result.exception, "exit_code", result.exit_code)
    assert found == code, (result.output, result.exception)
    return result


def harm_all(root: Path) -> dict[tuple[str, str], str]:
    """Flip a bit in the last byte of every artifact's file; return what they held, by output and
    key.
    """
    held = {}
    for path in root.glob("*/??/*.h5"):
        held[path.parents[1].name, path.stem] = read(path).digest()
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    return held


READS = {
    "run c.yaml": {"ingest.faces"},
    "report c.yaml": {"quality", "evaluate_verification.numbers", "evaluate_verification.curves"},
    "build c.yaml out.h5": {"fuse"},
    "reference c.yaml out.json": {"statistics"},
    "quality calibrate c.yaml --name set": {"quality"},
    "quality apply all.json c.yaml -o out.csv": {"quality"},
    "explain c.yaml t000003 t000010": {"embed", "evaluate_verification.numbers"},
}


@pytest.mark.parametrize("words", READS)
def test_a_verb_that_computes_mends_whatever_it_reads(qfuse: Verb, words: str) -> None:
    root = Path(".qfuse/store").absolute()
    held = harm_all(root)
    assert "It was set aside." in qfuse(words).stderr
    store = Store(root, readonly=True)
    sound = {
        (path.parents[1].name, path.stem)
        for path in store.receipts()
        if store.check_artifact(path) is None
    }
    assert {output for output, _ in sound} >= {"ingest.faces", *READS[words]}
    assert {name: store.read(*name).digest() for name in sound} == {
        name: held[name] for name in sound
    }


def test_a_verb_that_computes_says_what_it_would_have_said_of_a_sound_store(qfuse: Verb) -> None:
    words = "explain c.yaml t000003 t000010 --json"
    sound = qfuse(words).stdout
    harm_all(Path(".qfuse/store"))
    assert qfuse(words).stdout == sound


@pytest.mark.parametrize(
    "words",
    [
        "status c.yaml",
        "plan c.yaml",
        "why c.yaml embed",
        "check c.yaml",
        "store list",
        "store gc c.yaml",
        "diff small other",
    ],
)
def test_a_verb_that_computes_nothing_sets_aside_what_it_meets_and_the_next_run_mends_it(
    qfuse: Verb, words: str
) -> None:
    root = Path(".qfuse/store")
    before = {path.relative_to(root) for path in root.glob("*/??/*.h5")}
    for path in root.glob("*/??/*.json"):
        if path.parents[1].name in ("quality", "evaluate_verification.numbers", "ingest.faces"):
            path.write_bytes(path.read_bytes()[:-9])
    qfuse(words)
    for config in ("c.yaml", "d.yaml"):
        qfuse(f"run {config}")
    assert "0 damaged" in qfuse("store verify").stdout
    assert {path.relative_to(root) for path in root.glob("*/??/*.h5")} == before


def test_a_store_that_cannot_be_written_is_seen_without_what_is_damaged(qfuse: Verb) -> None:
    root = Path(".qfuse/store")
    (root / "quarantine").write_text("in the way, as no permission would be")
    for output, words in (("quality", "status c.yaml"), ("ingest.faces", "plan c.yaml")):
        (receipt,) = (root / output).glob("??/*.json")
        receipt.write_bytes(b"{")
        assert (
            "It counts as absent, because it cannot be set aside: cannot write to the store"
            in qfuse(words).stderr
        )
        assert receipt.read_bytes() == b"{"


def test_diff_says_which_replicates_it_could_not_read(qfuse: Verb) -> None:
    for path in Path(".qfuse/store/evaluate_verification.numbers").glob("??/*.h5"):
        path.write_bytes(path.read_bytes()[:-9])
    answer = qfuse("diff small other")
    assert "are not in the store any more" in answer.stdout
    assert answer.stderr.count("It was set aside") == 2


def test_no_verb_opens_a_store_past_what_mends_it() -> None:
    """Whoever reads artifacts does so in `with_session` or `mended`, which `cli.run` and
    `cli.sessions` hand on.
    """
    found = set()
    root = Path(__file__).parents[2]
    for path in (*root.glob("pipeline/**/*.py"), *root.glob("stages/**/*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
        if any(isinstance(called, ast.Name) and called.id == "open_session" for called in calls):
            found.add(path.name)
    assert found == {"session.py", "sessions.py", "run.py"}


# -- the folder of a run
# --------------------------------------------------------------------------------------------------

RUN = Path(".qfuse/runs/small")
FILES = (
    "report.of",
    "plan.json",
    "summary.json",
    "events.jsonl",
    "report.html",
    "numbers.json",
    "numbers.csv",
    "table.csv",
)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "mine").write_text("kept")


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


KINDS: dict[str, Callable[[Path], object]] = {
    "bytes that are not UTF-8": lambda path: path.write_bytes(b"\xff\xfe" + path.read_bytes()),
    "a folder": folder,
    "a pipe": pipe,
    "deep JSON": lambda path: path.write_text('{"seconds":' + "[" * 100_000),
    "deep JSON that can be read": lambda path: path.write_text(
        '{"measure#0":' + '{"a":' * 400 + "1" + "}" * 401
    ),
    "numbers that are none": lambda path: path.write_text(
        '{"seconds": {"embed": 1e999, "fuse": NaN}, "embed#0": {"version": 1e999}}'
    ),
    "a number of a thousand digits": lambda path: path.write_text(
        '{"seconds": {"embed": 1' + "0" * 1000 + "}}"
    ),
    "NUL": lambda path: path.write_bytes(b"\0" * 100),
    "nothing": lambda path: path.write_bytes(b""),
    "half of it": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "a link to nowhere": lambda path: (path.unlink(), path.symlink_to("nowhere")),
    "a link to itself": lambda path: (path.unlink(), path.symlink_to(path.name)),
}


def numbers() -> list[str]:
    """The numbers that a report writes, without when they were computed."""
    texts = [(RUN / name).read_text(encoding="utf-8") for name in FILES[5:]]
    return [re.sub(r'"ended": [^,]*,', "", text) for text in texts]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_damaged_in_the_folder_of_a_run_counts_as_absent(qfuse: Verb, kind: str) -> None:
    pages = numbers()
    for name in FILES:
        KINDS[kind](RUN / name)
    embedded = next(Path(".qfuse/store/embed").glob("??/*.json"))
    embedded.unlink()  # so that there is something to do, and to be remembered
    next(Path(".qfuse/store/evaluate_verification.numbers").glob("??/*.json")).unlink()
    qfuse("plan c.yaml")
    qfuse("run c.yaml")
    assert numbers() == pages
    assert (RUN / "report.html").read_text().startswith("<!doctype html>")
    assert qfuse("run c.yaml").stdout.startswith("nothing to do")
    qfuse("diff small other")


def test_a_page_of_which_a_byte_has_changed_is_written_again(qfuse: Verb) -> None:
    before = (RUN / "table.csv").read_bytes()
    (RUN / "table.csv").write_bytes(before[:-9] + b"#" + before[-8:])
    qfuse("run c.yaml")
    assert (RUN / "table.csv").read_bytes() == before


@pytest.mark.parametrize("kind", ["a pipe", "deep JSON", "numbers that are none"])
def test_a_record_that_diff_cannot_read_is_named_with_what_writes_it_again(
    qfuse: Verb, kind: str
) -> None:
    KINDS[kind](RUN / "numbers.json")
    answer = qfuse("diff small other", 3)
    assert f"{RUN / 'numbers.json'} cannot be read" in str(answer.exception)
    assert "`qfuse report CONFIG` writes it again" in str(answer.exception)
    qfuse("report c.yaml")
    qfuse("diff small other")
