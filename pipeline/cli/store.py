"""The verbs `qfuse store list|verify|gc`."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.terminal import AsJson, emit, say, show, warn
from pipeline.errors import CorruptArtifact, InvalidInput, UsageError, counted

if TYPE_CHECKING:
    from pipeline.core.stage import Stage

store_app = typer.Typer(
    help="Inspect, verify and clean up the artifact store.",
    epilog="Example: qfuse store list --store .qfuse/store",
    no_args_is_help=True,
)
StoreFolder = Annotated[Path, typer.Option("--store", metavar="FOLDER", help="The store's folder.")]
HERE = Path(".qfuse/store")


@store_app.command("list", epilog="Example: qfuse store list --store .qfuse/store")
def store_list(store: StoreFolder = HERE, as_json: AsJson = False) -> None:
    """Show what the store holds: artifacts, rows and bytes by output."""
    from pipeline.cli.display import store_rows, store_table
    from pipeline.store.mending import mended

    rows = mended(lambda: store_rows(existing_store(store)), warn)
    if as_json:
        emit(rows)
        return
    show(store_table(rows))
    size = sum(row["bytes"] for row in rows) / 1e6
    say(
        f"{counted(sum(row['artifacts'] for row in rows), 'artifact')}, {size:,.1f} MB in"
        f" {store.absolute()}"
    )


@store_app.command("verify", epilog="Example: qfuse store verify --keep")
def store_verify(
    store: StoreFolder = HERE,
    keep: Annotated[
        bool,
        typer.Option(
            "--keep", metavar="", help="Only report damaged artifacts; do not set them aside."
        ),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            metavar="N",
            min=1,
            help="Number of files to read at once; default: the number of cores.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare every artifact with its receipt, byte for byte.

    Damaged artifacts are set aside; the next run computes them again.
    """
    from pipeline.cli.display import bytes_bar
    from pipeline.store.maintenance import ORPHAN, QUARANTINE, obstacles, size_of, verify
    from pipeline.system.regular_file import obstacle

    opened = existing_store(store)
    begin = time.perf_counter()
    receipts = list(opened.receipts())
    size = sum(size_of(path.with_suffix(".h5")) for path in receipts)
    with bytes_bar("verify", size) as advance:
        problems = verify(receipts, workers or len(os.sched_getaffinity(0)), advance)
    orphans = sum(kind == ORPHAN for kind in opened.garbage(None).values())
    blocked = {path: obstacle(path) for path in obstacles(opened.root, all_outputs())}
    seconds = time.perf_counter() - begin
    aside = opened.writable and not keep and opened.root / QUARANTINE not in blocked
    for problem in problems if aside else []:
        opened.set_aside(problem.output, problem.key, problem.reason)
    damaged = Counter(problem.output for problem in problems)
    if as_json:
        found = [
            {"path": str(p.path), "output": p.output, "key": p.key, "reason": p.reason}
            for p in problems
        ]
        sums = {
            "checked": len(receipts),
            "bytes": size,
            "seconds": round(seconds, 3),
            "orphans": orphans,
        }
        outcome = {"damaged": damaged, "problems": found, "set_aside": aside and bool(problems)}
        emit({**sums, **outcome, "in_the_way": list(map(str, blocked))})
    else:
        by = ""
        if problems:
            by = f" ({', '.join(f'{output}: {count:,}' for output, count in damaged.items())})"
        if blocked:
            folders = "a folder" if len(blocked) == 1 else "folders"
            by += f", and {len(blocked):,} in the way of {folders}"
        checked = (
            f"{counted(len(receipts), 'artifact')}, {size / 1e6:,.1f} MB checked in {seconds:.1f} s"
        )
        say(
            f"{checked}: {len(problems):,} damaged{by}"
            + ("" if receipts else f"; the store at {opened.root} is empty")
        )
        if orphans:
            files = f"{counted(orphans, 'file')} without a receipt"
            say(
                f"{files}, left by interrupted commits; `qfuse store gc --delete` removes"
                f" {'it' if orphans == 1 else 'them'}"
            )
    told = []
    if problems:
        done = "set aside in quarantine/; the next run recomputes them"
        if not aside:
            done = "left where they are"
            if not keep:
                done += ", because the store cannot be written"
        told.append(f"{_first([f'{p.path}: {p.reason}' for p in problems])} — {done}.")
    if blocked:
        told.append(f"{_first(list(blocked.values()))} — move that away and run again.")
    if told:
        raise CorruptArtifact("\n".join(told))


