"""The verbs `qfuse store list|verify|gc`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.errors import CorruptArtifact, InvalidInput, UsageError
from pipeline.terminal import AsJson, emit, say, show

if TYPE_CHECKING:
    from pipeline.stage import Stage

store_app = typer.Typer(
    help="Look after the artifact store.", epilog="Example: qfuse store list --store .qfuse/store", no_args_is_help=True
)
StoreFolder = Annotated[Path, typer.Option("--store", metavar="FOLDER", help="The store's folder.")]
HERE = Path(".qfuse/store")


@store_app.command("list", epilog="Example: qfuse store list --store .qfuse/store")
def store_list(store: StoreFolder = HERE, as_json: AsJson = False) -> None:
    """Show what the store holds: artifacts, rows and bytes by output."""
    from pipeline.progress import store_rows, store_table

    rows = store_rows(existing_store(store))
    if as_json:
        emit(rows)
        return
    show(store_table(rows))
    size = sum(row["bytes"] for row in rows) / 1e6
    say(f"{sum(row['artifacts'] for row in rows):,} artifacts, {size:,.1f} MB in {store.absolute()}")


@store_app.command("verify", epilog="Example: qfuse store verify --keep")
def store_verify(
    store: StoreFolder = HERE,
    keep: Annotated[
        bool, typer.Option("--keep", metavar="", help="Only report; do not set damaged artifacts aside.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare every artifact with its receipt, byte for byte. Damaged ones are set aside and recomputed by the next run."""
    opened = existing_store(store)
    receipts = list(opened.receipts())
    problems = [problem for receipt in receipts if (problem := opened.check(receipt))]
    if not keep:
        for problem in problems:
            opened.quarantine(problem)
    if as_json:
        emit({"checked": len(receipts), "problems": [{"path": str(p.path), "reason": p.reason} for p in problems]})
    else:
        say(f"{len(receipts):,} artifacts checked, {len(problems):,} damaged")
    if problems:
        done = "left where they are" if keep else "set aside in quarantine/; the next run recomputes them"
        names = "; ".join(f"{p.path}: {p.reason}" for p in problems[:5])
        raise CorruptArtifact(f"{names}{' …' if len(problems) > 5 else ''} — {done}.")


@store_app.command("gc", epilog="Example: qfuse store gc configs/lfw.yaml configs/lfw_templates.yaml --delete")
def store_gc(
    configs: Annotated[list[Path] | None, typer.Argument(metavar="CONFIG", help="What these configs need is kept.")] = None,
    store: StoreFolder = HERE,
    crops: Annotated[
        bool, typer.Option("--crops", metavar="", help="Collect only crops, needed or not: the bulk of a store.")
    ] = False,
    delete: Annotated[bool, typer.Option("--delete", metavar="", help="Delete; without it, only say what would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete what no given config needs: superseded artifacts, orphans, leftovers of killed writers."""
    from pipeline.registry import available
    from pipeline.session import open_session

    if not (configs or crops):
        raise UsageError("name every config whose artifacts are to be kept, as in `qfuse store gc a.yaml b.yaml`.")
    if configs and crops:
        raise UsageError("--crops collects crops whatever a config needs: give either --crops or configs to keep.")
    opened = existing_store(store)
    live: set[tuple[str, str]] = set()
    outputs = None
    if crops:
        stages: dict[str, type[Stage]] = available("stage")
        outputs = [f"{name}.{output}".rstrip(".") for name, stage in stages.items() for output in stage.bulk]
    else:
        for config in configs or []:
            live |= open_session(config, [], opened.root, readonly=True).plan.live()
    found = opened.garbage(live, outputs)
    size = sum(path.stat().st_size for path in found)
    if delete:
        for path in sorted(found, key=lambda p: p.suffix == ".h5"):  # receipts first: no receipt without its file
            path.unlink(missing_ok=True)
    if as_json:
        emit({"files": [str(path) for path in found], "bytes": size, "deleted": delete})
    elif not found:
        say(f"nothing to delete in {opened.root}")
    else:
        verb = "deleted" if delete else "would delete (add --delete to do it)"
        say(f"{verb}: {len(found):,} files, {size / 1e6:,.1f} MB of {opened.root}")


def existing_store(root: Path) -> Any:
    """Return the store at `root`. Raises InvalidInput where there is none."""
    from pipeline.store import Store

    if not (root / "format.json").is_file():
        raise InvalidInput(f"{root.absolute()} is no qfuse store; give its folder with --store.")
    return Store(root.absolute())
