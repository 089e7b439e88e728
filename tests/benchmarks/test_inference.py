"""The published module in our own words is the network that a card names."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks import inference
from benchmarks.inference import LAYERS, Published, published, rows
from stages.networks.architectures import ARCHITECTURES


@pytest.mark.parametrize("depth", list(LAYERS))
def test_the_published_module_has_the_names_and_shapes_of_the_architecture(depth: int) -> None:
    with torch.device("meta"):
        ours = ARCHITECTURES[f"iresnet{depth}"].build().state_dict()
        theirs = Published(depth).state_dict()
    assert {name: x.shape for name, x in theirs.items()} == {n: x.shape for n, x in ours.items()}


def test_both_ways_give_the_same_embeddings_in_every_line() -> None:
    measured = [row for row in rows(count=3, depths=(18,)) if not row.absent]
    assert len(measured) >= 1
    for row in measured:
        assert callable(row.common)
        theirs, ours = row.common(), row.ours()
        assert theirs.shape == ours.shape == (3, 512)
        assert np.abs(theirs).max() > 0.1  # not faded to nothing
        said = float(row.compared(theirs, ours).removeprefix("smallest cosine "))
        assert said >= (0.999999 if row.precision == "fp32" else 0.999)


def test_random_norms_make_folding_matter() -> None:
    norm = published(18).bn2
    assert float(norm.running_var.std()) > 0.05
    assert float(norm.running_mean.std()) > 0.05


def test_a_difference_is_told() -> None:
    x = np.eye(2, dtype=np.float32)
    assert inference.smallest_cosine(x, x) == "smallest cosine 1.000000"
    assert inference.smallest_cosine(x, np.abs(x - [[0, 0], [1, 0]])) == "smallest cosine 0.707107"


def test_a_machine_without_bf16_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "lacks_bf16", lambda: True)
    assert [row.absent for row in rows(count=1, depths=(18,))][-1] == "no bf16 instructions here"


def test_the_rate_of_a_product_is_a_number_of_its_precision() -> None:
    assert inference.product_rate("fp32", square=64) > 0
    with pytest.raises(KeyError):
        inference.product_rate("fp8", square=64)
