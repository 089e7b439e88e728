"""What `status` says of a row: its id, whichever columns came with the data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.config.config import Config
from pipeline.run.row_failures import remarks
from pipeline.run.runner import Runner
from pipeline.session import open_session
from stages.datasets.tables_file import write_tables
from stages.tables.tables import ProtocolLists, build_tables, singletons

# the second has no direction, so it fails
EMBEDDINGS = np.eye(4, dtype=np.float32) * [[1], [0], [1], [1]]


@pytest.mark.parametrize(
    "more", [{}, {"box": np.ones((4, 4), np.float32), "quality": np.ones(4, np.float32)}]
)
def test_a_failed_face_is_told_by_its_id_whatever_other_columns_the_data_set_has(
    tmp_path: Path, more: dict
) -> None:
    ids, whose = ["f0", "f1", "f2", "f3"], ["s0", "s0", "s1", "s1"]
    found = ProtocolLists(
        face_id=ids, path=[""] * 4, sha256=[""] * 4, subject=whose, **singletons(ids, whose),
        columns={"embedding": EMBEDDINGS.astype(np.float32), **more},
    )  # fmt: skip
    (tmp_path / "set").mkdir()
    write_tables(tmp_path / "set/tables.h5", build_tables(found, "test"))
    config = Config.model_validate(
        {
            "name": "told",
            "base": tmp_path,
            "dataset": {"reader": "tables", "path": "set"},
            "steps": {"embed": {"options": {"model": "given", "flip": "none"}}},
        }
    )
    session = open_session(config, store=tmp_path / "store")
    Runner(session.plan, session.store).run()
    stored = open_session(config, store=tmp_path / "store", readonly=True)
    assert [(remark.id, remark.status) for remark in remarks(stored.plan, stored.store)] == [
        ("f1", "failed")
    ]
