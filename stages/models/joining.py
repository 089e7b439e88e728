"""joining: state dicts → one safetensors file: a checkpoint's own, or several published apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pipeline.errors import InvalidInput
from stages.models.cards import WeightFile

if TYPE_CHECKING:
    from torch import Tensor

SHARED = 4  # how often the bytes of a file may be written: tensors of several names share them


def joined(parts: Mapping[str, WeightFile]) -> bytes:
    """Return the tensors of all parts, each under its prefix (`pnet.`, or none), as safetensors.

    The same bytes each time. Raises as `checkpoints.load_checkpoint` does: nothing in a part is
    run; also InvalidInput if a part holds no tensor, or tensors that claim far more bytes than it
    has (of one number, repeated without end), before memory is taken for them.
    """
    from safetensors.torch import save

    from stages.models.checkpoints import tensors_of

    found: dict[str, Tensor] = {}
    for prefix, weights in parts.items():
        tensors = tensors_of(weights)
        sizes = {name: each.numel() * each.element_size() for name, each in tensors.items()}
        if not sizes:
            raise InvalidInput(
                f"checkpoint {weights.path} holds no tensor: there is nothing to write."
            )
        if sum(sizes.values()) > SHARED * len(weights.data):
            largest = max(sizes, key=lambda name: sizes[name])
            raise InvalidInput(
                f"checkpoint {weights.path}: its tensors would fill {sum(sizes.values()):,} bytes,"
                f" and the file has {len(weights.data):,}: they repeat the same numbers (the"
                f" largest: {largest}, {sizes[largest]:,} bytes). Nothing was written; save it with"
                " every tensor cloned, if they are meant."
            )
        # Copies: two names may be one tensor, which the form does not know.
        found |= {prefix + name: each.contiguous().clone() for name, each in tensors.items()}
    return save(found)
