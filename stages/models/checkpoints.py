"""Checkpoint files into networks: weights only, every name and shape accounted for.

No file is ever unpickled freely: `.pth`/`.pt` go through `torch.load(weights_only=True)`, which refuses
anything but tensors and plain containers before running it; `.safetensors` holds nothing else.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterable, Mapping
from io import BytesIO
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import InvalidInput
from stages.models.cards import WeightFile

# Where training scripts keep the network beside what else they save; arcface_torch calls it state_dict_backbone.
HOLDERS = ("state_dict", "state_dict_backbone", "model_state_dict", "model", "backbone", "net")
COUNTED = "num_batches_tracked"  # of a batch norm: old files lack it, and only training reads it
SHOWN = 3


def load_checkpoint(module: nn.Module, weights: WeightFile) -> None:
    """Load the state dict in `weights` into `module`, in place; parameters on the meta device are replaced.

    The file holds a state dict, or a mapping that holds one under one of `HOLDERS`. Where all names of the module are in it
    below a prefix (module. of DataParallel, model., backbone. …), those are the network, and the others, a training head, are
    left out. Raises InvalidInput if the file asks to run code, cannot be read, differs from the module in names or shapes,
    or holds the network more than once, and where a tensor holds a value that is not finite.
    """
    own = module.state_dict()
    state, prefix = _below_prefix(_tensors(_read(weights), weights), own, weights)
    state |= {name: torch.zeros_like(own[name], device="cpu") for name in own if _is_count(name) and name not in state}
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
        below = f" below {prefix!r}" if prefix else ""
        raise InvalidInput(
            f"checkpoint {weights.path} does not fit {type(module).__name__} ({len(own)} tensors expected, "
            f"{len(state)} found{below}): {'; '.join(problems)}. Check that the card's "
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
    if isinstance(content, Mapping):
        content = next((content[name] for name in HOLDERS if isinstance(content.get(name), Mapping)), content)
    if not isinstance(content, Mapping) or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        held = f"a mapping with {', '.join(map(str, content))}" if isinstance(content, Mapping) else "something else"
        raise InvalidInput(
            f"checkpoint {weights.path}: expected a state dict (names to tensors), alone or as one of {', '.join(HOLDERS)}; "
            f"found {held:.200}."
        )
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


def _below_prefix(state: dict[str, Tensor], own: Mapping[str, Tensor], weights: WeightFile) -> tuple[dict[str, Tensor], str]:
    """Return the tensors of the network by its own names, and the prefix that was before them.

    Where none fits the network whole it is the one that most of its names have, for whoever says what differs.
    """
    needed = [name for name in own if not _is_count(name)]
    ends = [name for name in state if name.endswith(f".{needed[0]}")]
    prefixes = dict.fromkeys(["", *(name.removesuffix(needed[0]) for name in ends)])
    found = {prefix: sum(prefix + name in state for name in needed) for prefix in prefixes}
    whole = sorted(prefix for prefix, count in found.items() if count == len(needed))
    if len(whole) > 1:
        raise InvalidInput(
            f"checkpoint {weights.path} holds the network {len(whole)} times, below {', '.join(map(repr, whole))}: save the "
            "one that is meant as a file of its own."
        )
    prefix = whole[0] if whole else max(found, key=lambda each: found[each])
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}, prefix


def _is_count(name: str) -> bool:
    return name.rpartition(".")[2] == COUNTED


def _listed(what: str, names: Iterable[str]) -> list[str]:
    found = list(names)
    if not found:
        return []
    more = f", … {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return [f"{len(found)} {what}: {', '.join(found[:SHOWN])}{more}"]
