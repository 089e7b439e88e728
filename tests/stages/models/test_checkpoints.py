"""Checkpoint loading: published layouts are read, all else is refused in a sentence, nothing is
executed.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
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
    return all(
        torch.equal(x, y)
        for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize(
    "prefix",
    ["", "module.", "features.module.", "backbone.", "model.", "module.model.", "_orig_mod."],
)
@pytest.mark.parametrize(
    "holder", ["", "state_dict", "state_dict_backbone", "model_state_dict", "model", "network"]
)
def test_published_layouts_load(tmp_path: Path, prefix: str, holder: str) -> None:
    source, target = _net(), _net()
    state = {prefix + name: tensor for name, tensor in source.state_dict().items()}
    if prefix:
        state["fc.weight"] = torch.ones(5, 2)  # a training head, as in MagFace's file
    torch.save({"epoch": 3, holder: state} if holder else state, tmp_path / "net.pth")
    load_checkpoint(target, read_weights(tmp_path / "net.pth", None))
    assert _same(source, target)


def test_the_training_file_of_arcface_torch_loads(tmp_path: Path) -> None:
    source, target = _net(), _net()
    optimizer = torch.optim.SGD(source.parameters(), 0.1)
    content = {
        "epoch": 3,
        "global_step": 17,
        "state_dict_backbone": source.state_dict(),
        "state_dict_softmax_fc": {"weight": torch.ones(5, 2)},
        "state_optimizer": optimizer.state_dict(),
        "state_lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 3).state_dict(),
    }
    torch.save(content, tmp_path / "checkpoint_gpu_0.pt")
    load_checkpoint(target, read_weights(tmp_path / "checkpoint_gpu_0.pt", None))
    assert _same(source, target)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_file_without_the_counts_of_training_loads(tmp_path: Path, device: str) -> None:
    source = _net()
    state = {
        f"model.{k}": v
        for k, v in source.state_dict().items()
        if not k.endswith("num_batches_tracked")
    }
    torch.save(state, tmp_path / "net.pth")
    with torch.device(device):
        target = _net()
    load_checkpoint(target, read_weights(tmp_path / "net.pth", None))
    assert _same(source, target)


def test_a_file_that_holds_the_network_twice_is_refused_naming_both(tmp_path: Path) -> None:
    state = {
        f"{which}.{k}": v for which in ("model", "ema") for k, v in _net().state_dict().items()
    }
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(
        InvalidInput, match=r"holds the network 2 times, below 'ema\.', 'model\.': save the one"
    ):
        load_checkpoint(_net(), read_weights(tmp_path / "net.pth", None))


def test_a_holder_may_hold_another_holder(tmp_path: Path) -> None:
    source, target = _net(), _net()
    torch.save(
        {"epoch": 3, "model": {"state_dict": source.state_dict(), "arch": "r50"}},
        tmp_path / "net.pth",
    )
    load_checkpoint(target, read_weights(tmp_path / "net.pth", None))
    assert _same(source, target)


def test_a_mapping_that_holds_itself_is_refused(tmp_path: Path) -> None:
    content: dict[str, Any] = {}
    content["model"] = content["net"] = content
    torch.save(content, tmp_path / "net.pth")
    with pytest.raises(InvalidInput, match="expected a state dict"):
        load_checkpoint(_net(), read_weights(tmp_path / "net.pth", None))


@pytest.mark.parametrize("other", ["model", "model.state_dict"])
def test_two_state_dicts_that_differ_are_refused_naming_both(tmp_path: Path, other: str) -> None:
    outer, _, inner = other.partition(".")
    state = {name: tensor + 1 for name, tensor in _net().state_dict().items()}
    torch.save(
        {"state_dict": _net().state_dict(), outer: {inner: state} if inner else state},
        tmp_path / "net.pth",
    )
    with pytest.raises(
        InvalidInput,
        match=f"holds 2 state dicts that differ, as state_dict and as {other}: save the one",
    ):
        load_checkpoint(_net(), read_weights(tmp_path / "net.pth", None))


@pytest.mark.parametrize(
    "copied", [dict, lambda state: {name: tensor.clone() for name, tensor in state.items()}]
)
def test_two_state_dicts_that_are_equal_are_one(
    tmp_path: Path, copied: Callable[[Any], Any]
) -> None:
    source, target = _net(), _net()
    torch.save(
        {"state_dict": source.state_dict(), "model": copied(source.state_dict())},
        tmp_path / "net.pth",
    )
    load_checkpoint(target, read_weights(tmp_path / "net.pth", None))
    assert _same(source, target)


def test_two_tensors_that_claim_more_than_any_memory_holds_are_not_compared(tmp_path: Path) -> None:
    huge = [{"0.weight": torch.zeros(1).expand(10**6, 10**6, 10**5)} for _ in range(2)]
    torch.save({"state_dict": huge[0], "model": huge[1]}, tmp_path / "net.pth")
    with pytest.raises(InvalidInput, match="holds 2 state dicts that differ"):
        load_checkpoint(_net(), read_weights(tmp_path / "net.pth", None))


def test_a_holder_of_something_else_beside_the_state_dict_is_no_second_one(tmp_path: Path) -> None:
    source, target = _net(), _net()
    torch.save(
        {"state_dict": source.state_dict(), "model": {"name": "r50", "layers": 50}},
        tmp_path / "net.pth",
    )
    load_checkpoint(target, read_weights(tmp_path / "net.pth", None))
    assert _same(source, target)


@pytest.mark.parametrize(
    ("prefix", "beside"),
    [("backbone.", "neck.weight"), ("m.backbone.", "m.neck.weight"), ("net.", "temperature")],
)
def test_what_stands_beside_the_network_and_is_no_training_head_is_refused(
    tmp_path: Path, prefix: str, beside: str
) -> None:
    state = {prefix + name: tensor for name, tensor in _net().state_dict().items()}
    torch.save({**state, beside: torch.ones(2)}, tmp_path / "net.pth")
    with pytest.raises(
        InvalidInput,
        match=rf"1 beside the network and of no training head .*: {beside}\..*save the network al",
    ):
        load_checkpoint(_net(), read_weights(tmp_path / "net.pth", None))


@pytest.mark.parametrize(
    "head", ["head.kernel", "fc.weight", "classifier.0.bias", "module.margin.weight"]
)
def test_a_training_head_beside_the_network_is_left_out(tmp_path: Path, head: str) -> None:
    source, target = _net(), _net()
    state = {f"module.backbone.{name}": tensor for name, tensor in source.state_dict().items()}
    torch.save({**state, head: torch.ones(2)}, tmp_path / "net.pth")
    load_checkpoint(target, read_weights(tmp_path / "net.pth", None))
    assert _same(source, target)


def test_what_differs_below_a_prefix_is_named_with_it(tmp_path: Path) -> None:
    state = {f"model.{k}": v for k, v in _net().state_dict().items() if k != "1.bias"}
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(InvalidInput, match=r"6 found below 'model\.'\): 1 missing: 1\.bias\."):
        load_checkpoint(_net(), read_weights(tmp_path / "net.pth", None))


def test_a_mapping_of_something_else_is_refused_naming_what_it_holds(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "weights": {"0.weight": torch.zeros(1)}}, tmp_path / "net.pth")
    with pytest.raises(
        InvalidInput,
        match=r"alone or as one of state_dict, .*; found a mapping with epoch, weights",
    ):
        load_checkpoint(_net(), read_weights(tmp_path / "net.pth", None))


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
        "1 missing: 1.weight",
        "1 unexpected: head.weight",
        "0.weight (expected (2, 3), found (4, 3))",
        "1 not finite: 1.bias",
    ):
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


@pytest.mark.parametrize(
    "value", [np.float64(0.5), np.float32(0.5), np.ones(2)], ids=["double", "float", "array"]
)
def test_a_file_with_a_numpy_value_says_how_to_save_the_tensors_alone(
    tmp_path: Path, value: Any
) -> None:
    path, source, target = tmp_path / "net.pth", _net(), _net()
    torch.save({"state_dict": source.state_dict(), "best": value}, path)
    with pytest.raises(
        InvalidInput, match=r"holds a NumPy value beside its tensors .*Nothing in it was run.*trust"
    ) as caught:
        load_checkpoint(target, read_weights(path, None))
    line = str(caught.value).partition("as this runs what it says: ")[2]
    exec(line, {"torch": torch})  # noqa: S102 - the line is to work as it is printed
    load_checkpoint(target, read_weights(tmp_path / "net-weights.pth", None))
    assert _same(source, target)


def test_other_objects_than_tensors_are_named(tmp_path: Path) -> None:
    torch.save({"state_dict": _net().state_dict(), "where": Path()}, tmp_path / "net.pth")
    with pytest.raises(
        InvalidInput,
        match=(
            r"would run code \(it asks for pathlib\.\w+\)\. Nothing in it was run; ask for a plain"
        ),
    ):
        load_checkpoint(_net(), read_weights(tmp_path / "net.pth", None))


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


def test_a_tensor_that_claims_more_than_any_memory_holds_is_of_another_shape(
    tmp_path: Path,
) -> None:
    torch.save(
        {**_net().state_dict(), "0.weight": torch.zeros(1).expand(10**6, 10**6, 10**5)},
        tmp_path / "net.pth",
    )
    with pytest.raises(InvalidInput, match=r"1 of another shape: 0\.weight"):
        load_checkpoint(_net(), read_weights(tmp_path / "net.pth", None))


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(2, 3).to_sparse(),
        torch.zeros(2, 3, device="meta"),
        torch.zeros(2, 3, dtype=torch.complex64),
    ],
    ids=["sparse", "meta", "complex"],
)
def test_a_tensor_that_is_no_plain_one_is_named(tmp_path: Path, tensor: torch.Tensor) -> None:
    torch.save({**_net().state_dict(), "0.weight": tensor}, tmp_path / "net.pth")
    with pytest.raises(
        InvalidInput, match=r"sparse, quantised, nested, complex or without values: 0\.weight"
    ):
        load_checkpoint(_net(), read_weights(tmp_path / "net.pth", None))


def test_half_precision_of_eight_bits_is_read(tmp_path: Path) -> None:
    source = _net().state_dict()
    torch.save({**source, "0.bias": torch.ones(2).to(torch.float8_e4m3fn)}, tmp_path / "net.pth")
    target = _net()
    load_checkpoint(target, read_weights(tmp_path / "net.pth", None))
    assert target.state_dict()["0.bias"].tolist() == [1, 1]


def test_a_value_too_large_for_the_networks_own_precision_is_not_finite(tmp_path: Path) -> None:
    torch.save(
        {**_net().state_dict(), "0.bias": torch.tensor([1, 1e300], dtype=torch.float64)},
        tmp_path / "net.pth",
    )
    with pytest.raises(InvalidInput, match=r"1 not finite: 0\.bias"):
        load_checkpoint(_net(), read_weights(tmp_path / "net.pth", None))


def test_a_checkpoint_whose_members_are_packed_is_refused(tmp_path: Path) -> None:
    torch.save(_net().state_dict(), tmp_path / "net.pth")
    with (
        zipfile.ZipFile(tmp_path / "net.pth") as source,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w") as bomb,
    ):
        for name in source.namelist():
            bomb.writestr(
                name,
                bytes(1 << 24) if name.endswith("/data/0") else source.read(name),
                zipfile.ZIP_DEFLATED,
            )
    with pytest.raises(InvalidInput, match="holds packed members"):
        load_checkpoint(_net(), read_weights(tmp_path / "bomb.pth", None))
