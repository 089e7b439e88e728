"""For all tests."""

from __future__ import annotations

import signal

pytest_plugins = ["finished_runs"]


def pytest_configure() -> None:
    """Whoever started the tests may let signals be ignored, as nohup and cron do; the tests and
    their children shall not.
    """
    for number, usual in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGTERM, signal.SIG_DFL),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)
