"""A run that is killed or interrupted, in a real process, keeps what it finished and continues to
the same results.

A command that is interrupted, wherever it is, ends with one sentence and 130.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from artifacts import child as interpreter
from children import end, environment, finished, start, wait_for
from laboratory import Lab

from pipeline.errors import INTERRUPTED, STOPPED

SLOW = ("--set", "steps.measure.options.sleep=0.005")


def test_a_run_killed_again_and_again_ends_with_the_same_results_and_computes_no_shard_twice(
    slow: Lab,
) -> None:
    rng = np.random.default_rng(5)
    kept: dict[Path, tuple[int, int]] = {}
    for _ in range(6):
        child = start(slow, *SLOW)
        wait_for(slow, child, len(kept) // 2 + int(rng.integers(1, 8)))
        time.sleep(rng.uniform(0, 0.02))
        child.kill()
        child.communicate()
        assert child.returncode == -signal.SIGKILL
        now = finished(slow)
        assert {path: now[path] for path in kept} == kept
        kept = now
    ran = slow.run()
    assert {path: finished(slow)[path] for path in kept} == kept
    store = ran.session.store
    assert all(store.check_artifact(path) is None for path in store.receipts())
    assert [
        path
        for path in store.garbage(ran.session.plan.live_artifacts())
        if not path.name.startswith(".")
    ] == []
    assert ran.digests() == replace(slow, store="another").run().digests()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_how_it_continues_and_continues(
    slow: Lab, number: signal.Signals
) -> None:
    child = start(slow, *SLOW)
    wait_for(slow, child, 5)
    child.send_signal(number)
    _, error = child.communicate(timeout=60)
    assert child.returncode == 130
    assert (
        "interrupted: every finished shard is kept; the same command continues from there" in error
    )
    assert "Traceback" not in error
    kept = finished(slow)
    plan = slow.session(readonly=True).plan
    assert 0 < len(plan.steps["measure"].to_run) < 50
    assert {reason for task in plan.steps["measure"].to_run for reason in [task.reason]} == {
        "never computed"
    }
    again = start(slow, *SLOW)
    _, error = again.communicate(timeout=60)
    assert again.returncode == 0, error
    assert {path: finished(slow)[path] for path in kept} == kept
    assert slow.session(readonly=True).plan.to_run == []
    assert not list((slow.root / slow.store).rglob(".*"))


# A signal to the whole group, as a terminal sends it, when a process of a kind (the command or a
# worker) is about to import a module.
AT_IMPORT = """
import os, signal, sys
kind, module, number = os.environ["AT"].split()
class Hook:
    def find_spec(self, name, path=None, target=None):
        worker = "multiprocessing.spawn" in " ".join(sys.orig_argv)
        if name == module and worker == (kind == "worker"):
            sys.meta_path.remove(self)
            os.killpg(os.getpgrp(), getattr(signal, number))
sys.meta_path.insert(0, Hook())
"""


@pytest.mark.parametrize(
    ("at", "words", "sentence"),
    [
        ("command typer SIGINT", [], STOPPED),
        ("command numpy SIGTERM", [], STOPPED),
        ("command distributed SIGINT", ["--dask", "local:1"], INTERRUPTED),
        ("worker distributed SIGINT", ["--dask", "local:1"], INTERRUPTED),
    ],
)
def test_a_command_that_is_interrupted_while_modules_are_imported_ends_with_one_sentence(
    lab: Lab, at: str, words: list[str], sentence: str
) -> None:
    hook = lab.root / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(AT_IMPORT)
    known = environment(lab)["PYTHONPATH"]
    (lab.root / "tmp").mkdir()
    child = start(
        lab, *words, PYTHONPATH=f"{hook}{os.pathsep}{known}", AT=at, TMPDIR=str(lab.root / "tmp")
    )
    try:
        _, error = child.communicate(timeout=60)
    finally:
        end(child)
    assert (child.returncode, error) == (130, f"qfuse: {sentence}\n")
    assert not list((lab.root / "tmp").iterdir())


def ended(code: str) -> tuple[int, str]:
    """Run code as a command does; return how it ended and what it said."""
    head = (
        "import os, signal, subprocess, threading, time\nfrom pipeline.system import interruption\n"
    )
    process = interpreter(f"{head}{code}\nraise SystemExit(interruption.interruptible(work))")
    try:
        out, error = process.communicate(timeout=60)
    finally:
        end(process)
    return process.returncode, out + error


WHERE = {
    "in what swallows every exception": (
        """
