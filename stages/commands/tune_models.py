"""The verb `models tune`: how should a config compute here, and how long will it take?"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.terminal import AsJson, ConfigPath, StorePath, emit, say, show, warn
from pipeline.errors import InvalidInput, UsageError, cannot_write, counted
from pipeline.system.instruction_sets import processor
from pipeline.system.signs_of_life import pulse
from stages.commands.known_models import silent

if TYPE_CHECKING:
    from rich.table import Table

    from pipeline.session import Session
    from stages.models.tuning import Sample, Timing

EXAMPLE = "Example: qfuse models tune configs/lfw.yaml"
IJBC = 469_375  # faces: the run that everybody wants to know of
NOTED = 1000  # rows that a speed is noted for


@dataclass(frozen=True)
class Measured:
    """A step as the config has it and at its best; seconds and bytes to store one face."""

    own: Timing
    best: Timing
    commit: float
    bytes: float


def tune_models(
    config: ConfigPath,
    store: StorePath = None,
    rows: Annotated[
        int, typer.Option("--rows", metavar="N", min=16, help="Measure on this many faces.")
    ] = 256,
    seconds: Annotated[
        float, typer.Option("--seconds", metavar="S", min=0.01, help="Time each way this long.")
    ] = 2.0,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="OUT.yaml",
            help="The config to write, beside CONFIG; it must not exist yet. Default:"
            " CONFIG-tuned.yaml.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a config's networks on this machine, and write a config with the fastest numerics.

    Threads of a model, faces in one forward, precision (bf16, where the processor has it) and
    engine of ONNX graphs (OpenVINO, if it is installed) are tried on the config's own faces. What
    is not 8 % faster is left as it is, for other numerics give other last bits, and results are
    computed again. Also says where the time goes, and how long a run will take; `qfuse plan` then
    knows it, too.
    """
    from pipeline.config.config import load_config
    from pipeline.plan.forecast import duration, forecast, in_words
    from pipeline.session import with_session
    from pipeline.system.atomic_text import replace_text
    from stages.commands.destination import need_absent, need_name

    path = out or config.with_name(f"{config.stem}-tuned.yaml")
    need_name(path, "a config is YAML", ".yaml", ".yml")
    need_absent(path)
    if path.parent.resolve() != config.parent.resolve():
        raise UsageError(f"{path} must lie beside {config}: paths in a config start at its folder.")
    told = silent if as_json else say
    loaded = load_config(config)
    session, found, decode = with_session(
        loaded, store, lambda s: _measured(s, rows, seconds, told), warn
    )
    _keep(session, found, {name: each.own for name, each in found.items()})
    numerics = _numerics(found, session)
    if numerics:
        text = _extended(config, loaded.name, numerics)
        try:
            replace_text(path, text)
        except OSError as error:
            raise cannot_write(path, error) from None
        session = with_session(load_config(path), store, lambda opened: opened, warn)
        _keep(session, found, {name: each.best for name, each in found.items()})
    ahead = forecast(session.plan, session.store)
    parts = _parts(found, decode)
    if as_json:
        written = str(path) if numerics else None
        emit({"config": written, "numerics": numerics, "seconds_a_face": parts} | asdict(ahead))
        return
    show(_shares(parts))
    size = sum(each.bytes for each in found.values())
    say(
        f"{IJBC:,} faces, as of IJB-C, would take {duration(IJBC * sum(parts.values()))} and"
        f" {IJBC * size / 1e9:.1f} GB"
    )
    if words := in_words(ahead):
        say(f"{session.config.full_name}: {words}")
    for name, each in found.items():
        if each.best.changed:
            times = each.best.rate / each.own.rate
            say(f"{name}: {_described(each.best)}, {times:.2f} times as fast as now")
    if any(each.best.changed.get("precision") == "bf16" for each in found.values()):
        say("note: bf16 rounds embeddings (cosine to fp32 about 0.9996): compare within one config")
    if numerics:
        say(f"wrote {path}; run that in place of {config}")
    else:
        say(
            f"nothing is clearly faster than what {config} says for all models of a step together:"
            " no config was written"
        )


