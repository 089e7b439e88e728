"""Where shipped files are: beside the code in a checkout, in the package when installed."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import InvalidInput


def resource(name: str) -> Path:
    """Return the path of a shipped file or folder, such as 'configs/lfw.yaml'."""
    here = Path(__file__).resolve().parent
    for root in (here.parent, here / "data"):
        if (root / name).exists():
            return root / name
    raise InvalidInput(f"the installation lacks {name}; reinstall qfuse.")
