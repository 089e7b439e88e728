"""The tables that both layouts of IJB are assembled into."""

from __future__ import annotations

import numpy as np

from pipeline.core.schema import Batch, text
from stages.datasets.ijb.protocol import assembled


def test_a_face_of_two_templates_has_the_subject_of_the_first_that_is_listed() -> None:
    tables = assembled(
        {"face_id": text(["f0", "f1"])},
        {
            "template": np.array([1, 0, 0]),
            "face": np.array([0, 1, 0]),
            "media": text(["m", "m", "m"]),
        },
        np.array([10, 20]),
        text(["ann", "bob"]),
        {"a": np.empty(0, np.int64), "b": np.empty(0, np.int64), "mated": np.empty(0, bool)},
        Batch({"template": np.empty(0, np.int64), "role": text([])}),
    )
    assert tables["faces"]["subject"].tolist() == ["bob", "ann"]
    assert tables["members"]["template"].tolist() == [0, 0, 1]