def _measured(
    session: Session, rows: int, seconds: float, told: Callable[[str], None]
) -> tuple[Session, dict[str, Measured], float]:
    """Return the session, what was measured of each step, and the seconds to decode an image."""
    from pipeline.core.numerics import backend_version
    from pipeline.plan.forecast import takes_time
    from pipeline.plan.graph import computed_beside
    from stages.models.tuning import ROUNDS, Race, commit_times, samples, workers_for

    def seen(timing: Timing) -> None:
        told(f"  {timing.step.name:<32} {_described(timing):<48} {timing.rate:>8,.0f} faces/s")

    pulse.at("measuring")
    # What another step computes on the way takes no time of its own.
    beside = computed_beside(session.plan.steps.values())
    taken = [
        sample
        for sample in samples(session.plan, rows)
        if takes_time(sample.step.stage) and sample.step.name not in beside
    ]
    if not any(sample.has_network for sample in taken):
        raise InvalidInput(f"{session.config.full_name} runs no network: nothing is to be tuned.")
    engines = ["openvino"] if backend_version("openvino") != "absent" else []
    told(f"{processor()}, {len(os.sched_getaffinity(0))} cores; {taken[0].rows.rows} faces")
    told(f"each way is timed for {seconds:g} s (--seconds), in {ROUNDS} turns")
    race = Race(seconds, told, seen)
    threads = race.best_threads(taken)
    workers, found, decode = workers_for(threads), dict[str, Measured](), 0.0
    steps: dict[str, list[Sample]] = {}
    for sample in taken:
        steps.setdefault(sample.step.base, []).append(sample)
    for of_step in steps.values():
        if of_step[0].has_network:
            own, best = race.tuned(of_step, threads, engines)
        else:
            profile = of_step[0].step.stage.context.profile
            told(f"{of_step[0].step.base} as it is")
            own = [race.of(sample, [profile])[0] for sample in of_step]
            best = own
        for sample, as_is, fastest in zip(of_step, own, best, strict=True):
            count, (committing, size) = sample.rows.rows, commit_times(sample)
            found[sample.step.name] = Measured(as_is, fastest, committing / count, size / count)
            if sample.step.stage.name == "align":
                decode += _decode_seconds(sample, workers)
    return session, found, decode


def _decode_seconds(sample: Sample, workers: int) -> float:
    """Return the seconds that an image takes to be read and decoded."""
    from stages.faces.images import Unusable, decode

    stage: Any = sample.step.stage
    files = stage.context.files()

    def one(name: str) -> None:
        with suppress(Unusable, InvalidInput, FileNotFoundError):
            decode(files.read(name), stage.options.max_pixels)

    names = sample.rows["path"].tolist()
    with ThreadPoolExecutor(workers) as pool:
        begin = time.perf_counter()
        list(pool.map(one, names))
        return (time.perf_counter() - begin) / len(names)


def _parts(found: dict[str, Measured], decode: float) -> dict[str, float]:
    """Return the seconds that a face takes, by what is done with it."""
    parts = {name: 1 / each.best.rate for name, each in found.items()}
    if decode:
        align = next(name for name in parts if found[name].best.step.stage.name == "align")
        parts = {"read and decode": decode, **parts, align: max(0.0, parts[align] - decode)}
    return {**parts, "write": sum(each.commit for each in found.values())}


def _numerics(found: dict[str, Measured], session: Session) -> dict[str, dict[str, Any]]:
    """Return by config step what it is best computed with, if that is another way than now.

    A step whose numbers another computes on the way gets the numerics of that one.
    """
    from pipeline.plan.graph import computed_beside

    changed = {name.partition("[")[0]: each.best.changed for name, each in found.items()}
    for step, other in computed_beside(session.plan.steps.values()).items():
        changed[step.partition("[")[0]] = changed.get(other.partition("[")[0], {})
    return {base: fields for base, fields in changed.items() if fields}


def _extended(config: Path, name: str, numerics: dict[str, dict[str, Any]]) -> str:
    """Return the text of a config that extends another by numerics."""
    import yaml

    content = {
        "extends": config.name,
        "name": f"{name}-tuned",
        "steps": {base: {"numerics": fields} for base, fields in numerics.items()},
    }
    cores = len(os.sched_getaffinity(0))
    return (
        f"# {config.name} with what `qfuse models tune` found to be fastest on {processor()},"
        f" {cores} cores, {date.today().isoformat()}.\n" + yaml.safe_dump(content, sort_keys=False)
    )


def _keep(session: Session, found: dict[str, Measured], timings: dict[str, Timing]) -> None:
    """Keep the speeds of the session's steps, for the forecasts of `plan`."""
    from pipeline.plan.forecast import Speed, note_speeds

    speeds = {
        name: Speed(
            NOTED,
            NOTED * (1 / timings[name].rate + each.commit),
            round(NOTED * each.bytes),
        )
        for name, each in found.items()
    }
    note_speeds(session.plan, session.store, speeds, None)


def _described(timing: Timing) -> str:
    profile = timing.profile
    many = f"{counted(timing.workers, 'worker')} × {counted(profile.threads, 'thread')}"
    engine = "" if profile.engine == "onnxruntime" else f", {profile.engine}"
    return f"{profile.precision}, batch {profile.compute_batch}, {many}{engine}"


def _shares(parts: dict[str, float]) -> Table:
    """Return a table of where the time of a face goes."""
    from stages.report.text_table import add_numbers, text_table

    table = text_table("where the time goes")
    add_numbers(table, "ms a face", "share")
    total = sum(parts.values())
    for name, seconds in parts.items():
        table.add_row(name, f"{seconds * 1e3:.2f}", f"{seconds / total:.0%}")
    return table
