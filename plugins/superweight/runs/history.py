"""The history of runs: one checked line a run, only ever appended to, with a snapshot of each beside it."""

from __future__ import annotations

import json
import os
import uuid
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout
from pydantic import Field, ValidationError

from superweight.cards.base import slug
from superweight.cards.model import Role
from superweight.errors import InfraError
from superweight.evidence.measured import Record, Verdict
from superweight.evidence.moment import moment
from superweight.plain_files import read_plain
from superweight.runs.document import RunDocument
from superweight.runs.snapshot import Snapshot, read_snapshot, write_snapshot

HISTORY_VERSION = "1.0"

_FILE = "history.jsonl"
_PATIENCE = 60  # seconds; a line takes milliseconds


class FigureEntry(Record):
    """What one gate measured on one cell."""

    metric: str | None = None
    value: float | None = None
    baseline: float | None = Field(default=None, description="of the uncompressed model")
    difference: float | None = Field(default=None, description="perplexity ratio − 1, or value − baseline")
    n: int | None = None
    planned: int | None = None
    margin: float | None = None
    higher_is_better: bool = True
    verdict: Verdict


class RunEntry(Record):
    """One run, as history keeps it."""

    schema_version: str
    id: str
    started: str = Field(description="ISO 8601")
    finished: str = ""
    commit: str = ""
    tier: str
    verdict: Verdict
    whole: bool = Field(default=True, description="whether the run was asked for everything in its tier")
    roles: dict[str, Role] = Field(default_factory=dict, description="by `model/recipe`")
    verdicts: dict[str, Verdict] = Field(default_factory=dict, description="by `model/recipe`")
    figures: dict[str, dict[str, FigureEntry]] = Field(default_factory=dict, description="by `model/recipe` and gate")
    releases: dict[str, str] = Field(
        default_factory=dict, description="by model: when the run was started that was the release baseline then"
    )
    snapshots: dict[str, str] = Field(default_factory=dict, description="by model: file under the store")
    released: bool = Field(default=False, exclude=True, description="whether it was, or is, a release baseline")

    @property
    def when(self) -> datetime:
        """When the run was started."""
        return moment(self.started)


class History(NamedTuple):
    """What a store knows of the runs so far."""

    runs: list[RunEntry]
    """In the order of time."""
    notes: list[str]
    """Lines that were left out, and why."""


def append_run(
    store: Path, document: RunDocument, snapshots: Sequence[Snapshot], releases: Mapping[str, str] | None = None
) -> RunEntry:
    """Add a run to the history of a store; several processes may do so at once.

    Args:
        store: the directory; it is made if it is not there.
        document: of the run, judged.
        snapshots: of the run, one a model.
        releases: by model, `taken` of the snapshot that is its release baseline now.

    Raises:
        InfraError: it cannot be written, or another process does not let go of the history.

    """
    stamp = moment(document.run.started).strftime("%Y%m%dT%H%M%SZ")
    identifier = f"{stamp}-{uuid.uuid4().hex[:8]}"
    files = {one.model: f"runs/{identifier}/{slug(one.model)}.json" for one in snapshots}
    for snapshot in snapshots:
        write_snapshot(store / files[snapshot.model], snapshot)
    entry = _entry(document, identifier, files, releases or {})
    _append(store / _FILE, _line(entry.model_dump(mode="json")))
    return entry


def read_history(store: Path) -> History:
    """Every run of a store; lines that are damaged, or that something else wrote, are left out with a note.

    Raises:
        InfraError: the history is there and cannot be read.

    """
    path = store / _FILE
    try:
        data = read_plain(path)
    except FileNotFoundError:
        return History([], [])
    except OSError as error:
        raise InfraError(f"{path}: cannot be read ({error.strerror}).", reason="unsupported") from error
    entries, notes = [], []
    *whole, last = data.split(b"\n")
    for number, line in enumerate([*whole, last], 1):
        if not line:
            continue
        found = _read(line)
        if isinstance(found, RunEntry):
            entries.append(found)
        elif number == len(whole) + 1:
            notes.append(f"{path}:{number}: the last line was not finished; left out")
        else:
            notes.append(f"{path}:{number}: {found}; left out")
    entries.sort(key=lambda entry: entry.when)
    _mark_releases(entries)
    return History(entries, notes)


