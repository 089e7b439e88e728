"""Where the system refuses threads or address space, the command says so before a library ends it,
or waits for ever.
"""

from __future__ import annotations

import resource
from collections.abc import Callable

import pytest
from e2e.conftest import Answer

Qfuse = Callable[..., Answer]


def limited(kind: int, soft: int) -> Callable[[], None]:
    """What a child does before it starts."""
    return lambda: resource.setrlimit(kind, (soft, resource.getrlimit(kind)[1]))


# No thread can have a stack of which there is not so much address space: that stops root too,
# unlike RLIMIT_NPROC.
NO_THREADS = limited(resource.RLIMIT_STACK, 1 << 48)


@pytest.mark.parametrize(
    "words", [["plan"], ["check"], ["run"], ["run", "--dask", "local:2"]], ids=" ".join
)
def test_no_threads_are_refused_with_what_to_do(qfuse: Qfuse, words: list[str]) -> None:
    answer = qfuse(*words, "c.yaml", preexec_fn=NO_THREADS)
    assert (answer.code, answer.out) == (6, "")
    assert answer.err.startswith("qfuse: about ")
    assert (
        "threads are needed, and the system gives this process 0 (`ulimit -u`, or the limit of its "
        in answer.err
    )
    assert answer.err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "megabytes"),
    [
        (["plan"], 120),
        (["plan"], 400),
        (["check"], 700),
        (["run"], 700),
        (["run", "--dask", "local:2"], 700),
    ],
)
def test_too_little_address_space_is_refused_with_what_to_do(
    qfuse: Qfuse, words: list[str], megabytes: int
) -> None:
    answer = qfuse(*words, "c.yaml", preexec_fn=limited(resource.RLIMIT_AS, megabytes << 20))
    assert (answer.code, answer.out) == (6, "")
    assert "GB of address space are needed, and this process may have 0." in answer.err
    assert answer.err.count("\n") == 1


def test_help_needs_no_threads(qfuse: Qfuse) -> None:
    assert qfuse("run", "--help", preexec_fn=NO_THREADS).code == 0
