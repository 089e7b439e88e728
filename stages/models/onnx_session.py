"""onnx_session: an ONNX graph in ONNX Runtime, opened in one way for all that run one."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from pipeline.errors import InvalidInput, ResourceRefused
from stages.models.cards import ModelCard, WeightFile
from stages.models.graph_file import check_graph


def open_graph(card: ModelCard, weights: WeightFile, threads: int, device: str = "cpu") -> Any:
    """Return an InferenceSession, which several threads may run at once.

    device: cpu or cuda. Raises ResourceRefused if ONNX Runtime or the device is absent,
    InvalidInput if it cannot open the graph, or the graph keeps its weights in other files.
    """
    try:
        ort = import_module("onnxruntime")  # it ships no types
    except ImportError as error:
        raise ResourceRefused(
            f"model {card.name!r} is an ONNX graph ({error}): install qfuse[onnx]."
        ) from None
    check_graph(weights)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.use_deterministic_compute = True
    options.log_severity_level = 3
    providers = _providers(ort, device)
    try:
        # Without its second try, for which it prints a banner on standard output.
        session = ort.InferenceSession(
            weights.data, options, providers=providers, enable_fallback=0
        )
    # ONNX Runtime raises a type of its own for each way a file can be wrong.
    except Exception as error:
        raise InvalidInput(
            f"model {card.name!r}: {weights.path} cannot be opened by ONNX Runtime ({error})."
        ) from error
    need_device(card, session, device)
    return session


def _providers(ort: Any, device: str) -> list[Any]:
    if device == "cpu":
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        raise ResourceRefused(
            "the numerics profile asks for CUDA and this ONNX Runtime has no CUDA provider; "
            "install onnxruntime-gpu in place of onnxruntime, or use a cpu profile."
        )
    import_module("torch")  # it loads NVIDIA's libraries, which the CUDA provider then finds
    return [
        ("CUDAExecutionProvider", {"use_tf32": "0", "cudnn_conv_algo_search": "DEFAULT"}),
        "CPUExecutionProvider",
    ]


def need_device(card: ModelCard, session: Any, device: str) -> None:
    """Raise ResourceRefused if a session for CUDA computes on the CPU.

    ONNX Runtime does that, without a word, if it cannot load its CUDA libraries.
    """
    if device == "cuda" and "CUDAExecutionProvider" not in session.get_providers():
        raise ResourceRefused(
            f"model {card.name!r}: the numerics profile asks for CUDA and ONNX Runtime could not"
            " load its CUDA provider: install the CUDA and cuDNN libraries that this"
            " onnxruntime-gpu was made for, or use a cpu profile."
        )
