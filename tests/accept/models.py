"""Models that are at hand: fed right, and as good when folded, in bf16 and by another engine."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pipeline.core.numerics import PROFILES, Profile
from pipeline.core.schema import Status
from pipeline.core.stage import Context
from pipeline.errors import ResourceRefused
from pipeline.files.file_tree import open_files
from pipeline.system.instruction_sets import lacks_bf16
from stages.datasets.lfw import LfwOptions, LfwReader
from stages.exact import products, vectors
from stages.faces.sampling import aligned
from stages.metrics.verification import kfold_accuracy
from stages.models.backends import open_model
from stages.models.cards import ModelCard, read_cards, read_weights
from stages.models.fetching import fetch
from tests.accept.command import ROOT, SHARED, Check, Place, table

AT_HAND = ("edgeface_xxs", "edgeface_xs", "mobilefacenet", "lightqnet", "sface")
IN_PACKAGE = ("sface", "yunet_2023")
# Numerics that are compared with ONNX Runtime's or PyTorch's in float32.
OTHER_WAYS: tuple[tuple[str, dict[str, str]], ...] = (
    ("mobilefacenet", {"precision": "bf16"}),
    ("edgeface_xxs", {"engine": "openvino", "precision": "fp32"}),
    ("edgeface_xxs", {"engine": "openvino", "precision": "bf16"}),
    ("edgeface_xs", {"engine": "openvino", "precision": "fp32"}),
    ("edgeface_xs", {"engine": "openvino", "precision": "bf16"}),
)
PAIRS = 1_000  # that SFace is judged on: half mated, half non-mated, the first of the list
LFW = SHARED / "data/lfw.zip"


def models() -> tuple[list[Check], str]:
    """Fetch SFace and YuNet; check every model with its card and with a spoilt one; LFW."""
    place = Place.fresh("models")
    cards = read_cards(ROOT / "data_manifests/models.yaml")
    folder = place.folder / "weights"
    for name in IN_PACKAGE:
        fetch(cards[name], folder)
    for name in (*AT_HAND, "yunet_320"):
        if not (folder / cards[name].file).exists():
            (folder / cards[name].file).symlink_to(SHARED / "models" / cards[name].file)
    rows, checks = [["model", "fed as its card says", "the other colours", "spoilt card"]], []
    for name in AT_HAND:
        found, row = _fed(place, folder, cards[name])
        checks += found
        rows.append(row)
    pairs = _lfw_pairs(folder)
    sface = _accuracy(_embedded(cards["sface"], folder, pairs.halves), pairs.halves)
    what = f"SFace and YuNet out of their package, {PAIRS:,} pairs of LFW, accuracy"
    checks.append(Check(what, "≥ 99.2 %", f"{sface:.2f} %", sface >= 99.2))
    checks += _other_ways(cards, folder, pairs)
    note = (
        "\n\nThis processor has no bf16 instructions: bf16 was not tried." if lacks_bf16() else ""
    )
    return checks, table(rows) + note


@dataclass(frozen=True)
class Pairs:
    """Crops (n, 112, 112, 3), and pairs of them: a, b, mated, fold (m,)."""

    crops: Any
    a: Any
    b: Any
    mated: Any
    fold: Any

    @property
    def halves(self) -> Pairs:
        """The first mated and as many first non-mated pairs, in ten folds."""
        each = PAIRS // 2
        chosen = np.concatenate([np.flatnonzero(self.mated == kind)[:each] for kind in (1, 0)])
        used, places = np.unique(np.r_[self.a[chosen], self.b[chosen]], return_inverse=True)
        a, b = np.split(places, 2)
        fold = np.tile(np.arange(each) * 10 // each, 2)
        return Pairs(self.crops[used], a, b, self.mated[chosen], fold)


def _fed(place: Place, folder: Path, card: ModelCard) -> tuple[list[Check], list[str]]:
    """Check that the right colours are found, and that they are missed on a spoilt card."""
    words = ("--on", str(LFW), "--folder", str(folder))
    ways = place.run("models", "check", card.name, *words)[0]["ways"]
    beaten = [f"{way['colour']} {way['scale']}" for way in ways if way["clearly_better"]]
    right, other = ways[0]["separation"], ways[1]["separation"]
    spoilt = {**card.model_dump(mode="json"), "colour": "rgb" if card.colour == "bgr" else "bgr"}
    (folder / "cards.yaml").write_text(yaml.safe_dump({card.name: spoilt}), encoding="utf-8")
    child = place.start("models", "check", card.name, *words)
    told = child.communicate(timeout=3600)[1].strip().splitlines()
    (folder / "cards.yaml").unlink()
    refused = child.returncode == 3 and f"{card.colour.upper()} {ways[0]['scale']} is" in told[-1]
    return [
        Check(
            f"{card.name}: no way of feeding is clearly better than the card's",
            "none",
            ", ".join(beaten) or "none",
            not beaten,
        ),
        Check(
            f"{card.name}: a card with the wrong colours is refused, naming the right ones",
            "exit code 3",
            f"exit code {child.returncode}",
            refused,
        ),
    ], [card.name, f"{right:.4f}", f"{other:.4f}", "refused" if refused else "not refused"]


def _lfw_pairs(folder: Path) -> Pairs:
    """Return LFW's 6,000 pairs, aligned by YuNet."""
    files = open_files(LFW)
    tables = LfwReader(LfwOptions(faces="pairs")).read(files)
    context = Context(PROFILES["cpu-fp32"], lambda: files, (folder,))
    faces, comparisons, members = tables["faces"], tables["comparisons"], tables["members"]
    crops = aligned(faces["path"].tolist(), faces["sha256"].tolist(), "yunet_2023", context)
    if (crops["status"] != Status.OK).any():
        raise RuntimeError("YuNet found no face in a photograph of LFW's pairs")
    face = np.empty(tables["templates"].rows, np.int64)
    face[members["template"]] = members["face"]
    a, b = face[comparisons["a"]], face[comparisons["b"]]
    mated = comparisons["mated"].astype(bool)
    return Pairs(crops["crop"], a, b, mated, comparisons["fold"])


