"""What the command prints, whatever names hold and whatever standard output and standard error
are."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from e2e.conftest import CONFIG as SMALL
from e2e.conftest import START, command, commands

# a terminal's title, a colour, a new line; text from right to left
ODD = "\x1b]0;X\x07\x1b[31m\r\n\x9b\u202e"
SHOWN = r"\x1b]0;X\x07\x1b[31m\r\n\x9b\u202e"
NAME = "Zoë 张"
CONFIG = """\
name: streams
dataset: {reader: folder, path: SET}
steps: {align: {options: {detector: none}}}
run: {max_failures: 1}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a config that has run: two crops and, in a folder of an odd name, a file that
    is none.
    """
    folder = tmp_path_factory.mktemp("streams")
    crop = cv2.imencode(".png", np.arange(112 * 112 * 3, dtype=np.uint8).reshape(112, 112, 3))[
        1
    ].tobytes()
    for person, content in (("Ann", crop), (NAME, crop), (ODD, b"junk")):
        (folder / NAME / person).mkdir(parents=True)
        (folder / NAME / person / "0.png").write_bytes(content)
    (folder / "c.yaml").write_text(CONFIG.replace("SET", NAME), encoding="utf-8")
    (folder / "odd.yaml").write_text(CONFIG.replace("SET", r'"\e[31m\u202e"'))
    assert command(folder, "run", "c.yaml").code == 0
    return folder


def test_control_characters_reach_no_terminal_raw(place: Path) -> None:
    lines: list[tuple[str, ...]] = [
        ("run", "c.yaml"),
        ("status", "c.yaml"),
        ("status", "c.yaml", "--json"),
        ("check", "odd.yaml"),
        ("check", "odd.yaml", "--json"),
        ("check", "c.yaml", "--set", f"{ODD}=1"),
        ("plan", f"{ODD}.yaml"),
        ("plan", "c.yaml", f"--{ODD}"),
        ("plan", "c.yaml", "--until", ODD),
        ("plan", "c.yaml", "--store", ODD),
        ("store", "list", "--store", ODD),
        (f"{ODD}\udcff",),  # bytes that are no UTF-8
    ]
    answers = commands(place, lines)
    for line, answer in answers.items():
        said = answer.out + answer.err
        assert not [
            c
            for c in said
            if c != "\n" and (c < " " or "\x7f" <= c <= "\x9f" or c in "\u202e\udcff")
        ], line
        assert "x1b" in said or "u001b" in said or "--store" in line or "--json" in line, line
    assert f"{SHOWN}/0.png: not an image" in answers[lines[0]].out


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("latin-1", r"Zoë \u5f20"), ("ascii", r"Zo\xeb \u5f20"), ("utf-16", NAME)],
)
def test_what_an_encoding_lacks_is_escaped(place: Path, encoding: str, shown: str) -> None:
    (place / f"{NAME}.yaml").write_bytes((place / "c.yaml").read_bytes())
    code, out, error = ended(place, '"$@"', "check", f"{NAME}.yaml", PYTHONIOENCODING=encoding)
    assert (code, out.decode(encoding)[: len(shown)], error) == (0, shown, b"")


@pytest.mark.parametrize(
    ("shell", "words", "code", "said"),
    [
        ('"$@" | true', ["status", "c.yaml"], 0, ""),
        ('"$@" 2>&1 | true', ["status", "none.yaml"], 3, ""),
        ('"$@" >&-', ["status", "c.yaml"], 0, ""),
        ('"$@" <&- >&- 2>&-', ["status", "none.yaml"], 3, ""),
        (
            '"$@" > /dev/full',
            ["status", "c.yaml"],
            6,
            "qfuse: cannot write to standard output (No space left on device): ",
        ),
        ('"$@" > /dev/full', ["--help"], 6, "qfuse: "),
        ('"$@" 2> /dev/full', ["status", "none.yaml"], 3, ""),
    ],
)
def test_outputs_that_cannot_be_written_to_leave_the_exit_code_as_it_is_or_6(
    place: Path, shell: str, words: list[str], code: int, said: str
) -> None:
    # A pipe's reader is gone before anything is written: it ends while the command still starts.
    ended_with, _, error = ended(place, f"set -o pipefail; {shell}", *words)
    assert ended_with == code
    assert error.decode().startswith(said)
    assert error.count(b"\n") == bool(said)


def test_a_name_that_the_systems_encoding_lacks_is_refused_with_what_to_do(place: Path) -> None:
    (place / "small.yaml").write_text(f"{SMALL}run: {{store: {NAME}}}\n", encoding="utf-8")
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    code, _, error = ended(place, '"$@"', "run", "small.yaml", **plain)
    assert (code, b"Traceback" in error) == (6, False)
    assert b"set PYTHONUTF8=1" in error


def ended(folder: Path, shell: str, *words: str, **more: str) -> tuple[int, bytes, bytes]:
    """Run the command from a line of the shell in which it is "$@"; return its exit code and what
    came out.
    """
    line = ["/bin/bash", "-c", shell, "bash", *START, *words]
    done = subprocess.run(
        line, cwd=folder, env={**os.environ, **more}, capture_output=True, timeout=60, check=False
    )
    return done.returncode, done.stdout, done.stderr
