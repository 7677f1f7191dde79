"""Candidates: the weights whose terms make up massive residual entries, by zeroing and tracing again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from superweight.cards.base import Coordinate
from superweight.checkpoint.loading import LoadedModel
from superweight.detect.ablation import zeroed
from superweight.detect.settings import Thresholds
from superweight.detect.trace import Entry, Feed, Prompt, Trace, trace


@dataclass(frozen=True)
class Candidate:
    """A weight that may be a super weight.

    Attributes:
        coordinate: where it is.
        entry: the massive entry it writes; that with its largest term, if there are several.
        term: X[t, k]·W[r, k], times the router's weight in a mixture.
        share: the term as a share of the down projection's output there.
        input_value: X[t, k], times the router's weight in a mixture.
        round: in which forward pass it was seen, from 0.

    """

    coordinate: Coordinate
    entry: Entry
    term: float
    share: float
    input_value: float
    round: int = 0


@dataclass(frozen=True)
class Proposal:
    """Candidates, the trace of the untouched model, and how many forward passes it took to find no more."""

    candidates: tuple[Candidate, ...]
    base: Trace
    rounds: int


def propose(loaded: LoadedModel, prompt: Prompt, settings: Thresholds) -> Proposal:
    """Follow the residual stream: find candidates, zero them, trace again, until nothing new makes a massive entry.

    Each candidate found in the untouched model keeps the figures it had there: zeroing one super weight lets others
    dominate that did little before.
    """
    base = current = trace(loaded, prompt, settings)
    found: dict[tuple[int, int, int, int], Candidate] = {}
    rounds = 1
    while True:
        new = {
            c.coordinate.key: c
            for c in candidates(current, base, settings, rounds - 1)
            if c.coordinate.key not in found
        }
        found.update(new)
        if not new or rounds >= settings.rounds:
            break
        with zeroed(loaded, [candidate.coordinate for candidate in found.values()]):
            current = trace(loaded, prompt, settings)
        rounds += 1
    ranked = sorted(found.values(), key=lambda c: (c.round, -abs(c.term)))[: settings.candidates]
    return Proposal(tuple(ranked), base, rounds)


def candidates(current: Trace, base: Trace, settings: Thresholds, round_: int = 0) -> Iterator[Candidate]:
    """The weights behind the entries of a trace that last, each once, with its largest term.

    Args:
        current: the trace to explain.
        base: the trace of the untouched model; a layer that shrinks a massive entry there cancels it, and is not
            believed when it writes the opposite entry after the cause was zeroed.
        settings: thresholds.
        round_: written into the candidates.

    """
    best: dict[tuple[int, ...], Candidate] = {}
    for entry in current.entries:
        share = settings.remains if round_ else settings.of_largest
        least = share * abs(base.peaks[entry.layer].residual.value)
        if abs(entry.value) < least or not _persists(current, entry, settings) or _cancels(base, entry, settings):
            continue
        for candidate in _explain(entry, current, settings, round_):
            known = best.get(candidate.coordinate.key)
            if known is None or abs(candidate.term) > abs(known.term):
                best[candidate.coordinate.key] = candidate
    yield from best.values()


def _persists(current: Trace, entry: Entry, settings: Thresholds) -> bool:
    later = current.history(entry.place, entry.channel)[entry.layer + 1 :][: settings.persist_layers]
    least = settings.persist_share * abs(entry.value)
    return len(later) == settings.persist_layers and all(
        value * entry.value > 0 and abs(value) >= least for value in later
    )


def _cancels(base: Trace, entry: Entry, settings: Thresholds) -> bool:
    """Whether in the untouched model this layer takes a massive entry away where it now writes one."""
    where = (*entry.place, entry.channel)
    before, after = float(base.residual[entry.layer][where]), float(base.residual[entry.layer + 1][where])
    was_massive = entry.layer > 0 and abs(before) >= settings.massive * base.medians[entry.layer - 1]
    return was_massive and (after - before) * before < 0 and abs(after - before) >= settings.written * abs(before)


def _explain(entry: Entry, current: Trace, settings: Thresholds, round_: int) -> Iterator[Candidate]:
    """Decompose Y[t, r] = Σ_k X[t, k]·W[r, k] over the layer's down projections; take the terms that make it up."""
    feeds = current.feeds[entry.layer, entry.place]
    terms = [_terms(feed, entry.channel) for feed in feeds]
    if not terms:
        return
    output = float(torch.cat(terms).sum())
    chosen = _leading(terms, output, settings)
    for which, column in chosen:
        term, feed = float(terms[which][column]), feeds[which]
        yield _candidate(entry, feed, entry.channel, column, term, term / output, round_)
        yield from _spokes(entry, feed, column, term, current, settings, round_)


def _terms(feed: Feed, row: int) -> torch.Tensor:
    weights: torch.Tensor = feed.weight.matrix(feed.expert)[row].detach().float().cpu()
    return weights * feed.inputs


def _leading(terms: list[torch.Tensor], output: float, settings: Thresholds) -> list[tuple[int, int]]:
    """Feed and column of the fewest large terms that make up the output; none if it is made of many small ones."""
    if output == 0:
        return []
    sizes = [len(part) for part in terms]
    shares = torch.cat(terms) / output
    ranked = shares.sort(descending=True)
    needed = int((ranked.values.cumsum(0) < settings.explained).sum()) + 1
    large = int((ranked.values >= settings.term).sum())
    count = min(needed, large)
    if float(ranked.values[:count].sum()) < settings.concentrated:
        return []
    return [_locate(index, sizes) for index in ranked.indices[:count].tolist()]


def _locate(index: int, sizes: list[int]) -> tuple[int, int]:
    which = 0
    while index >= sizes[which]:
        index -= sizes[which]
        which += 1
    return which, index


def _spokes(
    entry: Entry, feed: Feed, column: int, term: float, current: Trace, settings: Thresholds, round_: int
) -> Iterator[Candidate]:
    """Other rows that the same input drives to massive outputs that reach the residual stream."""
    weights = feed.weight.matrix(feed.expert)[:, column].detach().float().cpu()
    products = weights * feed.inputs[column]  # (rows,)
    after = current.residual[entry.layer + 1][entry.place].float()
    massive = settings.massive * current.medians[entry.layer]
    least = max(massive, settings.spoke * float(products.abs().max()))
    rows = ((products.abs() >= least) & (after.abs() >= massive)).nonzero().flatten().tolist()
    for row in rows:
        if row != entry.channel:
            value = float(after[row])
            other = Entry(
                entry.layer, entry.place, row, value, value - float(current.residual[entry.layer][(*entry.place, row)])
            )
            output = float(_terms(feed, row).sum())
            yield _candidate(other, feed, row, column, float(products[row]), float(products[row]) / output, round_)


def _candidate(entry: Entry, feed: Feed, row: int, column: int, term: float, share: float, round_: int) -> Candidate:
    where = Coordinate(layer=entry.layer, expert=feed.expert, row=row, column=column)
    return Candidate(where, entry, term, share, float(feed.inputs[column]), round_)
