"""The verb `models check`: does a model do what its card says, and is it fed as it wants to be?"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.terminal import AsJson, emit, say
from pipeline.errors import InvalidInput
from pipeline.system.signs_of_life import pulse
from stages.commands.known_models import (
    Folders,
    Name,
    OfConfig,
    model_folders,
    silent,
    surroundings,
)

if TYPE_CHECKING:
    from pipeline.core.stage import Context
    from stages.faces.feeding import Sample, Way
    from stages.models.cards import ModelCard, WeightFile

EXAMPLE = "Example: qfuse models check edgeface_xxs --on photographs/"
# What trained models exceed by far (5 and 0.98 on LFW), and random weights do not (0.8 and 0.5).
LEAST = {"recognition": 2.0, "quality": 0.7}
REVERSED = 0.3  # AUC
CROPS = 12  # that the contract is tested with
HEADINGS = {
    "recognition": "    d′ of mated and non-mated pairs, 95 % of its difference to the card's way",
    "quality": "    AUC of crops and degraded copies, 95 % of its difference to the card's way",
}
LEAST_FOUND = 0.9  # of photographs of people: a detector that finds fewer faces is not fed right


def check_model(
    name: Name,
    on: Annotated[
        Path | None,
        typer.Option(
            "--on",
            metavar="FOLDER|ZIP",
            help="Photographs, one folder for each person: compare the card's colours and scale"
            " with the others.",
        ),
    ] = None,
    people: Annotated[
        int, typer.Option("--people", metavar="N", min=50, help="Draw this many people at most.")
    ] = 300,
    detector: Annotated[
        str | None,
        typer.Option("--detector", metavar="NAME", help="Default: the first whose file is there."),
    ] = None,
    folder: Folders = None,
    config: OfConfig = None,
    as_json: AsJson = False,
) -> None:
    """Check a model's file, its contract, and with --on the colours and the scale that it is fed.

    The contract: the file has the card's digest and fits its architecture; every face gets finite
    numbers, the same each time, whatever faces it came with. Colours and scale: how far the model
    parts pairs of one person from others (a quality model: crops from degraded copies), fed as its
    card says and in every other usual way. Ends with 3 if the contract is broken or another way is
    clearly better.
    """
    from stages.models.cards import card_named, find_weights, read_weights
    from stages.models.catalogue import all_cards

    context = surroundings(folder, config)
    card = card_named(all_cards(context), name)
    weights = read_weights(find_weights(card, context.model_folders), card.sha256)
    told = silent if as_json else say
    digest = "the digest of its card" if card.sha256 else "no digest on its card to compare"
    told(f"ok  {weights.path}: {digest}")
    sample = None
    if on is not None:
        from stages.faces.sampling import sampled, usable_detector

        if card.kind == "detector":
            detector = name
        # A detector may lie elsewhere than the model that is checked.
        everywhere = (*context.model_folders, *model_folders())
        wider = replace(context, model_folders=everywhere)
        detector = detector or usable_detector(all_cards(wider), everywhere)
        sample = sampled(on, people, detector, wider, told)
    promises = _promises(card, weights, context, sample)
    for promise, kept in promises.items():
        told(f"{'ok' if kept else 'NO'}  {promise}")
    ways: list[Way] = []
    if sample is not None and card.kind != "detector":
        from stages.faces.feeding import compared_ways

        pulse.at(f"comparing the ways of feeding {name}")
        for way in compared_ways(card, weights, context.profile, sample):
            if way.is_cards:
                told(HEADINGS[way.kind])
            ways.append(way)
            told(_line(way))
    if as_json:
        emit({"model": name, "contract": promises, "ways": [asdict(way) for way in ways]})
    _refuse(card, promises, ways)
    if ways:
        told(f"ok  no other way is clearly better than the card's: {_called(ways[0])}")
    elif card.kind != "detector":
        told("not tested: colours and scale, which takes photographs of people: give --on FOLDER")


def _promises(
    card: ModelCard, weights: WeightFile, context: Context, sample: Sample | None
) -> dict[str, bool]:
    from stages.faces.feeding import contract, noise

    if card.kind != "detector":
        crops = noise(CROPS) if sample is None else sample.first[:CROPS]
        return contract(card, weights, context.profile, crops)
    if sample is None:
        from stages.detectors.opening import open_detector

        open_detector(card, weights)
        return {"opens": True}
    return {
        f"finds a face in both photographs of {len(sample)} of {sample.drawn} people": (
            len(sample) >= LEAST_FOUND * sample.drawn
        )
    }


def _refuse(card: ModelCard, promises: dict[str, bool], ways: list[Way]) -> None:
    """Raise InvalidInput if a promise is broken, or a way is clearly better than the card's."""
    broken = [promise for promise, kept in promises.items() if not kept]
    if broken:
        advice = ""
        if any("finite" in promise for promise in broken):
            advice = (
                " Answers that are not finite come from damaged weights or from a precision that"
                " this network does not bear, not from colours or scale: fetch the file again."
            )
        raise InvalidInput(
            f"model {card.name!r} does not do what it must: {'; '.join(broken)}.{advice}"
        )
    for kind in dict.fromkeys(way.kind for way in ways):
        _refuse_feeding(card, [way for way in ways if way.kind == kind])


def _refuse_feeding(card: ModelCard, ways: list[Way]) -> None:
    """Raise InvalidInput if a way is clearly better than the card's, or none parts anything."""
    kind = ways[0].kind
    if kind == "quality" and ways[0].separation < REVERSED:
        raise InvalidInput(
            f"model {card.name!r} scores degraded copies higher than clean crops"
            f" ({_measured(ways[0])}): turn higher_is_better round on its card."
        )
    better = [way for way in ways if way.clearly_better]
    # A card is more often wrong in one thing than in two.
    better.sort(key=lambda way: (way.scale == ways[0].scale, way.separation), reverse=True)
    if better:
        others = ", ".join(map(_called, better[1:]))
        raise InvalidInput(
            f"model {card.name!r} is not fed as it wants to be: {_called(better[0])} is clearly"
            f" better than {_called(ways[0])}, which its card says ({better[0].separation:.4f}"
            f" against {ways[0].separation:.4f}){f'; so are {others}' if others else ''}. Correct"
            " colour, mean and std on its card, by what its project says."
        )
    if max(way.separation for way in ways) < LEAST[kind]:
        raise InvalidInput(
            f"model {card.name!r} parts next to nothing, however it is fed"
            f" ({_measured(ways[0])}, at least {LEAST[kind]} expected): its weights are not"
            " trained, or not of this architecture."
        )


def _called(way: Way) -> str:
    return f"{way.colour.upper()} {way.scale}"


def _measured(way: Way) -> str:
    return f"{'AUC' if way.kind == 'quality' else 'd′'} {way.separation:.4f}"


def _line(way: Way) -> str:
    line = f"    {_called(way):<16} {_measured(way)}"
    if way.is_cards:
        return f"{line}  as the card says"
    low, high = way.difference
    line += f"  {low:+.4f} to {high:+.4f}"
    return f"{line}: CLEARLY BETTER" if way.clearly_better else line