def work():
    signal.raise_signal(signal.SIGINT)
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass
"""
    ),
    "in what makes another error of it": (
        """
def work():
    try:
        signal.raise_signal(signal.SIGTERM)
        time.sleep(60)
    except BaseException:
        raise ImportError("broken")
"""
    ),
    "in what swallows it and ends": (
        """
def work():
    try:
        signal.raise_signal(signal.SIGTERM)
        time.sleep(60)
    except BaseException:
        return 0
"""
    ),
    "deep in a library": (
        """
import hashlib
def work():
    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
"""
    ),
    "twice": (
        """
interruption.GRACE = 60
def work():
    try:
        signal.raise_signal(signal.SIGINT)
    finally:
        signal.raise_signal(signal.SIGINT)
        time.sleep(60)
"""
    ),
    "once its work is done, while a thread is not": (
        """
def work():
    def late():
        signal.raise_signal(signal.SIGINT)
        time.sleep(60)
    threading.Timer(0.05, late).start()
    return 0
"""
    ),
    "while another thread is about to print the sentence": (
        """
write = os.write
os.write = lambda *given: time.sleep(0.5) or write(*given)
interruption._importing = lambda frame: time.sleep(0.2)  # so that the other is first
def work():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)
"""
    ),
    "in a thread that then fails": (
        """
def work():
    def fail():
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.05)
        raise ValueError
    threading.Thread(target=fail).start()
    time.sleep(60)
"""
    ),
}


@pytest.mark.parametrize("where", WHERE)
def test_a_command_ends_with_one_sentence_wherever_it_is_interrupted(where: str) -> None:
    assert ended(WHERE[where]) == (130, f"qfuse: {STOPPED}\n")


def test_what_an_interrupted_command_has_started_ends_with_it() -> None:
    code, said = ended("""
def work():
    child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    print(child.pid, flush=True)
    signal.raise_signal(signal.SIGINT)
    time.sleep(60)
""")
    assert code == 130
    number = said.split()[0]
    for _ in range(500):  # until whoever inherited it has noticed
        state = Path(f"/proc/{number}/stat")
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.01)
    raise AssertionError("it still runs")


def test_where_sigint_is_ignored_as_by_nohup_it_stays_ignored_and_sigterm_is_not() -> None:
    code, said = ended("""
signal.signal(signal.SIGINT, signal.SIG_IGN)
def work():
    signal.raise_signal(signal.SIGINT)
    print("went on", flush=True)
    signal.raise_signal(signal.SIGTERM)
    time.sleep(60)
""")
    assert (code, said) == (130, f"went on\nqfuse: {STOPPED}\n")


def test_only_what_computes_shards_says_that_they_are_kept() -> None:
    work = """
def work():
    interruption.computing = True
    signal.raise_signal(signal.SIGINT)
"""
    assert ended(work) == (130, f"qfuse: {INTERRUPTED}\n")
    assert ended(work.replace("computing = True", "computing = False")) == (
        130,
        f"qfuse: {STOPPED}\n",
    )


def test_a_scratch_folder_is_removed_even_if_what_uses_it_swallows_the_interruption(
    tmp_path: Path,
) -> None:
    code, said = ended(f"""
from pipeline.system.scratch import scratch_folder
def work():
    with scratch_folder({str(tmp_path / "x-")!r}) as folder:
        (folder / "file").write_text("")
        try:
            signal.raise_signal(signal.SIGTERM)
        except BaseException:
            time.sleep(60)
""")
    assert (code, said) == (130, f"qfuse: {STOPPED}\n")
    assert not list(tmp_path.iterdir())
