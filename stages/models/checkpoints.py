"""Checkpoint files into networks: weights only, every name and shape accounted for.

No file is ever unpickled freely: `.pth`/`.pt` go through `torch.load(weights_only=True)`, which
refuses anything but tensors and plain containers before running it; `.safetensors` holds nothing
else.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from io import BytesIO
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import InvalidInput
from stages.models.cards import WeightFile
from stages.networks.architectures import ARCHITECTURES, DETECTORS

# Under which names training scripts save the network, among other things; arcface_torch calls it
# state_dict_backbone.
HOLDERS = (
    "state_dict",
    "state_dict_backbone",
    "model_state_dict",
    "model",
    "backbone",
    "net",
    "network",
)
NESTED = 2  # holders within each other; a file may claim that a mapping holds itself
# What training saves beside the network and is no part of it. Anything else may be part of it.
HEADS = (
    "head",
    "fc",
    "classifier",
    "margin",
    "loss",
    "criterion",
    "arcface",
    "softmax_fc",
    "metric_fc",
)
COUNTED = "num_batches_tracked"  # of a batch norm: old files lack it, and only training reads it
SHOWN_NAMES = 3
# a number or an array
_NUMPY = re.compile(r"numpy\.(_?core\.multiarray\.(scalar|_reconstruct)|ndarray|dtype|dtypes\.\w+)")


def load_checkpoint(module: nn.Module, weights: WeightFile) -> None:
    """Load the state dict in `weights` into `module`, in place, meta parameters included.

    The file holds a state dict, or a mapping that holds one under one of `HOLDERS`, also of one in
    another. If all names of the module are in it below a prefix (module. of DataParallel,
    model., backbone. …), those are the network; a training head beside it (`HEADS`) is left out.
    Raises InvalidInput if the file asks to run code, cannot be read, differs from the module in
    names or shapes, or holds the network more than once or something else beside it, and if a
    tensor holds a value that is not finite.
    """
    own = module.state_dict()
    held = tensors_of(weights)
    state, prefix = _below_prefix(held, own, weights)
    beside = [
        name for name in held if not name.startswith(prefix) and _part(name, prefix) not in HEADS
    ]
    state |= {
        name: torch.zeros_like(own[name], device="cpu")
        for name in own
        if _is_count(name) and name not in state
    }
    # Values are looked at if shapes fit: a tensor of one number may claim to be larger than any
    # memory.
    fitting = {
        name: tensor
        for name, tensor in state.items()
        if name in own and tensor.shape == own[name].shape
    }
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
        *_listed(
            "not finite",
            (name for name, tensor in cast.items() if not bool(torch.isfinite(tensor).all())),
        ),
        *_listed(f"beside the network and of no training head ({', '.join(HEADS[:4])} …)", beside),
    ]
    if problems:
        below = f" below {prefix!r}" if prefix else ""
        raise InvalidInput(
            f"checkpoint {weights.path} does not fit {type(module).__name__} ({len(own)} tensors"
            f" expected, {len(state)} found{below}): {'; '.join(problems)}. Check that the card's"
            " architecture is that of the file"
            + (", or save the network alone." if beside else ".")
        )
    module.load_state_dict(cast, assign=any(tensor.is_meta for tensor in own.values()))


def fitting_architectures(weights: WeightFile) -> list[str]:
    """Return the architectures whose names and shapes a file has, all of them and no others.

    A training head beside the network does not count. Raises InvalidInput as `load_checkpoint`
    does, if the file cannot be read or asks to run code.
    """
    held = tensors_of(weights)
    fitting = []
    builders = {name: each.build for name, each in ARCHITECTURES.items()} | DETECTORS
    for name, build in builders.items():
        with torch.device("meta"):
            own = build().state_dict()
        state, prefix = _below_prefix(held, own, weights)
        beside = [each for each in held if not each.startswith(prefix)]
        needed = {each for each in own if not _is_count(each)}
        if (
            needed <= state.keys() <= own.keys()
            and all(tensor.shape == own[each].shape for each, tensor in state.items())
            and all(_part(each, prefix) in HEADS for each in beside)
        ):
            fitting.append(name)
    return fitting


def tensors_of(weights: WeightFile) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by name. Raises as `load_checkpoint` does."""
    return _tensors(_read_content(weights), weights)


def need_finite(weights: WeightFile) -> None:
    """Raise InvalidInput if a tensor holds a value that is not finite: training went wrong."""
    lost = _listed(
        "not finite",
        (
            name
            for name, each in tensors_of(weights).items()
            # one that claims more than the file holds is another's to refuse, and fills memory
            if each.numel() * each.element_size() <= len(weights.data)
            and not torch.isfinite(each).all()
        ),
    )
    if lost:
        raise InvalidInput(
            f"checkpoint {weights.path}: {lost[0]}. Its weights are damaged: fetch it again, or"
            " take a checkpoint of before the training went wrong."
        )


