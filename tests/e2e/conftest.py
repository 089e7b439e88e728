"""The real command in a child process, small data sets for it, and the real faces and models where
they are.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from forks import answered

# No photographs, no weights: 23 templates of 469 embeddings.
CONFIG = """\
name: small
dataset: {reader: synthetic, options: {scale: 0.001}}
steps:
  embed: {options: {model: given, flip: none}}
  quality: {options: {method: given}}
  statistics: {}
  fuse: {options: {rule: mean}}
  compare: {}
  evaluate_verification: {options: {replicates: 20}}
"""
REPORT = "report: {options: {title: Small, crops: 0}}\n"
START = [sys.executable, "-c", "from pipeline.cli.main import main; main()"]


@dataclass(frozen=True)
class Answer:
    """What the command printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


def command(folder: Path, *arguments: object, **options: Any) -> Answer:
    """Run the command in `folder`; whatever a test asks for, a traceback is never the answer to bad
    input.

    It runs in a process of its own, forked from one that has imported everything; with
    `preexec_fn`, which may forbid what importing takes, in a fresh interpreter.
    """
    environ = {**os.environ, **options.pop("env", {})}
    environ.pop("COLUMNS", None)
    words = [*map(str, arguments)]
    if options:
        words = [*START, *words]
        done = subprocess.run(
            words,
            cwd=folder,
            env=environ,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            **options,
        )
        answer = Answer(done.returncode, done.stdout, done.stderr)
    else:
        answer = Answer(*answered(folder, words, environ))
    assert "Traceback" not in answer.err, answer.err
    return answer


# Many command lines in one child, which saves starting an interpreter for each.
MANY = """
import contextlib, io, json, sys, traceback
from pipeline.cli.main import main
answers = []
for words in json.load(sys.stdin):
    out, err, code = io.StringIO(), io.StringIO(), 0
    sys.argv = ["qfuse", *words]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code
        except BaseException:
            code = 1
            traceback.print_exc()
    answers.append([code, out.getvalue(), err.getvalue()])
json.dump(answers, sys.stdout)
"""


def commands(
    folder: Path, lines: list[tuple[str, ...]], first: str = ""
) -> dict[tuple[str, ...], Answer]:
    """Run many command lines in `folder`, one after another in one child that executes `first`;
    return answers by line.
    """
    env = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    done = subprocess.run(
        [sys.executable, "-c", first + MANY],
        cwd=folder,
        env=env,
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    answers = {
        line: Answer(*answer) for line, answer in zip(lines, json.loads(done.stdout), strict=True)
    }
    for answer in answers.values():
        assert "Traceback" not in answer.err, answer.err
    return answers


@pytest.fixture
def qfuse(tmp_path: Path) -> Callable[..., Answer]:
    """The command, run in a folder of its own that holds `c.yaml`."""
    (tmp_path / "c.yaml").write_text(CONFIG)
    return lambda *arguments, **options: command(tmp_path, *arguments, **options)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real faces and models; tests that ask for it are skipped where it is absent."""
    folder = Path(
        os.environ.get("QFUSE_SHARED", Path(__file__).parents[2].parent / "shared")
    ).absolute()
    if (
        not (folder / "data/lfw.zip").is_file()
        or not (folder / "models/yunet_n_320_320.onnx").is_file()
    ):
        pytest.skip(f"no real faces in {folder}: set QFUSE_SHARED")
    return folder
