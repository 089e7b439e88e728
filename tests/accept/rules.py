"""Fusion rules on the synthetic set, whose true quality is known: inverse variance is best, as
theory says.
"""

from __future__ import annotations

from tests.accept.command import ROOT, Check, Place, table
from tests.accept.fusion import cell
from tests.accept.recognition import pick

BEST = "inverse-variance"
COLUMNS = (("tar", 1e-3), ("tar", 1e-4), ("eer", None))


def rules() -> tuple[list[Check], str]:
    """Run configs/synthetic_rules.yaml with noise of each face's own, and with noise that a
    medium's faces share.
    """
    place, config = Place.fresh("rules"), str(ROOT / "configs/synthetic_rules.yaml")
    checks, texts = [], []
    for shared in (0.0, 0.8):
        setting = (
            "--set",
            f"dataset.options.shared_noise={shared}",
            "--set",
            f"name=shared-{shared:g}",
        )
        place.run("run", config, *setting)
        rows = place.numbers(f"shared-{shared:g}")["table"]
        names = list(dict.fromkeys(row["rule"] for row in rows))
        found = {
            name: [pick(rows, metric, target, rule=name) for metric, target in COLUMNS]
            for name in names
        }
        names.sort(key=lambda name: -found[name][0]["value"])
        head = ["rule", "TAR @ FMR 0.001", "TAR @ FMR 0.0001", "EER"]
        kind = "its own" if not shared else f"shared inside a medium ({shared:.0%} of the variance)"
        texts.append(
            f"Noise of each face {kind}:\n\n"
            + table([head, *([n, *map(cell, found[n])] for n in names)])
        )
        if not shared:
            second = next(name for name in names if name != BEST)
            seen = (
                f"{100 * found[BEST][0]['value']:.2f}, and {second}"
                f" {100 * found[second][0]['value']:.2f}"
            )
            checks.append(
                Check(
                    "independent noise: the largest TAR at FMR 1e-3", BEST, seen, names[0] == BEST
                )
            )
            low = 100 * found[BEST][0]["difference_low"]
            gain = f"{100 * found[BEST][0]['difference']:+.2f} points, from {low:+.2f}"
            checks.append(
                Check(
                    f"{BEST} − mean, TAR at FMR 1e-3", "paired 95 % interval above 0", gain, low > 0
                )
            )
    return checks, "\n\n".join(texts)
