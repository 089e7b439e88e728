"""Inference: a card and its weight file become a function from crops to embeddings and quality.

Conventions: crops are uint8 RGB, 112×112, as alignment stores them; each card's colour order, scale
and input size are applied here and nowhere else. Embeddings are as the network gives them, not
normalised. Quality is higher = more useful: the score of a card with `higher_is_better: false` is
negated.

Numerics: every forward has exactly `compute_batch` rows, the tail filled with zeros that are
dropped again, and runs on `threads` threads, so a face's numbers do not depend on the faces it came
with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.core.numerics import full_precision
from pipeline.errors import InvalidInput, ResourceRefused, unknown
from stages.models.cards import ModelCard, WeightFile
from stages.models.onnx_session import open_graph

if TYPE_CHECKING:
    from torch import nn

Floats32 = NDArray[np.float32]
Crops = NDArray[np.uint8]

CROP = (112, 112, 3)
MAX_ROWS = 4096  # of one forward, if a graph fixes them
# What a graph may be fed, by ONNX Runtime's names: scaled pixels are rounded to it. It may answer
# whole numbers, too.
INPUT_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
}
OUTPUT_TYPES = (
    *INPUT_TYPES,
    *(f"tensor({sign}int{bits})" for sign in ("", "u") for bits in (8, 16, 32, 64)),
)


class Numerics(Protocol):
    """The parts of a numerics profile that a back end needs.

    `device` is cpu or cuda, `precision` fp32, bf16 or fp16, `engine` onnxruntime or openvino.
    """

    @property
    def device(self) -> str: ...
    @property
    def precision(self) -> str: ...
    @property
    def compute_batch(self) -> int: ...
    @property
    def threads(self) -> int: ...
    @property
    def engine(self) -> str: ...


@dataclass(frozen=True)
class ModelOutput:
    """What a model says of n crops: embedding (n, d), quality (n,), float32; None if absent."""

    embedding: Floats32 | None
    quality: Floats32 | None


class FaceModel(Protocol):
    """An opened model, safe to call from several threads; each call computes in its own thread."""

    card: ModelCard

    def __call__(self, crops: Crops) -> ModelOutput:
        """Map crops (n, 112, 112, 3) uint8 RGB to n rows of output.

        Raises InvalidInput for any other array.
        """


def open_model(card: ModelCard, weights: WeightFile, profile: Numerics) -> FaceModel:
    """Return the model of `card` with these weights, computing as `profile` says.

    The digest of the weights is the caller's to check (`cards.read_weights`). Raises InvalidInput
    if card, weights and profile do not fit each other, ResourceRefused if the profile's device is
    absent.
    """
    if card.kind == "detector":
        raise InvalidInput(
            f"model {card.name!r} is a detector; it finds faces and cannot score crops."
        )
    if card.architecture == "onnx":
        return OnnxModel(card, weights, profile)
    return TorchModel(card, weights, profile)


def preprocess(card: ModelCard, crops: Crops, rows: int) -> Floats32:
    """Return (rows, 3, s, s) float32: (x − mean) / std in the card's colour order.

    s is the card's input size; rows past n are zeros. If it is not 112 the crop is resized
    bilinearly (OpenCV's INTER_LINEAR). The memory is laid out channels-last, which is how PyTorch
    convolves fastest.
    """
    size = card.input_size
    if size != CROP[0]:
        resized = [cv2.resize(crop, (size, size), interpolation=cv2.INTER_LINEAR) for crop in crops]
        crops = np.asarray(resized, np.uint8).reshape(-1, size, size, 3)
    if card.colour == "bgr" and len(crops):
        reordered = cv2.cvtColor(crops.reshape(-1, size, 3), cv2.COLOR_RGB2BGR)
        crops = np.asarray(reordered, np.uint8)
    planes = np.zeros((rows, size, size, 3), np.float32)
    # Whole lines of pixels at a time: NumPy is six times as slow at three numbers in a row.
    lines = crops.reshape(-1, size * 3)
    filled = planes.reshape(-1, size * 3)[: len(lines)]
    np.subtract(lines, np.tile(np.asarray(card.mean, np.float32), size), out=filled)
    filled /= np.tile(np.asarray(card.std, np.float32), size)
    return planes.transpose(0, 3, 1, 2)


class OnnxModel:
    """An ONNX graph in ONNX Runtime or OpenVINO: a session that several threads may run at once.

    For throughput call it from as many threads as there are cores, with `threads: 1`: two such
    threads do twice the work of one session with two.
    """

    def __init__(self, card: ModelCard, weights: WeightFile, profile: Numerics) -> None:
        self._session = _session(card, weights, profile)
        self.card, self._path = card, weights.path
        path = weights.path
        given = {node.name: node for node in self._session.get_inputs()}
        answers = {node.name: node for node in self._session.get_outputs()}
        self._input = _declared(card, path, "input", card.input_name, given)
        self._output = _declared(card, path, "output", card.output_name, answers)
        if len(given) > 1:
            others = ", ".join(repr(name) for name in given if name != self._input)
            raise InvalidInput(
                f"model {card.name!r}: {path} wants {others} beside the faces: export it with one"
                " input."
            )
        _need_type(card, path, "input", given[self._input].type, INPUT_TYPES)
        _need_type(card, path, "output", answers[self._output].type, OUTPUT_TYPES)
        self._dtype: Any = INPUT_TYPES[given[self._input].type]
        try:
            shapes = given[self._input].shape, answers[self._output].shape
        except UnicodeDecodeError as error:  # the name of a dimension
            raise InvalidInput(
                f"model {card.name!r}: {path} is damaged: a name in it is not UTF-8 ({error})."
            ) from error
        self._rows = _fixed_rows(card, path, shapes[0], profile.compute_batch)
        _check_width(card, shapes[1])

    def __call__(self, crops: Crops) -> ModelOutput:
        return _in_batches(self.card, crops, self._rows, self._forward)

    def _forward(self, planes: Floats32) -> ModelOutput:
        name = self.card.name
        try:
            answer = self._session.run(
                [self._output], {self._input: np.ascontiguousarray(planes, self._dtype)}
            )[0]
        except Exception as error:
            if "alloc" in str(error):  # the machine's fault
                raise
            raise InvalidInput(
                f"model {name!r}: {self._path} cannot be computed ({error})."
            ) from error
        if not isinstance(answer, np.ndarray) or answer.dtype.kind not in "fiu" or answer.ndim == 0:
            raise InvalidInput(
                f"model {name!r}: {self._path} answers with something else than an array of"
                " numbers."
            )
        if len(answer) != len(planes):  # one row would be taken for the answer to all
            raise InvalidInput(
                f"model {name!r}: {self._path} answers {len(planes)} faces with {len(answer)} rows."
            )
        answer = np.asarray(answer, np.float32)
        _check_width(self.card, answer.shape)
        if self.card.kind == "recognition":
            return ModelOutput(answer, None)
        return ModelOutput(None, answer.reshape(len(answer)))


class TorchModel:
    """A PyTorch network with its batch norms folded, channels-last, in eval and inference mode.

    In bf16 and fp16 the weights are cast once; the last batch norm and the quality head stay in
    float32.
    """

    def __init__(self, card: ModelCard, weights: WeightFile, profile: Numerics) -> None:
        import torch

        from stages.models.checkpoints import load_checkpoint
        from stages.networks.layers import fold_batch_norms

        if profile.device == "cuda":
            if not torch.cuda.is_available():
                raise ResourceRefused(
                    "the numerics profile asks for a CUDA device and none is usable; use a cpu one."
                )
            full_precision()
        elif profile.precision == "fp16":
            raise InvalidInput("precision fp16 is for CUDA devices; on a CPU use bf16 or fp32.")
        with torch.device("meta"):
            network = _network(card)
        load_checkpoint(network, weights)
        network = fold_batch_norms(network.eval().requires_grad_(False))
        self._dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[
            profile.precision
        ]
        for name, child in network.named_children():
            child.to(torch.float32 if name in getattr(network, "heads", ()) else self._dtype)
        placed: Any = network  # PyTorch's own types leave out memory_format alone
        self._network = placed.to(profile.device).to(memory_format=torch.channels_last)
        self._device = profile.device
        self._threads = profile.threads
        self._rows = profile.compute_batch
        self.card = card

    def __call__(self, crops: Crops) -> ModelOutput:
        return _in_batches(self.card, crops, self._rows, self._forward)

    def _forward(self, planes: Floats32) -> ModelOutput:
        import torch

        # PyTorch keeps a number of threads for each calling thread.
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        with torch.inference_mode():
            answer = self._network(torch.from_numpy(planes).to(self._device, self._dtype))
        parts = answer if isinstance(answer, tuple) else (answer, None)
        embedding, quality = (
            None if part is None else part.float().cpu().numpy() for part in parts
        )
        return ModelOutput(embedding, quality)


def _session(card: ModelCard, weights: WeightFile, profile: Numerics) -> Any:
    if profile.engine == "openvino":
        from stages.models.openvino_session import OpenVinoSession

        if profile.device != "cpu":
            raise InvalidInput("engine openvino computes on the CPU: use a cpu numerics profile.")
        return OpenVinoSession(
            card, weights, profile.threads, profile.precision, profile.compute_batch
        )
    if profile.precision != "fp32":
        raise InvalidInput(
            f"model {card.name!r} is an ONNX graph, computed as stored, in float32; precision"
            f" {profile.precision!r} would change nothing: use an fp32 numerics profile for it."
        )
    return open_graph(card, weights, profile.threads, profile.device)


def _network(card: ModelCard) -> nn.Module:
    from stages.networks.architectures import ARCHITECTURES

    if card.architecture not in ARCHITECTURES:
        known = [*ARCHITECTURES, "onnx", "yunet"]
        raise InvalidInput(
            f"model {card.name!r}: {unknown('architecture', card.architecture, known)}"
        )
    architecture = ARCHITECTURES[card.architecture]
    if card.dimension != architecture.dimension or card.input_size != CROP[0]:
        raise InvalidInput(
            f"model {card.name!r}: architecture {card.architecture} has dimension"
            f" {architecture.dimension} and input size {CROP[0]}; the card says"
            f" {card.dimension} and {card.input_size}."
        )
    return architecture.build()


def _in_batches(
    card: ModelCard, crops: Crops, rows: int, forward: Callable[[Floats32], ModelOutput]
) -> ModelOutput:
    if crops.dtype != np.uint8 or crops.shape[1:] != CROP:
        raise InvalidInput(
            f"model {card.name!r}: expected crops uint8 (n, 112, 112, 3), found {crops.dtype}"
            f" {crops.shape}."
        )
    count, dimension = len(crops), card.embedding_dimension
    embedding = None if dimension is None else np.empty((count, dimension), np.float32)
    quality = np.empty(count, np.float32) if card.has_quality else None
    for start in range(0, count, rows):
        part = crops[start : start + rows]
        answer = forward(preprocess(card, part, rows))
        for target, source in ((embedding, answer.embedding), (quality, answer.quality)):
            if target is not None and source is not None:
                target[start : start + rows] = source[: len(part)]
    if quality is not None and not card.higher_is_better:
        np.negative(quality, out=quality)
    return ModelOutput(embedding, quality)


def _declared(
    card: ModelCard, path: Path, what: str, name: str | None, found: dict[str, Any]
) -> str:
    if name is None and len(found) == 1:
        return next(iter(found))
    if name not in found:
        raise InvalidInput(
            f"model {card.name!r}: the card names {what} {name!r}; {path} has"
            f" {', '.join(map(repr, found))}."
        )
    return name


def _need_type(card: ModelCard, path: Path, what: str, found: str, known: Iterable[str]) -> None:
    if found not in known:
        raise InvalidInput(
            f"model {card.name!r}: the {what} of {path} is of type {found}; export it with one of"
            f" {', '.join(known)}."
        )


def _fixed_rows(card: ModelCard, path: Path, shape: list[Any], compute_batch: int) -> int:
    """Return the rows of one forward: `compute_batch`, unless the graph fixes another number.

    Raises InvalidInput for another input shape.
    """
    wanted = (3, card.input_size, card.input_size)
    if (
        not shape
        or len(shape) != 4
        or any(isinstance(d, int) and d != w for d, w in zip(shape[1:], wanted, strict=True))
    ):
        raise InvalidInput(
            f"model {card.name!r}: expected an input of shape (n, *{wanted}), {path} has"
            f" {tuple(shape or ())}."
        )
    if isinstance(shape[0], int) and shape[0] > MAX_ROWS:
        raise InvalidInput(
            f"model {card.name!r}: {path} wants {shape[0]:,} faces at once; at most {MAX_ROWS:,}"
            " are given."
        )
    return shape[0] if isinstance(shape[0], int) and shape[0] > 0 else compute_batch


def _check_width(card: ModelCard, shape: Any) -> None:
    shape = shape or ()
    width = 1 if len(shape) < 2 else shape[-1]
    if len(shape) not in (1, 2) or (isinstance(width, int) and width != card.dimension):
        raise InvalidInput(
            f"model {card.name!r}: the card says dimension {card.dimension}, output has shape"
            f" {tuple(shape)}."
        )
