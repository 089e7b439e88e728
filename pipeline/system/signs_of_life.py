"""Signs of life of a long command, for whoever reads its log: a line now and then on its progress.

There are none on a terminal, which has bars, none with --json, and none of a command that ends
within EVERY seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

from pipeline.system.streams import warn

EVERY, BEAT = 30.0, 1.0  # seconds


class Pulse:
    """What a command is doing now. Nothing is printed unless it is `beating`."""

    def __init__(
        self, tell: Callable[[str], None] = warn, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._tell, self._clock = tell, clock
        self._begun: float | None = None
        self._last = 0.0
        self._what: Callable[[], str] = lambda: "starting"
        self._lock = threading.Lock()

    def at(self, what: str | Callable[[], str]) -> None:
        """Set what is reported from now on: a text, or a function that returns it."""
        self._what = what if callable(what) else lambda: what

    def look(self) -> None:
        """Report what is being done, if nothing was reported for long."""
        if self._begun is not None and self._clock() - self._last >= EVERY:
            self._line(self._what())

    def done(self, what: str) -> None:
        """Report that something has ended, if the command has taken long."""
        if self._begun is not None and self._clock() - self._begun >= EVERY:
            self._line(what)

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Look now and then, in a thread, as long as this lasts."""
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(BEAT):
                self.look()

        self._begun = self._last = self._clock()
        with suppress(RuntimeError):  # no thread is allowed
            threading.Thread(target=beat, name="qfuse-pulse", daemon=True).start()
        try:
            yield
        finally:
            ended.set()
            self._begun = None

    def _line(self, what: str) -> None:
        with self._lock:
            self._last = self._clock()
            self._tell(
                f"qfuse: {timedelta(seconds=int(self._last - (self._begun or self._last)))} {what}"
            )


pulse = Pulse()  # this command's