def _embedded(card: ModelCard, folder: Path, pairs: Pairs, **profile: Any) -> Any:
    """Return the unit embeddings of the crops, by both cores."""
    from concurrent.futures import ThreadPoolExecutor

    numerics: Profile = PROFILES["cpu-fp32"].model_copy(update={"compute_batch": 8, **profile})
    weights = read_weights(folder / card.file, card.sha256)
    model = open_model(card, weights, numerics)
    with ThreadPoolExecutor(2) as pool:
        parts = pool.map(model, np.array_split(pairs.crops, max(1, len(pairs.crops) // 64)))
        return vectors.units(np.concatenate([part.embedding for part in parts]))


def _accuracy(unit: Any, pairs: Pairs) -> float:
    """Return the accuracy in percent by cross-validation over the folds."""
    scores = products.paired(unit[pairs.a], unit[pairs.b])
    return 100 * kfold_accuracy(scores, pairs.mated, pairs.fold).mean


def _other_ways(cards: dict[str, ModelCard], folder: Path, pairs: Pairs) -> list[Check]:
    """Compare folded networks with those as published, and bf16 with fp32, on all of the pairs."""
    checks, few = [], pairs.halves
    published = _as_published(cards["mobilefacenet"], folder, few.crops)
    embedded = partial(_embedded, folder=folder)
    folded = embedded(cards["mobilefacenet"], pairs=few)
    least = float(products.paired(published, folded).min())
    what = f"mobilefacenet, folded, {len(few.crops):,} photographs: least cosine to the module"
    checks.append(Check(what, "≥ 0.999999", f"{least:.8f}", least >= 0.999999))
    for name, other in OTHER_WAYS:
        bf16 = other["precision"] == "bf16"
        how = ", ".join(other.values())
        if bf16 and lacks_bf16():
            continue
        plain = embedded(cards[name], pairs=pairs)
        try:
            found = embedded(cards[name], pairs=pairs, **other)
        except ResourceRefused as error:
            checks.append(Check(f"{name}, {how}", "installed", str(error), False))
            continue
        cosine = products.paired(plain, found)
        least, mean = float(cosine.min()), float(cosine.mean())
        what = f"{name}, {how}, {len(plain):,} photographs of LFW: cosine to fp32"
        seen = f"mean {mean:.6f}, least {least:.6f}"
        # bf16 has 8 bits: of each thousand faces a few are farther off than the others.
        if bf16:
            checks.append(Check(what, "mean ≥ 0.9995", seen, mean >= 0.9995))
        else:
            checks.append(Check(what, "least ≥ 0.999999", seen, least >= 0.999999))
        other_accuracy, own = _accuracy(found, pairs), _accuracy(plain, pairs)
        apart = abs(other_accuracy - own)
        what = f"{name}, {how}: accuracy on LFW"
        checks.append(
            Check(what, f"{own:.2f} % ± 0.1", f"{other_accuracy:.2f} %", apart <= 0.1 + 1e-9)
        )
    return checks


def _as_published(card: ModelCard, folder: Path, crops: Any) -> Any:
    """Return the unit embeddings of a network that nothing was folded in, in float64."""
    import torch

    from stages.models.backends import preprocess
    from stages.models.checkpoints import load_checkpoint
    from stages.networks.architectures import ARCHITECTURES

    network = ARCHITECTURES[card.architecture].build()
    load_checkpoint(network, read_weights(folder / card.file, card.sha256))
    network = network.eval().double()
    parts = []
    with torch.inference_mode():
        for part in np.array_split(crops, max(1, len(crops) // 32)):
            planes = torch.from_numpy(preprocess(card, part, len(part)))
            parts.append(network(planes.double()).numpy())
    return vectors.units(np.concatenate(parts).astype(np.float32))
