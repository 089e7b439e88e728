"""The process in which rows are tried, started by `crash_probe`.

    python -m pipeline.run.crash_probe_child

reads {"ticket": …, "step": …, "shard": …, "rows": [[0, 32], …]} on standard input and writes a line
for each range as it begins, and "end" after the last.
"""

from __future__ import annotations

import json
import os
import sys

from pipeline.plan.ticket import Ticket
from pipeline.run.crash_probe import END
from pipeline.run.shard_computer import ShardComputer


def main() -> None:
    """Run the ranges of rows that standard input names."""
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not get into the answer
    asked = json.load(sys.stdin)
    try:
        plan, store = Ticket(**asked["ticket"]).open("a trial process")
        computer = ShardComputer(plan, store, workers=1)
        step = plan.steps[asked["step"]]
        computer.open(step)
        rows, inputs = computer.shard_rows(step, step.tasks[asked["shard"]])
        for piece in asked["rows"]:
            print(*piece, sep="-", file=told, flush=True)
            computer.run_rows(step, rows, inputs, tuple(piece))
    finally:
        print(END, file=told, flush=True)


if __name__ == "__main__":
    main()
