"""Measure in batches: each is written to a journal at once, and one that is in the journal is not measured again."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from superweight.evidence import Store, content_key

Batch = TypeVar("Batch")
Item = dict[str, Any]


class Records(Protocol):
    """A sequence of records that can be added to."""

    records: list[dict[str, Any]]
    created: str
    note: str

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one."""

    def restart(self) -> None:
        """Drop all."""


@dataclass
class InMemoryRecords:
    """Records of a run that keeps none."""

    records: list[dict[str, Any]] = field(default_factory=list)
    created: str = ""
    note: str = ""

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one."""
        self.records.append(dict(record))

    def restart(self) -> None:
        """Drop all."""
        self.records.clear()


@dataclass(frozen=True)
class Measured:
    """What was measured.

    Attributes:
        items: in the order they were taken.
        key: of the journal they are kept in.
        since: when the first of them was measured, if all were found in the journal; else empty.
    """

    items: list[Item]
    key: str
    since: str


def measure_batches(
    store: Store | None,
    what: Mapping[str, Any],
    batches: Sequence[Batch],
    measure: Callable[[Batch], Sequence[Item]],
    *,
    decided: Callable[[list[Item]], bool] = lambda _: False,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Measured:
    """Measure batch after batch until there are no more, or what was seen decides.

    Each batch is in the journal before the next is begun. Batches found there are not measured again, and every
    decision falls at the same batch as it did then, so a run that is cut off and started again ends with the figures of
    one that was not.

    Args:
        store: where journals are kept; None to keep nothing.
        what: everything the figures depend on; its hash is the journal's key.
        batches: in the order they are taken.
        measure: gives a batch's items, as JSON-able dictionaries.
        decided: asked after every batch but the last, with all items so far.
        on_progress: told after every batch how many items there are so far.

    Raises:
        InfraError: the journal cannot be written.
    """
    key = content_key(**what)
    items: list[Item] = []
    begun = False
    with _journal(store, key, what) as journal:
        if journal.note:  # damage, or a file system without locks
            warnings.warn(journal.note, stacklevel=2)
        kept = _kept(journal, len(batches))
        for number, batch in enumerate(batches):
            if items and decided(items):
                break
            if number < kept:
                items += journal.records[number]["items"]
                on_progress(len(items))
                continue
            begun = True
            found = json.loads(json.dumps(list(measure(batch))))  # as it will be read back
            journal.append({"batch": number, "items": found})
            items += found
            on_progress(len(items))
        return Measured(items, key, "" if begun else journal.created)


def measure_once(store: Store | None, what: Mapping[str, Any], measure: Callable[[], Item]) -> tuple[Item, Measured]:
    """As `take`, for a measurement that is one record."""
    taken = measure_batches(store, what, [None], lambda _: [measure()])
    return taken.items[0], taken


def _kept(journal: Records, batches: int) -> int:
    """How many batches are in the journal; one that holds anything else is begun again."""
    for number, record in enumerate(journal.records):
        if number >= batches or record.get("batch") != number or not isinstance(record.get("items"), list):
            journal.restart()
            return 0
    return len(journal.records)


def _journal(store: Store | None, key: str, what: Mapping[str, Any]) -> AbstractContextManager[Records]:
    return nullcontext(InMemoryRecords()) if store is None else store.journal(key, what)
