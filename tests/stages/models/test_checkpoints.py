"""Checkpoint loading: published layouts are read, all else is refused in a sentence, nothing is executed."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pipeline.errors import InvalidInput
from stages.models.cards import read_weights
from stages.models.checkpoints import load_checkpoint


def _net() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def _same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("prefix", ["", "module.", "features.module.", "backbone."])
@pytest.mark.parametrize("wrapped", [False, True])
def test_published_layouts_load(tmp_path: Path, prefix: str, wrapped: bool) -> None:
    source, target = _net(), _net()
    state = {prefix + name: tensor for name, tensor in source.state_dict().items()}
    if prefix == "features.module.":
        state["fc.weight"] = torch.ones(5, 2)  # MagFace's training head
    torch.save({"state_dict": state, "epoch": 3} if wrapped else state, tmp_path / "net.pth")
    load_checkpoint(target, read_weights(tmp_path / "net.pth", None), prefixes=("backbone.",))
    assert _same(source, target)


def test_safetensors_load(tmp_path: Path) -> None:
    source, target = _net(), _net()
    save_file(source.state_dict(), tmp_path / "net.safetensors")
    load_checkpoint(target, read_weights(tmp_path / "net.safetensors", None))
    assert _same(source, target)


def test_module_on_meta_is_filled_in_its_own_precision(tmp_path: Path) -> None:
    torch.save(
        {k: v.half() if v.is_floating_point() else v for k, v in _net().state_dict().items()},
        tmp_path / "h.pt",
    )
    with torch.device("meta"):
        target = _net()
    load_checkpoint(target, read_weights(tmp_path / "h.pt", None))
    assert target(torch.zeros(2, 3)).dtype == torch.float32


def test_each_difference_is_named(tmp_path: Path) -> None:
    state = _net().state_dict()
    state["0.weight"], state["1.bias"] = torch.zeros(4, 3), torch.tensor([0.0, float("nan")])
    state["head.weight"] = state.pop("1.weight")
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(InvalidInput) as caught:
        load_checkpoint(_net(), read_weights(tmp_path / "net.pth", None))
    for part in (
        "1 missing: 1.weight", "1 unexpected: head.weight", "0.weight (expected (2, 3), found (4, 3))",
        "1 not finite: 1.bias",
    ):  # fmt: skip
        assert part in str(caught.value)


class _Hostile:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("writer", ["torch", "torch legacy", "pickle"])
def test_pickle_that_would_run_code_is_refused_and_not_run(tmp_path: Path, writer: str) -> None:
    path, marker = tmp_path / "net.pth", tmp_path / "executed"
    content = {"0.weight": _Hostile(marker)}
    if writer == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=writer == "torch")
    with pytest.raises(InvalidInput, match="refused"):
        load_checkpoint(_net(), read_weights(path, None))
    assert not marker.exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04torn"])
@pytest.mark.parametrize("name", ["net.pth", "net.safetensors"])
def test_damaged_file_is_a_sentence(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidInput, match=name):
        load_checkpoint(_net(), read_weights(tmp_path / name, None))


def test_other_content_is_a_sentence(tmp_path: Path) -> None:
    torch.save([torch.zeros(1)], tmp_path / "net.pth")
    with pytest.raises(InvalidInput, match="expected a state dict"):
        load_checkpoint(_net(), read_weights(tmp_path / "net.pth", None))
