"""What `pipeline.store.receipt` promises: a receipt that is read is, to the last bit, the one that
was written.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import pytest
from artifacts import KEY, OTHER

from pipeline.store.receipt import Receipt, sealed, unsealed
from pipeline.system.canonical_json import key_of

RECEIPT = Receipt(
    "toy",
    KEY,
    "toy",
    5,
    {"ok": 4, "failed": 1},
    6246,
    "a" * 64,
    "b" * 64,
    1e9 + 0.25,
    {"path": "é\udcff"},
)


def test_what_was_sealed_is_read_back() -> None:
    assert unsealed(sealed(RECEIPT), "toy", KEY) == RECEIPT


def test_a_receipt_is_json_whose_last_field_is_the_seal() -> None:
    fields = json.loads(sealed(RECEIPT))
    assert list(fields)[-1] == "seal"
    del fields["seal"]
    assert fields == asdict(RECEIPT)


def test_every_flipped_bit_of_a_receipt_is_found() -> None:
    image = sealed(RECEIPT)
    for bit in range(8 * len(image)):
        changed = bytearray(image)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ValueError, match="the receipt is damaged"):
            unsealed(bytes(changed), "toy", KEY)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"{}", b"\xff\xfe", sealed(RECEIPT)[:-1], sealed(RECEIPT) + b"\n"]
)
def test_what_is_no_receipt_is_found(data: bytes) -> None:
    with pytest.raises(ValueError, match="the receipt is damaged"):
        unsealed(data, "toy", KEY)


@pytest.mark.parametrize(("output", "key"), [("toy", OTHER), ("tox", KEY)])
def test_the_receipt_of_another_artifact_is_told_apart(output: str, key: str) -> None:
    with pytest.raises(ValueError, match="the receipt belongs to another artifact"):
        unsealed(sealed(RECEIPT), output, key)


PREIMAGE = {
    "format": "qfuse/1",
    "stage": "toy",
    "options": {"scale": 0.1, "of": "é\udcff"},
    "inputs": {},
}
MADE = [
    ("toy", key_of([PREIMAGE, ""]), {"preimage": PREIMAGE}),
    ("toy.crops", key_of([PREIMAGE, "crops"]), {"preimage": PREIMAGE}),
    ("ingest.faces", key_of(["qfuse/1", "files"]), {"identity": ["qfuse/1", "files"]}),
]


@pytest.mark.parametrize(
    ("output", "key", "made"),
    [
        *MADE,
        ("toy", KEY, {"preimage": {"format": "qfuse/2"}}),
        ("toy", KEY, {"preimage": None}),
        ("toy", KEY, {}),
    ],
)
def test_a_receipt_is_read_where_its_key_is_that_of_what_made_it(
    output: str, key: str, made: dict[str, Any]
) -> None:
    receipt = replace(RECEIPT, output=output, key=key, provenance=made)
    assert unsealed(sealed(receipt), output, key) == receipt


@pytest.mark.parametrize(
    ("output", "key", "made"),
    [
        *((output, OTHER, made) for output, _, made in MADE),
        ("toy", MADE[1][1], MADE[1][2]),
        ("toys", MADE[0][1], MADE[0][2]),
        ("other", MADE[0][1], MADE[0][2]),
    ],
)
def test_a_receipt_that_was_sealed_again_for_another_key_is_told_apart(
    output: str, key: str, made: dict[str, Any]
) -> None:
    with pytest.raises(
        ValueError, match="the receipt belongs to another artifact: its key is not that of"
    ):
        unsealed(sealed(replace(RECEIPT, output=output, key=key, provenance=made)), output, key)


def test_a_receipt_with_other_fields_is_none() -> None:
    class Other:
        def __init__(self) -> None:
            self.output, self.key = "toy", KEY

    with pytest.raises(ValueError, match="other fields"):
        unsealed(sealed(Other()), "toy", KEY)  # type: ignore[arg-type]
