"""Requests that begin alike, laid out in one row so that what they share is computed once.

A row holds the shared beginning once and then every branch. The attention mask lets a token see the shared beginning
and its own branch, and position ids count as if each branch stood alone, so each branch gets the numbers it would
get on its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import torch

_WORTHWHILE = 8  # tokens that sharing must save for two requests to be put in one row


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


@dataclass
class Row:
    """Requests that share their first `shared` input tokens (all of them, if there is one request)."""

    requests: list[Request]
    shared: int

    @property
    def length(self) -> int:
        """Tokens the row takes."""
        return self.shared + sum(len(request.inputs) - self.shared for request in self.requests)

    @property
    def longest(self) -> int:
        """Tokens of its longest request, which bounds its position ids."""
        return max(len(request.inputs) for request in self.requests)

    def with_request(self, request: Request) -> Row:
        """The row with one more request."""
        pairs = zip(self.requests[0].inputs[: self.shared], request.inputs, strict=False)
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        return Row([*self.requests, request], shared)


def rows(requests: Iterable[Request], *, limit: int) -> list[Row]:
    """Gather neighbours that share enough of their beginning into rows of at most `limit` tokens.

    With `limit` 0 every request gets a row of its own.
    """
    found: list[Row] = []
    for request in requests:
        alone = Row([request], len(request.inputs))
        joined = found[-1].with_request(request) if found else alone
        saved = found[-1].length + alone.length - joined.length if found else 0
        if saved >= _WORTHWHILE and joined.length <= limit:
            found[-1] = joined
        else:
            found.append(alone)
    return found


def batches(found: Sequence[Row], *, tokens: int, pad: bool = True) -> list[list[Row]]:
    """Rows in batches of at most `tokens` tokens, padding included, longest first so that little is padded.

    Without `pad`, only rows of one length share a batch.
    """
    result: list[list[Row]] = []
    for row in sorted(found, key=lambda row: row.length, reverse=True):
        fits = bool(result) and (len(result[-1]) + 1) * result[-1][0].length <= tokens
        if fits and (pad or row.length == result[-1][0].length):
            result[-1].append(row)
        else:
            result.append([row])
    return result


@dataclass
class Layout:
    """One batch as tensors, and where in it each target is predicted.

    Attributes:
        input_ids: `(rows, length)`, padded by repeating each row's last token.
        position_ids: `(rows, length)`.
        branch: `(rows, length)`; 0 in the shared part, 1… in the branches, −1 in the padding.
        at: for each target, its row and column.
        targets: token ids.
        owners: for each target, the index of its request.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    branch: torch.Tensor
    at: tuple[list[int], list[int]] = field(default_factory=lambda: ([], []))
    targets: list[int] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)

    @property
    def branching(self) -> bool:
        """Whether any row holds more than one request."""
        return bool((self.branch > 0).any())

    def visible(self) -> torch.Tensor:
        """Which token sees which, boolean `(rows, 1, length, length)`: a token sees what precedes it in its branch."""
        length = self.branch.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        ours = self.branch[:, :, None] == self.branch[:, None, :]
        return (causal & (ours | (self.branch == 0)[:, None, :]))[:, None]

    def inputs(self, device: torch.device, attention: str) -> dict[str, Any]:
        """What the body is called with besides `input_ids`: nothing unless rows branch."""
        if not self.branching:
            return {}
        mask = self.visible().to(device)
        if attention != "sdpa":  # eager, and whatever is built on it, adds the mask
            mask = torch.zeros(mask.shape, device=device).masked_fill(~mask, torch.finfo(torch.float32).min)
        return {"attention_mask": mask, "position_ids": self.position_ids.to(device)}


def lay_out(batch: Sequence[Row]) -> Layout:
    """Lay rows out as tensors."""
    length = max(row.length for row in batch)
    layout = Layout(
        input_ids=torch.zeros(len(batch), length, dtype=torch.long),
        position_ids=torch.zeros(len(batch), length, dtype=torch.long),
        branch=torch.full((len(batch), length), -1, dtype=torch.long),
    )
    for number, row in enumerate(batch):
        _lay_out_row(layout, number, row)
    return layout


def _lay_out_row(layout: Layout, number: int, row: Row) -> None:
    tokens, positions, branch = list(row.requests[0].inputs[: row.shared]), list(range(row.shared)), [0] * row.shared
    for which, request in enumerate(row.requests, start=1):
        offset = len(tokens) - row.shared  # a position p ≥ shared of this request stands in column p + offset
        tokens += request.inputs[row.shared :]
        positions += range(row.shared, len(request.inputs))
        branch += [which] * (len(request.inputs) - row.shared)
        for target in range(request.start, len(request.tokens)):
            column = target - 1 if target - 1 < row.shared else target - 1 + offset
            layout.at[0].append(number)
            layout.at[1].append(column)
            layout.targets.append(request.tokens[target])
            layout.owners.append(request.index)
    padding = layout.input_ids.shape[1] - len(tokens)
    layout.input_ids[number] = torch.tensor(tokens + [tokens[-1]] * padding)
    layout.position_ids[number] = torch.tensor(positions + [positions[-1]] * padding)
    layout.branch[number, : len(branch)] = torch.tensor(branch)
