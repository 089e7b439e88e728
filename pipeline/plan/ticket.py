"""A ticket: what another process needs to make the same plan, and the proof that it did.

Workers of a cluster and trial processes get a ticket instead of a plan: they read the data set's
tables from the store that all share, plan for themselves and compare every key with the one who
sent the ticket.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.config.config import Config
from pipeline.errors import InvalidInput, ResourceRefused
from pipeline.plan.dataset import stored_dataset
from pipeline.plan.plan import Plan, build_plan, context_of
from pipeline.store.claims import kept_alive
from pipeline.store.store import Store


class DifferentKeys(InvalidInput):
    """Another process plans other keys; `preimages` are of the first shard of each of its steps."""

    def __init__(self, sentence: str, preimages: dict[str, Any]) -> None:
        super().__init__(sentence, preimages)
        self.sentence, self.preimages = sentence, preimages

    def __str__(self) -> str:
        return self.sentence


@dataclass(frozen=True)
class Ticket:
    """All that another process needs to make the same plan, and the digest of its keys as proof.

    `config` is a validated config (JSON); `dataset` is the data set's key; `until` says where to
    stop.

    `computing`: step → what it has to be computed with, where a run does not mix instruction sets.
    """

    config: dict[str, Any]
    store: str
    dataset: str
    until: str | None
    plan: str
    token: str = ""
    computing: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, plan: Plan, store: Store) -> Ticket:
        config = plan.config.model_dump(mode="json")
        return cls(config, str(store.root), plan.dataset.key, plan.until, plan.digest)

    def open(self, where: str) -> tuple[Plan, Store]:
        """Return the plan and the store, seen from the process that calls itself `where`.

        Raises ResourceRefused if the store is not the one of the ticket; DifferentKeys where this
        process would name artifacts otherwise, because another library or version is installed
        here.
        """
        root = Path(self.store)
        if self.token and not _holds(root, self.token):
            raise ResourceRefused(
                f"{where} does not see the store {root}: put the store on a disk that all workers"
                " share, under the same path."
            )
        config, store = Config.model_validate(self.config), Store.existing(root)
        dataset = stored_dataset(config, store, self.dataset)
        plan = build_plan(
            config, dataset, store, context_of(config, lambda: dataset.files), self.until
        )
        if plan.digest != self.plan:
            first = {step.name: step.tasks[0].preimage for step in plan.steps.values()}
            raise DifferentKeys(
                f"{where} would compute other numbers: its plan has other keys.", first
            )
        return plan, store

    @contextmanager
    def with_token(self) -> Iterator[Ticket]:
        """Lay a file of random name into the store: whoever finds it there sees this very store."""
        token = secrets.token_hex(16)
        with kept_alive(Path(self.store) / "journal" / f"token-{token}"):
            yield replace(self, token=token)


def _holds(root: Path, token: str) -> bool:
    try:
        # A listing, because a network file system may remember for a while that a file was not
        # there.
        return f"token-{token}" in os.listdir(root / "journal")
    except OSError:
        return False
