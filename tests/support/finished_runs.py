"""Fixtures for report tests: a finished run of a small synthetic set, its report, rows made by
hand, a browser.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from pipeline.core.stage import Context
from pipeline.run.events import Events
from pipeline.session import Results, execute, open_session
from stages.report.report import write_report
from stages.results.quantities import Quantity
from stages.results.rule_table import Difference, Entry, Row

HOSTILE = "<img src=x onerror=alert(1)>"
FINE = {"fmr": [1e-1, 1e-2, 1e-3], "replicates": 60}
SMALL: dict[str, Any] = {
    "name": "small",
    "description": "A small synthetic set",
    "dataset": {"reader": "synthetic", "options": {"scale": 0.01, "dimension": 32}},
    "factors": {
        "method": ["given", "feature-norm"],
        "rule": ["mean", "media-mean", "quality-linear", "best"],
    },
    "steps": {
        "embed": {"options": {"model": "given", "flip": "none"}},
        "quality": {"options": {"method": "$method"}},
        "statistics": {},
        "fuse": {"options": {"rule": "$rule"}},
        "compare": {},
        "evaluate_verification": {"options": FINE},
        "search": {"options": {"k": 10}},
        "evaluate_identification": {"options": {"replicates": 60}},
    },
    "report": {"options": {"title": "Small"}},
}


def run(config: Mapping[str, Any], folder: Path) -> Results:
    """Run a config with its store and its results under `folder`."""
    settings = {
        "store": str(folder / "store"),
        "folder": str(folder / "run"),
        "workers": 1,
        "max_failures": 1.0,
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({**config, "run": settings}))
    session = open_session(path)
    execute(session, Events(session.folder))
    return Results(session)


@pytest.fixture(scope="session")
def runs() -> Callable[[Mapping[str, Any], Path], Results]:
    return run


@pytest.fixture(scope="session")
def small() -> dict[str, Any]:
    return SMALL


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return run(SMALL, tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def report(results: Results) -> Path:
    """The folder of the small run's report."""
    return write_report(results, {"title": "Small"})[0].parent


@pytest.fixture(scope="session")
def page(report: Path) -> str:
    return (report / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def row() -> Callable[..., Row]:
    """A row whose numbers are given as value, or as (value, difference, low, high) to compare it
    with the baseline.
    """

    def make(
        factors: Mapping[str, Any], numbers: Mapping[Quantity, Any], few: bool = False, **more: Any
    ) -> Row:
        entries = {}
        for q, given in numbers.items():
            value, *d = given if isinstance(given, tuple) else (given,)
            counts = {
                "achieved": 1e-3,
                "threshold": 0.3,
                "false_matches": 20 if few else 40,
                "nonmated": 40_000,
                "subject_pairs": 38,
                "misses": 50,
                "trials": 100,
                "subjects": 60,
                "few_matches": few,
                "cells": 1,
            }
            spread = {"low": value - 0.01, "high": value + 0.01, "replicates": np.array([value])}
            entries[q] = Entry(
                value=value, **spread, **counts, difference=Difference(*d) if d else None
            )
        return Row(factors, (), entries, **more)

    return make


@pytest.fixture(scope="session")
def browse(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[str, str]]:
    """Open an address in a real browser without a window. Returns what the page became, and what
    its console said.
    """
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(names)} is installed")
    quiet = ("gpu", "quic", "background-networking", "component-update", "sync")
    flags = [
        "--headless",
        "--no-sandbox",
        "--no-first-run",
        *(f"--disable-{name}" for name in quiet),
        "--enable-logging=stderr",
    ]

    def open_address(address: str, *more: str) -> tuple[str, str]:
        profile = tmp_path_factory.mktemp("profile")
        command = [found, *flags, f"--user-data-dir={profile}", *more, "--dump-dom", address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        return done.stdout, "\n".join(
            line for line in done.stderr.splitlines() if ":CONSOLE" in line
        )

    return open_address


@pytest.fixture(scope="session")
def pictures(tiny: Context, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """A run on 24 pictures of noise of four subjects, two of which are no pictures and one of which
    has a hostile name.
    """
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(3)
    for subject in ("ann", "bob", "cid", HOSTILE):
        (root / "faces" / subject).mkdir(parents=True)
        for i in range(6):
            pixels = rng.integers(0, 20 + 40 * i, (112, 112, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "faces" / subject / f"{i}.png")
    for subject in ("ann", HOSTILE):
        (root / "faces" / subject / "0.png").write_bytes(b"no picture")
    config = {
        "name": "pictures",
        "dataset": {
            "reader": "folder",
            "path": str(root / "faces"),
            "options": {"probe_fraction": 0.5},
        },
        "models": {
            "folders": list(map(str, tiny.model_folders)),
            "cards": list(map(str, tiny.model_cards)),
        },
        "factors": {"seed": [0, 1], "rule": ["mean", "quality-linear"]},
        "steps": {
            "align": {"options": {"detector": "none"}},
            "degrade": {"options": {"fraction": 0.5, "seed": "$seed"}},
            "embed": {"inputs": {"crops": "degrade"}, "options": {"model": "tiny", "flip": "none"}},
            "quality": {"inputs": {"crops": "degrade"}, "options": {"method": "feature-norm"}},
            "statistics": {},
            "fuse": {"options": {"rule": "$rule"}},
            "compare": {},
            "evaluate_verification": {"options": FINE},
        },
        "report": {},
    }
    return run(config, root)