def runs(store: Path) -> list[RunEntry]:
    """Every run of a store that can be read, in the order of time."""
    return read_history(store).runs


def last_snapshot(store: Path, model: str, tier: str, before: str = "") -> Snapshot | None:
    """The snapshot of the latest run on a model in a tier.

    Args:
        store: the directory.
        model: model id.
        tier: of the run.
        before: only runs started before this time, ISO 8601.

    Returns:
        None if there is no such run, or none whose snapshot can be read any more.

    """
    limit = moment(before) if before else None
    for entry in reversed(runs(store)):
        if entry.tier == tier and model in entry.snapshots and (limit is None or entry.when < limit):
            with suppress(InfraError):
                return read_snapshot(store / entry.snapshots[model])
    return None


def _entry(document: RunDocument, identifier: str, files: Mapping[str, str], releases: Mapping[str, str]) -> RunEntry:
    run, cells = document.run, document.cells
    return RunEntry(
        schema_version=HISTORY_VERSION,
        id=identifier,
        started=run.started,
        finished=run.finished,
        commit=run.commit,
        tier=run.tier,
        verdict=document.verdict,
        whole=not run.left_out,
        roles={cell.id: cell.role for cell in cells},
        verdicts={cell.id: cell.verdict for cell in cells},
        figures={
            cell.id: {
                gate.gate: FigureEntry(**{name: getattr(gate, name) for name in FigureEntry.model_fields})
                for gate in cell.gates
                if gate.value is not None
            }
            for cell in cells
        },
        releases=dict(releases),
        snapshots=dict(files),
    )


def _line(record: Mapping[str, Any]) -> bytes:
    payload = json.dumps(record, separators=(",", ":")).encode("ascii")
    return b'{"crc":"%08x","record":%b}\n' % (zlib.crc32(payload), payload)


def _read(line: bytes) -> RunEntry | str:
    """The entry in a line, or what is wrong with it."""
    try:
        record = json.loads(line)["record"]
        if line + b"\n" != _line(record):
            return "does not match its checksum"
        version = str(record["schema_version"])
        if version.split(".")[0] != HISTORY_VERSION.split(".")[0]:
            return f"of version {version}, where this is a reader of {HISTORY_VERSION}"
        entry = RunEntry.model_validate(record)
        moment(entry.started)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        return f"not a run: {'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    except (ValueError, TypeError, KeyError, RecursionError):
        return "not a line of this history"
    return entry


def _append(path: Path, line: bytes) -> None:
    """One write of one line under a lock; a line that an earlier process left unfinished is closed first."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock"), timeout=_PATIENCE), path.open("ab+") as stream:
            if stream.tell() > 0:
                stream.seek(-1, 2)
                if stream.read(1) != b"\n":
                    line = b"\n" + line
            stream.write(line)
            stream.flush()
            os.fsync(stream.fileno())
    except Timeout as error:
        raise InfraError(
            f"{path}: another process has held {error.lock_file} for {_PATIENCE} s; if none is left, delete that file.",
            reason="unsupported",
        ) from error
    except OSError as error:
        full = error.errno in (28, 122)  # ENOSPC, EDQUOT
        raise InfraError(
            f"{path}: the run could not be added to the history ({error.strerror or error}).",
            reason="disk-full" if full else "unsupported",
        ) from error


def _mark_releases(entries: Iterable[RunEntry]) -> None:
    """A run that a later one, or itself, was held against as the release."""
    entries = list(entries)
    released = {(entry.tier, model, taken) for entry in entries for model, taken in entry.releases.items()}
    for entry in entries:
        entry.released = any((entry.tier, model, entry.started) in released for model in entry.snapshots)
