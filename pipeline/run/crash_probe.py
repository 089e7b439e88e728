"""Trials: find the rows that end the process which runs them.

A process of its own tries, so that only it dies.

After a process died without a word, the rows that it had in flight are tried here before anything
else is: all together first, for mostly they are innocent; then, if that process dies too, one by
one. A row is guilty when it has ended two processes by itself. A trial that is killed from outside,
as one is when memory runs out, proves nothing and ends the run. The process is `crash_probe_child`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import asdict

from pipeline.errors import INTERRUPTED, Interrupted, ResourceRefused
from pipeline.plan.ticket import Ticket
from pipeline.store.claims import RowRange

END = "end"
FROM_OUTSIDE = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


def crashing(
    ticket: Ticket, step: str, shard: int, suspects: Iterable[RowRange], stop: threading.Event
) -> dict[int, str]:
    """Return the rows (of the shard) that end a process, each with a sentence that says how.

    Raises Interrupted once `stop` is set; ResourceRefused if a trial is killed from outside.
    """
    found: dict[int, str] = {}
    deaths: Counter[RowRange] = Counter()
    waiting = deque(suspects)
    while waiting:
        ended, code = _try(ticket, step, shard, list(waiting), stop)
        for _ in range(ended):
            waiting.popleft()
        if not waiting:
            break
        if -code in FROM_OUTSIDE:
            raise ResourceRefused(
                f"{step}, shard {shard}: the process that tries which rows are at fault was killed"
                f" ({signal.Signals(-code).name}), as happens when memory runs out: use fewer"
                " workers, and run again."
            )
        rows = waiting.popleft()
        deaths[rows] += 1
        if rows[1] - rows[0] > 1:
            waiting.extendleft((row, row + 1) for row in reversed(range(*rows)))
        elif deaths[rows] < 2:
            waiting.appendleft(rows)
        else:
            how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
            found[rows[0]] = f"reading it ends the process that tries ({how}, twice)"
    return found


def _try(
    ticket: Ticket, step: str, shard: int, ranges: list[RowRange], stop: threading.Event
) -> tuple[int, int]:
    """Let a process run the ranges of rows in turn.

    Returns how many it survived, and how it died in the next, if it did.
    """
    asked: str | None = json.dumps(
        {"ticket": asdict(ticket), "step": step, "shard": shard, "rows": ranges}
    )
    environment = {name: value for name, value in os.environ.items() if name != "QFUSE_FAULT"}
    # -P keeps Python from importing whatever is called pipeline in the user's folder.
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "pipeline.run.crash_probe_child"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        # Ctrl-C on a terminal then reaches this process alone, which stops the child.
        start_new_session=True,
    ) as child:
        while True:
            try:
                out, _ = child.communicate(asked, timeout=0.2)
                break
            except subprocess.TimeoutExpired:
                asked = None
                if stop.is_set():
                    child.kill()
                    raise Interrupted(INTERRUPTED) from None
    begun = out.split()
    # An end with an exception counts as survived: the row raises again, and is reported, where its
    # shard is computed.
    if not begun or begun[-1] == END:
        return len(ranges), 0
    return len(begun) - 1, child.returncode
