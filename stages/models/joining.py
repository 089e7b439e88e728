"""joining: state dicts that are published apart → one safetensors file, as a card names one."""

from __future__ import annotations

from collections.abc import Mapping

from stages.models.cards import WeightFile


def joined(parts: Mapping[str, WeightFile]) -> bytes:
    """Return the tensors of all parts, each under its prefix (`pnet.`): the same bytes each time.

    Raises as `checkpoints.load_checkpoint` does: nothing in a part is run.
    """
    from safetensors.torch import save

    from stages.models.checkpoints import tensors_of

    return save(
        {
            prefix + name: tensor.contiguous()
            for prefix, weights in parts.items()
            for name, tensor in tensors_of(weights).items()
        }
    )
