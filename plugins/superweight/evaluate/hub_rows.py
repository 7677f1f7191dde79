"""Rows of data sets on the Hugging Face hub: whether it answers, and its failures as InfraError."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from superweight.cards.corpus import HubDataset
from superweight.checkpoint import Cache
from superweight.checkpoint.fetching.problems import disk_errors, missing_package
from superweight.checkpoint.quiet import quiet
from superweight.errors import InfraError, InfraReason, SuperweightError
from superweight.evaluate.local_rows import all_json, json_rows, local_files, needs_files, rows_cache
from superweight.plain_text import briefly

_OFFLINE_SWITCHES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
_SECONDS = 3.0  # to wait for an answer before the hub counts as out of reach
_OFFLINE = {
    "ConnectionError",
    "ConnectError",
    "ConnectTimeout",
    "Timeout",
    "OfflineModeIsEnabled",
    "LocalEntryNotFoundError",
}


def hub_in_reach() -> bool:
    """Whether the hub may be asked (`HF_HUB_OFFLINE` is not set) and answers."""
    if any(os.environ.get(switch, "").upper() in ("1", "ON", "YES", "TRUE") for switch in _OFFLINE_SWITCHES):
        return False
    import requests
    from huggingface_hub import constants

    try:
        return requests.head(constants.ENDPOINT, timeout=_SECONDS).status_code < 400  # a proxy's refusal is no hub
    except requests.RequestException:
        return False


def load_rows(source: HubDataset, cache: Cache) -> Any:
    """One split of a data set, as a `datasets.Dataset`.

    Raises:
        InfraError: offline, unauthorised, not-found, disk-full, missing-package; what is there cannot be read as rows
            (corrupt); or it is not said what is to be read (bad-card).
    """
    what = f"data set {source.repository} (split {source.split})"
    files = {source.split: source.data_files} if source.data_files else None
    if needs_files(source.repository) and not source.data_files:
        message = f"{what}: expected data_files, the file that '{source.repository}' is to read. Add it to the card."
        raise InfraError(message, reason="bad-card")
    local = local_files(source.repository, files)
    if local and source.repository == "json" and all_json(local):
        return json_rows(local)[source.split]
    try:
        with hub_errors(what, cache):
            import datasets

            return datasets.load_dataset(
                source.repository,
                source.config,
                data_files=files,
                split=source.split,
                revision=source.revision,
                cache_dir=str(rows_cache(source.repository, {"data_files": files}, cache)),
            )
    except SuperweightError:
        raise
    except Exception as error:  # whatever the readers of `datasets` raise
        told = briefly(error.__cause__ or error)
        message = f"{what}: {source.data_files or 'it'} cannot be read as rows ({told}). Correct the card, or the file."
        raise InfraError(message, reason="corrupt") from error


@contextmanager
def hub_errors(what: str, cache: Cache) -> Iterator[None]:
    """Turn what `datasets` and `huggingface_hub` raise in the block into an InfraError that says what to do."""
    try:
        with disk_errors(cache.root, f"fetching {what}"), quiet():
            yield
    except ModuleNotFoundError as error:
        raise missing_package(str(error.name), what) from error
    except (OSError, ValueError, RuntimeError) as error:
        reason = _reason(error)
        if reason is None:
            raise
        message = f"{what} cannot be had from the Hugging Face hub: {error} {_ADVICE[reason]}"
        raise InfraError(message, reason=reason) from error


_ADVICE: dict[InfraReason, str] = {
    "offline": "Connect to the hub (unset HF_HUB_OFFLINE), or use a card whose data is embedded.",
    "unauthorised": "Accept the data set's terms on the hub and set HF_TOKEN.",
    "not-found": "Correct the repository, configuration, split or revision in the card.",
}


def _reason(error: BaseException) -> InfraReason | None:
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    text = " ".join(str(each) for each in chain).lower()
    names = {kind.__name__ for each in chain for kind in type(each).__mro__}
    if (
        "gated" in text
        or re.search(r"\b40[13] (client error|unauthori|forbidden)|(status|code|http)\D{0,9}40[13]\b", text)
        or "GatedRepoError" in names
    ):
        return "unauthorised"
    if names & _OFFLINE and type(error).__name__ != "DatasetNotFoundError":
        return "offline"
    if names & {"DatasetNotFoundError", "RepositoryNotFoundError", "EntryNotFoundError", "FileNotFoundError"}:
        return "not-found"
    if isinstance(error, ValueError) and ("config" in text or "split" in text):
        return "not-found"
    return None