def _first(sentences: Sequence[str], count: int = 5) -> str:
    return "; ".join(sentences[:count]) + " …" * (len(sentences) > count)


@store_app.command(
    "gc", epilog="Example: qfuse store gc configs/lfw.yaml configs/lfw_templates.yaml --delete"
)
def store_gc(
    configs: Annotated[
        list[Path] | None, typer.Argument(metavar="CONFIG", help="Keep what these configs need.")
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(
            "--store", metavar="FOLDER", help="The store's folder; default: the configs' own."
        ),
    ] = None,
    crops: Annotated[
        bool,
        typer.Option(
            "--crops",
            metavar="",
            help="Select only crops, needed or not; they are the bulk of a store.",
        ),
    ] = False,
    quarantine: Annotated[
        bool,
        typer.Option(
            "--quarantine", metavar="", help="Also select damaged files that were set aside."
        ),
    ] = False,
    delete: Annotated[
        bool,
        typer.Option(
            "--delete", metavar="", help="Delete them; without this, only say what would go."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Delete what no given config needs, files without a receipt, and remains of killed writers."""
    from pipeline.cli.config_benchmarks import live_artifacts, store_of
    from pipeline.store.maintenance import UNNEEDED, size_of
    from pipeline.store.maintenance import delete as delete_files

    if not (configs or crops):
        raise UsageError(
            "name every config whose artifacts are to be kept, as in `qfuse store gc a.yaml"
            " b.yaml`."
        )
    if configs and crops:
        raise UsageError(
            "--crops collects crops whatever a config needs: give either --crops or configs to"
            " keep."
        )
    stores = [store] if store else list(dict.fromkeys(map(store_of, configs or []))) or [HERE]
    if len(stores) > 1:
        raise UsageError(
            f"these configs have stores of their own ({', '.join(map(str, stores))}): choose one"
            " with --store."
        )
    opened = existing_store(stores[0])
    bulk, live = bulk_outputs(), set[tuple[str, str]]()
    for config in configs or []:
        live |= live_artifacts(config, opened.root)
    found = opened.garbage(live, bulk if crops else None, quarantine)
    sizes = {path: size_of(path) for path in found}
    classes: dict[str, list[Path]] = {}
    for path, kind in found.items():
        crop = kind == UNNEEDED and path.parent.parent.name in bulk
        classes.setdefault("crops" if crop else kind, []).append(path)
    if delete:
        delete_files(found)
    if as_json:
        sums = {
            kind: {"files": len(paths), "bytes": sum(map(sizes.__getitem__, paths))}
            for kind, paths in classes.items()
        }
        files = [str(path) for path in found]
        emit({"files": files, "bytes": sum(sizes.values()), "classes": sums, "deleted": delete})
    elif not found:
        say(f"nothing to delete in {opened.root}")
    else:
        for kind, paths in classes.items():
            named = "needed by no config that was given" if kind == UNNEEDED else kind
            say(
                f"{named}: {counted(len(paths), 'file')},"
                f" {sum(map(sizes.__getitem__, paths)) / 1e6:,.1f} MB"
            )
        verb = "deleted" if delete else "would delete (add --delete to do it)"
        say(
            f"{verb}: {counted(len(found), 'file')}, {sum(sizes.values()) / 1e6:,.1f} MB of"
            f" {opened.root}"
        )


def bulk_outputs() -> set[str]:
    """Return the names of the outputs that are crops."""
    return {
        f"{name}.{output}".rstrip(".") for name, stage in _stages().items() for output in stage.bulk
    }


def all_outputs() -> set[str]:
    """Return the names of the outputs of all stages."""
    return {
        f"{name}.{output}".rstrip(".")
        for name, stage in _stages().items()
        for output in stage.produces
    }


def _stages() -> dict[str, type[Stage]]:
    from pipeline.core.registry import available

    return available("stage")


def existing_store(root: Path) -> Any:
    """Return the store at `root`. Raises InvalidInput if there is none."""
    from pipeline.store.store import Store, is_store

    if not is_store(root):
        found = f"there is no store at {root.absolute()}"
        if root.exists():
            found = f"{root.absolute()} is not a qfuse store"
        raise InvalidInput(
            f"{found}: give its folder with --store; `qfuse status CONFIG` names the store of a"
            " config."
        )
    return Store(root.absolute())
