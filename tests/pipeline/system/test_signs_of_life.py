"""Signs of life: who reads a log sees what a long command is at; a short one says nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from artifacts import child as interpreter
from laboratory import Lab

from pipeline.cli import display
from pipeline.cli.display import Progress
from pipeline.run.events import Events
from pipeline.run.runner import Runner
from pipeline.system.signs_of_life import EVERY, Pulse


@dataclass
class Log:
    """A pulse, what it has told, and the clock that it goes by."""

    now: float = 1000.0
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pulse = Pulse(self.lines.append, lambda: self.now)

    def later(self, seconds: float) -> list[str]:
        """Let time pass; return what is told then."""
        before = len(self.lines)
        self.now += seconds
        self.pulse.look()
        return self.lines[before:]


def test_a_short_command_tells_nothing() -> None:
    log = Log()
    with log.pulse.beating():
        log.pulse.at("reading")
        assert log.later(EVERY - 1) == []
        log.pulse.done("embed: finished")
    assert log.lines == []


def test_a_long_command_tells_now_and_then_what_it_is_at() -> None:
    log = Log()
    with log.pulse.beating():
        log.pulse.at("reading")
        assert log.later(EVERY) == ["qfuse: 0:00:30 reading"]
        log.pulse.at(lambda: "writing")
        assert log.later(EVERY - 1) == []
        assert log.later(41) == ["qfuse: 0:01:40 writing"]


def test_a_long_command_tells_at_once_what_has_ended() -> None:
    log = Log()
    with log.pulse.beating():
        log.later(EVERY + 10)
        log.now += 1
        log.pulse.done("embed: finished")
        assert log.lines[-1] == "qfuse: 0:00:41 embed: finished"
        assert log.later(EVERY - 1) == []


def test_nothing_is_told_where_nobody_asked_for_it() -> None:
    log = Log()
    log.pulse.at("reading")
    assert log.later(10 * EVERY) == []


def test_a_long_run_tells_how_far_its_steps_are_and_which_have_ended(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log()
    monkeypatch.setattr(display, "pulse", log.pulse)
    session = lab.session()
    with log.pulse.beating(), Progress(session.plan) as shown:
        shown.on_event({"event": "advance", "step": "measure", "rows": 4})
        assert log.later(EVERY) == ["qfuse: 0:00:30 measure: 4 of 22 rows"]
        Runner(session.plan, session.store, Events(None, shown.on_event)).run()
    ends = ["measure: finished, 22 rows", "power: finished, 44 rows", "overall: finished, 1 shard"]
    assert {f"qfuse: 0:00:30 {end}" for end in ends} < set(log.lines)
    assert log.later(EVERY) == []


@pytest.mark.parametrize(
    ("words", "told"), [([], "qfuse: 0:00:00 reading the data set and planning"), (["--json"], "")]
)
def test_the_command_tells_on_standard_error_what_is_no_terminal_but_not_with_json(
    lab: Lab, words: list[str], told: str
) -> None:
    code = """
from pipeline import session
from pipeline.system import signs_of_life as pulse
pulse.EVERY, pulse.BEAT = 0, 0.001
make, session.ingest = session.ingest, lambda *given: time.sleep(0.1) or make(*given)
sys.argv = ["qfuse", "plan", "config.yaml", *sys.argv[1:]]
from pipeline.cli.main import main
main()
"""
    child = interpreter(
        f"import time, toy\ntoy.install()\nos.chdir({str(lab.root)!r})\n{code}", *words
    )
    out, error = child.communicate(timeout=60)
    assert (child.returncode, bool(out)) == (0, True)
    assert (told in error.splitlines()) if told else error == ""
