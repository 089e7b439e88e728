"""Checkpoint files into networks: weights only, every name and shape accounted for.

No file is ever unpickled freely: `.pth`/`.pt` go through `torch.load(weights_only=True)`, which refuses
anything but tensors and plain containers before running it; `.safetensors` holds nothing else.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import InvalidInput
from stages.models.cards import WeightFile

# Left by wrappers around the network: MagFace's builder around DataParallel, and DataParallel alone.
PREFIXES = ("features.module.", "module.")
SHOWN = 3


def load_checkpoint(module: nn.Module, weights: WeightFile, prefixes: Sequence[str] = ()) -> None:
    """Load the state dict in `weights` into `module`, in place; parameters on the meta device are replaced.

    The file holds a state dict, or a mapping that holds one as "state_dict". Where some keys start with one
    of `prefixes` (tried in order, then `PREFIXES`), those keys are the network and lose the prefix, and the
    others, a training head, are left out. Raises InvalidInput where the file asks to run code, cannot be
    read, or differs from the module in names or shapes, and where a tensor holds a value that is not finite.
    """
    state = _strip(_tensors(_read(weights), weights), (*prefixes, *PREFIXES))
    own = module.state_dict()
    # Values are looked at where shapes fit: a tensor of one number may claim to be larger than any memory.
    fitting = {name: tensor for name, tensor in state.items() if name in own and tensor.shape == own[name].shape}
    cast = {name: tensor.to(own[name].dtype) for name, tensor in fitting.items()}
    problems = [
        *_listed("missing", (name for name in own if name not in state)),
        *_listed("unexpected", (name for name in state if name not in own)),
        *_listed(
            "of another shape",
            (
                f"{name} (expected {tuple(own[name].shape)}, found {tuple(tensor.shape)})"
                for name, tensor in state.items()
                if name in own and tensor.shape != own[name].shape
            ),
        ),
        *_listed("not finite", (name for name, tensor in cast.items() if not bool(torch.isfinite(tensor).all()))),
    ]
    if problems:
        raise InvalidInput(
            f"checkpoint {weights.path} does not fit {type(module).__name__} ({len(own)} tensors expected, "
            f"{len(state)} found): {'; '.join(problems)}. Check that the card's "
            "architecture is that of the file."
        )
    module.load_state_dict(cast, assign=any(tensor.is_meta for tensor in own.values()))


def _read(weights: WeightFile) -> Any:
    path = weights.path
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load

            return load(weights.data)
        if zipfile.is_zipfile(BytesIO(weights.data)):
            _refuse_packed(weights)
        return torch.load(BytesIO(weights.data), map_location="cpu", weights_only=True)
    except (MemoryError, InvalidInput):
        raise
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0].split(". ")[0]
        raise InvalidInput(
            f"checkpoint {path} is refused: it is damaged, or holds more than tensors and loading it would "
            f"run code ({reason}). Nothing in it was run; ask for a plain state dict or a .safetensors file."
        ) from error
    except Exception as error:  # torch and safetensors raise a dozen types for a file that is torn or not theirs
        raise InvalidInput(f"checkpoint {path} cannot be read ({type(error).__name__}: {error}); fetch it again.") from error


def _refuse_packed(weights: WeightFile) -> None:
    """PyTorch stores members as they are; packed ones unfold to a thousand times the file before a shape is looked at."""
    with zipfile.ZipFile(BytesIO(weights.data)) as archive:
        if sum(member.file_size for member in archive.infolist()) > len(weights.data):
            raise InvalidInput(f"checkpoint {weights.path} holds packed members, which PyTorch never writes: save it anew.")


def _tensors(content: Any, weights: WeightFile) -> dict[str, Tensor]:
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        raise InvalidInput(f"checkpoint {weights.path}: expected a state dict (names to tensors), found something else.")
    strange = [str(name) for name, tensor in content.items() if not _is_plain(tensor)]
    if strange:
        raise InvalidInput(
            f"checkpoint {weights.path}: tensors that are sparse, quantised, nested, complex or without values: "
            f"{', '.join(strange[:SHOWN])}; save them as plain ones."
        )
    return {str(name): tensor for name, tensor in content.items()}


def _is_plain(tensor: Tensor) -> bool:
    plain = tensor.layout == torch.strided and not tensor.is_nested and not tensor.is_quantized
    return plain and not tensor.is_meta and not tensor.is_complex()


def _strip(state: dict[str, Tensor], prefixes: Sequence[str]) -> dict[str, Tensor]:
    for prefix in prefixes:
        if any(name.startswith(prefix) for name in state):
            return {name[len(prefix) :]: tensor for name, tensor in state.items() if name.startswith(prefix)}
    return state


def _listed(what: str, names: Iterable[str]) -> list[str]:
    found = list(names)
    if not found:
        return []
    more = f", … {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return [f"{len(found)} {what}: {', '.join(found[:SHOWN])}{more}"]
