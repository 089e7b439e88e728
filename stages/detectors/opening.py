"""opening: a detector's card and weights → the detector."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.core.stage import Context
from pipeline.errors import InvalidInput, unknown
from stages.detectors.detected_faces import USUAL, Detector, DetectorOptions
from stages.models import catalogue
from stages.models.cards import ModelCard, WeightFile

Make = Callable[[ModelCard, WeightFile, DetectorOptions], Detector]


def open_detector(
    card: ModelCard, weights: WeightFile, options: DetectorOptions = USUAL
) -> Detector:
    """Return the detector of a card's architecture with these weights.

    The digest of the weights is the caller's to check (`cards.read_weights`). Raises InvalidInput
    if there is no such architecture or the weights are not of it, ResourceRefused if the library
    that it needs is absent.
    """
    if card.architecture not in ARCHITECTURES:
        raise InvalidInput(
            f"model {card.name!r}: {unknown('detector', card.architecture, ARCHITECTURES)}"
        )
    return ARCHITECTURES[card.architecture](card, weights, options)


def detector_named(context: Context, name: str, options: DetectorOptions = USUAL) -> Detector:
    """Return the detector of that name among the cards of a context; from memory if opened before.

    Raises InvalidInput with the nearest name if there is none, and as `open_detector` does.
    """
    card = catalogue.card(context, name, ("detector",))
    return catalogue.open_once(
        context, card, lambda weights: open_detector(card, weights, options), repr(options)
    )


def _yunet(card: ModelCard, weights: WeightFile, options: DetectorOptions) -> Detector:
    from stages.detectors.yunet import YuNet

    return YuNet(weights, options)


def _scrfd(card: ModelCard, weights: WeightFile, options: DetectorOptions) -> Detector:
    from stages.detectors.scrfd import Scrfd

    return Scrfd(card, weights, options)


def _mtcnn(card: ModelCard, weights: WeightFile, options: DetectorOptions) -> Detector:
    from stages.detectors.mtcnn import Mtcnn

    return Mtcnn(card, weights, options)


ARCHITECTURES: dict[str, Make] = {"yunet": _yunet, "scrfd": _scrfd, "mtcnn": _mtcnn}
