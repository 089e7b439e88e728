"""Every published network: its state dict key for key, and its outputs for weights made by rule."""

from __future__ import annotations

from pathlib import Path

import published_networks as published
import pytest
import torch
from published_networks import PUBLISHED

from stages.networks.architectures import ARCHITECTURES

# One of each form of block and head; all the others, deeper ones, are a matter of `make accept`.
SOME = (
    *("arcface_torch_iresnet18", "crfiqa_iresnet50", "magface_iresnet50"),
    *("curricularface_ir50", "adaface_ir18"),
)


def test_every_published_network_has_an_architecture(shared: Path) -> None:
    assert published.golden(shared).keys() == PUBLISHED.keys()


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_network_has_the_published_names_shapes_and_size(name: str, shared: Path) -> None:
    golden = published.golden(shared)[name]
    with torch.device("meta"):
        network = ARCHITECTURES[PUBLISHED[name]].build()
    own = [[key, list(tensor.shape)] for key, tensor in network.state_dict().items()]
    assert own == published.layouts(shared)[name]
    assert len(own) == golden["keys"]
    assert sum(p.numel() for p in network.parameters()) == golden["parameters"]


@pytest.mark.parametrize("name", SOME)
def test_a_network_gives_the_published_outputs(name: str, shared: Path) -> None:
    outputs = published.golden(shared)[name]["outputs"]
    assert published.deviation(name, published.layouts(shared)[name], outputs) < 1e-9