def _read_content(weights: WeightFile) -> Any:
    path = weights.path
    try:
        if path.suffix.lower() == ".safetensors":
            from safetensors.torch import load

            return load(weights.data)
        if zipfile.is_zipfile(BytesIO(weights.data)):
            _refuse_packed(weights)
        with warnings.catch_warnings():  # of PyTorch's, to those who write files
            warnings.simplefilter("ignore")
            return torch.load(BytesIO(weights.data), map_location="cpu", weights_only=True)
    except (MemoryError, InvalidInput):
        raise
    except pickle.UnpicklingError as error:
        # the first thing in it that is not on PyTorch's list
        asked = re.search(r"GLOBAL ([\w.]+)", str(error))
        if asked and _NUMPY.fullmatch(asked[1]):
            alone = str(path.with_name(f"{path.stem}-weights.pth"))
            raise InvalidInput(
                f"checkpoint {path} is refused: it holds a NumPy value beside its tensors"
                f" ({asked[1]}). Nothing in it was run. Save the state dict alone, in Python, and"
                " only if you trust who made the file, as this runs what it says:"
                f" torch.save(torch.load({str(path)!r}, 'cpu', weights_only=False)['state_dict'],"
                f" {alone!r})"
            ) from error
        reason = f" (it asks for {asked[1]})" if asked else ""
        raise InvalidInput(
            f"checkpoint {path} is refused: it is damaged, or holds more than tensors and loading"
            f" it would run code{reason}. Nothing in it was run; ask for a plain state dict or a"
            " .safetensors file."
        ) from error
    # torch and safetensors raise a dozen types for a file that is torn or not theirs.
    except Exception as error:
        raise InvalidInput(
            f"checkpoint {path} cannot be read: it is damaged, or no checkpoint; fetch it again."
        ) from error


def _refuse_packed(weights: WeightFile) -> None:
    """PyTorch stores members unpacked; packed ones could unfold to a thousand times the file."""
    with zipfile.ZipFile(BytesIO(weights.data)) as archive:
        if sum(member.file_size for member in archive.infolist()) > len(weights.data):
            raise InvalidInput(
                f"checkpoint {weights.path} holds packed members, which PyTorch never writes: save"
                " it anew."
            )


def _tensors(content: Any, weights: WeightFile) -> dict[str, Tensor]:
    found = dict(_states(content, ""))
    first = next(iter(found), "")
    if others := [name for name, state in found.items() if not _equal_states(state, found[first])]:
        both = " and ".join(f"as {name}" for name in (first, *others))
        raise InvalidInput(
            f"checkpoint {weights.path} holds {1 + len(others)} state dicts that differ, {both}:"
            " save the one that is meant as a file of its own."
        )
    content = found.get(first, content)
    if not isinstance(content, Mapping) or not all(
        isinstance(tensor, Tensor) for tensor in content.values()
    ):
        if isinstance(content, Mapping):
            held = f"a mapping with {', '.join(map(str, content))}"
        else:
            held = "something else"
        raise InvalidInput(
            f"checkpoint {weights.path}: expected a state dict (names to tensors), alone or as one"
            f" of {', '.join(HOLDERS)}; found {held:.200}."
        )
    strange = [str(name) for name, tensor in content.items() if not _is_plain(tensor)]
    if strange:
        raise InvalidInput(
            f"checkpoint {weights.path}: tensors that are sparse, quantised, nested, complex or"
            f" without values: {', '.join(strange[:SHOWN_NAMES])}; save them as plain ones."
        )
    return {str(name): tensor for name, tensor in content.items()}


def _states(content: Any, where: str) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    """Find every state dict below holders, and the holders' names."""
    for name in HOLDERS if isinstance(content, Mapping) and where.count(".") < NESTED else ():
        held = content.get(name)
        if (
            isinstance(held, Mapping)
            and held
            and all(isinstance(tensor, Tensor) for tensor in held.values())
        ):
            yield where + name, held
        else:
            yield from _states(held, f"{where}{name}.")


def _equal_states(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """Whether two state dicts are equal bit for bit.

    What is no plain tensor, or is larger than the file says, counts as unequal.
    """
    return a is b or (
        a.keys() == b.keys() and all(_equal(tensor, b[name]) for name, tensor in a.items())
    )


def _equal(a: Tensor, b: Tensor) -> bool:
    if a is b:
        return True
    if (
        a.dtype != b.dtype
        or a.shape != b.shape
        or not all(_is_plain(t) and t.is_contiguous() for t in (a, b))
    ):
        return False
    return torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))


def _is_plain(tensor: Tensor) -> bool:
    plain = tensor.layout == torch.strided and not tensor.is_nested and not tensor.is_quantized
    return plain and not tensor.is_meta and not tensor.is_complex()


def _below_prefix(
    state: dict[str, Tensor], own: Mapping[str, Tensor], weights: WeightFile
) -> tuple[dict[str, Tensor], str]:
    """Return the tensors of the network by its own names, and the prefix that was before them.

    If none fits the whole network, it is the prefix that most of its names have, so that the
    caller can say what differs.
    """
    needed = [name for name in own if not _is_count(name)]
    ends = [name for name in state if name.endswith(f".{needed[0]}")]
    prefixes = dict.fromkeys(["", *(name.removesuffix(needed[0]) for name in ends)])
    found = {prefix: sum(prefix + name in state for name in needed) for prefix in prefixes}
    whole = sorted(prefix for prefix, count in found.items() if count == len(needed))
    if len(whole) > 1:
        raise InvalidInput(
            f"checkpoint {weights.path} holds the network {len(whole)} times, below"
            f" {', '.join(map(repr, whole))}: save the one that is meant as a file of its own."
        )
    prefix = whole[0] if whole else max(found, key=lambda each: found[each])
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in state.items()
        if name.startswith(prefix)
    }, prefix


def _part(name: str, prefix: str) -> str:
    """Return the part of a name that departs from a prefix.

    From model.neck.weight, beside model.backbone, it is neck.
    """
    parts = zip(name.split("."), prefix.split("."), strict=False)
    return next((part for part, other in parts if part != other), name)


def _is_count(name: str) -> bool:
    return name.rpartition(".")[2] == COUNTED


def _listed(what: str, names: Iterable[str]) -> list[str]:
    found = list(names)
    if not found:
        return []
    more = f", … {len(found) - SHOWN_NAMES} more" if len(found) > SHOWN_NAMES else ""
    return [f"{len(found)} {what}: {', '.join(found[:SHOWN_NAMES])}{more}"]
