"""Many inputs of one kind in a process with bounds, so that a crash, a bomb or a hang is caught and
named by its seed.

    python -m tests.hostile.child KIND FIRST COUNT FOLDER

appends to FOLDER/log, as JSON lines, each seed before it is met and what came of it, and in the end
the most memory used.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import shutil
import sys
from pathlib import Path
from random import Random

MEMORY = 4 << 30
SECONDS = 40  # after which a library that does not come back is ended


def main(kind: str, first: int, count: int, folder: Path) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    sys.dont_write_bytecode = True
    from . import guard
    from .kinds import KINDS

    given = guard.prepared(folder / "place")
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def tell(*what: object) -> None:
        os.write(log, json.dumps(what).encode() + b"\n")

    for seed in range(first, first + count):
        tell("seed", seed)
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        try:
            tell("outcome", guard.attempt(KINDS[kind], Random(seed), folder / "place"))  # noqa: S311  a seeded experiment
        except guard.Breach as breach:
            tell("breach", str(breach))
        for path in given.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    faulthandler.cancel_dump_traceback_later()
    tell("megabytes", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
