"""Running text for perplexity: fetched, and tokenised once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from superweight.cards.corpus import CorpusCard, HubDataset, TextFile
from superweight.checkpoint import Cache, fetch_file
from superweight.checkpoint.loading import LoadedModel
from superweight.errors import InfraError
from superweight.evaluate.hub_rows import load_rows
from superweight.plain_files import read_plain


def corpus_text(card: CorpusCard, cache: Cache, *, progress: bool = True) -> str:
    """The whole text of a corpus.

    Raises:
        InfraError: the text cannot be had (offline, unauthorised, not-found, hash-mismatch, disk-full), or is no
            UTF-8 text (corrupt).
    """
    match card.source:
        case HubDataset() as source:
            rows = load_rows(source, cache)
            count = len(rows) if source.rows is None else min(source.rows, len(rows))
            if source.column not in rows.column_names:
                raise InfraError(
                    f"corpus '{card.id}': expected a column '{source.column}' in {source.repository}, found "
                    f"{', '.join(rows.column_names)}. Correct source.column in the card.",
                    reason="not-found",
                )
            text = source.join.join(_texts(card, source, rows.select(range(count))[source.column]))
            return _whole(card, text, source.data_files or source.repository)
        case TextFile(path=path):
            return _read(card, Path(path).expanduser())
        case source:
            return _read(card, fetch_file(source, cache, progress=progress))


def corpus_tokens(loaded: LoadedModel, card: CorpusCard, cache: Cache, *, progress: bool = True) -> torch.Tensor:
    """The corpus as token ids `(tokens,)`, int64, on the CPU.

    The text is tokenised once as a whole with the tokenizer's own special tokens, as in GPTQ's
    `tokenizer(text).input_ids`: a tokenizer that adds BOS puts one at the very beginning, so only the first window
    starts with it.

    Raises:
        InfraError: as `corpus_text`.
    """
    text = corpus_text(card, cache, progress=progress)
    ids: list[int] = loaded.tokenizer(text, verbose=False)["input_ids"]
    return torch.tensor(ids, dtype=torch.long)


def _texts(card: CorpusCard, source: HubDataset, values: Iterable[Any]) -> Iterator[str]:
    for number, value in enumerate(values):
        if not isinstance(value, str):
            raise InfraError(
                f"corpus '{card.id}': row {number} of {source.repository} has {str(value)[:80]!r} in column "
                f"'{source.column}'; expected text. Correct the rows, or source.column in the card.",
                reason="corrupt",
            )
        yield value


def _read(card: CorpusCard, path: Path) -> str:
    """A text file with its line ends as they are in Python: one newline each."""
    try:
        text = read_plain(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InfraError(f"corpus '{card.id}': {path} is not UTF-8 text: {error}", reason="corrupt") from error
    except (OSError, ValueError) as error:
        raise InfraError(
            f"corpus '{card.id}': expected a UTF-8 text file at {str(path)[:300]}: "
            f"{getattr(error, 'strerror', None) or error}. Correct source.path in the card.",
            reason="not-found",
        ) from error
    return _whole(card, text.replace("\r\n", "\n").replace("\r", "\n"), path)


def _whole(card: CorpusCard, text: str, origin: Path | str) -> str:
    """The text itself, if there is one and nothing of it was lost on the way.

    Raises:
        InfraError: it is empty or holds zero bytes, as is left of a file whose writing was cut short (`corrupt`).
    """
    found = "holds zero bytes, which no text has" if "\0" in text else "" if text.strip() else "holds no text"
    if found:
        raise InfraError(f"corpus '{card.id}': {origin} {found}. Fetch or write it again.", reason="corrupt")
    return text
