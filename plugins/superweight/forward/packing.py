"""Which requests are computed together: rows that compute a shared beginning once, and batches that pad little.

A row holds a shared beginning once and then every branch. What all requests of a batch begin with (the examples of a
few-shot task) may stand before the rows, in a key/value cache: their stem. What is shared is chosen by cost.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile

_WORTHWHILE = 8  # tokens that sharing must save for two requests to be put in one row
_STEM = 64  # tokens that requests must have in common for a stem to be thought of
_STEM_SAVES = 0.1  # of the cost without it: a stem takes a pass of its own and copies of its cache
_COPY = 0.02  # of a token's cost: bringing one token of a stem's cache before a row


@dataclass(frozen=True)
class Request:
    """Tokens to be scored: log-likelihood of `tokens[start:]`, each given all before it.

    Attributes:
        index: its place among the caller's requests.
        tokens: context and continuation.
        start: where the continuation begins, at least 1.
    """

    index: int
    tokens: tuple[int, ...]
    start: int

    @property
    def inputs(self) -> tuple[int, ...]:
        """What the model is fed: everything but the last token."""
        return self.tokens[:-1]


@dataclass(frozen=True)
class Cost:
    """What a row takes to compute, in tokens of the model's linear layers.

    Attributes:
        reach: how many tokens a row has when attending to all of it costs a token as much as the linear layers do.
    """

    reach: float

    def __call__(self, length: int, stem: int = 0) -> float:
        """Of a row of `length` tokens behind a stem of `stem`."""
        return length * (1 + (stem + length) / self.reach) + _COPY * stem


@dataclass(frozen=True)
class Row:
    """Requests that share their first `shared` input tokens (all of them, if there is one request).

    Attributes:
        requests: in the order of their branches.
        shared: how many tokens they begin with alike, those of the stem among them.
        stem: how many of those are in the cache and take no place in the row.
    """

    requests: tuple[Request, ...]
    shared: int
    stem: int = 0

    @property
    def length(self) -> int:
        """Tokens the row takes."""
        return self.shared - self.stem + sum(len(request.inputs) - self.shared for request in self.requests)

    @property
    def targets(self) -> int:
        """Target tokens of the request that has most."""
        return max(len(request.tokens) - request.start for request in self.requests)

    def with_request(self, request: Request) -> Row:
        """The row with one more request."""
        shared = _alike(self.requests[0].inputs[: self.shared], request.inputs)
        return Row((*self.requests, request), shared, self.stem)


@dataclass(frozen=True)
class Group:
    """Rows behind one stem; the stem is empty where there is none."""

    stem: tuple[int, ...]
    rows: list[Row]


def rows(requests: Iterable[Request], *, limit: int, cost: Cost, stem: int = 0) -> list[Row]:
    """Gather neighbours into rows of at most `limit` tokens, as long as that costs less than rows of their own.

    With `limit` 0 every request gets a row of its own.
    """
    found: list[Row] = []
    for request in requests:
        alone = Row((request,), len(request.inputs), stem)
        if found and limit:
            joined = found[-1].with_request(request)
            apart = cost(found[-1].length, stem) + cost(alone.length, stem)
            if joined.length <= limit and apart - cost(joined.length, stem) >= _WORTHWHILE:
                found[-1] = joined
                continue
        found.append(alone)
    return found


def groups(requests: Sequence[Request], *, limit: int, cost: Cost, longest: int) -> list[Group]:
    """Requests that share a long beginning behind a stem, where that costs less, and all others in plain rows.

    Args:
        requests: in an order in which neighbours are alike.
        limit: tokens a row, as in `rows`.
        cost: of rows.
        longest: what a stem and its requests may take together; 0 for no stems.
    """
    candidates = {request.index: request.tokens[:_STEM] for request in requests if request.start > _STEM}
    plain: list[Request] = [request for request in requests if request.index not in candidates or not longest]
    found: list[Group] = []
    ordered = sorted((r for r in requests if longest and r.index in candidates), key=lambda r: candidates[r.index])
    for _, some in groupby(ordered, key=lambda r: candidates[r.index]):
        group = _behind_a_stem(list(some), limit=limit, cost=cost, longest=longest)
        if group.stem:
            found.append(group)
        else:
            plain += [request for row in group.rows for request in row.requests]
    if plain:
        place = {request.index: number for number, request in enumerate(requests)}
        plain.sort(key=lambda request: place[request.index])
        found.append(Group((), rows(plain, limit=limit, cost=cost)))
    return found


def _behind_a_stem(requests: list[Request], *, limit: int, cost: Cost, longest: int) -> Group:
    """One group's requests behind their longest common beginning, or in plain rows if those cost less."""
    without = rows(requests, limit=limit, cost=cost)
    first, last = min(r.tokens for r in requests), max(r.tokens for r in requests)
    stem = min(_alike(first, last), *(request.start - 1 for request in requests))  # the first target needs a state
    with_stem = rows(requests, limit=limit, cost=cost, stem=stem)
    apart = sum(cost(row.length) for row in without)
    together = cost(stem) + sum(cost(row.length, stem) for row in with_stem)
    fits = max(len(request.inputs) for request in requests) <= longest
    if len(requests) > 1 and fits and together < (1 - _STEM_SAVES) * apart:
        return Group(first[:stem], with_stem)
    return Group((), without)


def batches(found: Sequence[Row], *, tokens: int, pad: bool = True, most: int | None = None) -> list[list[Row]]:
    """Rows in as few batches of at most `tokens` tokens as need be, padding included, and those about equally full.

    Args:
        found: rows; the longest come first, so that little is padded. A longer one is a batch of its own.
        tokens: of a batch.
        pad: otherwise, only rows of one length share a batch.
        most: rows a batch, if that is bounded.
    """
    ordered = sorted(found, key=lambda row: row.length, reverse=True)
    filled = _filled(ordered, tokens, pad, most)
    low, high = 1, tokens
    while low < high:
        middle = (low + high) // 2
        tried = _filled(ordered, middle, pad, most)
        if len(tried) == len(filled):
            high, filled = middle, tried
        else:
            low = middle + 1
    return filled


def _filled(ordered: Sequence[Row], tokens: int, pad: bool, most: int | None) -> list[list[Row]]:
    result: list[list[Row]] = []
    for row in ordered:
        last = result[-1] if result else []
        fits = bool(last) and (len(last) + 1) * last[0].length <= tokens and (most is None or len(last) < most)
        if fits and (pad or row.length == last[0].length):
            last.append(row)
        else:
            result.append([row])
    return result


def _alike(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences begin with alike."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
