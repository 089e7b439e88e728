"""What `fault_points` promises: nothing without being asked, and exactly what was asked at the
point that was named.
"""

from __future__ import annotations

import errno
import signal
from collections import Counter

import pytest
from artifacts import child

from pipeline.system import fault_points


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fault_points, "_passed", Counter())
    monkeypatch.delenv("QFUSE_FAULT", raising=False)


def test_without_being_asked_nothing_happens() -> None:
    fault_points.at("commit:before_link", "embed")


def test_the_asked_time_at_the_asked_point_counts_and_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("QFUSE_FAULT", "commit:before_link:embed:2=raise")
    for point, name in (
        ("commit:before_link", "embed"),
        ("commit:before_link", "quality"),
        ("commit:before_write", "embed"),
    ):
        fault_points.at(point, name)
    with pytest.raises(RuntimeError, match="fault at commit:before_link:embed:2"):
        fault_points.at("commit:before_link", "embed")
    fault_points.at("commit:before_link", "embed")


def test_a_star_stands_for_any_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QFUSE_FAULT", "commit:before_link:*:2=memory")
    fault_points.at("commit:before_link", "embed")
    with pytest.raises(MemoryError):
        fault_points.at("commit:before_link", "quality")


def test_several_faults_count_each_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QFUSE_FAULT", "a:x:1=raise, a:y:2=enospc,b:*:1=interrupt")
    with pytest.raises(RuntimeError):
        fault_points.at("a", "x")
    fault_points.at("a", "y")
    with pytest.raises(OSError, match="No space left") as full:
        fault_points.at("a", "y")
    assert full.value.errno == errno.ENOSPC
    with pytest.raises(KeyboardInterrupt):
        fault_points.at("b", "z")


@pytest.mark.parametrize("name", ["enospc", "erofs", "eio", "edquot"])
def test_an_error_of_the_system_is_raised_by_its_name(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("QFUSE_FAULT", f"a:x:1={name}")
    with pytest.raises(OSError) as raised:  # noqa: PT011 - its number says which
        fault_points.at("a", "x")
    assert raised.value.errno == getattr(errno, name.upper())


@pytest.mark.parametrize(("action", "number"), [("kill", signal.SIGKILL), ("segv", signal.SIGSEGV)])
def test_a_process_is_killed_where_it_was_asked(action: str, number: signal.Signals) -> None:
    code = """
from pipeline.system import fault_points as faults
faults.at("a", "x")
print("passed once", flush=True)
faults.at("a", "x")
print("passed twice", flush=True)
"""
    process = child(code, QFUSE_FAULT=f"a:x:2={action}")
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (-number, "passed once\n")
