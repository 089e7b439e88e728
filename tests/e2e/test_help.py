"""What `--help` says, and what it does not import to say it."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from e2e.conftest import CONFIG, REPORT, Answer, command, commands

GROUPS = [("store",), ("models",), ("synth",), ("quality",)]
VERBS = [
    *(
        (verb,)
        for verb in ("run", "plan", "why", "status", "check", "report", "doctor", "demo", "init")
    ),
    *((verb,) for verb in ("explain", "diff", "faces")),
    ("quality", "calibrate"),
    ("quality", "apply"),
    ("store", "list"),
    ("store", "verify"),
    ("store", "gc"),
    *(("models", verb) for verb in ("list", "show", "fetch", "check", "tune", "add", "convert")),
    ("synth", "tables"),
    ("synth", "ijbc"),
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the small config has run."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "c.yaml").write_text(CONFIG + REPORT)
    assert command(folder, "run", "c.yaml").code == 0
    return folder


@pytest.fixture(scope="module")
def helps(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], Answer]:
    lines = [(), *GROUPS, *VERBS]
    return commands(tmp_path_factory.mktemp("help"), [(*line, "--help") for line in lines])


@pytest.mark.parametrize("verb", [(), *GROUPS, *VERBS], ids=" ".join)
def test_help_shows_a_worked_example(helps: dict, verb: tuple[str, ...]) -> None:
    answer = helps[(*verb, "--help")]
    assert answer.code == 0
    assert f"Example: qfuse {' '.join(verb)}" in " ".join(answer.out.split())


@pytest.mark.parametrize("verb", [(), *GROUPS, *VERBS], ids=" ".join)
def test_paragraphs_of_help_fill_the_width_of_the_terminal(
    helps: dict, verb: tuple[str, ...]
) -> None:
    lines = helps[(*verb, "--help")].out.splitlines()
    width = max(len(line) for line in lines if line.startswith("╭"))
    for line, below in pairwise(line.strip() for line in lines):
        if line and below and line[0] not in "╭│╰" and below[0] not in "╭│╰":
            assert len(line) + 1 + len(below.split()[0]) > width - 2, line


def test_help_lists_every_verb_and_exit_code(helps: dict) -> None:
    said = helps[("--help",)].out
    assert all(re.search(rf"│ {verb[0]} ", said) for verb in VERBS)
    assert all(
        f"{code} " in said.partition("Exit codes:")[2] for code in (0, 1, 2, 3, 4, 5, 6, 130)
    )


def test_the_help_of_models_names_every_verb_of_it_in_its_sentence(helps: dict) -> None:
    sentence = helps[("models", "--help")].out.partition("╭")[0]
    verbs = re.findall(
        r"^│ (\w+)  ", helps[("models", "--help")].out.partition("Commands")[2], re.M
    )
    assert len(verbs) == sum(verb[0] == "models" for verb in VERBS)
    assert [verb for verb in verbs if verb not in sentence.lower()] == []


@pytest.mark.parametrize(
    ("words", "light"),
    [
        (
            ["--help"],
            {
                "torch",
                "faiss",
                "numpy",
                "pandas",
                "matplotlib",
                "h5py",
                "scipy",
                "cv2",
                "onnxruntime",
                "distributed",
            },
        ),
        (["run", "--help"], {"torch", "faiss", "numpy", "pandas", "matplotlib", "h5py"}),
        (
            ["plan", "c.yaml"],
            {
                "torch",
                "faiss",
                "pandas",
                "matplotlib",
                "onnxruntime",
                "cv2",
                "distributed",
                "scipy.stats",
            },
        ),
        (
            ["status", "c.yaml"],
            {
                "torch",
                "faiss",
                "pandas",
                "matplotlib",
                "onnxruntime",
                "cv2",
                "distributed",
                "scipy.stats",
            },
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_nothing_heavy_is_imported_before_it_is_needed(
    finished: Path, words: list[str], light: set[str]
) -> None:
    after = (
        "import sys\nfrom pipeline.cli.main import main\ntry: main()\nfinally: print('\\nMODULES',"
        " *sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", after, *words],
        cwd=finished,
        capture_output=True,
        text=True,
        check=True,
    )
    assert light & set(done.stdout.rpartition("MODULES")[2].split()) == set()
